"""`chargen eval`: score a text with a model."""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from chargen.cli.options import GroupedCommand, option
from chargen.cli.terminal import visible
from chargen.errors import SettingError
from chargen.model.config import DIRECTIONS, need_two_ways
from chargen.storage.model_file import ModelFile, build_model, read_model
from chargen.text.cache import ROLES
from chargen.text.corpus import CorpusConfig, split
from chargen.text.reading import ReadingConfig, ReadingReport, find_sources, read_text


@click.command("eval", cls=GroupedCommand, short_help="Score a text with a model.")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@option("--part", group="Text", type=click.Choice(["all", *ROLES]), default="all", show_default=True,
        help="Score only this part, cut as in the training of MODEL.")  # fmt: skip
@option("--direction", group="Text", type=click.Choice(DIRECTIONS), default="forward", show_default=True,
        help="backward reads from the end; for a model trained with --bidirectional.")  # fmt: skip
@option("--encoding", group="Text", metavar="TEXT", help="Encoding of the text.  [default: as in training]")
@option("--errors", group="Text", type=click.Choice(["strict", "replace"]), default="strict", show_default=True,
        help="What to do with bytes that do not fit the encoding.")  # fmt: skip
@option("--unknown", group="Text", type=click.Choice(["error", "skip"]), default="error", show_default=True,
        help="What to do with unknown characters, where the model has no symbol for them.")  # fmt: skip
@option("--precision", group="Machine", type=click.Choice(["fp32", "bf16", "auto"]), default="fp32", show_default=True,
        help="Of matrix products.")  # fmt: skip
@option("--device", group="Machine", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto",
        show_default=True, help="Where to compute.")  # fmt: skip
@option("--json", "as_json", group="Other", is_flag=True, help="Print one JSON object.")
def command(
    model: Path,
    sources: tuple[str, ...],
    part: str,
    direction: str,
    encoding: str | None,
    errors: str,
    unknown: str,
    precision: str,
    device: str,
    as_json: bool,
) -> None:
    """Score a text with a model: nats and bits per character, bits per byte, perplexity.

    The whole text is scored with carried state, every character once. The first one (read backward, the last) has
    nothing before it: it is context and is not counted. The model does not adapt to the text.
    """
    file = read_model(model)
    if direction == "backward":
        need_two_ways(file.config, "--direction backward")
    reading = ReadingConfig(encoding or file.reading.encoding, errors, file.reading.newline, file.reading.normalize)
    found, _ = find_sources(sources)
    report = ReadingReport()
    text = _part("".join(read_text(found, reading, report=report)), part, file)
    from chargen.model.device import pick_device, pick_precision
    from chargen.training.evaluate import evaluate

    place = pick_device(device)
    chosen = pick_precision(precision, place)
    loaded = build_model(file, str(place))
    result = evaluate(loaded, file.vocabulary, text, unknown=unknown, precision=chosen, direction=direction)
    figures: dict[str, Any] = {
        "nats_per_character": result.nats_per_character,
        "bits_per_character": result.bits_per_character,
        "bits_per_byte": result.bits_per_byte,
        "perplexity": result.perplexity,
        "nats": result.nats,
        "characters": result.characters,
        "bytes": result.bytes,
        "folded": result.folded,
        "unseen": result.unseen,
        "skipped": result.skipped,
        "replaced": report.replaced,
        "part": part,
        "direction": direction,
        "precision": chosen,
        "device": place.type,
    }
    if as_json:
        click.echo(json.dumps(figures))
        return
    click.echo(f"{result.nats_per_character:.4f} nats per character")
    click.echo(f"{result.bits_per_character:.4f} bits per character")
    click.echo(f"{result.bits_per_byte:.4f} bits per byte")
    click.echo(f"{result.perplexity:.4f} perplexity")
    name = visible(" ".join(sources), newlines=True)
    click.echo(
        f"{name} ({part}): {result.characters:,} characters counted, {result.bytes:,} bytes; the "
        f"{'last' if direction == 'backward' else 'first'} character is context; {direction}, {chosen} on {place.type}",
        err=True,
    )
    for count, words in (
        (result.folded, "rare characters, each charged for its place among those the unknown symbol stands for"),
        (result.unseen, "characters never seen in training, each charged for its place among all code points"),
        (result.skipped, "unknown characters left out"),
        (report.replaced, "bytes that did not fit the encoding and became U+FFFD"),
    ):
        if count:
            click.echo(f"note: {count:,} {words}", err=True)


def _part(text: str, part: str, file: ModelFile) -> str:
    """The part of a text that training called so."""
    if part == "all":
        return text
    settings = file.training.get("settings", {})
    if not isinstance(settings, dict) or not {"valid_fraction", "test_fraction"} <= settings.keys():
        raise SettingError("this model does not say how its text was cut: score a text of its own with --part all")
    if part != "train" and not settings[f"{part}_fraction"]:
        raise SettingError(f"no {part} part was cut from the text of this model: score a text with --part all")
    config = CorpusConfig(valid_fraction=settings["valid_fraction"], test_fraction=settings["test_fraction"])
    if file.vocabulary.byte_mode:
        ids = split(file.vocabulary.encode(text), config, True)[ROLES.index(part)]
        return file.vocabulary.decode(ids)
    places = split(np.arange(len(text)), config, False)[ROLES.index(part)]
    return text[places[0] : places[-1] + 1] if len(places) else ""
