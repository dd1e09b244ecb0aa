"""`chargen novelty`: tell how much of a text, or of what a model writes, stands in a corpus."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from chargen.api.novelty import DEFAULT_LENGTH, DEFAULT_RECORDS, is_model, novelty
from chargen.cli.bars import TaskBar
from chargen.cli.options import GroupedCommand, option, settings_options
from chargen.cli.terminal import cut_into_rows, escape_control, log, log_compiling, terminal_width
from chargen.cli.texts import log_text_report
from chargen.cli.threads_option import threads_option
from chargen.counting.copy_finder import MIN_LENGTH
from chargen.counting.novelty import Figures, Novelty, describe_place
from chargen.data.reading_config import RAW
from chargen.data.utf8 import as_json_text
from chargen.decoding.choose import WRITING_DEFAULTS, SampleConfig
from chargen.errors import SettingError, amount, truncate
from chargen.rng import MAX_SEED
from chargen.storage.model_file import ModelFile, read_model

MAX_TEXT = 300
"""Characters of a copy that are printed."""


@click.command("novelty", cls=GroupedCommand)
@click.argument("text", metavar="MODEL|TEXT")
@click.argument("corpus", metavar="CORPUS...", nargs=-1)
@option("--held-out", group="Text", multiple=True, metavar="SOURCE",
        help="Real text to compare with, which is not part of CORPUS.",
        shown_default="the validation part of CORPUS")  # fmt: skip
@option("--encoding", group="Text", metavar="TEXT", help="Encoding of the files.",
        shown_default="as in the training of MODEL, or utf-8")  # fmt: skip
@option("--errors", group="Text", type=click.Choice(["strict", "replace"]), default="strict", show_default=True,
        help="What to do with bytes that do not fit it.")  # fmt: skip
@option("--records", group="Text", metavar="TEXT", escapes=True,
        help="Of a TEXT: compare whole records: line, blank-line, file, jsonl, csv, tsv, or the text between two. "
        "MODEL says it itself.")  # fmt: skip
@option("--text-field", group="Text", metavar="TEXT", help="Of jsonl, csv and tsv records, the field with the text.")
@option("--shortest", group="Figures", type=click.IntRange(1), default=MIN_LENGTH, show_default=True, metavar="N",
        help="Characters of the shortest copy.")  # fmt: skip
@option("--show", group="Figures", type=click.IntRange(0), default=10, show_default=True, metavar="N",
        help="Copies, near-copies and loops to print, the longest of each.")  # fmt: skip
@option("--length", group="Writing, with a MODEL", type=click.IntRange(0), metavar="N",
        help="Characters of a sample; of a record at most.",
        shown_default=f"{DEFAULT_LENGTH:,}; a record as long as it is")  # fmt: skip
@option("--num", group="Writing, with a MODEL", type=click.IntRange(1), metavar="N", help="Samples to write.",
        shown_default=f"1; {DEFAULT_RECORDS:,} records")  # fmt: skip
@option("--seed", group="Writing, with a MODEL", type=click.IntRange(0, MAX_SEED), metavar="N",
        help="Same seed, same text.", shown_default="another one each time, told on standard error")  # fmt: skip
@settings_options(SampleConfig, "Writing, with a MODEL", defaults=WRITING_DEFAULTS)
@option("--json", "as_json", group="Other", is_flag=True, help="Print one JSON object.")
@threads_option
def command(text: str, corpus: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Tell how much of a text is copied from a corpus.

    The text is what MODEL writes, or TEXT, a file, a folder, a pattern, or - for standard input. CORPUS is files,
    folders, patterns, or names of corpora. Copies are named with their places, first those with the most characters
    that are no blanks; and near-copies, which are copies of 20 characters or more that follow one another in the corpus
    too, with at most 10 characters between each two. A loop repeats the same characters three times or more.

    Beside all figures stand those of held-out text, so that they mean something: of the validation part of CORPUS, as
    it is cut in training, so much from its middle as the text is long, looked up in the rest.

    \b
    chargen novelty checkpoints/novel novel.txt --seed 1
    chargen novelty draft.txt books/ --show 30
    chargen novelty checkpoints/names names.txt --num 10000
    """
    if not text or not corpus:
        raise SettingError("give a MODEL or a TEXT, and behind it a CORPUS, such as a file, a folder or python")
    if text == "-" and "-" in (*corpus, *options["held_out"]):
        raise SettingError("- is standard input, which can be read only once: name a file as the other text")
    source = read_model(text) if is_model(text) else Path(text)
    raw = isinstance(source, ModelFile) and source.reading.encoding == RAW
    log_compiling()
    with TaskBar("") as bar:
        result = novelty(source, corpus, progress=bar.show, **options)
    if result.seed is not None and options["seed"] is None:
        log(f"seed {result.seed}")
    if as_json:
        click.echo(json.dumps(_without_surrogates(result.as_dict(), raw)))
    else:
        _print_table(result)
        _print_spans(result.text, raw)
    log_text_report(result.replaced, result.passed_over, "", 0, 0)


def _print_table(result: Novelty) -> None:
    """Print the figures, of the text and of held-out text."""
    rows = [[cell for number, cell in enumerate(row) if number < 2 or result.held_out] for row in result.rows()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *values in rows:
        cells = [f"{name:{widths[0]}}", *map(str.rjust, values, widths[1:])]
        click.echo("  ".join(cells).rstrip())
    click.echo(f"corpus: {amount(result.corpus_characters, 'character')}")
    if result.held_out is None:
        log("note: there is no held-out text to compare with: give --held-out")


def _print_spans(figures: Figures, raw: bool) -> None:
    """Print what is copied, and where it loops."""
    copies = [
        f"{copy.length:,} at {describe_place(copy.place)} = {describe_place(copy.source)}"
        + f", and {amount(copy.sources - 1, 'more place')}" * (copy.sources > 1) + f": {_quote(copy.text, raw)}"
        for copy in figures.copies
    ]  # fmt: skip
    near_copies = [
        f"{copy.length:,}, {copy.differing:,} differing, at {describe_place(copy.place)} = "
        f"{describe_place(copy.source)}: {_quote(copy.text, raw)}"
        for copy in figures.near_copies
    ]
    loops = [
        f"{loop.length:,} at {describe_place(loop.place)}, again and again: {_quote(loop.text, raw)}"
        for loop in figures.loops
    ]
    for title, lines in (("Copies", copies), ("Near-copies", near_copies), ("Loops", loops)):
        if lines:
            click.echo(f"\n{title}")
        for line in lines:
            _print_rows(escape_control(line, newlines=True))


def _print_rows(line: str) -> None:
    """Print a line in rows that fit a terminal, those behind the first indented; words may be cut."""
    width = terminal_width(sys.stdout)
    rows = [line] if width is None else cut_into_rows(line, width - 2)
    for number, row in enumerate(rows):
        click.echo("  " * (number > 0) + row)


def _quote(text: str, raw: bool) -> str:
    """A text between quotation marks, at most so long; line ends are escapes later."""
    shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") if raw else text
    return f'"{truncate(shown, MAX_TEXT)}"'


def _without_surrogates(value: Any, raw: bool) -> Any:
    """JSON data without what JSON cannot hold."""
    if isinstance(value, dict):
        return {name: _without_surrogates(item, raw) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_surrogates(item, raw) for item in value]
    return as_json_text(value, raw) if isinstance(value, str) else value
