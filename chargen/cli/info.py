"""`chargen info`: tell what is in a model file."""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from chargen.cli.options import PATH, GroupedCommand, option
from chargen.cli.report import describe_loss, name_label
from chargen.cli.terminal import escape_control, print_line
from chargen.data.records import KINDS
from chargen.errors import amount
from chargen.model.config import DIRECTIONS
from chargen.storage.model_file import FILE_NAME, ModelFile, model_path, read_model
from chargen.storage.quantize import quantization_of
from chargen.training.metrics import FILE_NAME as METRICS_NAME

MAX_SHOWN = 20
"""Characters and labels that are listed."""


@click.command("info", cls=GroupedCommand)
@click.argument("model", type=PATH)
@option("--json", "as_json", group="Other", is_flag=True, help="Print one JSON object.")
def command(model: Path, as_json: bool) -> None:
    """Tell what is in a model file: shape, vocabulary, what training reached. MODEL is a file, a run folder or a name.

    The date is the file's own. How long training took is told where its budget was in minutes, or in its run folder.
    """
    path = model_path(model)
    file = read_model(path)
    vocabulary, size = file.vocabulary, path.stat().st_size
    seconds = _training_seconds(path, file.training)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "path": str(path),
                    "bytes": size,
                    "written": _format_file_time(path, "%Y-%m-%dT%H:%M:%S+00:00", time.gmtime) or None,
                    "sha256": file.sha256,
                    "parameters": file.parameters,
                    "networks": len(file.networks),
                    "quantized": quantization_of(file.arrays),
                    "counts": {name: mixture.tree.describe() for name, mixture in file.mixtures.items()},
                    "config": asdict(file.config),
                    "unit": vocabulary.unit,
                    "vocabulary_size": len(vocabulary),
                    "characters": "" if vocabulary.raw else vocabulary.characters,
                    "folded": vocabulary.folded,
                    "trained_on": int(file.counts.sum()),
                    "records": _count_records(file),
                    "labels": _count_labels(file),
                    "seconds": seconds,
                    "reading": asdict(file.reading),
                    "training": file.training,
                }
            )
        )
        return
    config, training = file.config, file.training
    rows = {
        "file": f"{path}, {amount(size, 'byte')}",
        "written": _format_file_time(path, "%Y-%m-%d %H:%M", time.localtime),
        "sha256": file.sha256,
        "model": f"{amount(len(file.networks), 'network')}, "
        * bool(file.members)
        + f"{config.cell.upper()} {config.num_layers} x {config.hidden_size}, "
        f"embedding {config.input_size}{' (tied)' * config.tie_weights}, {file.parameters:,} parameters, "
        f"{'reads both ways' if config.bidirectional else 'reads forward'}"
        + (f", weights in {quantization_of(file.arrays)}" if quantization_of(file.arrays) else ""),
        "counts": _describe_counts(file),
        "writes": _describe_records(file),
        "labels": _list_labels(_count_labels(file)),
        "vocabulary": amount(len(vocabulary) - len(vocabulary.labels), vocabulary.unit)
        + (f", {len(vocabulary.folded):,} folded" if vocabulary.folded else "")
        + ", the end of a record among them" * vocabulary.records,
        "most common": "" if vocabulary.unit == "byte" else _most_common(vocabulary.characters, file.counts.tolist()),
        "trained on": amount(int(file.counts.sum()), vocabulary.unit) + _describe_sources(training),
        "reached": f"step {training.get('step')}, epoch {_format_value(training.get('epoch'), '.2f')}"
        + (f", in {_format_duration(seconds)}" if seconds is not None else "")
        + (f", with {amount(file.teachers, 'teacher')}" if file.teachers else ""),
    }
    for name, word in (("valid", "validation"), ("test", "test")):
        loss = training.get(f"{name}_loss")
        if isinstance(loss, float):
            share = "the whole" if training.get(f"{name}_whole") else "a part of the"
            rows[f"{name} loss"] = f"{describe_loss(training, name)}, on {share} {word} text"
            rows[f"{name} loss"] += _describe_directions(training, name)
            if file.mixtures and isinstance(alone := training.get(f"{name}_loss_network"), float):
                rows[f"{name} loss"] += f"; {alone:.4f} nats without counts"
    settings = training.get("settings")
    if isinstance(settings, dict):
        rows["settings"] = ", ".join(
            f"{name} {_format_value(value)}" for name, value in settings.items() if value is not None
        )
    for name, value in rows.items():
        if value:
            print_line(f"{name:12} {escape_control(str(value), newlines=True)}")


def _format_file_time(path: Path, form: str, clock: Callable[[float], time.struct_time]) -> str:
    """Format when the file was last written; empty for a date that no calendar has."""
    try:
        return time.strftime(form, clock(path.stat().st_mtime))
    except (OverflowError, ValueError, OSError):
        return ""


def _training_seconds(path: Path, training: dict[str, Any]) -> float | None:
    """Read how long training took, from the model file or else its run's metrics. Either may hold any value."""
    value = training.get("seconds")
    metrics = path.with_name(METRICS_NAME)
    if value is None and path.name == FILE_NAME and metrics.is_file():
        with contextlib.suppress(OSError, ValueError, RecursionError, IndexError, AttributeError):
            with open(metrics, "rb") as file:
                file.seek(max(0, metrics.stat().st_size - 10_000))
                value = json.loads(file.read().splitlines()[-1]).get("seconds")
    return float(value) if isinstance(value, (int, float)) and 0 <= value < 1e12 else None


def _format_duration(duration: float) -> str:
    minutes, seconds = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _describe_sources(training: dict[str, Any]) -> str:
    """Name the texts, where the model file does."""
    sources = training.get("sources")
    description = ""
    for role, word in (("train", " of "), ("valid", ", validated on "), ("test", ", tested on ")):
        names = sources.get(role) if isinstance(sources, dict) else None
        description += word + ", ".join(map(str, names)) if isinstance(names, list) else ""
    return description


def _format_value(value: Any, form: str = ".6g") -> str:
    """Format a setting or a figure for a person."""
    return f"{value:{form}}" if isinstance(value, float) else str(value)


def _describe_directions(training: dict[str, Any], name: str) -> str:
    """Describe the losses of both directions, of which the loss is the mean, where the model reads both ways."""
    losses = [training.get(f"{name}_loss_{direction}") for direction in DIRECTIONS]
    if not all(isinstance(loss, float) for loss in losses):
        return ""
    return f" (the mean of forward {losses[0]:.4f} and backward {losses[1]:.4f})"


def _most_common(characters: str, counts: list[int]) -> str:
    """List the most common characters."""
    ranked = sorted(zip(counts, characters, strict=False), key=lambda pair: (-pair[0], pair[1]))
    shown = (character for _, character in ranked[:MAX_SHOWN])
    return " ".join("space" if each == " " else repr(each)[1:-1] if each.isspace() else each for each in shown)


def _count_records(file: ModelFile) -> int | None:
    """How many records a model learned; None where it writes running text."""
    return None if file.vocabulary.end_id is None else int(file.counts[file.vocabulary.end_id :].sum())


def _count_labels(file: ModelFile) -> dict[str, int]:
    """How many records of each label a model learned."""
    labels = file.vocabulary.labels
    return dict(zip(labels, file.counts[len(file.counts) - len(labels) :].tolist(), strict=True))


def _describe_counts(file: ModelFile) -> str:
    """Say what is counted beside the network."""
    trees = {direction: mixture.tree for direction, mixture in file.mixtures.items()}
    return "; ".join(
        f"{direction * (len(trees) > 1)} of order {tree.order}: {amount(len(tree.labels), 'context')}, "
        f"{amount(len(tree.ids), 'prediction')}, {amount(tree.nbytes, 'byte')}".strip()
        for direction, tree in trees.items()
    )


def _describe_records(file: ModelFile) -> str:
    """Say that a model writes records, and what they are."""
    count, kind = _count_records(file), file.reading.records
    what = kind if kind in KINDS else f"with {kind!r} between them"
    return "" if count is None else f"records ({what}), of which it learned {count:,}"


def _list_labels(counts: dict[str, int]) -> str:
    """List the most frequent labels."""
    ranked = sorted(counts, key=lambda label: -counts[label])
    more = f" and {len(ranked) - MAX_SHOWN:,} more" if len(ranked) > MAX_SHOWN else ""
    return ", ".join(f"{name_label(label)} {counts[label]:,}" for label in ranked[:MAX_SHOWN]) + more
