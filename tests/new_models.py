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
    """A model whose weights are large enough that every input shows, the cloze layer's last ones too."""
    model = CharModel(ModelConfig(cell, layers, hidden, 5, **options), V, seed)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= scale
        for weight in (model.cloze.output.weight, model.cloze.output.bias) if model.config.bidirectional else ():
            weight.copy_(torch.randn(weight.shape, generator=draws))
    return model


def new_two_way_model(*kind, **options):
    """A new model that reads both ways."""
    return new_model(*kind, **{"bidirectional": True, **options})


def some_ids(rows, length, seed=0):
    """Ids (rows, length) of such a model."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, V, (rows, length)))


@torch.inference_mode()
def logits_of(model, ids, state=None, masks=None):
    """Logits of the forward stack, without gradients."""
    return model(ids, state, masks)[0]


FEW, MANY = 3, 9
"""Rows that torch's own layers read, and rows that compiled ones read."""
