"""Trees of contexts that a text has: beside the slow twin, behind pruning, and across the borders of records."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.counting.context_tree import ContextTree
from chargen.counting.grow_tree import grow_tree
from chargen.counting.ngram import NGram
from tests import naive
from tests.counting.test_ngram import random_ids, records
from tests.trees import contexts_of

Context = tuple[int, ...]
texts = st.lists(st.integers(0, 3), max_size=60)
borders = st.lists(st.integers(0, 5), max_size=60).map(lambda ids: [3, *ids])
CASES = [(seed, size, order, None) for seed, size, order in ((0, 2, 1), (1, 3, 4), (2, 30, 6), (3, 5, 12))]
CASES += [(seed, 7, order, 4) for seed, order in ((4, 2), (5, 5), (6, 9))]


def text_of(seed: int, size: int, end_id: int | None, length: int = 250) -> np.ndarray:
    """Ids that repeat themselves; of records, where there is an end symbol."""
    return random_ids(seed, length, size) if end_id is None else records(seed, length, end_id, size - end_id - 1)


def contexts_in(tree: ContextTree) -> dict[Context, int]:
    """Every context of a tree, by its ids in the order of the text, with its number."""
    contexts: dict[Context, int] = {}
    pending: list[tuple[Context, int]] = [((), 0)]
    while pending:
        ids, at = pending.pop()
        contexts[ids] = at
        children = range(*tree.first_children[at : at + 2])
        pending += [((int(tree.labels[child]), *ids), child) for child in children]
    assert len(contexts) == len(tree.labels)
    return contexts


def predicted(tree: ContextTree, number: int) -> tuple[object, ...]:
    """All that a context of a tree says: its rest, and ids and shares."""
    part = slice(*tree.first_predictions[number : number + 2])
    return int(tree.rests[number]), tree.ids[part].tolist(), tree.shares[part].tolist()


def worth_of(twin: naive.CountedContexts, tree: ContextTree) -> dict[Context, float]:
    """What every context of a tree saves by the byte, or one that hangs below it."""
    worth = {}
    contexts = contexts_in(tree)
    for context, number in contexts.items():
        own, below = (twin.distribution(each, coded=False) for each in (context, context[1:]))
        saved = twin.grams.occurrences.get(context, 0) * float((own * np.log(own / below)).sum())
        worth[context] = saved / (4 + 2 * int(tree.predictions[number]))
    for context in sorted(contexts, key=len, reverse=True):
        if context:
            worth[context[1:]] = max(worth[context[1:]], worth[context])
    return worth


@given(texts, st.integers(1, 6), st.lists(st.integers(-1, 5), max_size=9), st.sampled_from([0, 30, 90, np.inf]))
def test_probabilities_sum_to_one_behind_any_ids_of_any_text(
    ids: list[int], order: int, before: list[int], max_bytes: float
) -> None:
    for end_id, text in ((None, ids), (2, [2, *ids])):
        tree = grow_tree(np.array(text, np.uint8), 4, order, max_bytes, end_id=end_id)
        for context in (np.array(before, np.int64), np.array(ids[:7], np.int64)):
            probabilities = tree.distribution(tree.path(context))
            assert probabilities.sum() == pytest.approx(1, abs=1e-12)
            assert (probabilities[: tree.predictable] > 0).all()
            assert not probabilities[tree.predictable :].any()


@pytest.mark.parametrize(("seed", "size", "order", "end_id"), CASES)
def test_a_tree_has_the_contexts_that_occur_twice_and_predicts_as_the_slow_twin(
    seed: int, size: int, order: int, end_id: int | None
) -> None:
    ids = text_of(seed, size, end_id)
    twin = naive.CountedContexts(ids.tolist(), size, order, end_id)
    tree = grow_tree(ids, size, order, np.inf, end_id=end_id)
    contexts = contexts_in(tree)
    assert set(contexts) == {context for context in twin.grams.behind if twin.has(context)}
    for context in contexts:
        path = tree.path(np.array(context, np.int64))
        assert path == [contexts[context[len(context) - length :]] for length in range(len(context) + 1)]
        expected = twin.distribution(context)
        np.testing.assert_allclose(tree.distribution(path)[: twin.size], expected, rtol=0, atol=1e-12)


@settings(max_examples=60)
@given(st.booleans(), st.data(), st.integers(1, 7), st.lists(st.integers(0, 5), max_size=8))
def test_the_longest_context_of_any_ids_is_what_a_search_through_the_text_finds(
    of_records: bool, data: st.DataObject, order: int, before: list[int]
) -> None:
    ids, end_id = (data.draw(borders), 3) if of_records else (data.draw(texts), None)
    before = before if of_records else [min(id_, 3) for id_ in before]
    size = 6 if of_records else 4
    twin = naive.CountedContexts(ids, size, order, end_id)
    tree = grow_tree(np.array(ids, np.uint8), size, order, np.inf, end_id=end_id)
    for text in (before, ids, ids[:-3], ids[: len(ids) // 2]):
        context, path = twin.longest(text), tree.path(np.array(text, np.int64))
        assert len(path) == len(context) + 1
        expected = twin.distribution(context)
        np.testing.assert_allclose(tree.distribution(path)[: twin.size], expected, rtol=0, atol=1e-12)
        assert tree.path(np.array(text, np.int64), 2) == path[:3]
        assert tree.path(np.array(text, np.int64), 0) == [0]


def test_a_context_that_no_gram_occurs_four_times_in_keeps_a_share_of_its_own() -> None:
    """Else the discount of those that occur three times would be 3, and longer contexts would hang below none."""
    for seed in range(100):
        ids = random_ids(seed, 40, 4)
        twin = naive.CountedContexts(ids.tolist(), 4, 6)
        contexts = contexts_in(grow_tree(ids, 4, 6, np.inf))
        assert set(contexts) == {context for context in twin.grams.behind if twin.has(context)}


@pytest.mark.parametrize("order", [1, 2, 4, 8])
def test_an_n_gram_model_says_nearly_the_same_where_everything_occurs_thrice(order: int) -> None:
    ids = np.tile(random_ids(order, 300, 6), 3)
    tree, model = grow_tree(ids, 6, order, np.inf), NGram(ids, 6, order)
    logs = [np.log(tree.distribution(tree.path(ids[:place]))[ids[place]]) for place in range(len(ids))]
    apart = np.abs(logs - model.log_probs(ids))
    assert apart.max() < 0.1
    assert apart.mean() < 0.02


@pytest.mark.parametrize(("seed", "size", "order", "end_id"), CASES[1:])
def test_pruning_leaves_out_what_saves_least_by_the_byte_and_never_takes_more_than_it_may(
    seed: int, size: int, order: int, end_id: int | None
) -> None:
    ids = text_of(seed, size, end_id)
    whole = grow_tree(ids, size, order, np.inf, end_id=end_id)
    worth, numbers = worth_of(naive.CountedContexts(ids.tolist(), size, order, end_id), whole), contexts_in(whole)
    budgets = [0, 50, 100, 200, 400, 800, whole.nbytes, whole.nbytes + 1]
    trees = [grow_tree(ids, size, order, budget, end_id=end_id) for budget in budgets]
    for tree, budget in zip(trees, budgets, strict=True):
        kept = contexts_in(tree)
        assert tree.nbytes <= budget or set(kept) == {()}
        out = [worth[context] for context in worth.keys() - kept.keys()]
        assert min(worth[context] for context in kept) >= max(out, default=-np.inf) - 1e-9 or set(kept) == {()}
        for context, number in kept.items():
            assert predicted(tree, number) == predicted(whole, numbers[context])
    for smaller, larger in pairwise(trees):
        assert set(contexts_in(smaller)) <= set(contexts_in(larger))
    assert len({len(tree.labels) for tree in trees}) >= min(3, order)
    assert set(contexts_in(trees[-2])) == set(numbers), "all of it fits where there is just room for it"


def test_most_of_what_there_is_room_for_is_used() -> None:
    ids = random_ids(0, 3000, 6)
    for budget in (300, 1000, 3000):
        assert budget * 0.8 < grow_tree(ids, 6, 8, budget).nbytes <= budget


def test_no_context_of_records_crosses_a_border_and_no_label_is_predicted() -> None:
    ids = records(8, 600, 4, 2)
    tree = grow_tree(ids, 7, 6, np.inf, end_id=4)
    contexts = contexts_in(tree)
    assert tree.predictable == 5
    assert tree.ids.max() == 4
    assert any(context[:1] == (4,) and len(context) > 2 for context in contexts)
    assert not any(id_ >= 4 for context in contexts for id_ in context[1:])
    for context in contexts_of(tree):
        for begin in (4, 5, 6):
            behind = np.where(context == 4, begin, context)
            assert tree.path(behind) == tree.path(context), "a record counts as one behind any label"
            assert not tree.distribution(tree.path(behind))[5:].any()


def test_what_stands_before_the_begin_of_a_record_changes_nothing() -> None:
    ids = records(9, 600, 4, 1)
    tree = grow_tree(ids, 6, 8, np.inf, end_id=4)
    for start in np.flatnonzero(ids >= 4)[:-1]:
        record = ids[start : start + 6]
        paths = {tuple(tree.path(np.append(before, record))) for before in ([], [0, 1], [2, 4, 3], ids[:start])}
        assert len(paths) == 1


def test_counting_tells_how_far_it_is() -> None:
    told: list[tuple[int, int]] = []
    grow_tree(random_ids(0, 100, 4), 4, 5, np.inf, progress=lambda length, order: told.append((length, order)))
    assert told == [(2, 5), (3, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize(("ids", "end_id"), [([], None), ([], 2), ([2], 2)])
def test_of_a_text_without_ids_all_are_as_likely(ids: list[int], end_id: int | None) -> None:
    tree = grow_tree(np.array(ids, np.uint8), 3, 4, np.inf, end_id=end_id)
    assert tree.distribution(tree.path(np.array([1]))).tolist() == [1 / 3] * 3
