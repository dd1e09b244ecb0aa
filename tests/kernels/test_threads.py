"""How many threads compute: as a person says, as a launcher leaves, or as many as there are cores."""

import os
import subprocess
import sys
import threading
from typing import Any

import pytest

import chargen
from chargen.errors import SettingError
from chargen.kernels import threads

SET_BOTH_TIMES = """
import os, sys
import chargen
from chargen.cli.main import import_command
from chargen.kernels.threads import threads, _pool
try:
    import_command("sample").main(["missing", "--threads", "1"], standalone_mode=False)
except chargen.ChargenError:
    assert "torch" not in sys.modules
import ctypes, numpy, torch
products = ctypes.CDLL(numpy._core._multiarray_umath.__file__)
count = getattr(products, "scipy_openblas_get_num_threads64_", None)
for number in (1, 2):
    print(torch.get_num_threads(), threads(), _pool()._max_workers, count() if count else number)
    chargen.set_threads(2)
print(os.environ["OMP_NUM_THREADS"])
"""


def test_threads_of_all_libraries_are_set_before_they_are_loaded_and_after() -> None:
    words = [sys.executable, "-W", "error", "-c", SET_BOTH_TIMES]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "2"})
    assert done.stdout.splitlines() == ["1 1 1 1", "2 2 2 2", "2"], done.stderr


def test_a_team_that_was_chosen_when_there_were_more_threads_still_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "threads", lambda: 2)
    threads._pool.cache_clear()
    meeting, met = threading.Barrier(6), []
    threads.run_team(lambda member: met.append(member) if meeting.wait(20) >= 0 else None, 6)
    assert sorted(met) == [*range(6)]
    threads._pool.cache_clear()


@pytest.mark.parametrize("number", [0, -1, 1_025, 1.5, "2", None])
def test_a_number_of_threads_that_is_none_is_refused(number: Any) -> None:
    before = threads.threads()
    with pytest.raises(SettingError, match="threads is"):
        chargen.set_threads(number)
    assert threads.threads() == before


@pytest.mark.parametrize(
    ("processes", "setting", "expected"),
    [("2", "1", 4), ("2", None, 4), ("3", "1", 3), ("16", "1", 1), ("2", "5", None), ("1", "1", None)],
)
def test_processes_of_a_launcher_share_the_cores(
    processes: str, setting: str | None, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun itself sets OMP_NUM_THREADS to 1; another number is a person's."""
    set_to = []
    monkeypatch.setattr(threads, "cores", lambda: 9)
    monkeypatch.setattr(threads, "set_threads", set_to.append)
    monkeypatch.setattr(threads, "_CHOSEN", [])
    launch = {"RANK": "0", "WORLD_SIZE": "16", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": processes}
    for name, value in launch.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if setting:
        monkeypatch.setenv("OMP_NUM_THREADS", setting)
    threads.share_cores()
    assert set_to == ([] if expected is None else [expected])
    monkeypatch.setattr(threads, "_CHOSEN", [1])  # by --threads or by a call
    threads.share_cores()
    assert len(set_to) < 2


@pytest.mark.parametrize(("setting", "expected"), [("3", 3), ("1", 1), ("0", 0), ("", 0), ("two", 0), ("-2", 0)])
def test_the_number_of_threads_is_that_of_openmp_or_of_cores(
    setting: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {4, 5, 6, 7, 9}, raising=False)
    assert threads.threads.__wrapped__() == (expected or 5)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads.threads.__wrapped__() == 5
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert threads.threads.__wrapped__() == 1
