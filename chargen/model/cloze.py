"""Which character stands between two contexts: a small layer on the outputs of two stacks that never mix."""

from typing import cast

import torch
from torch import Tensor, nn

from chargen.model.config import ModelConfig


class Cloze(nn.Module):
    """A layer that corrects the product of the two one-way predictions.

    Logits are forward + backward + O tanh(A left + B right + b) + c, with D hidden units. Without the correction they
    would take the two contexts as independent given the character; O starts at zero.

    Args:
        config: the model's shape.
        vocabulary_size: V.
    """

    def __init__(self, config: ModelConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.left = nn.Linear(config.hidden_size, config.cloze_size, bias=False)
        self.right = nn.Linear(config.hidden_size, config.cloze_size)
        self.output = nn.Linear(config.cloze_size, vocabulary_size)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, left: Tensor, right: Tensor, one_way: Tensor) -> Tensor:
        """Predict the character between two contexts.

        Args:
            left: the forward stack's output (..., H) after the character before.
            right: the backward stack's output (..., H) after the character behind.
            one_way: the sum of the forward and the backward logits (..., V).

        Returns:
            Logits (..., V).
        """
        return cast(Tensor, one_way + self.output(self.hidden(left, right)))

    def hidden(self, left: Tensor, right: Tensor) -> Tensor:
        """The activations (..., D) of the hidden units.

        Args:
            left: the forward stack's output (..., H) after the character before.
            right: the backward stack's output (..., H) after the character behind.
        """
        return torch.tanh(self.left(left) + self.right(right))
