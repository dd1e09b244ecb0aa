"""What a run is, as its folder tells it while it goes on, after a kill and at its end: settings, figures, curves."""

import contextlib
import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.comparison.run_texts import RunText, run_texts, source_names
from chargen.data.corpus_config import CorpusConfig
from chargen.errors import ModelFileError, format_size, repr_short, truncate
from chargen.model.config import ModelConfig
from chargen.storage.model_file import FILE_NAME, ModelFile, model_path, read_model
from chargen.storage.run_state import peek_settings
from chargen.training.config import TrainConfig
from chargen.training.metrics import FILE_NAME as METRICS_NAME

MAX_METRICS = 100_000_000
"""Bytes of metrics that are read, more than any run writes."""
SETTINGS = {field.name: field.default for config in (ModelConfig, TrainConfig, CorpusConfig) for field in fields(config)
            if field.name not in ("begin_symbols", "log_every", "save_minutes")}  # fmt: skip
"""Settings that make a run what it is, with their defaults; how often it writes lines and saves does not."""


@dataclass(frozen=True, eq=False, repr=False)
class Curves:
    """What a run wrote while it trained: arrays (N,) of float64, a line of metrics each; NaN where it has no figure.

    Args:
        steps: optimizer steps so far.
        seconds: spent so far.
        characters: read so far.
        train_loss: nats per character, since the line before.
        valid_loss: nats per character; of a long validation text, on an evenly spaced part of it.
        lr: learning rate.
        grad_norm: of the gradient, before clipping.
        chars_per_second: since the line before, validation apart.
    """

    steps: NDArray[np.float64]
    seconds: NDArray[np.float64]
    characters: NDArray[np.float64]
    train_loss: NDArray[np.float64]
    valid_loss: NDArray[np.float64]
    lr: NDArray[np.float64]
    grad_norm: NDArray[np.float64]
    chars_per_second: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"Curves of {len(self.steps):,}"


@dataclass(frozen=True, eq=False, repr=False)
class RunSummary:
    """What a run reached, and how.

    Args:
        name: what it is called beside others.
        path: its folder; or its model file, where there is no folder.
        finished: whether its budget is used, and its best model scored.
        settings: what made it what it is, by name.
        texts: what it learned and was judged on: "train" and, where there is such a part, "valid" and "test".
        valid_loss: nats per character of the best model; of an unfinished run, of its best validation.
        test_loss: nats per character; None where there is none, or no end yet.
        whole: whether the whole validation text was scored.
        step: how far it trained.
        seconds: how long it trained; None where its files do not tell.
        chars_per_second: how fast, the median over its lines of metrics; None where there are none.
        parameters: of its model.
        curves: over its course.
    """

    name: str
    path: Path
    finished: bool
    settings: dict[str, Any]
    texts: dict[str, RunText]
    valid_loss: float | None
    test_loss: float | None
    whole: bool
    step: int
    seconds: float | None
    chars_per_second: float | None
    parameters: int
    curves: Curves

    def __repr__(self) -> str:
        loss = "" if self.valid_loss is None else f", valid loss {self.valid_loss:.4f} nats"
        state = ", unfinished" * (not self.finished)
        return f"RunSummary({truncate(self.name, 60, repr)}, step {self.step:,}{loss}{state})"

    def as_dict(self) -> dict[str, Any]:
        """Its settings and figures as JSON data, without the curves."""
        kept = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "curves"}
        texts = {role: text.name for role, text in self.texts.items()}
        return {**kept, "path": str(self.path), "texts": texts, "settings": settings_as_json(self.settings)}


def settings_as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write settings as JSON has them: tuples are lists.

    Args:
        settings: by name.
    """
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def read_run(path: Path, name: str) -> RunSummary:
    """Read what a run left, whether it goes on, was killed or is done. Its files may hold anything.

    Args:
        path: a run folder, or a model file.
        name: what to call it.

    Raises:
        ModelFileError: there is no model yet, or it is damaged; or its metrics cannot be read.
    """
    file = model_path(path)
    model = read_model(file)
    training, folder = model.training, file.parent if file.name == FILE_NAME else None
    lines = _read_lines(folder / METRICS_NAME) if folder else []
    last = lines[-1] if lines else {}
    finished = last.get("final") is True if lines else "valid_whole" not in training or "valid_characters" in training
    curves = _curves(lines, _count_characters(model))
    speeds = [speed for speed in curves.chars_per_second.tolist() if speed > 0]
    seconds = [value for value in (_number(last.get("seconds")), _number(training.get("seconds"))) if value >= 0]
    step = _number(last.get("step", training.get("step")))
    settings = _settings(model, peek_settings(folder) if folder else {}, finished)
    return RunSummary(
        name=name,
        path=folder or file,
        finished=finished,
        settings=settings,
        texts=run_texts(model, settings),
        valid_loss=_loss(training.get("valid_loss")),
        test_loss=_loss(training.get("test_loss")) if finished else None,
        whole=training.get("valid_whole") is True,
        step=int(step) if step >= 0 else 0,
        seconds=seconds[0] if seconds else None,
        chars_per_second=statistics.median(speeds) if speeds else None,
        parameters=model.parameters,
        curves=curves,
    )


def _settings(model: ModelFile, state: Mapping[str, Any], finished: bool) -> dict[str, Any]:
    """What makes a run what it is; of an unfinished one as its state has it, which a new budget has changed."""
    training = model.training
    settings = dict(training["settings"]) if isinstance(training.get("settings"), dict) else {}
    if not finished and isinstance(state.get("training"), dict):
        settings |= state["training"]
    settings |= asdict(model.config) | {"precision": training.get("precision", settings.get("precision"))}
    settings = {name: _plain(settings.get(name, default)) for name, default in SETTINGS.items()}
    settings |= {"train_text": source_names(training, "train"), "train_size": int(model.counts.sum())}
    for name, value in (("init_from", training.get("init")), ("own_parts", state.get("own_parts"))):
        if value:
            settings[name] = repr_short(value)
    return settings


def _plain(value: Any) -> Any:
    """A setting as a plain value: a list is a tuple, and what settings never are becomes text."""
    if isinstance(value, (list, tuple)):
        return tuple(truncate(item, 200) for item in value[:100])
    if isinstance(value, int) and value.bit_length() > 64:
        return truncate(value)
    return value if value is None or isinstance(value, (bool, int, float)) else truncate(value, 200)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics; what a kill has cut off, or is no line, is left out."""
    if not path.is_file():
        return []
    try:
        if (size := path.stat().st_size) > MAX_METRICS:
            limit = format_size(MAX_METRICS)
            raise ModelFileError(f"{path} has {format_size(size)}: a run writes no more than {limit}")
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error
    lines = []
    for text in data.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(text)
            if isinstance(line, dict) and _number(line.get("step")) >= 0:
                lines.append(line)
    return lines


def _count_characters(model: ModelFile) -> int:
    """How many characters an epoch reads: of bytes, those that begin one."""
    if not model.vocabulary.byte_mode:
        return int(model.counts.sum())
    ids = [id_ for id_ in range(len(model.counts)) if model.vocabulary.count_characters(np.array([id_]))]
    return int(model.counts[ids].sum())


def _curves(lines: list[dict[str, Any]], characters_per_epoch: int) -> Curves:
    """The lines, each of a later step; the loss in the last line of a run is not that of its step, but of its best."""
    names = ("step", "seconds", "epoch", "train_loss", "valid_loss", "lr", "grad_norm", "chars_per_second")
    rows: list[list[float]] = []
    for line in lines:
        values = [_number(line.get(name)) for name in names]
        if line.get("final") is True:
            values[names.index("valid_loss")] = math.nan
        if not len(rows) or values[0] > rows[-1][0]:
            rows.append(values)
    table = np.array(rows).reshape(-1, len(names))
    table[:, names.index("epoch")] *= characters_per_epoch
    return Curves(*table.T.copy())


def _number(value: Any) -> float:
    """A number that a file holds; NaN for what is none, or none that a run counts."""
    return float(value) if type(value) in (int, float) and abs(value) < 1e18 else math.nan


def _loss(value: Any) -> float | None:
    loss = _number(value)
    return loss if loss >= 0 else None
