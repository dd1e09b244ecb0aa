"""What goes on for long takes no more memory and no more time for each character than at first."""

import gc
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chargen.sampling.sampler import Sampler
from chargen.training import metrics
from chargen.training.trainer import Trainer
from tests.runs import config, corpus, model
from tests.small_models import small_model
from tests.yardstick import ratio

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs to see how much memory a process holds")
ROOM = 3_000_000
"""Bytes that may come and go."""
PARTS = 20


def held() -> int:
    """Bytes of memory that this process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("settings", [{}, {"stop": ("hgfedchgfedc",)}, {"num": 3}, {"no_repeat": 12}])
@pytest.mark.parametrize("characters", [20_000, pytest.param(10**7, marks=pytest.mark.slow)])
def test_sampling_takes_no_more_memory_and_time_as_it_goes_on(characters: int, settings: dict[str, Any]) -> None:
    if settings.get("no_repeat"):
        characters //= 20  # one at a time; what followed what is remembered, up to all that could

    def write(sampler: Sampler) -> None:
        for _turn in sampler.write(characters // PARTS // sampler.num):
            pass

    sampler, at_first = Sampler(small_model(), seed=1, **settings), 0
    for part in range(PARTS):
        write(sampler)
        at_first = held() if part == PARTS // 4 else at_first
    assert settings.get("no_repeat") or held() - at_first < ROOM
    if characters > 10**5:
        young = Sampler(small_model(), seed=2, **settings)
        assert ratio(lambda: write(sampler), lambda: write(young)) < 1.5


@pytest.mark.parametrize("steps", [400, pytest.param(60_000, marks=pytest.mark.slow)])
def test_training_takes_no_more_memory_as_it_goes_on(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of steps, of which each stands for a thousand: metrics are thinned as much sooner."""
    monkeypatch.setattr(metrics, "MAX_LINES", 20)
    settings = config(steps=steps, log_every=1, eval_every=50, patience=0, schedule="constant", lr=1e-4)
    at_first = 0
    for progress in Trainer(corpus(), model(num_layers=1), settings, tmp_path).run():
        if progress.doing == "training" and progress.step == steps // 4:
            at_first = held()
    assert at_first > 0
    assert held() - at_first < ROOM
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) < 2 * (20 + 10 * (steps // 20).bit_length())


def test_a_very_long_prime_is_read_like_one_character_at_a_time() -> None:
    text = "".join(np.random.default_rng(0).choice(list("abcdefgh \n"), 100_000))
    at_once, one_by_one = (Sampler(small_model(), seed=1) for _ in range(2))
    at_once.feed(text)
    for place in range(0, len(text), 997):
        one_by_one.feed(text[place : place + 997])
    assert at_once.generate(200) == one_by_one.generate(200)
