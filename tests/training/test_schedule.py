"""The learning rate: a linear rise, then level or half a cosine down to zero."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.training.config import TrainConfig
from chargen.training.schedule import learning_rate

shares = st.floats(0, 1)
steps = st.integers(0, 10**9)
warmups = st.integers(0, 10_000)


def config(schedule="cosine", *, lr=0.004, warmup=50):
    return TrainConfig(steps=1000, schedule=schedule, lr=lr, warmup=warmup)


@given(st.sampled_from(["cosine", "constant"]), steps, shares, warmups)
def test_the_rate_is_never_negative_nor_above_the_peak(schedule, step, share, warmup):
    assert 0 <= learning_rate(config(schedule, warmup=warmup), step, share) <= 0.004


@given(st.integers(1, 10_000), st.data())
def test_warm_up_rises_in_equal_steps_to_the_peak(warmup, data):
    step = data.draw(st.integers(0, warmup))
    made = config("constant", warmup=warmup)
    assert learning_rate(made, step, 0.5) == pytest.approx(0.004 * (step + 1) / (warmup + 1), rel=1e-12)
    assert learning_rate(made, step, 0.5) > 0
    assert learning_rate(made, warmup, 0.5) == learning_rate(made, warmup + 1, 0.5) == 0.004


@given(steps, shares)
def test_without_warm_up_a_constant_schedule_is_always_at_the_peak(step, share):
    assert learning_rate(config("constant", warmup=0), step, share) == 0.004


@given(shares)
def test_the_constant_schedule_ignores_the_share(share):
    assert learning_rate(config("constant"), 7, share) == learning_rate(config("constant"), 7, 0)


@given(shares, shares)
def test_the_cosine_never_rises(first, second):
    early, late = sorted((first, second))
    assert learning_rate(config(), 1000, late) <= learning_rate(config(), 1000, early)


@given(shares)
def test_the_cosine_is_symmetric_about_its_middle(share):
    both = learning_rate(config(), 1000, share) + learning_rate(config(), 1000, 1 - share)
    assert both == pytest.approx(0.004)


def test_the_cosine_at_its_ends_and_quarters():
    at = [learning_rate(config(lr=1.0, warmup=0), 5, share) for share in (0, 0.25, 0.5, 0.75, 1)]
    high, low = 0.5 + math.sqrt(0.125), 0.5 - math.sqrt(0.125)
    assert at == pytest.approx([1, high, 0.5, low, 0], abs=1e-15)


def test_warm_up_and_cosine_multiply():
    assert learning_rate(config(lr=1.0, warmup=9), 4, 0.5) == pytest.approx(0.25)


@given(st.floats(1, 1e9), st.floats(-1e9, 0))
def test_a_share_outside_zero_to_one_counts_as_the_nearer_end(over, under):
    assert learning_rate(config(), 1000, over) == learning_rate(config(), 1000, 1) == 0
    assert learning_rate(config(), 1000, under) == learning_rate(config(), 1000, 0) == 0.004
