"""The cloze layer in NumPy: which character stands between two contexts, one of each stack."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import Arrays, check_array
from chargen.storage.quantize import as_float32
from chargen.storage.weight_checks import as_weight


class NumpyCloze:
    """The model's cloze layer: logits are forward + backward + O tanh(A left + B right + b) + c.

    Args:
        arrays: a bidirectional model's weights by name.

    Raises:
        ArgumentError: the weights of the layer are missing, or of other shapes.
    """

    def __init__(self, arrays: Arrays) -> None:
        size = len(as_weight(arrays, "cloze.output.bias", (None,)))
        cloze_size, hidden_size = as_weight(arrays, "cloze.left.weight", (None, None)).shape
        shapes = {
            "left.weight": (cloze_size, hidden_size), "right.weight": (cloze_size, hidden_size),
            "right.bias": (cloze_size,), "output.weight": (size, cloze_size), "output.bias": (size,),
        }  # fmt: skip
        for name, shape in shapes.items():
            as_weight(arrays, f"cloze.{name}", shape)
        self.left, self.right, self.right_bias, self.output, self.bias = (
            as_float32(arrays, f"cloze.{name}") for name in shapes
        )

    def logits(
        self, left: NDArray[Any], right: NDArray[Any], forward: NDArray[Any], backward: NDArray[Any]
    ) -> NDArray[Any]:
        """Compute the logits for every pair of a left and a right context.

        Args:
            left: the forward stack's outputs (R, H) after the character before.
            right: the backward stack's outputs (M, H) after the character behind.
            forward: the forward stack's logits (R, V) after the character before.
            backward: the backward stack's logits (M, V) after the character behind.

        Returns:
            Logits (R, M, V).

        Raises:
            ArgumentError: a shape or a type does not fit.
        """
        size, hidden_size = len(self.bias), self.left.shape[1]
        left, right = (check_array("outputs", outputs, (None, hidden_size), np.float32) for outputs in (left, right))
        forward = check_array("forward logits", forward, (len(left), size), np.float32)
        backward = check_array("backward logits", backward, (len(right), size), np.float32)
        hidden = (left @ self.left.T)[:, None] + (right @ self.right.T + self.right_bias)
        return self._correct(hidden, forward[:, None] + backward)

    def pair_logits(
        self, left: NDArray[Any], right: NDArray[Any], forward: NDArray[Any], backward: NDArray[Any]
    ) -> NDArray[Any]:
        """Compute the logits for pairs of a left and a right context.

        Args:
            left: the forward stack's outputs (N, H) after the character before.
            right: the backward stack's outputs (N, H) after the character behind.
            forward: the forward stack's logits (N, V) after the character before.
            backward: the backward stack's logits (N, V) after the character behind.

        Returns:
            Logits (N, V).
        """
        return self._correct(left @ self.left.T + right @ self.right.T + self.right_bias, forward + backward)

    def _correct(self, hidden: NDArray[Any], one_way: NDArray[Any]) -> NDArray[Any]:
        """The logits (..., V), from sums of hidden units (..., D) and those of both directions (..., V)."""
        logits: NDArray[Any] = np.tanh(hidden) @ self.output.T + self.bias + one_way
        return logits
