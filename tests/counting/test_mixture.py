"""Mixtures of a network and counts: probabilities, what they cost, how weights are fitted, and how far counts look."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.counting import mixture as mixture_module
from chargen.counting.context_tree import ContextTree
from chargen.counting.grow_tree import grow_tree
from chargen.counting.mixture import KNOTS, MAX_WEIGHT, Mixture, begins_text, between_knots, fit_weights, mix_nats
from chargen.decoding.choose import log_softmax
from tests.counting.test_ngram import random_ids
from tests.trees import NAMES, contexts_of, random_mixture

Floats = np.ndarray
logits_of_six = st.lists(st.floats(-40, 40, width=32), min_size=6, max_size=6).map(
    lambda values: np.array(values, "f4")
)


def entropy_of(logits: Floats) -> float:
    log_probs = log_softmax(logits)
    return float(-(np.exp(log_probs) * log_probs).sum())


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
def test_probabilities_are_between_those_of_both_sides_and_sum_to_one(
    logits: Floats, seed: int, predictable: int, before: list[int]
) -> None:
    mixture, ids = random_mixture(seed, 6, 5, predictable), np.array(before, np.int64)
    path, network = mixture.tree.path(ids), np.exp(log_softmax(logits))
    counted, mixed = mixture.tree.distribution(path), mixture.probabilities(ids, logits)
    assert mixed.sum() == pytest.approx(1, abs=1e-12)
    assert (mixed >= np.minimum(network, counted) * (1 - 1e-9)).all()
    assert (mixed <= np.maximum(network, counted) * (1 + 1e-9)).all()
    length = -1 if begins_text(mixture.tree, ids, path, mixture.longest) else len(path) - 1
    (weight,) = mixture.weigh(np.array([length]), np.array([entropy_of(logits)]))
    np.testing.assert_allclose(mixed, (1 - weight) * network + weight * counted, rtol=1e-6, atol=1e-12)


def test_the_network_is_alone_where_a_text_begins_and_whole_records_are_not_cut() -> None:
    """A context that is short because nothing stands before it says nothing of how rare it is."""
    text = np.array([0, 1, 2, 3, 0, 1, 2, 3, 5, 0, 1, 2, 3, 5] * 3)
    mixture = Mixture(grow_tree(text, 6, 4, np.inf), np.full((4, len(KNOTS)), 0.5))
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
    network = np.array([-log_softmax(row)[target] for row, target in zip(logits, targets, strict=True)])
    nats = mixture.nats(ids, places, network, np.array([entropy_of(row) for row in logits]))
    probabilities = [mixture.probabilities(ids[:place], row) for place, row in zip(places, logits, strict=True)]
    expected = [-np.log(row[target]) for row, target in zip(probabilities, targets, strict=True)]
    np.testing.assert_allclose(nats, expected, rtol=1e-10)


def test_mixing_nats_is_mixing_probabilities() -> None:
    nats, counted, weights = np.log([2.0, 4.0, 1e200]), np.array([0.25, 0.25, 0.5]), np.array([0.5, 1e-4, 0.2])
    mixed = [0.5 * 0.5 + 0.5 * 0.25, 0.25, 0.2 * 0.5]
    np.testing.assert_allclose(mix_nats(nats, counted, weights), -np.log(mixed), rtol=1e-12)


@given(st.lists(st.floats(-1, 9), min_size=1, max_size=20))
def test_an_entropy_lies_between_the_knots_around_it(values: list[float]) -> None:
    entropies, knots = np.array(values), np.array(KNOTS)
    lower, share = between_knots(entropies)
    assert ((lower >= 0) & (lower < len(knots) - 1) & (share >= 0) & (share <= 1)).all()
    between = (1 - share) * knots[lower] + share * knots[lower + 1]
    np.testing.assert_allclose(between, np.clip(entropies, knots[0], knots[-1]), atol=1e-12)


@pytest.mark.parametrize("longest", range(5))
def test_a_limited_mixture_is_that_of_a_tree_cut_there(longest: int) -> None:
    for seed in range(4):
        mixture, logits = random_mixture(seed, 6, 5, 4), np.linspace(-2, 2, 6)
        limited = mixture.limited(longest)
        weights = mixture.weights[: longest + 1] if longest else limited.weights
        other = Mixture(cut(mixture.tree, longest), weights)
        assert limited.longest == longest
        assert limited.context == mixture.context == 4
        for ids in contexts_of(mixture.tree, 15):
            expected = other.probabilities(ids, logits)
            np.testing.assert_allclose(limited.probabilities(ids, logits), expected, rtol=1e-12)
            for each in (limited, other):
                mixed = each.mix(ids, np.array([len(ids)]), np.float32(logits)[None])
                np.testing.assert_allclose(np.exp(mixed[0]), expected, rtol=1e-5)


def test_a_mixture_that_looks_back_at_nothing_leaves_all_but_a_ten_thousandth_to_the_network() -> None:
    mixture = random_mixture(0)
    for scale in (0, 1, 30):
        logits = np.random.default_rng(scale).normal(size=6) * scale
        mixed = mixture.limited(0).probabilities(np.array([1, 2, 3]), logits)
        assert np.abs(mixed - np.exp(log_softmax(logits))).max() <= 1.01 * (1 - MAX_WEIGHT)


def test_a_mixture_that_is_not_limited_is_the_same_one() -> None:
    mixture = random_mixture(0, 6, 5)
    assert all(mixture.limited(longest) is mixture for longest in (4, 5, 31))
    assert mixture.limited(3).limited(1).longest == 1
    assert mixture.limited(1).limited(3).longest == 1


def test_a_mixture_shows_itself_in_one_line() -> None:
    tree = grow_tree(random_ids(0, 3000, 6), 6, 6, 2000)
    assert (
        repr(Mixture.of(tree))
        == f"Mixture(ContextTree(order=6, {len(tree.labels)} contexts, 0.0 MB), mean weight 0.20)"
    )
    assert Mixture.of(tree).weights.shape == (6, len(KNOTS))
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
    for weights in (elsewhere(mixture.weights), np.asfortranarray(mixture.weights)):
        other = Mixture(ContextTree(tree.size, tree.order, tree.predictable, **parts), weights)
        for ours, theirs in zip(mixture.compiled, other.compiled, strict=True):
            for array, same in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(array, same)
                if isinstance(array, np.ndarray):
                    assert array.dtype == same.dtype
                    assert array.flags.carray
                    assert same.flags.carray


def examples(seed: int, number: int = 3000) -> dict[str, Floats]:
    """What network and counts say at many places: counts are right at long contexts, the network where it is sure."""
    random = np.random.default_rng(seed)
    lengths, entropies = random.integers(0, 4, number), random.uniform(0, 7, number)
    counted = np.where(lengths >= 2, 0.9, 0.02) * random.uniform(0.9, 1, number)
    network = np.where(entropies < 1, 0.9, 0.02) * random.uniform(0.9, 1, number)
    return {"nats": -np.log(network), "counted": counted, "lengths": lengths, "entropies": entropies}


def cost(weights: Floats, examples: dict[str, Floats]) -> float:
    """The mean nats of examples."""
    tree = grow_tree(random_ids(0, 99, 3), 3, len(weights), np.inf)
    own = Mixture(tree, weights).weigh(examples["lengths"], examples["entropies"])
    return float(mix_nats(examples["nats"], examples["counted"], own).mean())


def test_no_round_of_fitting_makes_likely_what_was_seen_less_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture_module, "PRIOR", 1e-9)
    for seed in range(3):
        random, data, costs = np.random.default_rng(seed), examples(seed, 400), []
        data["nats"], data["counted"] = random.exponential(2, 400), random.uniform(0.01, 0.9, 400)
        for rounds in range(25):
            monkeypatch.setattr(mixture_module, "ROUNDS", rounds)
            costs.append(cost(fit_weights(4, **data), data))
        assert (np.diff(costs) <= 1e-9).all()
        assert costs[-1] < costs[0] - 0.01


def test_fitted_weights_are_high_where_counts_are_right_and_low_where_the_network_is() -> None:
    data = examples(0, 40_000)
    weights, knots = fit_weights(4, **data), np.array(KNOTS)
    assert weights[2:, knots >= 1.5].min() > 0.9, "counts alone are right"
    assert weights[:2, knots <= 0.5].max() < 0.1, "the network alone is right"
    assert cost(weights, data) < min(
        cost(np.full((4, 9), weight), data) for weight in (1e-4, 0.2, 0.5, 0.8, MAX_WEIGHT)
    )
    for right, low, high in ((0.99, 0.99, 1), (0.001, 0, 0.01)):
        data = examples(1) | {"counted": np.full(3000, right), "nats": -np.log(np.full(3000, 1 - right))}
        weights = fit_weights(4, **data)
        assert low < weights.min() <= weights.max() < high
        assert Mixture(grow_tree(random_ids(0, 99, 3), 3, 4, np.inf), weights).longest == 3, "all are in their range"


def test_where_nothing_was_seen_the_mean_weight_holds() -> None:
    data = examples(2) | {"counted": np.random.default_rng(2).uniform(0.01, 0.3, 3000)}
    chosen = data["lengths"] == 2
    weights = fit_weights(6, **{name: values[chosen] for name, values in data.items()})
    np.testing.assert_allclose(weights[[0, 1, 3, 4, 5]], weights[0, 0])
    assert 0.1 < weights[0, 0] < 0.9


def test_processes_that_share_out_examples_find_the_same_weights() -> None:
    data = examples(3)
    twice = fit_weights(4, **{name: np.tile(values, 2) for name, values in data.items()})
    np.testing.assert_allclose(fit_weights(4, **data, add=lambda sums: 2 * sums), twice, rtol=1e-9)
    assert np.abs(fit_weights(4, **data) - twice).max() > 1e-6, "the more examples, the less the mean counts"


def test_a_process_without_examples_finds_the_weights_of_the_others() -> None:
    data, sums = examples(4, 50), []
    expected = fit_weights(4, **data, add=lambda each: sums.append(each) or each)
    shared = iter(sums)
    none = {name: values[:0] for name, values in data.items()}
    np.testing.assert_array_equal(fit_weights(4, **none, add=lambda each: each + next(shared)), expected)
