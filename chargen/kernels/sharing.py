"""How threads share out a recurrent layer: the rule, and what it takes each of them to be done."""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from chargen.kernels.amx import SIDE
from chargen.kernels.cpu_features import amx, bf16_pairs
from chargen.kernels.matmul_blocks import ROWS_AT_LAST
from chargen.kernels.threads import halves, start_time


class Sharing(NamedTuple):
    """How threads share out a layer: teams get rows, and the members of a team hidden units of these rows.

    Args:
        teams: how many.
        members: of each team; several wait for each other at every character.
    """

    teams: int
    members: int

    @property
    def threads(self) -> int:
        """How many threads compute."""
        return self.teams * self.members


class Work(NamedTuple):
    """A pass of a layer over a window.

    Args:
        rows: B.
        blocks: of 32 hidden units.
        gates: of the cell.
        time_steps: T.
    """

    rows: int
    blocks: int
    gates: int
    time_steps: int


class Costs(NamedTuple):
    """What a core takes, in microseconds.

    Args:
        product: of 32 rows of a block of the state and a block of weights.
        weights: to read a block of weights.
        formulas: of a gate of 32 hidden units of a row, and of all that is read and written for it.
        rows_at_once: rows that are multiplied together, zeros where there are fewer.
    """

    product: float
    weights: float
    formulas: float
    rows_at_once: int


TILES, PAIRS = Costs(0.155, 0.045, 0.036, SIDE), Costs(0.25, 0.05, 0.029, 16)
VECTORS = Costs(0.53, 0.09, 0.029, ROWS_AT_LAST)
"""In bf16 with AMX, on a busy host; in bf16 with AVX-512; in float32 with AVX-512."""
BARRIER = 0.2
"""Microseconds of a barrier for each thread but the first."""
SWITCH = 85.0
"""Microseconds that a barrier takes besides where there are fewer cores than threads, which then go on by turns."""


def costs_of(dtype: "np.dtype[np.generic]") -> Costs:
    """What a core of this machine takes.

    Args:
        dtype: of the factors: float32, or uint16 for bits of bf16.
    """
    if dtype == np.float32:
        return VECTORS
    return TILES if amx() else PAIRS if bf16_pairs() else VECTORS


def microseconds(sharing: Sharing, work: Work, costs: Costs, cores: int) -> float:
    """Predict what a pass takes, forward or backward, on cores that nothing else uses.

    Args:
        sharing: how threads share it out.
        work: the pass.
        costs: of a core.
        cores: that there are.
    """
    rows, blocks = -(-work.rows // sharing.teams), -(-work.blocks // sharing.members)
    multiplied = -(-rows // costs.rows_at_once) * costs.rows_at_once / SIDE
    factors = work.gates * blocks * work.blocks
    step = factors * (multiplied * costs.product + -(-rows // SIDE) * costs.weights)
    step += work.gates * blocks * rows * costs.formulas
    turns = -(-sharing.threads // cores)
    step = turns * step + (sharing.members - 1) * BARRIER + (turns > 1 and sharing.members > 1) * SWITCH
    return start_time(sharing.threads) + work.time_steps * step


@cache
def fastest(work: Work, costs: Costs, num_threads: int, cores: int) -> Sharing:
    """The sharing that is predicted to be the fastest; among equals that with the fewest threads.

    Args:
        work: the pass.
        costs: of a core.
        num_threads: that may be used. They need not all be: more are never predicted to be slower than fewer.
        cores: that there are.
    """
    choices = _sharings(work, costs, num_threads)
    return min(choices, key=lambda choice: (microseconds(choice, work, costs, cores), choice.threads, choice.members))


def _sharings(work: Work, costs: Costs, num_threads: int) -> Iterator[Sharing]:
    for members in range(1, min(num_threads, work.blocks) + 1):
        for teams in range(1, min(num_threads // members, -(-work.rows // costs.rows_at_once)) + 1):
            yield Sharing(teams, members)


@cache
def ways(work: Work, costs: Costs, num_threads: int, cores: int) -> tuple[Sharing, ...]:
    """The sharings that timing chooses from, for no bit depends on them; first the one that is predicted to be fastest.

    On cores that other programs use, fewer threads may be faster, and threads that do not wait for each other.

    Args:
        work: the pass.
        costs: of a core.
        num_threads: that may be used.
        cores: that there are.
    """
    fewer = [fastest(work, costs, number, cores) for number in halves(num_threads)]
    alone = min(
        (choice for choice in _sharings(work, costs, num_threads) if choice.members == 1),
        key=lambda choice: microseconds(choice, work, costs, cores),
    )
    return tuple(dict.fromkeys([*fewer, alone]))
