"""`chargen eval`: score a text with a model."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chargen.api.judge import PARTS, PRECISIONS, evaluate
from chargen.cli.bars import TaskBar
from chargen.cli.options import PATH, GroupedCommand, option
from chargen.cli.report import name_label
from chargen.cli.terminal import escape_control, log, log_compiling, print_line
from chargen.cli.texts import log_text_report, log_unknown_labels, text_options
from chargen.cli.threads_option import threads_option
from chargen.errors import amount
from chargen.model.config import DIRECTIONS

if TYPE_CHECKING:
    from chargen.evaluation.evaluation import Evaluation


@click.command("eval", cls=GroupedCommand)
@click.argument("model", type=PATH)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@option("--part", group="Text", type=click.Choice(PARTS), default="all", show_default=True,
        help="Score only this part, cut as in the training of MODEL.")  # fmt: skip
@option("--direction", group="Text", type=click.Choice(DIRECTIONS), default="forward", show_default=True,
        help="backward reads from the end; for a model trained with --bidirectional.")  # fmt: skip
@option("--dynamic", group="Text", is_flag=True,
        help="Let a copy of the model learn from each segment once it is scored. How fast is chosen on the end of the "
        "training part, or of --tune.")  # fmt: skip
@option("--dynamic-counts", group="Text", is_flag=True,
        help="Count what is scored, and let these counts predict what follows, too.")  # fmt: skip
@option("--by-label", group="Text", is_flag=True,
        help="Tell what the records of each label cost, with a model of labelled records.")  # fmt: skip
@option("--tune", group="Text", multiple=True, metavar="SOURCE",
        help="Choose the rates of --dynamic on the end of this text, which is not the scored one.")  # fmt: skip
@text_options("the text")
@option("--precision", group="Machine", type=click.Choice(PRECISIONS), default="fp32", show_default=True,
        help="Of matrix products.")  # fmt: skip
@option("--device", group="Machine", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto",
        show_default=True, help="Where to compute.")  # fmt: skip
@option("--json", "as_json", group="Other", is_flag=True, help="Print one JSON object.")
@threads_option
def command(model: Path, sources: tuple[str, ...], device: str, as_json: bool, **options: Any) -> None:
    """Score a text with a model: nats and bits per character, bits per byte, perplexity.

    The whole text is scored with carried state, every character once. The first one (read backward, the last) has
    nothing before it: it is context and is not counted. The model does not adapt to the text, except with --dynamic
    and --dynamic-counts.

    With a model of records nats and bits per record are told too, and what the ends of records cost: every character
    is counted there, and each end as one more.
    """
    from chargen.model.device import pick_device

    if pick_device(device).type == "cpu":
        log_compiling()
    with TaskBar("char") as bar:
        result = evaluate(model, sources=sources, device=device, progress=bar.show, **options)
    if as_json:
        click.echo(json.dumps(_to_json(result)))
        return
    _print_figures(result, " ".join(sources))
    log_text_report(result.replaced, result.passed_over, result.unseen_characters, result.unseen, result.skipped)
    log_unknown_labels(result.unknown_labels)


def _to_json(result: "Evaluation") -> dict[str, Any]:
    names = ["nats_per_character", "bits_per_character", "bits_per_byte", "perplexity", "nats", "characters", "bytes"]
    names += ["folded", "unseen", "skipped", "replaced", "passed_over", "part", "direction", "precision", "device"]
    figures = {name: getattr(result, name) for name in names}
    if result.records:
        names = ["records", "nats_per_record", "bits_per_record", "end_nats", "unknown_labels"]
        figures |= {name: getattr(result, name) for name in names}
    if result.by_label:
        figures["by_label"] = {name: asdict(loss) for name, loss in result.by_label.items()}
    if result.has_counts:
        figures["network_nats_per_character"] = result.network_nats_per_character
    if result.static_nats_per_character is not None:
        figures["static_nats_per_character"] = result.static_nats_per_character
        figures["dynamic_counts"] = result.dynamic_counts
    if result.dynamic is not None:
        figures["dynamic"] = {**asdict(result.dynamic), "tail": result.tail}
    return figures


def _print_figures(result: "Evaluation", name: str) -> None:
    """Print the figures, and log what they are of."""
    click.echo(f"{result.nats_per_character:.4f} nats per character")
    click.echo(f"{result.bits_per_character:.4f} bits per character")
    click.echo(f"{result.bits_per_byte:.4f} bits per byte")
    click.echo(f"{result.perplexity:.4f} perplexity")
    counted = f"{amount(result.characters, 'character')} counted, {amount(result.bytes, 'byte')}"
    if result.records:
        _print_records(result)
        context = f"in {amount(result.records, 'record')}, each one's end among them"
    else:
        context = f"the {'last' if result.direction == 'backward' else 'first'} character is context"
    log(f"{name} ({result.part}): {counted}; {context}; {result.direction}, {result.precision} on {result.device}")
    if result.has_counts:
        alone = result.network_nats_per_character
        log(f"without counts: {alone:.4f} nats, {alone / math.log(2):.4f} bits per character")
    if (rates := result.dynamic) is not None:
        log(
            f"dynamic evaluation: lr {rates.lr:g} and decay {rates.decay:g} were best on the last "
            f"{amount(result.tail, 'character')} of other text"
        )
    if result.dynamic_counts:
        log("dynamic counts: what was scored is counted, and predicts too")
    if (static := result.static_nats_per_character) is not None:
        log(f"the model as it was: {static:.4f} nats, {static / math.log(2):.4f} bits per character")
    if result.folded:
        log(f"note: {amount(result.folded, 'rare character')} charged for a share of the unknown symbol")


def _print_records(result: "Evaluation") -> None:
    """Print what a record costs, what its end costs, and what the records of each label do."""
    click.echo(f"{result.nats_per_record:.4f} nats per record")
    click.echo(f"{result.bits_per_record:.4f} bits per record")
    end, share = result.end_nats / result.records, result.end_nats / result.nats if result.nats else 0.0
    click.echo(f"{end:.4f} nats per end of a record, {end / math.log(2):.4f} bits: {share:.1%} of all")
    for label, loss in result.by_label.items():
        means = f"{loss.nats_per_character:.4f} nats per character, {loss.nats_per_record:.4f} per record"
        print_line(f"{escape_control(name_label(label))}: {means}, {amount(loss.records, 'record')}")
