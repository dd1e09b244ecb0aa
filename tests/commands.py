"""Commands run in the process of a test: the `run` fixture, and what it returns."""

import contextlib
import io
import sys
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import click
import pytest

from chargen.cli.main import cli, main

TEXT = "Call me Ishmael. Some years ago, never mind how long precisely, I went to sea.\n" * 40
"""What `text.txt` holds where commands run."""
SMALL = [
    "--hidden-size",
    "12",
    "--embedding-size",
    "6",
    "--batch-size",
    "4",
    "--seq-length",
    "8",
    "--precision",
    "fp32",
]
"""Sizes of a model that learns in no time, in a precision that every machine has."""
QUICK = [*SMALL, "--preview", "0"]


class Result(NamedTuple):
    """What a command did: its exit code, and what it wrote to standard output and to standard error."""

    code: Any
    out: str
    err: str

    @property
    def data(self) -> bytes:
        """Standard output as it was written: text may hold bytes that are none."""
        return self.out.encode("utf-8", "surrogateescape")

    @property
    def last(self) -> str:
        """The last line of standard error, where errors stand; without its end."""
        return self.err.splitlines()[-1] if self.err else ""

    def one_line(self) -> bool:
        """Whether nothing but one line of error was said."""
        return self.out == "" and is_one_line(self.err)


Run = Callable[..., Result]


def is_one_line(err: str) -> bool:
    """Whether standard error, or its end, is one line of error."""
    return err.startswith("chargen: ") and err.endswith("\n") and err.count("\n") == 1


def run_command(*arguments: Any, stdin: bytes | None = None, stdout: io.TextIOBase | None = None) -> Result:
    """Run a command in this process.

    Args:
        arguments: of the command, which is the first; each is written out as text.
        stdin: what it reads from standard input.
        stdout: what is its standard output, instead of one whose text is returned.

    Returns:
        Its exit code and what it wrote. No command ends with a traceback.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="", write_through=True) for _ in range(2))
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(stdout or out))
        stack.enter_context(contextlib.redirect_stderr(err))
        if stdin is not None:
            stack.enter_context(mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))))
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
    said = err.buffer.getvalue().decode()
    assert "Traceback" not in said, said
    return Result(ended.value.code, out.buffer.getvalue().decode("utf-8", "surrogateescape"), said)


def parse(name: str, arguments: list[str]) -> click.Context:
    """Parse the arguments of a command as the program does: a command remembers how it was first asked for help."""
    parent = click.Context(cli, **cli.context_settings)
    command = cli.get_command(parent, name)
    assert command is not None
    return command.make_context(name, arguments, parent=parent)


def flags(**options: Any) -> list[str]:
    """Arguments of a function as options of a command: a list or tuple of values as many options, True as a flag."""
    words = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        for each in value if isinstance(value, (list, tuple)) else (value,):
            words += [f"--{'no-' * (each is False)}{flag}"] if isinstance(each, bool) else [f"--{flag}", str(each)]
    return words
