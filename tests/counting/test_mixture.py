"""Mixtures of a network and counts: probabilities, what they cost, how weights are fitted, and how far counts look."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.counting import mixture as mixture_module
from chargen.counting.context_tree import ContextTree
from chargen.counting.grow_tree import grow_tree
from chargen.counting.mixture import (
    KNOTS,
    LOGS,
    Mixture,
    begins_text,
    between,
    cell_count,
    compare,
    costs_of,
    everywhere,
    fit_weights,
)
from chargen.decoding.choose import log_softmax
from tests.counting.test_ngram import random_ids
from tests.trees import NAMES, contexts_of, random_cells, random_mixture

Floats = np.ndarray
logits_of_six = st.lists(st.floats(-40, 40, width=32), min_size=6, max_size=6).map(
    lambda values: np.array(values, "f4")
)


def cut(tree: ContextTree, longest: int) -> ContextTree:
    """A tree without its contexts of more ids."""
    contexts, start = 1, 0
    for _ in range(longest):
        contexts, start = int(tree.first_children[contexts]), contexts
    arrays = {name: getattr(tree, name)[:contexts] for name in ("labels", "children", "predictions", "rests")}
    arrays["children"] = np.where(np.arange(contexts) < start, arrays["children"], 0).astype(tree.children.dtype)
    arrays |= {name: getattr(tree, name)[: tree.first_predictions[contexts]] for name in ("ids", "shares")}
    return ContextTree(tree.size, longest + 1, tree.predictable, **{name: arrays[name] for name in NAMES})


@given(logits_of_six, st.integers(0, 20), st.sampled_from([6, 4]), st.lists(st.integers(-1, 5), max_size=8))
def test_probabilities_are_powers_of_those_of_both_sides_and_sum_to_one(
    logits: Floats, seed: int, predictable: int, before: list[int]
) -> None:
    mixture, ids = random_mixture(seed, 6, 5, predictable), np.array(before, np.int64)
    path, network = mixture.tree.path(ids), log_softmax(logits)
    mixed = mixture.probabilities(ids, logits)
    assert mixed.sum() == pytest.approx(1, abs=1e-12)
    assert (mixed >= 0).all()
    if begins_text(mixture.tree, ids, path, mixture.longest):
        np.testing.assert_allclose(mixed, np.exp(network), rtol=1e-9)
        return
    assert not mixed[predictable:].any()
    counted, features = compare(mixture.tree, path, network)
    first, second = mixture.weigh(*features)
    product = np.exp(first * network + second * counted)[:predictable]
    np.testing.assert_allclose(mixed[:predictable], product / product.sum(), rtol=1e-9, atol=1e-300)


@given(logits_of_six, st.integers(0, 20))
def test_weights_of_one_and_zero_leave_one_side_alone(logits: Floats, seed: int) -> None:
    tree, ids = random_mixture(seed).tree, np.array([1, 2, 3, 1, 2, 3])
    network = Mixture.of(tree).probabilities(ids, logits)
    np.testing.assert_allclose(network, np.exp(log_softmax(logits)), rtol=1e-9, atol=1e-300)
    counted = Mixture(tree, everywhere(5, (0.0, 1.0))).probabilities(ids, logits)
    np.testing.assert_allclose(counted, tree.distribution(tree.path(ids)), rtol=1e-9)


def test_weights_depend_on_lengths_on_how_sure_both_are_and_on_how_far_they_agree() -> None:
    mixture = random_mixture(0)
    usual = 2, (1.2, 0.7), (-2.5, -0.7)
    weights = mixture.weigh(*usual)
    for other in ((3, *usual[1:]), (2, (1.3, 0.7), usual[2]), (2, (1.2, 0.8), usual[2]),
                  (*usual[:2], (-2.6, -0.7)), (*usual[:2], (-2.5, -0.8))):  # fmt: skip
        assert mixture.weigh(*other) != weights
    network, tree = log_softmax(np.array([3.0, 1, 0, 0, 0, 0])), mixture.tree
    path = tree.path(np.array([1, 2, 3]))
    counted, (length, entropies, logs) = compare(tree, path, network)
    probabilities = tree.distribution(path)
    assert length == len(path) - 1
    assert entropies == pytest.approx((-np.exp(network) @ network, -probabilities @ np.log(probabilities)))
    assert logs == pytest.approx((np.log(probabilities[0]), network[probabilities.argmax()]))
    np.testing.assert_allclose(np.exp(counted), probabilities)


def test_the_network_is_alone_where_a_text_begins_and_whole_records_are_not_cut() -> None:
    """A context that is short because nothing stands before it says nothing of how rare it is."""
    text = np.array([0, 1, 2, 3, 0, 1, 2, 3, 5, 0, 1, 2, 3, 5] * 3)
    mixture = Mixture(grow_tree(text, 6, 4, np.inf), everywhere(4, (0.5, 0.5)))
    logits = np.arange(6.0)
    network = np.exp(log_softmax(logits))

    def is_alone(*before: int) -> bool:
        return bool(np.abs(mixture.probabilities(np.array(before, np.int64), logits) - network).max() < 1e-12)

    assert is_alone()
    assert is_alone(1)
    assert is_alone(0, 1)
    assert is_alone(-1, -1, 0, 1)
    assert not is_alone(0, 1, 2), "as long as contexts are"
    assert not is_alone(4, 0, 1), "a context that never occurred"
    assert not is_alone(5, 0, 1), "the last id, the end symbol of records, begins one"


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("predictable", [6, 4])
def test_nats_are_minus_the_logarithms_of_probabilities(
    predictable: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(mixture_module, "available", lambda: False)
    mixture, random = random_mixture(3, 6, 5, predictable), np.random.default_rng(3)
    ids = np.concatenate([np.maximum(context, 0) for context in contexts_of(mixture.tree)])
    places = random.permutation(len(ids))[:50]
    logits, targets = random.normal(size=(50, 6)) * 2, np.minimum(ids[places], predictable - 1)
    logits = logits.astype(np.float32)
    nats = mixture.nats(ids, places, logits)
    probabilities = [mixture.probabilities(ids[:place], row) for place, row in zip(places, logits, strict=True)]
    expected = [-np.log(row[target]) for row, target in zip(probabilities, targets, strict=True)]
    np.testing.assert_allclose(nats, expected, rtol=1e-10)


@given(st.floats(-30, 9), st.sampled_from([KNOTS, LOGS]))
def test_a_value_lies_between_the_knots_around_it(value: float, knots: tuple[float, ...]) -> None:
    (lower, left), (upper, right) = between(knots, value)
    assert upper == lower + 1
    assert min(left, right) >= 0
    assert left + right == pytest.approx(1)
    assert left * knots[lower] + right * knots[upper] == pytest.approx(np.clip(value, knots[0], knots[-1]), abs=1e-12)


@pytest.mark.parametrize("longest", range(5))
def test_a_limited_mixture_is_that_of_a_tree_cut_there(longest: int) -> None:
    for seed in range(4):
        mixture, logits = random_mixture(seed, 6, 5, 4), np.linspace(-2, 2, 6)
        limited = mixture.limited(longest)
        shorter = mixture.cells[: (longest + 1) * len(KNOTS)], mixture.cells[5 * len(KNOTS) :]
        other = Mixture(cut(mixture.tree, longest), np.concatenate(shorter))
        assert limited.longest == longest
        assert limited.context == mixture.context == 4
        for ids in contexts_of(mixture.tree, 15):
            expected = other.probabilities(ids, logits)
            np.testing.assert_allclose(limited.probabilities(ids, logits), expected, rtol=1e-12)
            for each in (limited, other):
                mixed = each.mix(ids, np.array([len(ids)]), np.float32(logits)[None])
                np.testing.assert_allclose(np.exp(mixed[0]), expected, rtol=1e-5)


def test_a_mixture_that_looks_back_at_nothing_leaves_all_to_the_network() -> None:
    mixture = random_mixture(0)
    for scale in (0, 1, 30):
        logits = np.random.default_rng(scale).normal(size=6) * scale
        mixed = mixture.limited(0).probabilities(np.array([1, 2, 3]), logits)
        np.testing.assert_allclose(mixed, np.exp(log_softmax(logits)), rtol=1e-9)


def test_a_mixture_that_is_not_limited_is_the_same_one() -> None:
    mixture = random_mixture(0, 6, 5)
    assert all(mixture.limited(longest) is mixture for longest in (4, 5, 31))
    assert mixture.limited(3).limited(1).longest == 1
    assert mixture.limited(1).limited(3).longest == 1


def test_a_mixture_shows_itself_in_one_line() -> None:
    tree = grow_tree(random_ids(0, 3000, 6), 6, 6, 2000)
    assert repr(Mixture.of(tree)) == f"Mixture(ContextTree(order=6, {len(tree.labels)} contexts, 0.0 MB))"
    assert Mixture.of(tree).cells.shape == (cell_count(6), 2)
    assert Mixture.of(grow_tree(random_ids(0, 99, 6), 6, 1, 2000)).context == 1, "an engine keeps one id or more"


@pytest.mark.parametrize("size", [6, 300])
def test_compiled_code_reads_arrays_of_one_kind_whatever_those_of_the_mixture_are(size: int) -> None:
    """A file's are read-only and may lie anywhere: code for each kind would be compiled anew, which takes seconds."""
    mixture = random_mixture(0, size)

    def elsewhere(array: Floats) -> Floats:
        data = np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:]
        return np.ndarray(array.shape, array.dtype, data)

    tree = mixture.tree
    parts = {name: elsewhere(array) for name, array in tree.arrays.items()}
    for weights in (elsewhere(mixture.cells), np.asfortranarray(mixture.cells)):
        other = Mixture(ContextTree(tree.size, tree.order, tree.predictable, **parts), weights)
        for ours, theirs in zip(mixture.compiled, other.compiled, strict=True):
            for array, same in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(array, same)
                if isinstance(array, np.ndarray):
                    assert array.dtype == same.dtype
                    assert array.flags.carray
                    assert same.flags.carray


def examples(seed: int, number: int = 3000) -> tuple[ContextTree, Floats, Floats, Floats]:
    """A text, counts of another one like it, and what a network says that knows the last id only."""
    random = np.random.default_rng(seed)
    words = [random.integers(0, 6, random.integers(2, 5)) for _ in range(12)]
    text = np.concatenate([words[word] for word in random.integers(0, 12, 2000 + number)])
    ids, tree = text[-number:], grow_tree(text[:-number], 6, 5, 1e9)
    pairs = np.zeros((6, 6)) + 0.1
    np.add.at(pairs, (text[:-1], text[1:]), 1)
    places = np.arange(1, number)
    noise = random.normal(size=(number - 1, 6)) * 0.3
    return tree, ids, places, (np.log(pairs / pairs.sum(1, keepdims=True))[ids[:-1]] + noise).astype(np.float32)


def test_derivatives_are_those_of_the_costs() -> None:
    tree, ids, places, logits = examples(0, 60)
    cells = random_cells(0, 5)
    cells.setflags(write=False)

    def total(*changes: tuple[int, int, float]) -> float:
        changed = cells.copy()
        for cell, side, by in changes:
            changed[cell if cell < len(cells) else slice(5 * len(KNOTS)), side] += by
        return float(costs_of(Mixture(tree, changed), ids, places, logits)[0].sum())

    _, slope, curvature = costs_of(Mixture(tree, cells), ids, places, logits, slopes=True)
    used, step = np.flatnonzero(np.abs(slope).sum(1) > 1e-3), 1e-3
    assert len(used) > 20
    for cell in [*np.random.default_rng(0).choice(used, 6), len(cells)]:
        for side in (0, 1):
            plus, minus = total((cell, side, step)), total((cell, side, -step))
            assert slope[cell, side] == pytest.approx((plus - minus) / (2 * step), rel=1e-4, abs=1e-5)
            other, far = int(used[3]), 10 * step
            both = total((cell, side, far), (other, 1, far)) - total((cell, side, far), (other, 1, -far))
            both -= total((cell, side, -far), (other, 1, far)) - total((cell, side, -far), (other, 1, -far))
            assert curvature[cell, side, other, 1] == pytest.approx(both / (2 * far) ** 2, rel=1e-2, abs=1e-3)
    np.testing.assert_allclose(curvature, curvature.transpose(2, 3, 0, 1), atol=1e-12)


def test_fitted_weights_are_better_than_any_that_are_the_same_everywhere() -> None:
    tree, ids, places, logits = examples(0, 8000)

    def cost(mixture: Mixture) -> float:
        return float(mixture.nats(ids, places, logits).mean())

    best = cost(fit_weights(tree, ids, places, logits))
    sides = [cost(Mixture(tree, everywhere(5, weights))) for weights in ((1.0, 0.0), (0.0, 1.0))]
    assert best < min(sides) - 0.002
    assert best < min(cost(Mixture(tree, everywhere(5, (a, b)))) for a in (0, 0.2, 0.5, 0.8) for b in (0.2, 0.5, 0.8))


def test_weights_are_those_at_which_the_held_loss_is_level() -> None:
    tree, ids, places, logits = examples(1, 1500)
    mixture = fit_weights(tree, ids, places, logits)
    _, slope, _ = costs_of(mixture, ids, places, logits, slopes=True)
    first = slice(5 * len(KNOTS))
    common = mixture.cells[first].reshape(5, -1, 2)
    assert np.abs(slope[-1]).max() < 40, "what all have in common is hardly held"
    untouched = np.flatnonzero(np.abs(slope[:-1]).sum(1) == 0)
    spread = mixture.cells[untouched[untouched >= first.stop]]
    assert np.abs(spread).max() < 1e-9, "where nothing was seen, a cell adds nothing"
    assert common.std() > 0


@pytest.mark.parametrize("number", [2, 3, 10])
def test_few_ids_leave_the_network_nearly_alone(number: int) -> None:
    tree, ids, places, logits = examples(2, number)
    cells = fit_weights(tree, ids, places, logits).cells
    assert np.abs(cells - Mixture.of(tree).cells).max() < 1.5


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_network_that_is_not_finite_stays_alone(number: float) -> None:
    """Whoever scores it with such a mixture is told."""
    tree, ids, places, logits = examples(2, 60)
    logits[7, ids[places[7]]] = number
    mixture = fit_weights(tree, ids, places, logits)
    np.testing.assert_array_equal(mixture.cells, Mixture.of(tree).cells)
    assert not np.isfinite(mixture.nats(ids, places, logits).sum())


def test_processes_that_share_out_ids_find_the_same_weights() -> None:
    tree, ids, places, logits = examples(3, 600)
    whole = fit_weights(tree, ids, places, logits).cells
    doubled = fit_weights(tree, ids, np.tile(places, 2), np.tile(logits, (2, 1))).cells
    shared = fit_weights(tree, ids, places, logits, add=lambda sums: 2 * sums).cells
    np.testing.assert_allclose(shared, doubled, atol=1e-6)
    assert np.abs(whole - doubled).max() > 1e-3, "the more ids, the less weights are held"


def test_a_process_without_ids_finds_the_weights_of_the_others() -> None:
    tree, ids, places, logits = examples(4, 80)
    sums: list[Floats] = []
    expected = fit_weights(tree, ids, places, logits, add=lambda each: sums.append(each.copy()) or each)
    shared = iter(sums)
    none = fit_weights(tree, ids, places[:0], logits[:0], add=lambda each: each + next(shared))
    np.testing.assert_allclose(none.cells, expected.cells, atol=1e-12)


def test_weights_do_not_depend_on_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    data = examples(5, 150)
    compiled = fit_weights(*data).cells
    monkeypatch.setattr(mixture_module, "available", lambda: False)
    np.testing.assert_allclose(fit_weights(*data).cells, compiled, atol=1e-6)
