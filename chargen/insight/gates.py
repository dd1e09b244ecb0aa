"""Saturated gates: how much of the time each gate of each hidden unit is nearly shut, and nearly open.

Karpathy, Johnson and Fei-Fei, "Visualizing and understanding recurrent networks", 2015, section 4.2: a gate is
left-saturated below 0.1, and right-saturated above 0.9. A hidden unit whose forget gate is right-saturated nearly
always keeps what it knows; one whose gate is left-saturated nearly always sees its input alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chargen.errors import SettingError
from chargen.insight.activations import Activations

LEFT, RIGHT = 0.1, 0.9
"""A gate below the one is shut, one above the other is open."""


@dataclass(frozen=True, eq=False)
class Saturation:
    """The share of characters at which a gate is saturated, of each hidden unit.

    Args:
        left: (L, H), below 0.1.
        right: (L, H), above 0.9.
    """

    left: NDArray[np.float64]
    right: NDArray[np.float64]

    @property
    def by_layer(self) -> list[tuple[float, float]]:
        """The shares of each layer, left and right, over all of its hidden units."""
        return list(zip(self.left.mean(1).tolist(), self.right.mean(1).tolist(), strict=True))


def gate_saturation(blocks: Activations | Iterable[Activations]) -> dict[str, Saturation]:
    """Count how often gates are saturated.

    Args:
        blocks: activations with gates, or blocks of them as `stream_activations` hands them over.

    Returns:
        By the gate's name: "input", "forget" and "output" of an LSTM, "reset" and "update" of a GRU.

    Raises:
        SettingError: there are no gates, or no characters.
    """
    counts: dict[str, NDArray[np.int64]] = {}
    total = 0
    for block in [blocks] if isinstance(blocks, Activations) else blocks:
        if not isinstance(block, Activations) or not block.gates:
            raise SettingError("needed are activations with gates: make them with `gates=True`", "gates")
        for name, values in block.gates.items():
            below, above = _count(values)
            counts[name] = counts.get(name, np.int64(0)) + np.stack([below, above])
        total += len(block.text)
    if not total:
        raise SettingError("there is no character to count gates at: give a text", "text")
    return {name: Saturation(*(both / total)) for name, both in counts.items()}


def _count(gates: NDArray[np.float16]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many of some gates (L, N, H) are below and above the limits, (L, H).

    Numbers in float16 that are not negative have the order of their bits, which are compared many times as fast.
    """
    bits = gates.view(np.uint16) & np.uint16(0x7FFF)
    left, right = np.array([LEFT, RIGHT], np.float16).view(np.uint16)
    return np.count_nonzero(bits < left, 1), np.count_nonzero(bits > right, 1)
