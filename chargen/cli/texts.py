"""Texts that a command reads beside a model: the options that say how, reading them, what is logged of them."""

from collections.abc import Callable, Sequence

import click

from chargen.cli.options import Function, option
from chargen.cli.report import list_characters, name_label
from chargen.cli.terminal import log
from chargen.errors import amount

_LENIENT = "the unknown symbol where the model has one, else skip and count them"


def text_options(name: str, *, strict: bool = False) -> Callable[[Function], Function]:
    """Make a decorator that adds --encoding, --errors and --unknown to a command.

    Args:
        name: of the text that is read, for help.
        strict: whether unknown characters are an error by default.
    """

    def decorate(function: Function) -> Function:  # the last option first, as decorators are written
        function = option("--unknown", group="Text", type=click.Choice(["error", "skip", "replace"]),
                          help="What to do with characters that the model does not know.",
                          default="error" if strict else None, show_default=strict,
                          shown_default=None if strict else _LENIENT)(function)  # fmt: skip
        function = option("--errors", group="Text", type=click.Choice(["strict", "replace"]), default="strict",
                          show_default=True, help="What to do with bytes that do not fit it.")(function)  # fmt: skip
        return option("--encoding", group="Text", metavar="TEXT", help=f"Encoding of {name}.",
                      shown_default="as in training")(function)  # fmt: skip

    return decorate


def log_text_report(replaced: int, passed_over: int, unseen: str, charged: int, left_out: int) -> None:
    """Log what reading met, and what became of characters that training never saw.

    Args:
        replaced: bytes that did not fit the encoding.
        passed_over: files that are no text.
        unseen: those characters, each once.
        charged: how many of the text's characters were charged for one of all the characters there are.
        left_out: how many were not scored.
    """
    names = list_characters(unseen)
    for count, noun, words in (
        (charged, "character", f"never seen in training, charged for the place among all others: {names}"),
        (left_out, "character", f"never seen in training and left out: {names}"),
        (replaced, "byte", "did not fit the encoding and became U+FFFD"),
        (passed_over, "file", "passed over as no text"),
    ):
        if count:
            log(f"note: {amount(count, noun)} {words}")


def log_unknown_labels(labels: Sequence[str]) -> None:
    """Log which labels of a text the model does not know.

    Args:
        labels: those.
    """
    if labels:
        names = ", ".join(map(name_label, labels[:5])) + " …" * (len(labels) > 5)
        log(f"note: {amount(len(labels), 'label')} unknown to the model, which reads their records without: {names}")
