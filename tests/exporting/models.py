"""Small models of every kind that is exported."""

from dataclasses import replace

import numpy as np
import torch

from chargen.storage.model_file import ModelFile, build_model
from chargen.storage.quantize import quantize
from tests.record_models import record_model
from tests.small_models import small_model

CELLS = "gru", "lstm"
KINDS = "one layer", "three layers", "tied", "folded", "bytes", "records", "records of bytes", "int8", "bf16"
FEW = [("gru", "one layer"), ("lstm", "three layers"), ("gru", "tied"), ("lstm", "records"), ("gru", "int8")]
"""Cells and kinds between which every part of an export is used once."""
LABELS = "sea", "sun"


def exported_model(cell: str, kind: str) -> ModelFile:
    """A model that reads both ways, with a cloze layer.

    Args:
        cell: "gru" or "lstm".
        kind: one of `KINDS`.
    """
    if "records" in kind:
        file = record_model(cell, unit="byte" if "bytes" in kind else "character", labels=LABELS)
        draws = np.random.default_rng(3)
        names = "cloze.output.weight", "cloze.output.bias"
        cloze = {name: draws.normal(size=file.arrays[name].shape).astype(np.float32) for name in names}
        return replace(file, arrays=file.arrays | cloze)
    layers = {"one layer": 1, "three layers": 3}.get(kind, 2)
    options = {"tie_weights": kind == "tied", "folded": "éö" * (kind == "folded")}
    unit = "byte" if kind == "bytes" else "character"
    file = small_model(cell, num_layers=layers, bidirectional=True, cloze=1.0, scale=2.0, unit=unit, **options)
    file = replace(file, begin="\n")
    return replace(file, arrays=quantize(file.arrays, kind)) if kind in ("int8", "bf16") else file


def every_id(file: ModelFile, rows: int, length: int) -> np.ndarray:
    """Random ids (rows, length) of a model, begin symbols among them."""
    return np.random.default_rng(length).integers(0, len(file.vocabulary), (rows, length))


@torch.inference_mode()
def predict_both(file: ModelFile, ids: np.ndarray) -> list[np.ndarray]:
    """The forward, backward and cloze logits (B, T - 2, V) of ids (B, T) but the first and the last."""
    network, columns = build_model(file), torch.from_numpy(ids)
    left = network.read(columns)[0][:, :-2]
    right = network.read(columns.flip(1), direction="backward")[0].flip(1)[:, 2:]
    logits = network.output(left), network.output(right), network.cloze_logits(left, right)
    return [array.numpy() for array in logits]
