"""The compiled choice of an id is that of `choose`."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.decoding.choose import FILTERS, SampleConfig, choose, log_softmax, probabilities
from chargen.decoding.compiled_engine import compiled_filters
from chargen.kernels import NONE_ALLOWED, NOT_FINITE, decode_step, filters
from tests.decoding.engines import configs, random_seeds

LAST = 1 - 2**-53
"""The largest uniform."""


def pick(
    logits: np.ndarray, allowed: np.ndarray, uniform: float, config: SampleConfig, scratch: np.ndarray | None = None
) -> tuple[int, float]:
    scratch = np.full(len(logits), np.nan) if scratch is None else scratch
    return decode_step.pick(logits, allowed, uniform, config.temperature, *compiled_filters(config), scratch)


@st.composite
def choices(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, SampleConfig]:
    """Logits with ties, allowed ids, any settings."""
    size = draw(st.integers(1, 12))
    logit = (
        st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-20, 20, width=32) | st.sampled_from([0.0, -0.0, 1.5])
    )
    logits = np.array(draw(st.lists(logit, min_size=size, max_size=size)), np.float32)
    allowed = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    allowed[draw(st.integers(0, size - 1))] = True
    return logits, allowed, draw(configs)


@settings(max_examples=200)
@given(choices(), st.floats(0, 1, exclude_max=True))
def test_the_id_picked_is_that_of_choose(case: tuple[np.ndarray, np.ndarray, SampleConfig], uniform: float) -> None:
    logits, allowed, config = case
    distribution = probabilities(logits, allowed, config)
    running = np.cumsum(distribution)
    for point in (0.0, uniform, LAST):
        picked, log_prob = pick(logits, allowed, point, config)
        assert allowed[picked]
        assert distribution[picked] > 0
        # Within rounding of a border the two sums may fall on its two sides.
        if np.abs(running[:-1] - point).min(initial=1) > 1e-12 or point == 0:
            assert picked == choose(logits, allowed, point, config)
        assert log_prob == pytest.approx(log_softmax(logits)[picked], rel=1e-13, abs=1e-13)


@given(st.integers(1, 40), random_seeds, st.sampled_from([1.0, 0.7, 3.0]), st.floats(0, 1, exclude_max=True))
def test_one_allowed_id_is_always_picked(size: int, seed: int, temperature: float, uniform: float) -> None:
    random = np.random.default_rng(seed)
    logits, allowed = random.normal(size=size).astype(np.float32) * 30, np.zeros(size, bool)
    only = int(random.integers(size))
    allowed[only] = True
    for draw in (0.0, uniform, LAST):
        for config in (SampleConfig(temperature=temperature), SampleConfig(0.0), SampleConfig(top_k=3, min_p=0.5)):
            picked, log_prob = pick(logits, allowed, draw, config)
            assert picked == only
            assert log_prob == pytest.approx(log_softmax(logits)[only], rel=1e-13, abs=1e-13)


@pytest.mark.parametrize("config", [SampleConfig(), SampleConfig(0.0), SampleConfig(top_k=2, top_p=0.5, min_p=0.1)])
def test_what_cannot_be_picked_from_has_a_code(config: SampleConfig) -> None:
    logits, none = np.zeros(5, np.float32), np.zeros(5, bool)
    assert pick(logits, none, 0.5, config) == (NONE_ALLOWED, 0.0)
    for number in (np.nan, np.inf, -np.inf):
        for at in range(5):
            broken = logits.copy()
            broken[at] = number
            for allowed in (none, ~none, np.arange(5) != at, np.arange(5) == at):
                assert pick(broken, allowed, 0.5, config) == (NOT_FINITE, 0.0)


@pytest.mark.parametrize(
    "config",
    [
        SampleConfig(), SampleConfig(temperature=0.5), SampleConfig(temperature=0), SampleConfig(top_k=40),
        SampleConfig(top_p=0.9), SampleConfig(min_p=1e-3), SampleConfig(1.3, 5000, 0.95, 1e-5),
    ],
)  # fmt: skip
def test_a_huge_vocabulary_is_picked_from(config: SampleConfig) -> None:
    random = np.random.default_rng(5)
    size = 70_000
    logits = np.round(random.normal(size=size) * 2, 3).astype(np.float32)  # with many ties
    allowed = random.random(size) < 0.8
    running = np.cumsum(probabilities(logits, allowed, config))
    for uniform in (0.0, *random.random(5), LAST):
        picked, log_prob = pick(logits, allowed, uniform, config)
        assert log_prob == pytest.approx(log_softmax(logits)[picked], rel=1e-12)
        if 0 < uniform < LAST:
            assert np.abs(running - uniform).min() > 1e-10
        assert picked == choose(logits, allowed, uniform, config)


def test_draws_at_a_border_go_to_the_next_id() -> None:
    below = np.nextafter
    logits = np.array([1, 0, 2, 1, 0], np.float32) * np.float32(math.log(2))
    even, allowed = np.zeros(4, np.float32), np.array([True, False, True, True])
    borders = [(0.0, 0), (below(0.25, 0), 0), (0.25, 1), (0.5, 2), (below(0.75, 0), 2), (0.75, 3), (LAST, 3)]
    assert [pick(even, ~np.zeros(4, bool), uniform, SampleConfig())[0] for uniform, _ in borders] == [
        expected for _, expected in borders
    ]
    assert [pick(even, allowed, uniform, SampleConfig())[0] for uniform in (0.0, 0.3, 0.4, 0.6, 0.7)] == [0, 0, 2, 2, 3]
    assert pick(logits, np.array([False, True, True, True, True]), 0.0, SampleConfig())[0] == 1


def test_ties_go_to_the_lower_id() -> None:
    even, all_ = np.zeros(6, np.float32), np.ones(6, bool)
    uniforms = (np.arange(600) + 0.5) / 600

    def drawn(allowed: np.ndarray = all_, **options: Any) -> list[int]:
        return sorted({pick(even, allowed, uniform, SampleConfig(**options))[0] for uniform in uniforms})

    assert drawn(temperature=0) == [0]
    assert drawn(all_ & (np.arange(6) > 1), temperature=0) == [2]
    assert drawn(top_k=2) == drawn(top_p=1 / 3) == [0, 1]
    assert drawn(top_k=2, allowed=np.arange(6) != 0) == [1, 2]
    assert drawn(top_p=0) == [0]
    assert drawn(min_p=1) == drawn(top_k=6) == drawn(top_k=99) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "config",
    [
        SampleConfig(), SampleConfig(temperature=0.7), SampleConfig(temperature=2, top_k=7), SampleConfig(top_p=0.8),
        SampleConfig(min_p=0.2), SampleConfig(temperature=0.9, top_k=9, top_p=0.9, min_p=0.05),
    ],
)  # fmt: skip
def test_evenly_spread_uniforms_meet_the_probabilities(config: SampleConfig) -> None:
    random = np.random.default_rng(2)
    logits, allowed = random.normal(size=20).astype(np.float32) * 2, random.random(20) < 0.7
    allowed[np.argmax(logits)] = False  # the rest is relative to the most likely that is allowed
    count, scratch = 4000, np.empty(20)
    drawn = [pick(logits, allowed, (number + 0.5) / count, config, scratch)[0] for number in range(count)]
    shares = np.bincount(drawn, minlength=20) / count
    assert np.abs(shares - probabilities(logits, allowed, config)).max() <= 1 / count
    assert drawn == sorted(drawn)


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_has_a_compiled_twin_in_the_place_of_its_name(name: str) -> None:
    random = np.random.default_rng(4)
    for value in (1, 0.3, 0.04) if name != "top_k" else (1, 3, 50):
        weights = np.sort(random.random(20))[::-1].copy()
        weights /= weights[0]
        expected = FILTERS[name](weights, value)
        assert (weights > 0).all(), "a filter changes nothing in place"
        twin = weights.copy()
        getattr(filters, name)(twin, float(value))
        filters.apply_filters(weights, np.array([float(value) if other == name else np.nan for other in FILTERS]))
        assert twin.tobytes() == weights.tobytes() == expected.tobytes()


def test_scratch_of_an_earlier_choice_changes_nothing() -> None:
    random, allowed = np.random.default_rng(0), np.arange(9) % 3 > 0
    for config in (SampleConfig(), SampleConfig(0.5, top_k=2), SampleConfig(top_p=0.5)):
        for _ in range(20):
            logits, uniform = random.normal(size=9).astype(np.float32), random.random()
            fresh = pick(logits, allowed, uniform, config)
            assert pick(logits, allowed, uniform, config, random.normal(size=9) * 100) == fresh
