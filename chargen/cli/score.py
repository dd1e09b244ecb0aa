"""`chargen score`: judge every character of a text."""

import json
import math
import os
from dataclasses import asdict
from pathlib import Path

import click
from tqdm import tqdm

from chargen.cli.options import GroupedCommand, option, unused
from chargen.cli.terminal import STDERR, TextWriter, tell, visible
from chargen.errors import DataError, SettingError, short
from chargen.insight.score import JUDGES, CharacterScore, score
from chargen.model.config import need_two_ways
from chargen.storage.model_file import read_model
from chargen.text.reading import ReadingConfig, clean, find_sources, read_text

FILE_LIKE = {".txt", ".md", ".gz", ".bz2", ".xz", ".log", ".csv", ".json", ".py"}


@click.command("score", cls=GroupedCommand, short_help="Judge every character of a text.")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("text", required=False)
@option("--text", "literal", group="Text", metavar="TEXT", help="Judge these words; never the name of a file.")
@option("--encoding", group="Text", metavar="TEXT", help="Encoding of a file.  [default: as in training]")
@option("--errors", group="Text", type=click.Choice(["strict", "replace"]), default="strict", show_default=True,
        help="What to do with bytes that do not fit it.")  # fmt: skip
@option("--unknown", group="Text", type=click.Choice(["error", "skip", "replace"]), default="error", show_default=True,
        help="What to do with a character that the model does not know; skip flags it and reads on.")  # fmt: skip
@option("--by", group="Judge", type=click.Choice(JUDGES), default="cloze", show_default=True,
        help="Who judges: cloze sees all other characters, forward those before, backward those behind.")  # fmt: skip
@option("--threshold", group="Judge", type=click.FloatRange(0, 1), default=0.01, show_default=True, metavar="P",
        help="Characters of a probability below this are unlikely.")  # fmt: skip
@option("--alternatives", group="Judge", type=click.IntRange(0, 1_000_000), default=3, show_default=True, metavar="N",
        help="Likelier characters to name for each unlikely one.")  # fmt: skip
@option("--device", group="Other", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto",
        show_default=True, help="Where to compute.")  # fmt: skip
@option("--json", "as_json", group="Other", is_flag=True, help="Print one JSON object.")
def command(
    model: Path,
    text: str | None,
    literal: str | None,
    encoding: str | None,
    errors: str,
    unknown: str,
    by: str,
    threshold: float,
    alternatives: int,
    device: str,
    as_json: bool,
) -> None:
    """Judge every character of a text: what the model finds unlikely, and what it would rather read.

    TEXT is a file, - for standard input, or, where no file has that name, the words themselves. Unlikely characters are
    often mistakes of spelling or of OCR, or just news to the model. The text is printed with them in colour, then a
    line for each, with likelier characters and their probabilities. A cloze judge needs a model trained with
    --bidirectional; --by forward does with any.

    \b
    chargen score checkpoints/novel "It was a dark adn stormy night."
    chargen score checkpoints/novel scanned.txt --threshold 0.001
    """
    if (text is None) == (literal is None):
        raise SettingError("what to judge? Give a TEXT, which may be a file, or words with --text")
    file = read_model(model)
    if by != "forward":
        need_two_ways(file.config, f"{by} scoring")
    words = literal
    if words is None:
        words = _read(text or "", ReadingConfig(encoding or file.reading.encoding, errors))
    else:
        unused(("encoding", "errors"), "--text")
    words = clean(words, file.reading)
    with tqdm(total=len(words), unit="char", delay=1, leave=False, disable=None, file=STDERR) as bar:
        found = score(
            file,
            words,
            by=by,
            threshold=threshold,
            num_alternatives=alternatives,
            unknown=unknown,
            device=device,
            progress=lambda done: bar.update(done - bar.n),
        )
    if as_json:
        figures = {"by": by, "threshold": threshold, **_sums(found)}
        click.echo(json.dumps({**figures, "characters": [asdict(one) for one in found]}))
        return
    _print_text(found, by, threshold, file.vocabulary.raw)
    _print_unlikely(found, by)
    _tell_sums(found, by, threshold)


def _read(name: str, config: ReadingConfig) -> str:
    """A file's text, or the words themselves."""
    if name == "-" or (os.path.exists(name) and not os.path.isdir(name)):  # these never raise, unlike Path's
        sources, _ = find_sources([name])
        return "".join(read_text(sources, config))
    if name and not any(character.isspace() for character in name) and ("/" in name or Path(name).suffix in FILE_LIKE):
        raise DataError(f"no file {short(name)}; to judge these words themselves, give them with --text")
    tell("no file has that name: judging the words themselves")
    return name


def _print_text(found: list[CharacterScore], by: str, threshold: float, raw: bool) -> None:
    """The text, with unlikely characters in colour on a terminal; blanks among them as open boxes, to be seen."""
    writer = TextWriter(raw=raw)
    for one in found:
        if not one.unlikely:
            writer.write(one.character)
            continue
        value = getattr(one, by)
        color = "yellow" if value is not None and math.exp(value) > threshold / 10 else "red"
        if one.character in " \n" and writer.colors:
            writer.write("\u2423", color=color)
            writer.write(one.character.strip(" "))
        else:
            writer.write(one.character, color=color)
    writer.close()
    if not writer.terminal and found and found[-1].character != "\n":
        click.echo()


def _print_unlikely(found: list[CharacterScore], by: str) -> None:
    """A line for each unlikely character."""
    line, column = 1, 0
    for one in found:
        column += 1
        if one.unlikely:
            value = getattr(one, by)
            told = "unknown to the model" if value is None else f"{math.exp(value):.2g}"
            rather = ", ".join(f"{_shown(other)} {share:.2g}" for other, share in one.alternatives)
            told += f"; rather {rather}" if rather else ""
            click.echo(f"line {line}, column {column}: {_shown(one.character)} {told}")
        if one.character == "\n":
            line, column = line + 1, 0


def _shown(character: str) -> str:
    return visible(repr(character), newlines=True)


def _sums(found: list[CharacterScore]) -> dict[str, float | int | None]:
    """What each judge makes of the whole text."""
    scored = sum(one.forward is not None for one in found)
    totals: dict[str, float | int | None] = {"length": len(found), "scored": scored}
    totals["unlikely"] = sum(one.unlikely for one in found)
    keys = {"forward": "log_prob_forward", "backward": "log_prob_backward", "cloze": "pseudo_log_likelihood"}
    for name, key in keys.items():
        values = [value for one in found if (value := getattr(one, name)) is not None]
        totals[key] = math.fsum(values) if values else None
    return totals


def _tell_sums(found: list[CharacterScore], by: str, threshold: float) -> None:
    totals = _sums(found)
    tell(f"{totals['unlikely']:,} of {len(found):,} characters are unlikely: below {threshold:g} by {by}, or unknown")
    for name in ("forward", "backward"):
        total = totals[f"log_prob_{name}"]
        if total is not None:
            mean = abs(total) / sum(one.forward is not None for one in found)
            tell(f"{name}: {mean:.4f} nats, {mean / math.log(2):.4f} bits per character")
    pseudo = totals["pseudo_log_likelihood"]
    if pseudo is not None:
        tell(f"cloze: pseudo-log-likelihood {pseudo:.2f} nats, not to be compared with the two")
