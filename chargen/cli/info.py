"""`chargen info`: tell what is in a model file."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from chargen.cli.options import GroupedCommand, option
from chargen.cli.terminal import visible
from chargen.model.config import DIRECTIONS, parameter_count
from chargen.storage.model_file import model_path, read_model
from chargen.storage.quantize import kind_of


@click.command("info", cls=GroupedCommand, short_help="Tell what is in a model file.")
@click.argument("model", type=click.Path(path_type=Path))
@option("--json", "as_json", group="Other", is_flag=True, help="Print one JSON object.")
def command(model: Path, as_json: bool) -> None:
    """Tell what is in a model file: shape, vocabulary, what training reached. MODEL is a file or a run folder."""
    path = model_path(model)
    file = read_model(path)
    vocabulary, size = file.vocabulary, path.stat().st_size
    parameters = parameter_count(file.config, len(vocabulary))
    if as_json:
        click.echo(
            json.dumps(
                {
                    "path": str(path),
                    "bytes": size,
                    "sha256": file.sha256,
                    "parameters": parameters,
                    "quantized": kind_of(file.arrays),
                    "config": asdict(file.config),
                    "unit": vocabulary.unit,
                    "vocabulary_size": len(vocabulary),
                    "characters": "" if vocabulary.raw else vocabulary.characters,
                    "folded": vocabulary.folded,
                    "trained_on": int(file.counts.sum()),
                    "reading": asdict(file.reading),
                    "training": file.training,
                }
            )
        )
        return
    config, training = file.config, file.training
    unit = f"{vocabulary.unit}s"
    rows = {
        "file": f"{path}, {size:,} bytes",
        "sha256": file.sha256,
        "model": f"{config.cell.upper()} {config.num_layers} x {config.hidden_size}, "
        f"embedding {config.input_size}{' (tied)' * config.tie_weights}, {parameters:,} parameters, "
        f"{'reads both ways' if config.bidirectional else 'reads forward'}"
        + (f", weights in {kind_of(file.arrays)}" if kind_of(file.arrays) else ""),
        "vocabulary": f"{len(vocabulary):,} {unit}"
        + (f", {len(vocabulary.folded):,} folded" if vocabulary.folded else ""),
        "most common": "" if vocabulary.unit == "byte" else _most_common(vocabulary.characters, file.counts.tolist()),
        "trained on": f"{int(file.counts.sum()):,} {unit}",
        "reached": f"step {training.get('step')}, epoch {training.get('epoch')}",
    }
    for name in ("valid", "test"):
        loss = training.get(f"{name}_loss")
        if isinstance(loss, float):
            whole = "the whole" if training.get(f"{name}_whole") else "a part of the"
            rows[f"{name} loss"] = (
                f"{loss:.4f} nats, {loss / math.log(2):.4f} bits per character, on {whole} {name} text"
            ) + _by_direction(training, name)
    settings = training.get("settings")
    if isinstance(settings, dict):
        rows["settings"] = ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
    for name, value in rows.items():
        if value:
            click.echo(f"{name:12} {visible(str(value), newlines=True)}")


def _by_direction(training: dict[str, Any], name: str) -> str:
    """Of which losses the mean was taken, where the model reads both ways."""
    parts = [training.get(f"{name}_loss_{direction}") for direction in DIRECTIONS]
    if not all(isinstance(part, float) for part in parts):
        return ""
    return f" (the mean of forward {parts[0]:.4f} and backward {parts[1]:.4f})"


def _most_common(characters: str, counts: list[int]) -> str:
    """The twenty most common characters."""
    ranked = sorted(zip(counts, characters, strict=False), key=lambda pair: (-pair[0], pair[1]))
    return " ".join(repr(character)[1:-1] if character.isspace() else character for _, character in ranked[:20])
