"""`chargen score`: judge every character of a text."""

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from chargen.cli.bars import Bar
from chargen.cli.options import PATH, GroupedCommand, option, unused
from chargen.cli.report import unknown_characters
from chargen.cli.terminal import TextWriter, escape_control, log, show, tell_of_escapes
from chargen.cli.texts import read_alike, tell_of_text, text_options
from chargen.data.reading import ReadingReport, Source, clean, find_sources
from chargen.errors import DataError, SettingError, amount
from chargen.evaluation.per_character import JUDGES, CharacterScore, Scores, escape_byte, quote, score
from chargen.model.config import need_two_ways
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
        need_two_ways(file.config, f"{by} scoring")
    report = ReadingReport()
    if text is None:
        text = read_alike(_found(sources), file, encoding, errors, report)
    else:
        unused(("encoding", "errors"), "--text")
        tell_of_escapes(file.vocabulary, {"--text": [text]})
        text = clean(text, file.reading)
    with Bar(total=len(text), unit="char", delay=1) as bar:
        found = score(
            file,
            text,
            by=by,
            threshold=threshold,
            num_alternatives=alternatives,
            unknown=unknown,
            device=device,
            progress=lambda done: bar.update(done - bar.n),
        )
    new = unknown_characters(file.vocabulary, text)
    unseen = [one for one in found if one.character in new]
    if as_json:
        counts = {"unknown": len(unseen), "replaced": report.replaced}
        figures = {"by": found.by, "threshold": threshold, **_sums(found), **counts}
        click.echo(json.dumps({**figures, "characters": [_described(one) for one in found]}))
        return
    _print_text(found, file.vocabulary.raw)
    _print_unlikely(found, new)
    _tell_sums(found)
    left_out = sum(one.forward is None for one in unseen)
    tell_of_text(report, new, len(unseen) - left_out, left_out)


def _found(names: tuple[str, ...]) -> list[Source]:
    try:
        return find_sources(names)[0]
    except DataError as error:
        if all(name == "-" or os.path.lexists(name) for name in names):
            raise
        raise DataError(f"{error}; to judge the words themselves, give them with --text") from error


def _print_text(found: Scores, raw: bool) -> None:
    """The text, with unlikely characters in colour on a terminal; blanks among them as open boxes, to be seen."""
    writer = TextWriter(raw=raw)
    for one in found:
        if not one.unlikely:
            writer.write(one.character)
            continue
        probability = one.probability(found.by)
        color = "yellow" if probability is not None and probability > found.threshold / 10 else "red"
        if one.character in " \n" and writer.colors:
            writer.write("\u2423", color=color)
            writer.write(one.character.strip(" "))
        else:
            writer.write(one.character, color=color)
    writer.close()
    if not writer.terminal and found and found[-1].character != "\n":
        click.echo()


def _print_unlikely(found: Scores, new: str) -> None:
    """A line for each unlikely character.

    Args:
        new: characters that were never seen in training.
    """
    line, column = 1, 0
    for one in found:
        column += 1
        if one.unlikely:
            probability = one.probability(found.by)
            told = "unknown to the model" if probability is None else f"{probability:.2g}"
            told += ", never seen in training" if probability is not None and one.character in new else ""
            rather = ", ".join(f"{_shown(other)} {share:.2g}" for other, share in one.alternatives)
            told += f"; rather {rather}" if rather else ""
            show(f"line {line}, column {column}: {_shown(one.character)} {told}")
        if one.character == "\n":
            line, column = line + 1, 0


def _shown(character: str) -> str:
    return escape_control(quote(character), newlines=True)


def _described(one: CharacterScore) -> dict[str, Any]:
    """A score as JSON has it, where a lone surrogate would be no text."""
    alternatives = [(escape_byte(other), share) for other, share in one.alternatives]
    return {**asdict(one), "character": escape_byte(one.character), "alternatives": alternatives}


def _sums(found: Scores) -> dict[str, float | int | None]:
    """What each judge makes of the whole text."""
    scored = sum(one.forward is not None for one in found)
    totals: dict[str, float | int | None] = {"length": len(found), "scored": scored}
    totals["unlikely"] = sum(one.unlikely for one in found)
    keys = {"forward": "log_prob_forward", "backward": "log_prob_backward", "cloze": "pseudo_log_likelihood"}
    for name, key in keys.items():
        values = [value for one in found if (value := getattr(one, name)) is not None]
        totals[key] = math.fsum(values) if values else None
    return totals


def _tell_sums(found: Scores) -> None:
    totals = _sums(found)
    below = f"below {found.threshold:g} by {found.by}, or unknown"
    log(f"{totals['unlikely']:,} of {amount(len(found), 'character')} unlikely: {below}")
    for name in ("forward", "backward"):
        total = totals[f"log_prob_{name}"]
        if total is not None:
            mean = abs(total) / sum(one.forward is not None for one in found)
            log(f"{name}: {mean:.4f} nats, {mean / math.log(2):.4f} bits per character")
    pseudo = totals["pseudo_log_likelihood"]
    if pseudo is not None:
        log(f"cloze: pseudo-log-likelihood {pseudo:.2f} nats, not to be compared with the two")
