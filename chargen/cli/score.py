"""`chargen score`: judge every character of a text."""

import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chargen.api.judge import PARTS, PRECISIONS
from chargen.api.records import PRIORS, score_records
from chargen.api.score import score as score_text
from chargen.cli.bars import TaskBar
from chargen.cli.by_line import print_records
from chargen.cli.options import PATH, GroupedCommand, option, refuse_unused
from chargen.cli.terminal import TextWriter, escape_control, log, log_compiling, log_literal_escapes, print_line
from chargen.cli.texts import log_text_report, text_options
from chargen.cli.threads_option import threads_option
from chargen.data.sources import find_sources
from chargen.errors import DataError, SettingError, amount
from chargen.evaluation.per_character import Scores, quote
from chargen.evaluation.predicted_ids import JUDGES
from chargen.evaluation.score_json import describe_scores
from chargen.model.config import require_bidirectional
from chargen.storage.model_file import ModelFile, read_model


@click.command("score", cls=GroupedCommand)
@click.argument("model", type=PATH)
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@option("--text", group="Text", metavar="TEXT", help="Judge these words, instead of a SOURCE.")
@text_options("SOURCE")
@option("--label", group="Text", metavar="TEXT", help="Label of the records, in place of their own.")
@option("--by", group="Judge", type=click.Choice(JUDGES),
        help="Who judges: cloze sees all other characters, forward those before, backward those behind.",
        shown_default="cloze for characters and a model trained with --bidirectional, else forward")  # fmt: skip
@option("--threshold", group="Judge", type=click.FloatRange(0, 1), default=0.01, show_default=True, metavar="P",
        help="Characters of a probability below this are unlikely.")  # fmt: skip
@option("--alternatives", group="Judge", type=click.IntRange(0, 1_000_000), default=3, show_default=True, metavar="N",
        help="Likelier characters to name for each unlikely one.")  # fmt: skip
@option("--by-line", group="Records", is_flag=True,
        help="Judge each line as a whole, from line end to line end; a model of records judges records.")  # fmt: skip
@option("--worst", group="Records", type=click.IntRange(1, 1_000_000), metavar="N",
        help="Print the N least likely lines or records only, by their mean.")  # fmt: skip
@option("--part", group="Records", type=click.Choice(PARTS), default="all", show_default=True,
        help="Judge only these records, chosen as in the training of MODEL.")  # fmt: skip
@option("--guess-label", group="Records", is_flag=True,
        help="Tell which label each record likely has, and how many are right where they have labels.")  # fmt: skip
@option("--prior", group="Records", type=click.Choice(PRIORS), default=None, shown_default="counts",
        help="How likely labels are beforehand: as frequent as in training, or all alike.")  # fmt: skip
@option("--precision", group="Other", type=click.Choice(PRECISIONS), default="fp32", show_default=True,
        help="Of matrix products.")  # fmt: skip
@option("--device", group="Other", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto",
        show_default=True, help="Where to compute.")  # fmt: skip
@option("--json", "as_json", group="Other", is_flag=True, help="Print one JSON object, or one for each record.")
@option("--brief", group="Other", is_flag=True, help="Tell totals only.")
@threads_option
def command(model: Path, sources: tuple[str, ...], text: str | None, by: str | None, **options: Any) -> None:
    """Judge every character of a text, or every line or record: what the model finds unlikely.

    SOURCE is a file, a folder, a pattern, - for standard input, or a corpus name; words are given with --text. Unlikely
    characters are often mistakes of spelling or of OCR, or just news to the model. The text is printed with them in
    colour, then a line for each, with likelier characters and their probabilities.

    With --by-line, --worst or --guess-label, and where the model has records, each line or record of SOURCE is judged
    as a whole: its log-probability in nats, a character's mean and the sum with its end, its file and its line.

    \b
    chargen score checkpoints/novel --text "a dark adn stormy night"
    chargen score checkpoints/novel scanned.txt --threshold 0.001
    chargen score checkpoints/logs today.log --worst 20
    """
    if sources and text is not None:
        raise SettingError("--text and a SOURCE are two texts to judge: give one")
    if not sources and text is None:
        raise SettingError("what to judge? Give a SOURCE, or words with --text")
    file = read_model(model)
    if by in ("cloze", "backward"):
        require_bidirectional(file.config, f"{by} scoring")
    if text is None:
        _check_names(sources)
    else:
        refuse_unused(("encoding", "errors"), "--text")
        log_literal_escapes(file.vocabulary, {"--text": [text]})
    for_records = {name: options.pop(name) for name in ("by_line", "worst", "part", "guess_label", "prior")}
    if for_records["prior"] and not for_records["guess_label"]:
        raise SettingError("--prior is for --guess-label: give both, or neither", "prior")
    if options["brief"]:
        refuse_unused(("worst",), "--brief")
    asked = [name for name in ("by_line", "worst", "guess_label") if for_records[name]]
    if asked or (file.vocabulary.records and sources):
        refuse_unused(("threshold", "alternatives"), f"--{asked[0].replace('_', '-')}" if asked else "records")
        _judge_records(file, sources, text, by, for_records, options)
    else:
        refuse_unused(("part",), "the characters of a text")
        _judge_characters(file, sources, text, by, options)


def _judge_records(
    file: ModelFile, sources: tuple[str, ...], text: str | None, by: str | None, for_records: dict[str, Any],
    options: dict[str, Any],
) -> None:  # fmt: skip
    """Judge each record or line as a whole."""
    records, texts = file.vocabulary.records, None
    if text is not None:
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        texts = [text] if records else list(filter(None, lines))
    printing = {name: options.pop(name) for name in ("as_json", "brief")} | {"worst": for_records["worst"]}
    options = {name: value for name, value in options.items() if name not in ("threshold", "alternatives")}
    options |= {name: for_records[name] for name in ("part", "guess_label")}
    options["prior"] = for_records["prior"] or "counts"
    if not printing["brief"] and printing["worst"] is None and sys.stdout.isatty():
        options["progress"] = lambda task, done, total: None  # the rows show how far it is
    with TaskBar("char") as bar:
        options = {"progress": bar.show, **options}
        scores = score_records(file, texts, sources=sources or None, by=by or "forward", **options)
        noun, skips = "record" if records else "line", options["unknown"] == "skip"
        print_records(scores, noun, raw=file.vocabulary.raw, skips=skips, close_bar=bar.close, **printing)


def _judge_characters(
    file: ModelFile, sources: tuple[str, ...], text: str | None, by: str | None, options: dict[str, Any]
) -> None:
    """Judge every character of a text."""
    as_json, brief, alternatives = (options.pop(name) for name in ("as_json", "brief", "alternatives"))
    log_compiling()
    with TaskBar("char") as bar:
        options |= {"num_alternatives": alternatives, "progress": bar.show}
        scores = score_text(file, text, sources=sources or None, by=by, **options)
    raw, totals = file.vocabulary.raw, scores.totals
    if as_json:
        figures = describe_scores(scores, raw, brief) | {"replaced": scores.replaced}
        click.echo(json.dumps(figures, separators=(",", ":")))
        return
    if not brief:
        _print_text(scores, raw)
        _print_unlikely(scores)
    _write_totals(scores, totals, print_line if brief else log)
    left_out = sum(score.forward is None for score in scores)
    log_text_report(scores.replaced, scores.passed_over, scores.unseen, totals["unknown"] - left_out, left_out)


def _check_names(names: tuple[str, ...]) -> None:
    """Check that sources are there; an error about a missing one suggests --text."""
    try:
        find_sources(names)
    except DataError as error:
        if all(name == "-" or os.path.lexists(name) for name in names):
            raise
        raise DataError(f"{error}; to judge the words themselves, give them with --text") from error


def _print_text(scores: Scores, raw: bool) -> None:
    """Print the text; on a terminal unlikely characters are in colour, blanks among them as open boxes, to be seen."""
    writer = TextWriter(raw=raw)
    for score in scores:
        if not score.unlikely:
            writer.write(score.character)
            continue
        probability = score.probability(scores.by)
        color = "yellow" if probability is not None and probability > scores.threshold / 10 else "red"
        if score.character in " \n" and writer.colors:
            writer.write("\u2423", color=color)
            writer.write(score.character.strip(" "))
        else:
            writer.write(score.character, color=color)
    writer.close()
    if not writer.terminal and scores and scores[-1].character != "\n":
        click.echo()


def _print_unlikely(scores: Scores) -> None:
    """Print a line for each unlikely character, and one for a record's end where that is unlikely."""
    line, column = 1, 0
    for score in [*scores, *filter(None, [scores.end])]:
        column += 1
        if score.unlikely:
            judge = scores.by if score.character or scores.by != "cloze" else "forward"
            probability = score.probability(judge)
            verdict = "unknown to the model" if probability is None else f"{probability:.2g}"
            if probability is not None and score.character and score.character in scores.unseen:
                verdict += ", never seen in training"
            likelier = ", ".join(f"{_quote_visibly(character)} {p:.2g}" for character, p in score.alternatives)
            verdict += f"; rather {likelier}" if likelier else ""
            print_line(f"line {line}, column {column}: {_quote_visibly(score.character)} {verdict}")
        if score.character == "\n":
            line, column = line + 1, 0


def _quote_visibly(character: str) -> str:
    return escape_control(quote(character), newlines=True)


def _write_totals(scores: Scores, totals: dict[str, Any], write_line: Callable[[str], None]) -> None:
    """Write how many characters are unlikely, and each judge's total."""
    reason = f"below {scores.threshold:g} by {scores.by}, or unknown"
    write_line(f"{totals['unlikely']:,} of {amount(len(scores), 'character')} unlikely: {reason}")
    for name in ("forward", "backward"):
        total = totals[f"log_prob_{name}"]
        if total is not None:
            end = f"; {total:.4f} in all, {getattr(scores.end, name):.4f} of it for the end" if scores.end else ""
            mean = abs(total) / (totals["scored"] + (scores.end is not None))
            write_line(f"{name}: {mean:.4f} nats, {mean / math.log(2):.4f} bits per character{end}")
    pseudo = totals["pseudo_log_likelihood"]
    if pseudo is not None:
        write_line(f"cloze: pseudo-log-likelihood {pseudo:.2f} nats, not to be compared with the two")
