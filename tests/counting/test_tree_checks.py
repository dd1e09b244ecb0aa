"""Compiled code looks up contexts unchecked: whatever a tree or a mixture accepts is safe, and sums to one."""

from itertools import chain
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.counting.context_tree import CODES, MAX_ORDER, ContextTree
from chargen.counting.mixture import MAX_WEIGHT, Mixture, cell_count
from tests.trees import NAMES, check_lookups, contexts_of, random_arrays, random_mixture, random_tree

SMALL = {"labels": [0, 0, 2, 1], "children": [2, 0, 1, 0], "predictions": [2, 1, 1, 1], "rests": [9, 9, 9, 9],
         "ids": [0, 2, 1, 1, 0], "shares": [0, 16, 0, 0, 0]}  # fmt: skip
"""The empty context, of which 0 and 2 come, and 2 has 1 before it."""


def tree_of(size: int = 3, order: int = 3, predictable: int = 3, **lists: Any) -> ContextTree:
    """A tree of lists; `SMALL` but for what is given."""
    values = {name: lists.get(name, SMALL[name]) for name in NAMES}
    arrays = {
        name: each if isinstance(each, np.ndarray) else np.array(each).astype(ContextTree.dtype_of(name, size))
        for name, each in values.items()
    }
    return ContextTree(size, order, predictable, **arrays)


def accepted(**arguments: Any) -> ContextTree | None:
    """A tree, or none where it is refused in one line."""
    try:
        return tree_of(**arguments)
    except ValueError as error:
        refusal = str(error)
    assert len(refusal.splitlines()) == 1
    return None


def check(tree: ContextTree) -> None:
    """Check all lookups in a tree, of those contexts that it has and of others."""
    weights = np.linspace(0.1, 0.4, 2 * cell_count(tree.order)).reshape(-1, 2)
    some = [np.random.default_rng(tree.order).integers(-2, tree.size + 2, length) for length in (0, 1, 4)]
    for mixture in (whole := Mixture(tree, weights), whole.limited(1)):
        check_lookups(mixture, some + contexts_of(tree, 8))


def test_a_small_tree_predicts_what_its_numbers_say() -> None:
    tree = tree_of()
    assert tree.path(np.array([1, 2])) == [0, 2, 3]
    assert tree.path(np.array([2, 0])) == [0, 1]
    assert tree.path(np.array([1])) == [0]
    rest = 2 ** (-9 / 16)
    alone = (1 - rest) * np.array([2 / 3, 0, 1 / 3]) + rest / 3
    assert tree.distribution([0]) == pytest.approx(alone, abs=1e-15)
    assert tree.distribution([0, 1]) == pytest.approx((1 - rest) * np.array([0, 1, 0]) + rest * alone, abs=1e-15)
    assert repr(tree) == "ContextTree(order=3, 4 contexts, 0.0 MB)"
    assert tree.describe() == {"order": 3, "contexts": 4, "predictions": 5}
    assert tree.nbytes == 4 * 4 + 2 * 5
    check(tree)


def test_codes_stand_for_shares_from_one_down_and_none_is_zero() -> None:
    assert CODES[[0, 16, 32]].tolist() == [1, 0.5, 0.25]
    assert (np.diff(CODES) < 0).all()
    assert CODES[255] > 1e-5
    assert len(CODES) == 256


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("numbers below zero", {"size": 300, "labels": [0, -1, 2, 1]}),
    ("numbers below zero", {"size": 300, "children": [2, -1, 2, 0]}),
    ("numbers below zero", {"size": 300, "predictions": [3, -1, 2, 1]}),
    ("numbers below zero", {"size": 300, "ids": [-1, 2, 1, 1, 0]}),
    ("ids that there are not, or that are never predicted", {"labels": [0, 0, 3, 1]}),
    ("ids that there are not, or that are never predicted", {"ids": [0, 3, 1, 1, 0]}),
    ("ids that there are not, or that are never predicted", {"predictable": 2}),
    ("numbers of children or predictions that are not those of all contexts", {"children": [2, 0, 2, 0]}),
    ("numbers of children or predictions that are not those of all contexts", {"children": [2, 0, 0, 0]}),
    ("numbers of children or predictions that are not those of all contexts", {"children": [2, 0, 1, 1]}),
    ("numbers of children or predictions that are not those of all contexts", {"predictions": [2, 1, 1, 2]}),
    ("numbers of children or predictions that are not those of all contexts", {"predictions": [1, 1, 1, 1]}),
    ("numbers of children or predictions that are not those of all contexts", {"predictions": [2, 1, 2, 0]}),
    ("contexts that hang below none before them", {"children": [0, 0, 2, 1]}),
    ("contexts that hang below none before them", {"children": [1, 0, 2, 0]}),
    ("ids of a context that do not ascend", {"labels": [0, 2, 0, 1]}),
    ("ids of a context that do not ascend", {"labels": [0, 2, 2, 1]}),
    ("ids of a context that do not ascend", {"ids": [2, 0, 1, 1, 0]}),
    ("ids of a context that do not ascend", {"ids": [1, 1, 1, 1, 0]}),
    ("contexts of 2 ids in a tree of order 2", {"order": 2}),
    ("contexts of 1 id in a tree of order 1", {"order": 1}),
    ("a tree of order 0 with 4 contexts and 5 predictions", {"order": 0}),
    ("a tree of order 33 with 4 contexts and 5 predictions", {"order": 33}),
    ("a tree of order 3 with 4 contexts and 5 predictions", {"predictable": 0}),
    ("a tree of order 3 with 4 contexts and 5 predictions", {"predictable": 4}),
    ("a tree of order 3 with 0 contexts and 5 predictions", {"labels": []}),
    ("labels of int64 in the shape (4,)", {"labels": np.array([0, 0, 2, 1])}),
    ("ids of >i2 in the shape (5,)", {"size": 300, "ids": np.array([0, 2, 1, 1, 0], ">i2")}),
    ("shares of float64 in the shape (5,)", {"shares": np.zeros(5)}),
    ("rests of uint8 in the shape (3,)", {"rests": [9, 9, 9]}),
    ("shares of uint8 in the shape (4,)", {"shares": [0, 1, 0, 0]}),
    ("labels of uint8 in the shape (4, 1)", {"labels": [[0], [0], [2], [1]]}),
    ("children of uint8 in the shape (5,)", {"children": [2, 0, 1, 0, 0]}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "change"), WRONG)
def test_what_is_no_tree_is_refused_in_words(words: str, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # compared below
        tree_of(**change)
    assert str(caught.value) == words


def test_a_tree_without_predictions_is_refused() -> None:
    assert accepted(labels=[0], children=[0], predictions=[0], rests=[1], ids=[], shares=[]) is None
    assert accepted(labels=[0], children=[0], predictions=[1], rests=[1], ids=[2], shares=[255]) is not None


def small_lists(random: Random) -> dict[str, Any]:
    """Arguments of `tree_of`, at random: few contexts of few ids, so that many are those of a tree."""
    size, length = random.choice([2, 3, 3, 300]), random.randint(1, 5)
    low, limit = -(size == 300), min(size, 4)
    children = [random.choice([low, 0, 0, 1, 1, 2, 3]) for _ in range(length)]
    if random.random() < 0.8:  # as many as there are contexts
        children = [0] * length
        for place in range(1, length):
            children[random.randrange(place if random.random() < 0.9 else length)] += 1
    predictions = [random.choice([low, 0, 1, 1, 1, 2, 2, 2]) for _ in range(length)]
    number = max(0, sum(predictions) + random.choice([-1, 0, 0, 0, 0, 0, 1]))

    def ascending(sizes: list[int]) -> list[int]:
        parts = [sorted(random.sample(range(limit), min(part, limit))) for part in sizes if part > 0]
        return [value if random.random() < 0.95 else random.randint(low, limit) for value in chain(*parts)]

    return {
        "size": size, "order": random.choice([2, 3, 4, 5]), "predictable": random.choice([limit, limit, limit - 1]),
        "labels": ([0, *ascending(children)] + [0] * length)[:length], "children": children,
        "predictions": predictions, "rests": random.choices([0, 7, 255], k=length),
        "ids": (ascending(predictions) + [0] * number)[:number], "shares": random.choices([0, 255], k=number),
    }  # fmt: skip


def changed_lists(random: Random) -> dict[str, Any]:
    """Arguments of `tree_of`: those of a random tree, with some numbers changed."""
    sizes = random.choice([(4, 4, 4), (6, 5, 4), (300, 3, 5)])
    lists: dict[str, Any] = random_arrays(random.getrandbits(32), *sizes)
    for _ in range(random.randint(1, 3)):
        array = lists[name := random.choice(NAMES)]
        first, other = (random.randrange(len(array)) for _ in range(2))
        kind = random.randrange(5)
        if kind == 0:
            array[[first, other]] = array[[other, first]]
        elif kind == 1 and array[first] > 0:
            array[first] -= 1
            array[other] += 1
        elif kind == 2:
            array[first] += 1
        elif kind == 3:
            array[first] = random.choice([0, 5, 6, 127])
        elif kind == 4 and random.random() < 0.3:
            lists[name] = array[: max(first, 1)]
    return lists | dict(zip(("size", "order", "predictable"), sizes, strict=True))


@pytest.mark.parametrize(("lists", "number", "least"), [(small_lists, 2000, 250), (changed_lists, 250, 25)])
def test_any_arrays_are_refused_or_safe_to_look_up(lists: Any, number: int, least: int) -> None:
    trees = 0
    for seed in range(number):
        arguments = lists(Random(seed))
        tree = accepted(**arguments)
        if tree is not None:
            trees += 1
            try:
                check(tree)
            except Exception as error:
                error.add_note(f"{seed}: {arguments}")
                raise
    assert least < trees < number - least


@settings(max_examples=100)
@given(
    st.integers(1, 4), st.integers(0, 5), *(st.lists(st.integers(0, 3), min_size=1, max_size=4) for _ in range(4)),
)  # fmt: skip
def test_any_lists_of_numbers_are_refused_or_safe_to_look_up(
    size: int, order: int, labels: list[int], children: list[int], predictions: list[int], ids: list[int]
) -> None:
    lists = {"labels": labels, "children": children, "predictions": predictions, "ids": ids}
    tree = accepted(size=size, order=order, predictable=size, rests=[9] * len(labels), shares=[255] * len(ids), **lists)
    if tree is not None:
        check(tree)


@pytest.mark.parametrize("seed", range(20))
def test_any_random_tree_is_looked_up_by_compiled_code_as_by_python(seed: int) -> None:
    sizes = [(6, 5, 6), (6, 5, 4), (1, 3, 1), (300, 4, 290), (2, MAX_ORDER, 2)][seed % 5]
    mixture = random_mixture(seed, *sizes)
    some = [np.random.default_rng(seed).integers(-2, sizes[0] + 2, length) for length in (0, 1, 2, 5, 40)]
    check_lookups(mixture, some + contexts_of(mixture.tree))


@pytest.mark.parametrize(
    "weights",
    [np.nan, np.inf, -np.inf, MAX_WEIGHT + 1e-6, -MAX_WEIGHT - 1e-6, np.where(np.arange(396) == 395, np.nan, 0.2)],
)
def test_weights_out_of_their_range_are_refused(weights: Any) -> None:
    with pytest.raises(ValueError, match=r"^weights that are not -100 to 100$"):
        Mixture(random_tree(0, order=4), np.broadcast_to(weights, 396).reshape(198, 2))


@pytest.mark.parametrize("shape", [(0, 2), (199, 2), (198, 1), (198, 3), (396,), (198, 2, 1)])
def test_weights_of_another_shape_or_type_are_refused(shape: tuple[int, ...]) -> None:
    tree = random_tree(0, order=4)
    with pytest.raises(ValueError, match=r"^weights of float64 in the shape .*: needed is \(198, 2\)$"):
        Mixture(tree, np.full(shape, 0.2))
    for kind in ("<f4", ">f8", "<i8"):
        with pytest.raises(ValueError, match=r"^weights of .* in the shape \(198, 2\): needed is \(198, 2\)$"):
            Mixture(tree, np.full((198, 2), 0.2).astype(kind))
    assert Mixture(tree, np.full((198, 2), MAX_WEIGHT)).longest == 3
