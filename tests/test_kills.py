"""Longer attacks on what must never be lost; run with `pytest -m slow`."""

import random
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import small_model

from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import FILE_NAME, read_model
from chargen.storage.run_state import read_run_state

TEXT = "Call me Ishmael. Some years ago, never mind how long precisely, I went to sea.\n" * 40
SETTINGS = ["--steps", "1500", "--hidden-size", "12", "--embedding-size", "6", "--batch-size", "4", "--seq-length", "8"]
SETTINGS += ["--precision", "fp32", "--preview", "0", "--eval-every", "40", "--save-minutes", "0.0005"]

pytestmark = pytest.mark.slow


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "chargen", "train", *arguments]
    return subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_a_run_killed_again_and_again_ends_as_the_unbroken_one(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    _, err = start(tmp_path, "text.txt", *SETTINGS, "--out", "whole").communicate(timeout=300)
    assert (tmp_path / "whole" / FILE_NAME).exists(), err.decode()
    moments = random.Random(0)
    kills = 0
    arguments = ["text.txt", *SETTINGS, "--out", "broken"]
    while True:
        process = start(tmp_path, *arguments)
        try:
            process.communicate(timeout=moments.uniform(2.5, 5.0))
            assert process.returncode == 0
            break
        except subprocess.TimeoutExpired:
            process.send_signal(moments.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
            process.communicate()
            kills += 1
        if (tmp_path / "broken" / "state.safetensors").exists():
            read_run_state(tmp_path / "broken")
            read_model(tmp_path / "broken")
            arguments = ["--resume", "broken"]
        assert kills < 100
    assert kills > 0
    assert (tmp_path / "whole" / FILE_NAME).read_bytes() == (tmp_path / "broken" / FILE_NAME).read_bytes()


def test_a_prime_of_a_hundred_thousand_characters_is_read_like_one_at_a_time() -> None:
    text = "".join(np.random.default_rng(0).choice(list("abcdefgh \n"), 100_000))
    at_once, one_by_one = (Sampler(small_model(), seed=1) for _ in range(2))
    at_once.feed(text)
    for place in range(0, len(text), 997):
        one_by_one.feed(text[place : place + 997])
    assert at_once.generate(200) == one_by_one.generate(200)


def test_memory_stays_flat_while_writing() -> None:
    sampler = Sampler(small_model(), seed=1, stop=("never this",))
    tracemalloc.start()
    held = []
    for _ in range(10):
        for _ in sampler.stream(3000):
            pass
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[-1] - held[1] < 20_000
