"""`chargen eval`: score a text with a model."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chargen.cli.bars import Bar
from chargen.cli.options import PATH, GroupedCommand, option
from chargen.cli.report import find_unknown_characters
from chargen.cli.terminal import log, log_compiling
from chargen.cli.texts import log_text_report, read_like_training_text, text_options
from chargen.data.corpus_cache import ROLES
from chargen.data.reading import ReadingReport, find_sources
from chargen.data.vocabulary import Vocabulary
from chargen.errors import SettingError, amount
from chargen.evaluation.parts import choose_tuning_text, cut_part
from chargen.model.config import DIRECTIONS, require_bidirectional
from chargen.storage.model_file import build_model, read_model

if TYPE_CHECKING:
    from chargen.evaluation.dynamic import DynamicEvaluator
    from chargen.evaluation.loss import Evaluation, Loss
    from chargen.model.language_model import CharModel


@click.command("eval", cls=GroupedCommand, short_help="Score a text with a model.")
@click.argument("model", type=PATH)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@option("--part", group="Text", type=click.Choice(["all", *ROLES]), default="all", show_default=True,
        help="Score only this part, cut as in the training of MODEL.")  # fmt: skip
@option("--direction", group="Text", type=click.Choice(DIRECTIONS), default="forward", show_default=True,
        help="backward reads from the end; for a model trained with --bidirectional.")  # fmt: skip
@option("--dynamic", group="Text", is_flag=True,
        help="Let a copy of the model learn from each segment once it is scored. How fast is chosen on the end of the "
        "training part, or of --tune.")  # fmt: skip
@option("--tune", group="Text", multiple=True, metavar="SOURCE",
        help="Choose the rates of --dynamic on the end of this text, which is not the scored one.")  # fmt: skip
@text_options("the text")
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
    dynamic: bool,
    tune: tuple[str, ...],
    encoding: str | None,
    errors: str,
    unknown: str | None,
    precision: str,
    device: str,
    as_json: bool,
) -> None:
    """Score a text with a model: nats and bits per character, bits per byte, perplexity.

    The whole text is scored with carried state, every character once. The first one (read backward, the last) has
    nothing before it: it is context and is not counted. The model does not adapt to the text, except with --dynamic.
    """
    file = read_model(model)
    if direction == "backward":
        require_bidirectional(file.config, "--direction backward")
    if tune and not dynamic:
        raise SettingError("--tune says what --dynamic chooses its rates on: give both")
    report = ReadingReport()
    full_text = read_like_training_text(find_sources(sources)[0], file, encoding, errors, report)
    text = cut_part(full_text, part, file)
    given_tuning = read_like_training_text(find_sources(tune)[0], file, encoding, errors)
    tuning = choose_tuning_text(full_text, text, part, file, given_tuning) if dynamic else ""
    from chargen.evaluation.loss import evaluate
    from chargen.model.device import pick_device, pick_precision

    torch_device = pick_device(device)
    if torch_device.type == "cpu":
        log_compiling()
    precision = pick_precision(precision, torch_device)
    network = build_model(file, str(torch_device))
    result = evaluate(network, file.vocabulary, text, unknown=unknown, precision=precision, direction=direction)
    dynamic_figures: dict[str, Any] = {}
    if dynamic:
        dynamic_figures["static_nats_per_character"] = result.nats_per_character
        evaluator = _new_dynamic_evaluator(network, file.vocabulary, tuning, precision, direction)
        pieces = partial(_losses_with_bar, evaluator, len(text))
        result = evaluate(network, file.vocabulary, text, unknown=unknown, direction=direction, scorer=pieces)
        dynamic_figures["dynamic"] = {**asdict(evaluator.rates), "tail": len(tuning)}
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
        "passed_over": len(report.passed_over),
        "part": part,
        "direction": direction,
        "precision": precision,
        "device": torch_device.type,
        **dynamic_figures,
    }
    if as_json:
        click.echo(json.dumps(figures))
        return
    _print_figures(result, figures, " ".join(sources))
    log_text_report(report, find_unknown_characters(file.vocabulary, text), result.unseen, result.skipped)


def _print_figures(result: "Evaluation", figures: dict[str, Any], name: str) -> None:
    """Print the figures, and log what they are of."""
    click.echo(f"{result.nats_per_character:.4f} nats per character")
    click.echo(f"{result.bits_per_character:.4f} bits per character")
    click.echo(f"{result.bits_per_byte:.4f} bits per byte")
    click.echo(f"{result.perplexity:.4f} perplexity")
    direction = figures["direction"]
    log(
        f"{name} ({figures['part']}): {amount(result.characters, 'character')} counted, "
        f"{amount(result.bytes, 'byte')}; the {'last' if direction == 'backward' else 'first'} character is context; "
        f"{direction}, {figures['precision']} on {figures['device']}"
    )
    if rates := figures.get("dynamic"):
        log(
            f"dynamic evaluation: {figures['static_nats_per_character']:.4f} nats without; lr {rates['lr']:g} and "
            f"decay {rates['decay']:g} were best on the last {amount(rates['tail'], 'character')} of other text"
        )
    if result.folded:
        log(f"note: {amount(result.folded, 'rare character')} charged for a share of the unknown symbol")


def _new_dynamic_evaluator(
    model: "CharModel", vocabulary: Vocabulary, tuning: str, precision: str, direction: str
) -> "DynamicEvaluator":
    """Make an evaluator with the rates that are best on the tuning text."""
    from chargen.evaluation.dynamic import TRIES, DynamicEvaluator, choose_rates, rms_gradients

    ids = vocabulary.encode(tuning, "skip" if vocabulary.unknown_id is None else "replace")
    rms = rms_gradients(model, vocabulary, ids, precision, direction)
    with Bar(desc="choosing rates", total=TRIES, unit="try", delay=1) as bar:
        rates = choose_rates(model, vocabulary, ids, rms, precision, direction, lambda *_: bar.update())
    return DynamicEvaluator(model, vocabulary, rms, rates, precision, direction)


def _losses_with_bar(evaluator: "DynamicEvaluator", total: int, ids: Any) -> Iterator["Loss"]:
    with Bar(desc="scoring", total=total, unit="char", delay=1) as bar:
        for loss in evaluator.losses(ids):
            bar.update(loss.characters)
            yield loss
