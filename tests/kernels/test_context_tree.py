"""Compiled look-ups in trees, and mixtures, against those that Python computes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.counting import mixture as slow
from chargen.counting.mixture import (
    KNOTS,
    LEAST,
    LOGS,
    Mixture,
    costs_of,
    everywhere,
    find_cells,
    find_targets,
)
from chargen.kernels import context_tree as kernels
from chargen.kernels import mixture as mixing
from tests.trees import check_lookups, contexts_of, random_mixture, random_tree

SIZES = [(6, 5, None), (6, 5, 4), (1, 3, None), (300, 4, 290), (2, 9, None)]
"""V, order, and how many ids are predicted, where not all."""
NO_ID = -1


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As if there were no compiled code."""
    monkeypatch.setattr(slow, "available", lambda: False)
    return monkeypatch


def text_in(tree: Any, seed: int, length: int = 60) -> np.ndarray:
    """Ids among which many contexts of a tree are, and some that are none."""
    random = np.random.default_rng(seed)
    parts = contexts_of(tree)
    ids = np.concatenate([parts[place] for place in random.integers(0, len(parts), length)])[:length]
    ids[random.random(len(ids)) < 0.1] = random.integers(0, tree.size)
    return np.where(random.random(len(ids)) < 0.05, NO_ID, ids)


@given(st.lists(st.integers(0, 30), unique=True, max_size=20), st.integers(-2, 32), st.data())
def test_a_value_is_found_among_ascending_ones_between_two_places(values: list[int], value: int, data: Any) -> None:
    ascending = np.array(sorted(values), np.int32)
    first = data.draw(st.integers(0, len(values)))
    last = data.draw(st.integers(first, len(values)))
    part = ascending[first:last].tolist()
    expected = first + part.index(value) if value in part else -1
    assert kernels.find(ascending, first, last, value) == expected


@pytest.mark.parametrize("seed", range(10))
def test_compiled_look_ups_are_those_of_python(seed: int) -> None:
    mixture = random_mixture(seed, *SIZES[seed % 5])
    for longest in range(3):
        check_lookups(mixture.limited(longest), contexts_of(mixture.tree, 12))
    check_lookups(mixture, [text_in(mixture.tree, seed)[:place] for place in range(12)] + contexts_of(mixture.tree))


def test_only_the_ids_before_a_place_are_looked_at() -> None:
    mixture = random_mixture(1)
    ids = text_in(mixture.tree, 1)
    lengths = set()
    for place in range(len(ids) + 1):
        path = np.zeros(mixture.longest + 1, np.int32)
        length = kernels.find_path(mixture.compiled[0], ids, place, path)
        assert path[: length + 1].tolist() == mixture.tree.path(ids[:place])
        lengths.add(length)
    assert len(lengths) >= 4


@pytest.mark.parametrize("seed", range(5))
def test_targets_are_looked_up_as_by_python(seed: int) -> None:
    mixture = random_mixture(seed, *SIZES[seed])
    ids = np.maximum(text_in(mixture.tree, seed), 0)
    places = np.random.default_rng(seed).permutation(len(ids))
    for longest in range(mixture.longest + 1):
        compiled = find_targets(mixture.tree, ids, places, longest, mixture.compiled[0])
        expected = find_targets(mixture.tree, ids, places, longest, None)
        np.testing.assert_allclose(compiled[0], expected[0], rtol=1e-12)
        np.testing.assert_array_equal(compiled[1], expected[1])
        assert (compiled[0] > 0).all()
        assert compiled[1].max() <= longest
    for kind in (np.int16, np.int32):
        strided = np.repeat(ids.astype(kind), 2)[::2]
        np.testing.assert_array_equal(
            find_targets(mixture.tree, strided, places.astype(np.int32), longest, mixture.compiled[0])[0], compiled[0]
        )


numbers = st.floats(-20, 20) | st.sampled_from([*KNOTS, *LOGS])


@given(st.integers(0, 4), st.tuples(numbers, numbers), st.tuples(numbers, numbers))
def test_cells_are_found_as_by_python(length: int, entropies: tuple[float, float], logs: tuple[float, float]) -> None:
    mixture = random_mixture(3)
    cells, shares = np.zeros(mixing.CELLS, np.int64), np.zeros(mixing.CELLS)
    mixing.find_cells(mixture.compiled[1], length, entropies, logs, cells, shares)
    expected = find_cells(5, length, entropies, logs)
    assert cells.tolist() == [cell for cell, _ in expected]
    assert shares.tolist() == pytest.approx([share for _, share in expected])
    assert sum(share for _, share in expected) == pytest.approx(3), "one of each table"
    assert mixture.weigh(length, entropies, logs) == pytest.approx(tuple(shares @ mixture.cells[cells]))


def test_what_is_behind_a_knot_is_like_the_knot() -> None:
    for knots in (KNOTS, LOGS):
        for value, cell in ((knots[0] - 3, 0), (knots[-1] + 3, len(knots) - 1), (np.inf, len(knots) - 1)):
            lower, share = mixing.between(np.array(knots), value)
            assert (lower, share) == ((0, 0.0) if cell == 0 else (cell - 1, 1.0))


@pytest.mark.parametrize("seed", range(5))
def test_costs_and_their_derivatives_are_those_of_python(seed: int, in_python: pytest.MonkeyPatch) -> None:
    mixture = random_mixture(seed, *SIZES[seed])
    ids, random = np.maximum(text_in(mixture.tree, seed), 0), np.random.default_rng(seed)
    places = random.permutation(len(ids))[:25]
    logits = random.normal(size=(len(places), mixture.tree.size)).astype(np.float32) * 2
    logits[3, 0] = np.nan
    expected = costs_of(mixture, ids, places, logits, slopes=True)
    in_python.undo()
    for mine, theirs in zip(costs_of(mixture, ids, places, logits, slopes=True), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)
    costs, slope, curvature = costs_of(mixture, ids, places, logits)
    np.testing.assert_array_equal(costs, costs_of(mixture, ids, places, logits, slopes=True)[0])
    assert slope.size == curvature.size == 0


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, 60.0, 3e38])
@pytest.mark.parametrize("seed", range(5))
def test_rows_are_mixed_as_python_mixes_them(seed: int, scale: float, in_python: pytest.MonkeyPatch) -> None:
    mixture = random_mixture(seed, *SIZES[seed])
    ids, random = text_in(mixture.tree, seed), np.random.default_rng(seed)
    places = random.integers(0, len(ids) + 1, 25)
    logits = np.clip(random.normal(size=(25, mixture.tree.size)) * scale, -3e38, 3e38).astype(np.float32)
    before = logits.copy()
    expected = mixture.mix(ids, places, logits)
    in_python.undo()
    mixed = mixture.mix(ids, places, logits)
    np.testing.assert_array_equal(logits, before, "they are mixed in another array")
    np.testing.assert_allclose(mixed, expected, rtol=1e-6, atol=1e-6)
    assert mixed.dtype == np.float32
    assert np.isfinite(mixed).all()
    np.testing.assert_allclose(np.exp(mixed.astype(float)).sum(1), 1, rtol=1e-5)
    for row, place, values in zip(mixed, places, logits, strict=True):
        probabilities = mixture.probabilities(ids[:place], values)
        assert probabilities.sum() == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(row, np.log(np.maximum(probabilities, LEAST)), rtol=1e-6, atol=1e-6)


def test_a_row_mixed_alone_is_that_among_others() -> None:
    mixture = random_mixture(2)
    ids, logits = text_in(mixture.tree, 2), np.random.default_rng(2).normal(size=(9, 6)).astype(np.float32)
    places = np.arange(9) * 5
    mixed = mixture.mix(ids, places, logits)
    for row in range(9):
        np.testing.assert_array_equal(mixture.mix(ids, places[[row]], logits[[row]])[0], mixed[row])
    strided = np.asfortranarray(logits)
    np.testing.assert_array_equal(mixture.mix(ids.astype(np.int32), places.astype(np.int32), strided), mixed)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_left_alone(number: float, compiled: bool, in_python: pytest.MonkeyPatch) -> None:
    if compiled:
        in_python.undo()
    mixture, random = random_mixture(4), np.random.default_rng(4)
    logits = random.normal(size=(8, 6)).astype(np.float32)
    broken = logits.copy()
    for row, place in ((1, 0), (4, 3), (6, 5)):
        broken[row, place] = number
    ids, places = text_in(mixture.tree, 4), np.arange(8) * 4
    mixed, whole = mixture.mix(ids, places, broken), mixture.mix(ids, places, logits)
    for row in range(8):
        expected = broken if row in (1, 4, 6) else whole
        assert mixed[row].tobytes() == expected[row].tobytes()


@pytest.mark.parametrize("compiled", [True, False])
def test_what_neither_side_holds_likely_has_a_finite_logarithm(compiled: bool, in_python: pytest.MonkeyPatch) -> None:
    """A label, which counts never predict, and a network that is sure of something else."""
    if compiled:
        in_python.undo()
    mixture = Mixture(random_tree(0, 6, 3, 4), everywhere(3, (0.5, 0.5)))
    logits = np.array([[0, 0, 0, 5000, -5000, -5000]], np.float32)
    mixed = mixture.mix(np.array([1, 1]), np.array([2]), logits)[0]
    assert mixed[4:] == pytest.approx(np.log(LEAST))
    assert np.exp(mixed).sum() == pytest.approx(1)
