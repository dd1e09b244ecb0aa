"""The cloze layer in NumPy: what stands between two contexts, one of each stack."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.sampling.stepper import Arrays
from chargen.storage.quantize import as_float32


class NumpyCloze:
    """As `chargen.model.cloze`: logits are forward + backward + O tanh(A left + B right + b) + c.

    Args:
        arrays: a bidirectional model's weights by name.
    """

    def __init__(self, arrays: Arrays) -> None:
        self.left, self.right, self.right_bias, self.output, self.bias = (
            as_float32(arrays, f"cloze.{name}")
            for name in ("left.weight", "right.weight", "right.bias", "output.weight", "output.bias")
        )

    def logits(
        self, left: NDArray[Any], right: NDArray[Any], forward: NDArray[Any], backward: NDArray[Any]
    ) -> NDArray[Any]:
        """Logits (R, M, V) for every pair of R left and M right contexts.

        Args:
            left, forward: the forward stack's outputs (R, H) and logits (R, V) after the character before.
            right, backward: the backward stack's (M, H) and (M, V) after the character behind.
        """
        mixed = (left @ self.left.T)[:, None] + (right @ self.right.T + self.right_bias)
        logits: NDArray[Any] = np.tanh(mixed) @ self.output.T + self.bias + forward[:, None] + backward
        return logits
