"""Errors name settings as Python does; the command line writes them as its flags."""

import re
from collections.abc import Iterator
from typing import Any

import click

from chargen.errors import ChargenError, SettingError

_SETTINGS = r"`(?P<settings>\w+(?:=[^`]+)?)`(?=[ :;,.)]|$)"
_QUOTED = r"(?<!\w)'(?:[^'\\]|\\.)*'|(?<!\w)\"(?:[^\"\\]|\\.)*\""


def write_flags(error: ChargenError, ctx: click.Context) -> str:
    """Write an error's message with `name` and `name="value"` as --name and --name value.

    That is done for options of the command and of `chargen train`, to which advice may send. What is quoted in the
    message, and what the command was given, stays as it is.

    Args:
        error: its message names settings in backticks.
        ctx: of the command that it ends.
    """
    message, flags = str(error), set(_flags(ctx.command))
    name = error.setting if isinstance(error, SettingError) else None
    if name and message.startswith(f"{name} ") and _flag(name) in flags:
        message = _flag(name) + message.removeprefix(name)
    if "`" not in message:
        return message
    from chargen.cli.train import command as train

    flags |= set(_flags(train))
    given = sorted((text for text in _texts([*ctx.params.values()]) if "`" in text), key=len, reverse=True)

    def as_flags(match: re.Match[str]) -> str:
        items = [item.partition("=") for item in (match["settings"] or "").split(", ")]
        if not all(_flag(name) in flags for name, _, _ in items):
            return match[0]
        values = (value.strip('"') if value != "True" else "" for _, _, value in items)
        return " ".join(f"{_flag(name)} {value}".rstrip() for (name, _, _), value in zip(items, values, strict=True))

    return re.sub("|".join([*map(re.escape, given), _QUOTED, rf"(?<![^ (]){_SETTINGS}"]), as_flags, message)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _flags(command: click.Command) -> Iterator[str]:
    """The flags of a command, as a person types them."""
    for parameter in command.params:
        yield from parameter.opts if isinstance(parameter, click.Option) else ()


def _texts(value: Any) -> Iterator[str]:
    """Every text in the values of a command's parameters."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
    else:
        yield str(value)
