"""A model's weights as named NumPy arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from chargen.arguments import Arrays as Arrays
from chargen.errors import ArgumentError


def weights_of(model: nn.Module) -> Arrays:
    """Copy a model's weights to float32 arrays by name.

    Args:
        model: the model.

    Raises:
        ArgumentError: the model is on the device meta, where it has no weights.
    """
    if any(weight.is_meta for weight in model.parameters()):
        raise ArgumentError("the model is on meta: it has no weights to copy; make it on another device")
    return {name: weight.detach().cpu().float().numpy().copy() for name, weight in model.named_parameters()}


def set_weights(model: nn.Module, weights: Mapping[str, NDArray[Any]]) -> None:
    """Copy weights into a model.

    Args:
        model: the model.
        weights: an array for each parameter, by name; they may be read-only.
    """
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.from_numpy(np.array(weights[name])))
