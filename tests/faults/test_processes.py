"""Several real processes: what they write, and what happens where some are killed, stopped or asked to end."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from chargen.storage.run_state import read_run_state
from tests.faults.fork_server import text
from tests.launched import SMALL, Launched, Server, free_port, launched
from tests.runs import assert_same_runs, check_whole
from tests.yardstick import HANG

LONG = ["train", "text.txt", "--out", "run", "--steps", "100000", "--save-minutes", "0.01", "--log-every", "5", *SMALL]
WITHIN = 30.0
"""Seconds until a job ends where one of its processes is gone."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def prepare(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "text.txt").write_text(text(4000))
    return folder


def test_two_processes_stop_together_and_a_job_that_is_started_again_goes_on(server: Server, tmp_path: Path) -> None:
    with launched(server, 2, LONG, prepare(tmp_path)) as job:
        job.wait_for_step(20)
        job.send(1, signal.SIGTERM)
        assert job.wait() == {0: 143, 1: 143}
        assert "2 processes of 1 thread" in job.said(0)
        assert "terminated at step" in job.said(0)
        assert job.said(1) == ""
    step = read_run_state(tmp_path / "run").progress["step"]
    longer = [str(step + 10) if word == "100000" else word for word in LONG]
    with launched(server, 2, longer, tmp_path, restarts=1) as job:
        assert job.wait() == {0: 0, 1: 0}
        assert f"resume   run at step {step}" in job.said(0)
    assert read_run_state(tmp_path / "run").progress["step"] == step + 10


def test_nothing_of_a_group_is_left_when_a_process_ends() -> None:
    """A thread of gloo that lets go of a tensor while the interpreter ends would abort the process."""
    program = """
import weakref, torch
from chargen.launch import Launch
from chargen.training.distributed import TorchGroup
group = TorchGroup(Launch(), print)
processes = weakref.ref(torch.distributed.group.WORLD)
torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # imports much
assert processes()
group.leave(None)
assert not processes()
"""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    subprocess.run([sys.executable, "-c", program], env=os.environ | address, check=True, timeout=HANG)


def test_a_killed_process_ends_the_others_with_one_line(server: Server, tmp_path: Path) -> None:
    with launched(server, 2, LONG, prepare(tmp_path)) as job:
        job.wait_for_step(20)
        job.send(0, signal.SIGKILL)
        began = time.monotonic()
        assert job.wait(0) == {1: 1}
        assert time.monotonic() - began < WITHIN
        assert job.said(1) == "chargen: process 0 of 2 is gone or stopped: its connection has ended\n"
    assert check_whole(tmp_path / "run") >= 0


def test_an_error_of_a_process_ends_the_others_without_a_word(server: Server, tmp_path: Path) -> None:
    prepare(tmp_path)
    arguments = ["train", "text.txt", "--out", "run", "--steps", "5", "--batch-size", "1"]
    with launched(server, 2, arguments, tmp_path) as job:
        codes = job.wait()
        lines = [line for rank in range(2) for line in job.said(rank).splitlines() if line.startswith("chargen:")]
    assert codes == {0: 2, 1: 1}
    assert lines == ["chargen: --batch-size is 1, but there are 2 processes: give each a row"]


def end_of(job: Launched, number: int, moment: float, rank: int) -> tuple[dict[int, int | None], float, str]:
    """What comes of a signal to a process at a moment: exit codes of the others, seconds, and what they say."""
    job.wait_for_step(5)
    time.sleep(moment)
    job.send(rank, number)
    began = time.monotonic()
    others = (rank,) if number in (signal.SIGKILL, signal.SIGSTOP) else ()
    codes = job.wait(*others)
    seconds = time.monotonic() - began
    lines = [line for other in codes for line in job.said(other).splitlines() if line.startswith("chargen:")]
    return codes, seconds, "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_random_moments(number: signal.Signals, server: Server, tmp_path: Path) -> None:
    """Twenty each: one clear line, a whole checkpoint, and a job that goes on from it."""
    draws = random.Random(int(number))
    for case in range(20):
        moment, rank = draws.uniform(0, 2), draws.randrange(3)
        folder = prepare(tmp_path / str(case))
        with launched(server, 3, LONG, folder) as job:
            codes, seconds, lines = end_of(job, number, moment, rank)
        if number == signal.SIGTERM:
            assert set(codes.values()) == {143}, (codes, lines)
            assert re.fullmatch(r"chargen: terminated at step \d+; go on with: .*", lines), lines
        else:
            assert set(codes.values()) == {1}, (codes, lines)
            assert re.fullmatch(rf"chargen: process {rank} of 3 is gone or stopped: .*", lines), lines
        assert seconds < WITHIN, seconds
        step = check_whole(folder / "run")
        arguments = ["train", "--resume", "run", "--steps", str(step + 3), "--preview", "0"]
        with launched(server, 3, arguments, folder) as job:
            assert set(job.wait().values()) == {0}, job.said(0)


@pytest.mark.slow
def test_a_stopped_and_resumed_job_is_the_job(server: Server, tmp_path: Path) -> None:
    """To the last bit, at the same number of processes; by another way of summing than threads have."""
    once = ["train", "text.txt", "--out", "run", "--steps", "40", "--eval-every", "6", *SMALL, "--bidirectional"]
    for name in ("whole", "again", "parts"):
        with launched(server, 2, once, prepare(tmp_path / name)) as job:
            if name == "parts":
                job.wait_for_step(20)
                job.send(0, signal.SIGTERM)
            job.wait()
    with launched(server, 2, ["train", "--resume", "run", "--preview", "0"], tmp_path / "parts") as job:
        job.wait()
    assert_same_runs(tmp_path / "whole" / "run", tmp_path / "again" / "run")
    assert_same_runs(tmp_path / "whole" / "run", tmp_path / "parts" / "run")


@pytest.mark.slow
@pytest.mark.parametrize("options", ["--cell lstm --bidirectional", "--batching random --dropout 0.2"])
def test_four_processes_over_a_network_are_one(options: str, server: Server, tmp_path: Path) -> None:
    once = ["train", "text.txt", "--out", "run", "--steps", "50", *SMALL, "--batch-size", "32", *options.split()]
    losses = []
    for size in (1, 2, 4):
        with launched(server, size, once, prepare(tmp_path / str(size))) as job:
            assert set(job.wait().values()) == {0}, job.said(0)
        arrays = read_run_state(tmp_path / str(size) / "run").arrays
        losses.append({name: array for name, array in arrays.items() if name.startswith("weights.")})
    for other in losses[1:]:
        for name, array in losses[0].items():
            assert np.linalg.norm(array - other[name]) <= 1e-6 * np.linalg.norm(array), name
