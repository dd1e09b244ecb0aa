"""Errors name settings and calls as Python does; the command line writes them as its flags and commands."""

import re

import click

from chargen.errors import ChargenError

_QUOTED = r"(?<!\w)'(?:[^'\\]|\\.)*'|(?<!\w)\"(?:[^\"\\]|\\.)*\""
_SETTINGS = r"(?<![^ (])`(?P<settings>\w+(?:=[^`]+)?)`(?=[ :;,.)]|$)"


def write_flags(error: ChargenError, ctx: click.Context) -> str:
    """Write an error's message with `name` and `name="value"` as --name and --name value, and a call as a command.

    That is done for options of the command and of `chargen train`, to which advice may send. What is quoted in the
    message, and what the command was given, stays as it is.

    Args:
        error: its message names settings in backticks; a single wrong one may begin it.
        ctx: of the command that it ends.
    """
    setting = getattr(error, "setting", None)
    return _write(str(error), ctx, setting)


def write_settings(text: str) -> str:
    """Write advice with `name` and `name="value"` as --name and --name value, as errors are written.

    Args:
        text: names settings in backticks; where no command runs it stays as it is.
    """
    ctx = click.get_current_context(silent=True)
    return text if ctx is None else _write(text, ctx)


def _write(message: str, ctx: click.Context, setting: str | None = None) -> str:
    root = ctx.find_root()
    train = root.command.get_command(root, "train") if isinstance(root.command, click.Group) else None
    flags = {flag for command in (ctx.command, train) if command for option in command.params for flag in option.opts}
    if setting and message.startswith(f"{setting} ") and _flag(setting) in flags:
        message = _flag(setting) + message.removeprefix(setting)
    values = [value if isinstance(value, tuple) else (value,) for value in ctx.params.values()]
    typed = {str(item) for items in values for item in items if re.search(_SETTINGS, str(item))}

    def as_flags(match: re.Match[str]) -> str:
        items = [item.partition("=") for item in (match["settings"] or "").split(", ")]
        if not all(_flag(name) in flags for name, _, _ in items):
            return match[0]
        words = (_flag(f"no_{name}") if value == "False" else f"{_flag(name)} {value}" for name, _, value in items)
        words = (word.removesuffix(" True").rstrip() for word in words)
        return " ".join(words).replace('"', "")

    message = re.sub(r"get_corpus\('([\w-]+)'\)", r"chargen corpus get \1", message)
    return re.sub(
        "|".join([*map(re.escape, sorted(typed, key=len, reverse=True)), _QUOTED, _SETTINGS]), as_flags, message
    )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
