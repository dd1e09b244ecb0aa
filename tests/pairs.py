"""Combinations of parameters of which a few are tested by default and all with `pytest -m slow`."""

from itertools import combinations, product
from typing import Any

import pytest


def all_pairs(*choices: Any) -> list[Any]:
    """Every combination of a value of each choice; slow but for few in which any two values of two choices meet.

    Args:
        choices: the values of each parameter.

    Returns:
        Arguments for `pytest.mark.parametrize`.
    """
    everything = list(product(*(range(len(list(values))) for values in choices)))

    def pairs(combination: tuple[int, ...]) -> set[Any]:
        return set(combinations(enumerate(combination), 2))

    left, chosen = {pair for combination in everything for pair in pairs(combination)}, set()
    while left:
        chosen.add(best := max(everything, key=lambda combination: len(pairs(combination) & left)))
        left -= pairs(best)
    return [
        pytest.param(*(values[at] for values, at in zip(choices, combination, strict=True)),
                     marks=() if combination in chosen else pytest.mark.slow)
        for combination in everything
    ]  # fmt: skip


def some(values: Any, every: int) -> list[Any]:
    """Values of which one in so many is tested by default, the first and the last too; the others are slow."""
    values = list(values)
    kept = {*range(0, len(values), every), len(values) - 1}
    return [value if at in kept else pytest.param(value, marks=pytest.mark.slow) for at, value in enumerate(values)]
