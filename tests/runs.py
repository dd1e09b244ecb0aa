"""Small runs of training, and whether two of them are the same."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from chargen.data.corpus import Corpus
from chargen.model.config import ModelConfig, parameter_shapes
from chargen.storage.model_file import FILE_NAME, read_model
from chargen.storage.run_state import RunState, read_run_state
from chargen.training.config import TrainConfig
from chargen.training.trainer import Trainer

CLOCKS = {"seconds", "chars_per_second"}
COUNTER_CLOCKS = {"seconds", "network_seconds", "since_seconds", "eval_seconds", "evaluated", "metrics_bytes"}
TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 30


def model(cell: str = "lstm", num_layers: int = 2, **settings: Any) -> ModelConfig:
    return ModelConfig(
        cell=cell, num_layers=num_layers, hidden_size=12, embedding_size=6, **{"dropout": 0.2, **settings}
    )


def config(**settings: Any) -> TrainConfig:
    chosen = {
        "steps": 24, "batch_size": 3, "seq_length": 7, "lr": 0.02, "warmup": 3, "eval_every": 4, "log_every": 3,
        "patience": 50, "precision": "fp32", "weight_decay": 0.01,
    }  # fmt: skip
    return TrainConfig(**{**chosen, **settings})


def two_ways(cell: str = "lstm", num_layers: int = 2, **settings: Any) -> ModelConfig:
    return model(cell, num_layers, **{"bidirectional": True, **settings})


def long_rows(**settings: Any) -> TrainConfig:
    """Wide enough for the cloze layer to learn within a few steps, at some and not at others."""
    return config(**{"batch_size": 4, "seq_length": 32, **settings})


def corpus() -> Corpus:
    return Corpus.from_text(TEXT)


def run_until(trainer: Trainer, step: int) -> None:
    """Leave the run right after `step`, as a signal would, and save."""
    for progress in trainer.run():
        if progress.step == step and progress.doing == "training":
            break
    trainer.save()


def metrics(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in found]


def assert_same_runs(first: Path, second: Path) -> None:
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert metrics(first) == metrics(second)
    one, two = read_run_state(first), read_run_state(second)
    assert one.arrays.keys() == two.arrays.keys()
    assert all(one.arrays[name].tobytes() == two.arrays[name].tobytes() for name in one.arrays)
    assert {k: v for k, v in one.progress.items() if k not in COUNTER_CLOCKS} == {
        k: v for k, v in two.progress.items() if k not in COUNTER_CLOCKS
    }


def whole(folder: Path, model_config: ModelConfig, train: TrainConfig) -> Path:
    for _ in Trainer(corpus(), model_config, train, folder).run():
        pass
    return folder


def check_whole(folder: Path) -> int:
    """The step of a run that can be read; of the model too, which is none of a later time."""
    state = read_run_state(folder)
    if (folder / FILE_NAME).exists():
        best = state.progress["best_step"]
        assert read_model(folder).training["step"] >= (0 if best is None else best)
    else:
        assert state.progress["step"] == 0
    return int(state.progress["step"])


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def bare_state(shape: ModelConfig, best: bool = True, hidden: bool = True) -> RunState:
    """A state that no run has written: whatever its parts must be, and nothing else."""
    parts = ["weights", "first", "second"] + ["best"] * best
    shapes = {f"{part}.{name}": size for part in parts for name, size in parameter_shapes(shape, 5).items()}
    if hidden:
        carried = ["hidden", "hidden_backward"] if shape.bidirectional else ["hidden"]
        rows = (3, shape.hidden_size * {"lstm": 2, "gru": 1}[shape.cell])
        shapes |= {f"{name}.{layer}": rows for name in carried for layer in range(shape.num_layers)}
    draws = np.random.default_rng(0)
    arrays = {name: draws.standard_normal(size).astype(np.float32) for name, size in shapes.items()}
    settings = {"model": asdict(shape), "vocabulary_size": 5, "corpus": {}, "training": {"batch_size": 3}}
    progress = {"best_step": 0 if best else None, "hidden": hidden, "network": 0, "note": "anything"}
    return RunState(arrays, progress, {**settings, "machine": {}})
