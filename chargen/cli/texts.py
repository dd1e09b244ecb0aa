"""Texts that a command reads beside a model: the options that say how, reading them, what is told of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import click

from chargen.cli.options import Function, option
from chargen.cli.report import some_of
from chargen.cli.terminal import log
from chargen.data.reading import ReadingReport, Source, clean, read_text
from chargen.errors import amount
from chargen.storage.model_file import ModelFile

_LENIENT = "the unknown symbol where the model has one, else skip and count them"


def text_options(what: str, *, strict: bool = False) -> Callable[[Function], Function]:
    """--encoding, --errors and --unknown, for what is read; unknown characters stop a strict command by default."""

    def decorate(function: Function) -> Function:  # the last one first, as decorators are written
        does = "What to do with characters that the model does not know."
        function = option("--unknown", group="Text", type=click.Choice(["error", "skip", "replace"]), help=does,
                          default="error" if strict else None, show_default=strict,
                          shown_default=None if strict else _LENIENT)(function)  # fmt: skip
        function = option("--errors", group="Text", type=click.Choice(["strict", "replace"]), default="strict",
                          show_default=True, help="What to do with bytes that do not fit it.")(function)  # fmt: skip
        return option("--encoding", group="Text", metavar="TEXT", help=f"Encoding of {what}.",
                      shown_default="as in training")(function)  # fmt: skip

    return decorate


def read_alike(
    sources: Sequence[Source], file: ModelFile, encoding: str | None, errors: str, report: ReadingReport | None = None
) -> str:
    """The text of some sources, read as the model's own text was but for what was asked for."""
    reading = replace(file.reading, encoding=encoding or file.reading.encoding, errors=errors)
    return clean("".join(read_text(sources, reading, report=report)), file.reading)


def tell_of_text(report: ReadingReport, new: str, charged: int, left_out: int) -> None:
    """What reading met, and what became of characters that were never seen in training, which `new` has once each."""
    for count, noun, words in (
        (charged, "character", f"never seen in training, charged for the place among all others: {some_of(new)}"),
        (left_out, "character", f"never seen in training and left out: {some_of(new)}"),
        (report.replaced, "byte", "did not fit the encoding and became U+FFFD"),
        (len(report.passed_over), "file", "passed over as no text"),
    ):
        if count:
            log(f"note: {amount(count, noun)} {words}")
