"""Options derived from the settings dataclasses, grouped in help, with values from a TOML file where one is given."""

import contextlib
import dataclasses
import math
import os
import re
import tomllib
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from chargen.cli.flags import write_flags
from chargen.cli.help import Context
from chargen.cli.terminal import set_quiet
from chargen.errors import ChargenError, SettingError, quote_backticks, repr_short
from chargen.settings import TYPE_NAMES, describe_range, setting_types
from chargen.suggestions import did_you_mean, similar_path

Function = TypeVar("Function", bound=Callable[..., Any])


class _Path(click.Path):
    """A path that is not empty: an empty one would be the folder that the command was called in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert a word of the command line to a path."""
        if param is not None and not os.fspath(value):
            name = param.opts[0] if isinstance(param, click.Option) else param.human_readable_name
            raise SettingError(f"{name} is '': it must be a path", param.name)
        return super().convert(value, param, ctx)


PATH = _Path(path_type=Path)
"""The type of every option and argument that is a path."""
PATH_TEXT = _Path()
"""The type of a path whose last slash says that it is a folder: a Path would lose it."""

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\"}
"""Characters by the letter that stands for them behind a backslash, as for xargs and paste."""


def _value_type(parameter: click.Parameter) -> type:
    """The type of a parameter's values: bool, int, float or str, which stands for paths and choices too."""
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return bool
    numbers = {click.types.IntParamType: int, click.types.FloatParamType: float}
    return next((kind for of_click, kind in numbers.items() if isinstance(parameter.type, of_click)), str)


class GroupedOption(click.Option):
    """An option that stands under a heading in help, and whose errors say which values are allowed.

    Args:
        *args: of `click.Option`.
        group: the heading.
        range: the allowed values in words, where the type does not know them.
        shown_default: the default in words, where the value itself does not say it.
        escapes: whether \\n in a value is a line end.
        words: words that stand for values.
        **kwargs: of `click.Option`.
    """

    def __init__(
        self,
        *args: Any,
        group: str = "Options",
        range: str = "",
        shown_default: str = "",
        escapes: bool = False,
        words: Mapping[str, Any] = types.MappingProxyType({}),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.escapes, self.words = escapes, words
        self.group = group
        self.range = range
        self.shown_default = shown_default or (str(self.default) if self.show_default else "")
        self.allowed = TYPE_NAMES[_value_type(self)]
        if escapes:
            self.range = r"\n is a line end, \t a tab"
        if isinstance(self.type, click.Choice):
            self.metavar = self.metavar or "|".join(self.type.choices)
            self.allowed = "one of " + ", ".join(self.type.choices)
        if isinstance(self.type, click.IntRange | click.FloatRange):
            self.range = describe_range({"low": self.type.min, "high": self.type.max})
        if _value_type(self) in (int, float):
            self.allowed += f", {self.range}"
        self.allowed = " or ".join([*words, self.allowed])

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Describe the option for help: its names, and its text with default and range."""
        record = super().get_help_record(ctx)
        notes = [f"default: {self.shown_default}"] if self.shown_default else []
        notes += [note for note in (self.range, "required" * self.required) if note]
        return record and (record[0], f"{self.help} [{'; '.join(notes)}]" if notes else self.help or "")

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert a value to the option's type; an error says what is allowed."""
        if isinstance(value, str) and value in self.words:
            return self.words[value]
        try:
            converted = super().type_cast_value(ctx, value)
        except (click.BadParameter, OverflowError, ValueError) as error:
            raise SettingError(
                f"{self.opts[0]} is {repr_short(value)}: it must be {self.allowed}", self.name
            ) from error
        if isinstance(converted, float) and math.isnan(converted):
            raise SettingError(f"{self.opts[0]} is {converted}: it must be {self.allowed}", self.name)
        if self.escapes and isinstance(converted, str):
            return re.sub(r"\\([ntr0\\])", lambda match: _ESCAPES[match[1]], converted)
        return converted

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Check a value; a missing one that is required is an error of the same form as a wrong one."""
        try:
            return super().process_value(ctx, value)
        except click.MissingParameter as error:
            raise SettingError(f"{self.opts[0]} is missing: it must be {self.allowed}", self.name) from error


SHORT_NAMES = {"--temperature": "-t", "--num": "-n"}
"""Short names of options, the same in all commands."""


class GroupedCommand(click.Command):
    """A command whose help lists options by group, and which has --quiet.

    Args:
        *args: of `click.Command`.
        exclusive: groups of options by name; where the command line has one of a group, what a settings file says of
            the others is dropped.
        **kwargs: of `click.Command`.
    """

    context_class = Context

    def __init__(self, *args: Any, exclusive: Sequence[tuple[str, ...]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.exclusive = exclusive
        self.params.append(
            GroupedOption(
                ["--quiet", "-q"],
                group="Other",
                is_flag=True,
                expose_value=False,
                callback=set_quiet,
                help="Tell nothing on standard error but warnings and errors.",
            )
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line."""
        with _errors_in_words_of(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
        for group in self.exclusive:
            if any(sources[name] is ParameterSource.COMMANDLINE for name in group):
                dropped = [name for name in group if sources[name] is ParameterSource.DEFAULT_MAP]
                ctx.params |= {name: () if isinstance(ctx.params[name], tuple) else None for name in dropped}
        with _errors_in_words_of(ctx):
            return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and not isinstance(parameter, click.Argument):
                groups.setdefault(getattr(parameter, "group", "Other"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


@contextlib.contextmanager
def _errors_in_words_of(ctx: click.Context) -> Iterator[None]:
    """Let an error name settings by their flags, and the settings file where a wrong setting comes from it."""
    try:
        yield
    except ChargenError as error:
        message = write_flags(error, ctx)
        name = error.setting if isinstance(error, SettingError) else None
        if name and ctx.get_parameter_source(name) is ParameterSource.DEFAULT_MAP:
            message = f"{ctx.meta['config']}: {message.removeprefix('--')}"
        error.args = (message,)
        raise


def option(*names: str, group: str, **kwargs: Any) -> Callable[[Function], Function]:
    """Make a decorator that adds an option in a group, with its short name where it has one.

    Args:
        *names: as `click.option` takes them.
        group: the heading in help.
        **kwargs: of `GroupedOption`.
    """
    names += tuple(SHORT_NAMES[name] for name in names if name in SHORT_NAMES)
    return click.option(*names, cls=GroupedOption, group=group, **kwargs)


def settings_options(
    cls: type,
    group: str,
    *,
    chosen: tuple[str, ...] = (),
    defaults: Mapping[str, Any] | None = None,
    escapes: tuple[str, ...] = (),
    only: Collection[str] | None = None,
) -> Callable[[Function], Function]:
    """Make a decorator that adds an option for each field of a settings dataclass.

    The default of each is None: the dataclass knows the real one.

    Args:
        cls: the dataclass.
        group: the heading in help.
        chosen: fields whose default the command chooses to fit.
        defaults: those of the command, where they are not those of the dataclass.
        escapes: fields in which \\n is a line end.
        only: fields that get one; None: all.
    """

    def decorate(function: Function) -> Function:
        kinds = setting_types(cls)
        for field in reversed(dataclasses.fields(cls)):
            kind, _, is_tuple = kinds[field.name]
            name = field.name.replace("_", "-")
            metadata = field.metadata
            if not metadata["help"] or (only is not None and field.name not in only):
                continue
            default = (defaults or {}).get(field.name, field.default)
            shown = "" if default in (None, (), "") else _format_default(default)
            names = f"--{name}/--no-{name}" if kind is bool else f"--{name}"
            choice = click.Choice(metadata["choices"], case_sensitive=False) if metadata["choices"] else None
            words = metadata["words"]
            metavar = None if kind is bool or choice else "|".join([*words, {int: "N", float: "X", str: "TEXT"}[kind]])
            function = option(
                names,
                field.name,
                group=group,
                type=choice or kind,
                default=None,
                escapes=field.name in escapes,
                words=words,
                help=metadata["help"][0].upper() + metadata["help"][1:] + ".",
                multiple=is_tuple,
                callback=(lambda ctx, parameter, value: value or None) if is_tuple else None,
                metavar=metavar,
                range=describe_range(metadata) if kind in (int, float) else "",
                shown_default="chosen to fit" if field.name in chosen else shown,
            )(function)
        return function

    return decorate


def _format_default(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def refuse_unused(names: tuple[str, ...], other: str) -> None:
    """Refuse options of the command line that would do nothing beside another.

    Args:
        names: of these options.
        other: the option beside which they do nothing, as a person types it.

    Raises:
        SettingError: where the command line has one of them.
    """
    for name in names:
        if click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise SettingError(f"--{name.replace('_', '-')} does nothing with {other}: leave one out")


def _load_config(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        settings = tomllib.loads(path.read_bytes().decode("utf-8"))  # as they are: a lone CR ends no line in TOML
    except (OSError, ValueError, RecursionError) as error:
        advice = "" if path.exists() else similar_path(path)
        raise SettingError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}{advice}") from error
    ctx.meta["config"] = path
    known = {
        (param.name if isinstance(param, click.Argument) else param.opts[0].lstrip("-").replace("-", "_")): param
        for param in ctx.command.params
        if param.name and param.name != "config"
    }
    defaults = {}
    for key, value in settings.items():
        name = key.replace("-", "_")
        if name not in known:
            raise SettingError(f"{quote_backticks(path)}: no setting {repr_short(key)}{did_you_mean(name, known)}")
        defaults[known[name].name] = _check_toml(path, key, value, known[name])
    ctx.default_map = defaults


def _check_toml(path: Path, name: str, value: Any, parameter: click.Parameter) -> Any:
    """Check the type of a TOML value: click would turn true into 1 and 3 into "3"."""
    is_list = parameter.multiple or parameter.nargs == -1
    if is_list and not isinstance(value, list):
        value = [value]
    allowed = parameter.allowed if isinstance(parameter, GroupedOption) else TYPE_NAMES[str]
    kind = _value_type(parameter)
    allowed_types = {kind, int} if kind is float else {kind}
    for item in value if is_list else [value]:
        if isinstance(item, str) and isinstance(parameter, GroupedOption) and item in parameter.words:
            continue
        if type(item) not in allowed_types or (isinstance(item, int) and item.bit_length() > 10_000):
            raise SettingError(f"{quote_backticks(path)}: {name} is {repr_short(item)}: it must be {allowed}")
    return value


config_option = option(
    "--config",
    group="Files",
    type=PATH,
    is_eager=True,
    expose_value=False,
    callback=_load_config,
    help="Settings from a TOML file, one `name = value` a line; the command line goes first.",
)
"""Adds `--config FILE.toml`: settings by name, which the command line overrides and which override the defaults."""
