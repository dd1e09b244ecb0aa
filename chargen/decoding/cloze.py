"""The cloze layer in NumPy: what stands between two contexts, one of each stack."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import checked
from chargen.storage.quantize import as_float32
from chargen.storage.weight_checks import Arrays, as_weight


class NumpyCloze:
    """As `chargen.model.cloze`: logits are forward + backward + O tanh(A left + B right + b) + c.

    Args:
        arrays: a bidirectional model's weights by name.

    Raises ArgumentError where there are none such.
    """

    def __init__(self, arrays: Arrays) -> None:
        size = len(as_weight(arrays, "cloze.output.bias", (None,)))
        inner, hidden = as_weight(arrays, "cloze.left.weight", (None, None)).shape
        shapes = {
            "left.weight": (inner, hidden), "right.weight": (inner, hidden), "right.bias": (inner,),
            "output.weight": (size, inner), "output.bias": (size,),
        }  # fmt: skip
        for name, shape in shapes.items():
            as_weight(arrays, f"cloze.{name}", shape)
        self.left, self.right, self.right_bias, self.output, self.bias = (
            as_float32(arrays, f"cloze.{name}") for name in shapes
        )

    def logits(
        self, left: NDArray[Any], right: NDArray[Any], forward: NDArray[Any], backward: NDArray[Any]
    ) -> NDArray[Any]:
        """Logits (R, M, V) for every pair of R left and M right contexts.

        Args:
            left, forward: the forward stack's outputs (R, H) and logits (R, V) after the character before.
            right, backward: the backward stack's (M, H) and (M, V) after the character behind.

        Raises ArgumentError where they do not fit.
        """
        size, hidden = len(self.bias), self.left.shape[1]
        left, right = (checked("outputs", each, (None, hidden), np.float32) for each in (left, right))
        forward = checked("forward logits", forward, (len(left), size), np.float32)
        backward = checked("backward logits", backward, (len(right), size), np.float32)
        mixed = (left @ self.left.T)[:, None] + (right @ self.right.T + self.right_bias)
        logits: NDArray[Any] = np.tanh(mixed) @ self.output.T + self.bias + forward[:, None] + backward
        return logits
