"""`chargen inspect`: look inside a model while it reads a text."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chargen.api.activations import stream_activations
from chargen.api.inspect import inspect as inspect_text
from chargen.api.judge import PRECISIONS
from chargen.cli.bars import TaskBar
from chargen.cli.options import PATH, GroupedCommand, option, refuse_unused
from chargen.cli.terminal import escape_control, log, print_line, quote_path
from chargen.cli.texts import log_text_report, text_options
from chargen.cli.threads_option import threads_option
from chargen.cli.value_text import ValueWriter
from chargen.data.code_points import END_MARK
from chargen.errors import DataError, SettingError, amount, format_size, repr_short
from chargen.insight.activations import check_neuron
from chargen.storage.model_file import ModelFile, read_model

if TYPE_CHECKING:
    from chargen.insight.inspection import Inspection

SHOWN_NEURONS = 8
"""Hidden units that a summary tells of; a page tells of all that were ranked."""


@click.command("inspect", cls=GroupedCommand)
@click.argument("model", type=PATH)
@click.argument("text", metavar="TEXT")
@option("--out", group="Output", type=PATH, help="Write the page to this file, which needs nothing beside it.")
@option("--neuron", group="Output", metavar="LAYER:UNIT",
        help="Print the text coloured by this hidden unit, such as 1:37; "
             "layers count from 1, hidden units from 0.")  # fmt: skip
@option("--length", group="Text", type=click.IntRange(0), default=100_000, show_default=True, metavar="N",
        help="Read the first N characters of TEXT at most.")  # fmt: skip
@text_options("TEXT")
@option("--pattern", group="Text", multiple=True, metavar="TEXT",
        help="A regular expression, for which hidden units are looked for too; give it once for each.")  # fmt: skip
@option("--label", group="Text", metavar="TEXT", help="Label of the records, in place of their own.")
@option("--precision", group="Other", type=click.Choice(PRECISIONS), default="auto", show_default=True,
        help="Of matrix products.")  # fmt: skip
@option("--device", group="Other", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto",
        show_default=True, help="Where to compute.")  # fmt: skip
@threads_option
def command(model: Path, text: str, out: Path | None, neuron: str | None, length: int, **options: Any) -> None:
    """Look inside a model while it reads a text: where it is surprised, and what its hidden units follow.

    TEXT is a file, a folder, a pattern, - for standard input, or a corpus name. With --out, a page for a browser shows
    the text coloured by surprise or by any hidden unit, with what the model expected at each character. Without it, a
    summary is printed; with --neuron the text, in colours on a terminal, else with a row of marks under each row.

    \b
    chargen inspect checkpoints/novel chapter.txt --out report.html
    chargen inspect checkpoints/novel chapter.txt --neuron 1:37
    """
    if neuron is not None:
        refuse_unused(("out", "pattern"), "--neuron")
        options.pop("pattern")
        _print_values(read_model(model), text, neuron, length, options)
        return
    options["patterns"] = {pattern: pattern for pattern in options.pop("pattern")}
    with TaskBar("char") as bar:
        inspection = inspect_text(model, sources=(text,), out=out, length=length, progress=bar.show, **options)
    if out is None:
        _print_summary(inspection)
    else:
        log(f"{quote_path(out)}: {format_size(out.stat().st_size)}, for a browser")
    if left_out := inspection.file.network_alone:
        log(f"note: this is what to expect of {left_out}")
    _log_unseen(inspection)
    if inspection.left_out:
        log(f"note: {amount(inspection.left_out, 'more character')} not read: --length is {length:,}")


def _print_values(file: ModelFile, text: str, neuron: str, length: int, options: dict[str, Any]) -> None:
    """Print the text with the values of a hidden unit."""
    layer, unit = _parse_neuron(neuron)
    check_neuron(layer, unit, file.config.num_layers, file.config.hidden_size)
    writer, left = ValueWriter(file.vocabulary.raw), length
    log(f"hidden unit {layer}:{unit}: {writer.legend}")
    for block in stream_activations(file, sources=(text,), **options):
        for number in range(len(block)):
            part = block[number]
            for character, value in zip(part.text[:left], part.unit(layer, unit).tolist(), strict=False):
                writer.write(character, value)
            left -= len(part.text[:left])
            if file.vocabulary.records:
                writer.end_text()
        if not left:
            break
    writer.close()


def _log_unseen(inspection: "Inspection") -> None:
    """Say which characters the model does not know, and whether they were left out."""
    predictions = inspection.predictions
    unseen = inspection.file.vocabulary.unseen(predictions.text.replace(END_MARK, ""))
    places = [number for number, character in enumerate(predictions.text) if character in unseen] if unseen else []
    left_out = int((predictions.ids[places] < 0).sum()) if places else 0
    log_text_report(0, 0, unseen, len(places) - left_out, left_out)


def _parse_neuron(text: str) -> tuple[int, int]:
    layer, colon, unit = text.partition(":")
    if not (colon and layer.isascii() and layer.isdigit() and unit.isascii() and unit.isdigit() and len(text) < 20):
        raise SettingError(f"neuron is {repr_short(text)}: it must be a layer and a hidden unit, as in 1:37", "neuron")
    return int(layer), int(unit)


def _print_summary(inspection: "Inspection") -> None:
    """Print what each judge's losses are, in all and by class of character."""
    if all(math.isnan(bits) for bits in inspection.bits.values()):
        raise DataError("no character that the model knows was read: name another text, or a greater --length")
    calibration = inspection.calibration
    for judge, bits in inspection.bits.items():
        nats = bits * math.log(2)
        error = f"calibration error {calibration[judge].error:.1%}"
        print_line(f"{judge}: {nats:.4f} nats, {bits:.4f} bits per character; {error}")
    for neuron in inspection.neurons[:SHOWN_NEURONS]:
        area = "" if neuron.auc is None else f", AUC {neuron.auc:.3f}"
        feature = escape_control(neuron.feature, newlines=True)
        print_line(f"hidden unit {neuron}: {feature}, correlation {neuron.held_out_correlation:.3f}{area}")
    if not inspection.neurons:
        log(
            "note: no hidden unit is ranked: nothing that is looked for ends five times in each half of so short a text"
        )
    for gate, saturation in inspection.saturation.items():
        for layer, (left, right) in enumerate(saturation.by_layer, 1):
            print_line(f"{gate} gate of layer {layer}: {left:.1%} nearly shut, {right:.1%} nearly open")
    table = inspection.by_class["forward"]
    counts, nats = table.counts.sum(), table.nats.sum()
    for name, count, cost in zip(table.names, table.counts, table.nats, strict=True):
        if count:
            shares = f"{count / counts:.1%} of the text, {cost / nats:.1%} of the loss"
            print_line(f"{name}: {shares}, {cost / count:.4f} nats, {cost / count / math.log(2):.4f} bits each")
