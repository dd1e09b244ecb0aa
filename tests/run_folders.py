"""Run folders as training leaves them, without any training."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from chargen.data.corpus_config import CorpusConfig
from chargen.storage.model_file import FILE_NAME, ModelFile, save_model
from chargen.training.config import TrainConfig
from chargen.training.metrics import FILE_NAME as METRICS_NAME
from tests.small_models import small_model

SETTINGS = {"steps": 40, "lr": 0.01, "batch_size": 4, "seq_length": 8, "seed": 0, "valid_fraction": 0.1}


def summary(loss: float | None = 2.0, **changes: Any) -> dict[str, Any]:
    """What a model file says of a finished training; settings among the changes."""
    known = {field.name for config in (TrainConfig, CorpusConfig) for field in fields(config)}
    settings = {**SETTINGS, **{name: changes.pop(name) for name in [*changes] if name in known}}
    figures = {} if loss is None else {"valid_loss": loss, "valid_characters": 100, "valid_whole": True}
    reached = {"step": settings["steps"], "epoch": 1.0, "sources": {"train": ["novel.txt"]}, "settings": settings}
    return {**reached, **figures, **changes}


def curve(steps: int = 40, last: float = 2.0, every: int = 4) -> list[dict[str, Any]]:
    """Lines of metrics of a run whose losses fall."""
    return [
        {"step": step, "epoch": step / steps, "seconds": step / 10, "train_loss": last + 2 / step,
         "valid_loss": last + 3 / step if step % (2 * every) == 0 else None, "lr": 0.01 * (1 - step / steps),
         "grad_norm": 1.0 + 1 / step, "chars_per_second": 1000.0 + step}
        for step in range(every, steps + 1, every)
    ]  # fmt: skip


def final_line(last: float | None = 2.0, step: int = 40, test: float | None = None) -> dict[str, Any]:
    """The last line of a finished run."""
    line = {"step": step, "epoch": 1.0, "seconds": step / 10 + 0.5, "train_loss": None, "valid_loss": last, "lr": 0.0,
            "grad_norm": 1.0, "chars_per_second": 0.0}  # fmt: skip
    return {**line, **({} if test is None else {"test_loss": test}), "final": True}


def write_run(
    folder: Path, loss: float | None = 2.0, *, file: ModelFile | None = None, finished: bool = True, **changes: Any
) -> Path:
    """Write a run folder; `changes` are those of `summary`."""
    training = summary(loss, **changes)
    if not finished:
        del training["valid_characters"]
        training["valid_whole"] = False
    save_model(folder / FILE_NAME, replace(file or model(), training=training))
    lines = curve(last=loss or 2.0) + ([final_line(loss)] if finished else [])
    (folder / METRICS_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


_models: dict[str, ModelFile] = {}


def model(cell: str = "gru", counts: list[int] | None = None) -> ModelFile:
    """A small model, made once, that learned a text of such counts of characters."""
    file = _models.setdefault(cell, small_model(cell, num_layers=1, hidden_size=4))
    return file if counts is None else replace(file, counts=np.array(counts, np.int64))
