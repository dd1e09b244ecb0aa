"""`chargen score`: judge every character of a text."""

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from chargen.cli.bars import Bar
from chargen.cli.options import PATH, GroupedCommand, option, refuse_unused
from chargen.cli.report import find_unknown_characters
from chargen.cli.terminal import TextWriter, escape_control, log, log_literal_escapes, print_line
from chargen.cli.texts import log_text_report, read_like_training_text, text_options
from chargen.data.reading import ReadingReport, Source, clean, find_sources
from chargen.errors import DataError, SettingError, amount
from chargen.evaluation.per_character import JUDGES, CharacterScore, Scores, escape_byte, quote
from chargen.evaluation.per_character import score as score_text
from chargen.model.config import require_bidirectional
from chargen.storage.model_file import read_model


@click.command("score", cls=GroupedCommand, short_help="Judge every character of a text.")
@click.argument("model", type=PATH)
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@option("--text", group="Text", metavar="TEXT", help="Judge these words, instead of a SOURCE.")
@text_options("SOURCE")
@option("--by", group="Judge", type=click.Choice(JUDGES),
        help="Who judges: cloze sees all other characters, forward those before, backward those behind.",
        shown_default="cloze for a model trained with --bidirectional, else forward")  # fmt: skip
@option("--threshold", group="Judge", type=click.FloatRange(0, 1), default=0.01, show_default=True, metavar="P",
        help="Characters of a probability below this are unlikely.")  # fmt: skip
@option("--alternatives", group="Judge", type=click.IntRange(0, 1_000_000), default=3, show_default=True, metavar="N",
        help="Likelier characters to name for each unlikely one.")  # fmt: skip
@option("--device", group="Other", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto",
        show_default=True, help="Where to compute.")  # fmt: skip
@option("--json", "as_json", group="Other", is_flag=True, help="Print one JSON object.")
def command(
    model: Path,
    sources: tuple[str, ...],
    text: str | None,
    encoding: str | None,
    errors: str,
    unknown: str | None,
    by: str | None,
    threshold: float,
    alternatives: int,
    device: str,
    as_json: bool,
) -> None:
    """Judge every character of a text: what the model finds unlikely, and what it would rather read.

    SOURCE is a file, a folder, a pattern, - for standard input, or a corpus name; words are given with --text. Unlikely
    characters are often mistakes of spelling or of OCR, or just news to the model. The text is printed with them in
    colour, then a line for each, with likelier characters and their probabilities.

    \b
    chargen score checkpoints/novel --text "a dark adn stormy night"
    chargen score checkpoints/novel scanned.txt --threshold 0.001
    """
    if sources and text is not None:
        raise SettingError("--text and a SOURCE are two texts to judge: give one")
    if not sources and text is None:
        raise SettingError("what to judge? Give a SOURCE, or words with --text")
    file = read_model(model)
    if by in ("cloze", "backward"):
        require_bidirectional(file.config, f"{by} scoring")
    report = ReadingReport()
    if text is None:
        text = read_like_training_text(_find_text(sources), file, encoding, errors, report)
    else:
        refuse_unused(("encoding", "errors"), "--text")
        log_literal_escapes(file.vocabulary, {"--text": [text]})
        text = clean(text, file.reading)
    with Bar(total=len(text), unit="char", delay=1) as bar:
        scores = score_text(
            file,
            text,
            by=by,
            threshold=threshold,
            num_alternatives=alternatives,
            unknown=unknown,
            device=device,
            progress=lambda done: bar.update(done - bar.n),
        )
    unseen = find_unknown_characters(file.vocabulary, text)
    unseen_scores = [score for score in scores if score.character in unseen]
    if as_json:
        counts = {"unknown": len(unseen_scores), "replaced": report.replaced}
        figures = {"by": scores.by, "threshold": threshold, **_total_scores(scores), **counts}
        click.echo(json.dumps({**figures, "characters": [_to_json(score) for score in scores]}))
        return
    _print_text(scores, file.vocabulary.raw)
    _print_unlikely(scores, unseen)
    _log_totals(scores)
    left_out = sum(score.forward is None for score in unseen_scores)
    log_text_report(report, unseen, len(unseen_scores) - left_out, left_out)


def _find_text(names: tuple[str, ...]) -> list[Source]:
    """Find the sources; an error about a missing one suggests --text."""
    try:
        return find_sources(names)[0]
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


def _print_unlikely(scores: Scores, unseen: str) -> None:
    """Print a line for each unlikely character; `unseen` are those that training never saw."""
    line, column = 1, 0
    for score in scores:
        column += 1
        if score.unlikely:
            probability = score.probability(scores.by)
            verdict = "unknown to the model" if probability is None else f"{probability:.2g}"
            verdict += ", never seen in training" if probability is not None and score.character in unseen else ""
            likelier = ", ".join(f"{_quote_visibly(character)} {p:.2g}" for character, p in score.alternatives)
            verdict += f"; rather {likelier}" if likelier else ""
            print_line(f"line {line}, column {column}: {_quote_visibly(score.character)} {verdict}")
        if score.character == "\n":
            line, column = line + 1, 0


def _quote_visibly(character: str) -> str:
    return escape_control(quote(character), newlines=True)


def _to_json(score: CharacterScore) -> dict[str, Any]:
    """Convert a score for JSON, where a lone surrogate would be no text."""
    alternatives = [(escape_byte(character), probability) for character, probability in score.alternatives]
    return {**asdict(score), "character": escape_byte(score.character), "alternatives": alternatives}


def _total_scores(scores: Scores) -> dict[str, float | int | None]:
    """Count characters, and sum each judge's log-probabilities over the text."""
    scored = sum(score.forward is not None for score in scores)
    totals: dict[str, float | int | None] = {"length": len(scores), "scored": scored}
    totals["unlikely"] = sum(score.unlikely for score in scores)
    keys = {"forward": "log_prob_forward", "backward": "log_prob_backward", "cloze": "pseudo_log_likelihood"}
    for name, key in keys.items():
        values = [value for score in scores if (value := getattr(score, name)) is not None]
        totals[key] = math.fsum(values) if values else None
    return totals


def _log_totals(scores: Scores) -> None:
    """Log how many characters are unlikely, and each judge's total."""
    totals = _total_scores(scores)
    reason = f"below {scores.threshold:g} by {scores.by}, or unknown"
    log(f"{totals['unlikely']:,} of {amount(len(scores), 'character')} unlikely: {reason}")
    for name in ("forward", "backward"):
        total = totals[f"log_prob_{name}"]
        if total is not None:
            mean = abs(total) / sum(score.forward is not None for score in scores)
            log(f"{name}: {mean:.4f} nats, {mean / math.log(2):.4f} bits per character")
    pseudo = totals["pseudo_log_likelihood"]
    if pseudo is not None:
        log(f"cloze: pseudo-log-likelihood {pseudo:.2f} nats, not to be compared with the two")
