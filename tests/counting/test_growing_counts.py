"""Counts that grow while a text is read: compiled and plain code agree, and only what was read before predicts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.counting import growing_counts
from chargen.counting.growing_counts import LONGEST, _mix_compiled, mix_growing_counts, mix_slowly
from chargen.kernels import available

pytestmark = pytest.mark.skipif(not available(), reason="needs numba")


def texts_to_mix(seed, number, size, unread=1):
    """Random arguments of both versions, with a text that repeats itself."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, size, number)
    ids[number // 2 :] = ids[: number - number // 2]
    scored = number - unread
    shape = 3, LONGEST + 1, 1
    weights = np.tile([3.0, 1.0, 1.0], shape)
    return ids, size, weights, (random.integers(0, 3, scored), random.uniform(0.01, 1, (2, scored)))


@given(st.integers(0, 99), st.integers(2, 150), st.integers(1, 4), st.sampled_from([-1, 0, 3]), st.integers(1, 5))
def test_compiled_code_mixes_as_plain_code_does(seed, number, size, end_id, unread):
    ids, size, weights, others = texts_to_mix(seed, number, size, min(unread, number))
    slow_weights, fast_weights = weights.copy(), weights.copy()
    slow = mix_slowly(ids, size, end_id, slow_weights, *others)
    fast = _mix_compiled(ids, size, end_id, fast_weights, *others)
    np.testing.assert_allclose(fast, slow, rtol=1e-12)
    np.testing.assert_allclose(fast_weights, slow_weights, rtol=1e-12)


@given(st.integers(0, 99), st.integers(5, 60), st.integers(2, 5), st.sampled_from([-1, 1]))
def test_predictions_of_all_ids_sum_to_one(seed, number, size, end_id):
    ids, size, weights, others = texts_to_mix(seed, number, size)
    shares = np.random.default_rng(seed).dirichlet(np.ones(size), 2)
    total = 0.0
    for last in range(size):
        changed = np.append(ids[:-1], last)
        predicted = others[1].copy()
        predicted[:, -1] = shares[:, last]
        total += mix_slowly(changed, size, end_id, weights.copy(), others[0], predicted)[-1]
    assert total == pytest.approx(1, abs=1e-12)


def test_what_comes_later_changes_nothing_before():
    ids, size, weights, others = texts_to_mix(1, 100, 4)
    whole = _mix_compiled(ids, size, -1, weights.copy(), *others)
    half = _mix_compiled(ids[:50], size, -1, weights.copy(), *(values[..., :49].copy() for values in others))
    np.testing.assert_array_equal(whole[:49], half)


def test_a_text_that_repeats_itself_becomes_cheap():
    ids = np.tile(np.random.default_rng(0).integers(0, 50, 200), 5)
    nats = np.full(len(ids) - 1, np.log(50))
    mixed = mix_growing_counts(ids, np.exp(-nats)[None], nats, np.zeros(len(nats), np.int64), 50)
    assert mixed[:199].mean() < np.log(50) + 0.2
    assert mixed[400:].mean() < 0.3


def test_no_context_reaches_across_the_border_of_a_record(monkeypatch):
    monkeypatch.setattr(growing_counts, "TRUST", 1e12)  # weights stay as they are
    monkeypatch.setattr(growing_counts, "LESS", 1e12)
    record = np.array([0, 1, 2, 3, 4])
    others = np.array([5, 6, 7, 8])
    for end in (9, 10):  # the end symbol, or that of a label
        behind = np.concatenate([record, [end], others, [end]])
        costs = []
        for before in (record, record[::-1]):
            ids = np.concatenate([behind, before, [end], others])
            nats = np.full(len(ids) - 1, 2.0)
            lengths = np.zeros(len(nats), np.int64)
            costs.append(mix_growing_counts(ids, np.exp(-nats)[None], nats, lengths, 12, end_id=9)[-4:])
        assert costs[0][1:] == pytest.approx(costs[1][1:], abs=1e-9)


def test_memory_stays_below_a_bound(monkeypatch):
    ids, size, weights, others = texts_to_mix(2, 400, 4)
    free = _mix_compiled(ids, size, -1, weights.copy(), *others)
    monkeypatch.setattr(growing_counts, "MAX_RUNS", 40)
    bound = _mix_compiled(ids, size, -1, weights.copy(), *others)
    np.testing.assert_array_equal(bound[:8], free[:8])
    assert (bound != free).any()
    assert np.isfinite(bound).all()
    assert (bound > 0).all()


def test_the_first_id_is_predicted_with_the_trust_there_is_at_first():
    ids, size, _, (_, others) = texts_to_mix(3, 80, 4)
    lengths, entropies = np.zeros(79, np.int64), np.zeros(79)
    alone = mix_growing_counts(ids, others[:1], entropies, lengths, size)
    # The first id that is scored has one id to be counted before it, which says nothing of others.
    growing = ((ids[0] == ids[1]) + 1 / size) / 2
    assert alone[0] == pytest.approx(-np.log(0.75 * others[0, 0] + 0.25 * growing), abs=1e-12)
    both = mix_growing_counts(ids, others, entropies, lengths, size)
    assert both[0] == pytest.approx(-np.log(0.6 * others[0, 0] + 0.2 * others[1, 0] + 0.2 * growing), abs=1e-12)
