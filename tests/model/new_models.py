"""New models whose weights are large enough that every input shows."""

import numpy as np
import pytest
import torch

from chargen.model.config import ModelConfig
from chargen.model.dropout import DropoutKey
from chargen.model.language_model import CharModel

V = 7
KINDS = [(cell, layers) for cell in ("lstm", "gru") for layers in (1, 2, 3)]
every_kind = pytest.mark.parametrize(("cell", "layers"), KINDS)
NOISE = DropoutKey(seed=5, step=9)


def new_model(cell="lstm", layers=2, *, seed=0, scale=2.5, hidden=6, **options):
    """A model whose weights are large enough that every input shows."""
    model = CharModel(ModelConfig(cell, layers, hidden, 5, **options), V, seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= scale
    return model


def some_ids(rows, length, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, V, (rows, length)))


@torch.inference_mode()
def logits_of(model, ids, state=None, masks=None):
    return model(ids, state, masks)[0]


# What does not fit is refused in the same line for every number of rows; what fits works for every number of rows.

FEW, MANY = 3, 9
"""Rows that torch's own layers read, and rows that compiled ones read."""
