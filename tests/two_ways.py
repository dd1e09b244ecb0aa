"""Small models and runs that read both ways."""

from itertools import product

import numpy as np
import pytest
import torch

from chargen.data.corpus import Corpus
from chargen.model.config import ModelConfig
from chargen.model.language_model import CharModel
from chargen.training.config import TrainConfig

V = 7
KINDS = list(product(("lstm", "gru"), (1, 2, 3)))
every_kind = pytest.mark.parametrize(("cell", "layers"), KINDS)
TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 12
SMALL = ModelConfig(num_layers=2, hidden_size=10, embedding_size=6, dropout=0.2, bidirectional=True)


def new_model(cell="lstm", layers=2, *, seed=0, hidden=6, scale=2.5, **options):
    """A model in two ways whose weights are large enough that every input shows, the cloze layer's last ones too."""
    model = CharModel(ModelConfig(cell, layers, hidden, 5, **{"bidirectional": True, **options}), V, seed)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= scale
        for weight in (model.cloze.output.weight, model.cloze.output.bias):
            weight.copy_(torch.randn(weight.shape, generator=draws))
    return model


def some_ids(rows, length, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, V, (rows, length)))


def config(**chosen):
    """Wide enough for the cloze layer to learn within a few steps, at some and not at others."""
    usual = {"steps": 12, "batch_size": 4, "seq_length": 32, "lr": 0.01, "warmup": 2, "precision": "fp32",
             "eval_every": 5, "log_every": 4}  # fmt: skip
    return TrainConfig(**{**usual, **chosen})


def corpus(text=TEXT, **chosen):
    return Corpus.from_text(text, **chosen)


def finish(trainer):
    for _ in trainer.run():
        pass
    return trainer


def weights_of(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}
