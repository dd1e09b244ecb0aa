"""Options derived from the settings dataclasses, grouped in help, with values from a TOML file where one is given."""

import contextlib
import dataclasses
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from chargen.cli.help import Context
from chargen.cli.terminal import be_quiet
from chargen.errors import SettingError, repr_short
from chargen.settings import TYPE_NAMES, describe_range, setting_types
from chargen.suggestions import did_you_mean, similar_path

Settings = TypeVar("Settings")
Function = TypeVar("Function", bound=Callable[..., Any])


class _Path(click.Path):
    """A path; an empty one would be the folder that the command was called in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path. Raises SettingError for an empty one."""
        if param is not None and not os.fspath(value):
            name = param.opts[0] if isinstance(param, click.Option) else param.human_readable_name
            raise SettingError(f"{name} is '': it must be a path", param.name)
        return super().convert(value, param, ctx)


PATH = _Path(path_type=Path)
"""The type of every option and argument that is a path."""


_SIGNS = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\"}
"""What stands between two texts may be given with these behind a backslash, as for xargs and paste."""


class GroupedOption(click.Option):
    """An option that stands under a heading of its own in help, and whose refusals say what it may be.

    Args:
        range: in words, where its type does not know it.
        shown_default: the default in words, where the value itself does not say it.
        escapes: whether \\n in it is a line end.
    """

    def __init__(
        self,
        *args: Any,
        group: str = "Options",
        range: str = "",
        shown_default: str = "",
        escapes: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.escapes = escapes
        self.group = group
        self.range = range
        self.shown_default = shown_default or (str(self.default) if self.show_default else "")
        self.allowed = "text"
        if escapes:
            self.range = r"\n is a line end, \t a tab"
        if isinstance(self.type, click.Choice):
            self.metavar = self.metavar or "|".join(self.type.choices)
            self.allowed = "one of " + ", ".join(self.type.choices)
        elif isinstance(self.type, click.types.IntParamType | click.types.FloatParamType):
            if isinstance(self.type, click.IntRange | click.FloatRange):
                ends = {"low": self.type.min, "high": self.type.max, "above": None, "below": None}
                self.range = describe_range({"choices": (), **ends})
            kind = int if isinstance(self.type, click.types.IntParamType) else float
            self.allowed = f"{TYPE_NAMES[kind]}, {self.range}"

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Its names, and its help with default and range."""
        record = super().get_help_record(ctx)
        notes = [f"default: {self.shown_default}"] if self.shown_default else []
        notes += [note for note in (self.range, "required" * self.required) if note]
        return record and (record[0], f"{self.help} [{'; '.join(notes)}]" if notes else self.help or "")

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """The value as its type; a refusal says what is allowed."""
        try:
            found = super().type_cast_value(ctx, value)
        except (click.BadParameter, OverflowError, ValueError) as error:
            raise SettingError(
                f"{self.opts[0]} is {repr_short(value)}: it must be {self.allowed}", self.name
            ) from error
        if isinstance(found, float) and math.isnan(found):
            raise SettingError(f"{self.opts[0]} is {found}: it must be {self.allowed}", self.name)
        if self.escapes and isinstance(found, str):
            return re.sub(r"\\([ntr0\\])", lambda match: _SIGNS[match[1]], found)
        return found

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """The value, checked; one that must be given and is not is refused as a wrong one is."""
        try:
            return super().process_value(ctx, value)
        except click.MissingParameter as error:
            raise SettingError(f"{self.opts[0]} is missing: it must be {self.allowed}", self.name) from error


SHORT = {"--temperature": "-t", "--num": "-n"}
"""Short names, alike in all commands."""


class GroupedCommand(click.Command):
    """A command whose help lists its options by group, and which can be quiet."""

    context_class = Context

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            GroupedOption(
                ["--quiet", "-q"],
                group="Other",
                is_flag=True,
                expose_value=False,
                callback=be_quiet,
                help="Tell nothing on standard error but warnings and errors.",
            )
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line."""
        with _naming_file(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _naming_file(ctx):
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
def _naming_file(ctx: click.Context) -> Iterator[None]:
    """Name the settings file where the setting to blame stands in one."""
    try:
        yield
    except SettingError as error:
        if error.setting and ctx.get_parameter_source(error.setting) is ParameterSource.DEFAULT_MAP:
            raise SettingError(f"{ctx.meta['config']}: {str(error).removeprefix('--')}", error.setting) from error
        raise


def option(*names: str, group: str, **kwargs: Any) -> Callable[[Function], Function]:
    """A click option in a group, with its short name where it has one."""
    names += tuple(SHORT[name] for name in names if name in SHORT)
    return click.option(*names, cls=GroupedOption, group=group, **kwargs)


def settings_options(
    cls: type,
    group: str,
    *,
    leave_out: tuple[str, ...] = (),
    chosen: tuple[str, ...] = (),
    defaults: Mapping[str, Any] | None = None,
    escapes: tuple[str, ...] = (),
) -> Callable[[Function], Function]:
    """One option per field of a settings dataclass. Its default is None: the dataclass knows the real one.

    Args:
        leave_out: fields that get no option.
        chosen: fields whose default the command chooses to fit.
        defaults: those of the command, where they are not those of the dataclass.
        escapes: fields in which \\n is a line end.
    """

    def decorate(function: Function) -> Function:
        kinds = setting_types(cls)
        for field in reversed(dataclasses.fields(cls)):
            if field.name in leave_out:
                continue
            kind, _, many = kinds[field.name]
            name = field.name.replace("_", "-")
            metadata = field.metadata
            default = (defaults or {}).get(field.name, field.default)
            shown = "" if default in (None, (), "") else _shown(default)
            names = f"--{name}/--no-{name}" if kind is bool else f"--{name}"
            choice = click.Choice(metadata["choices"], case_sensitive=False) if metadata["choices"] else None
            metavar = None if kind is bool or choice else {int: "N", float: "X", str: "TEXT"}[kind]
            function = option(
                names,
                field.name,
                group=group,
                type=choice or kind,
                default=None,
                escapes=field.name in escapes,
                help=metadata["help"][0].upper() + metadata["help"][1:] + ".",
                multiple=many,
                metavar=metavar,
                range=describe_range(metadata) if kind in (int, float) else "",
                shown_default="chosen to fit" if field.name in chosen else shown,
            )(function)
        return function

    return decorate


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def given_settings(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    """The settings of `cls` that a command line or a file gave."""
    names = [field.name for field in dataclasses.fields(cls)]
    return {name: values[name] for name in names if values.get(name) not in (None, ())}


def command_line_wins(group: tuple[str, ...], values: dict[str, Any]) -> None:
    """Among settings that exclude each other, what the command line gives drops what a file gave."""
    source = click.get_current_context().get_parameter_source
    if any(source(name) is ParameterSource.COMMANDLINE for name in group):
        for name in group:
            if source(name) is ParameterSource.DEFAULT_MAP:
                values[name] = None


def unused(names: tuple[str, ...], given: str) -> None:
    """Raise SettingError where the command line gives an option that would do nothing beside another."""
    for name in names:
        if click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise SettingError(f"--{name.replace('_', '-')} does nothing with {given}: leave one out")


def config_option(function: Function) -> Function:
    """`--config FILE.toml`: settings by name, which the command line overrides and which override the defaults."""
    return option(
        "--config",
        group="Files",
        type=PATH,
        is_eager=True,
        expose_value=False,
        callback=_load_config,
        help="Settings from a TOML file, one `name = value` a line; the command line goes first.",
    )(function)


def _load_config(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        settings = tomllib.loads(path.read_bytes().decode("utf-8"))  # as they are: a lone CR ends no line in TOML
    except (OSError, ValueError, RecursionError) as error:
        meant = "" if path.exists() else similar_path(path)
        raise SettingError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}{meant}") from error
    ctx.meta["config"] = path
    known = {
        (one.name if isinstance(one, click.Argument) else one.opts[0].lstrip("-").replace("-", "_")): one
        for one in ctx.command.params
        if one.name and one.name != "config"
    }
    found = {}
    for written, value in settings.items():
        name = written.replace("-", "_")
        if name not in known:
            raise SettingError(f"{path}: no setting {repr_short(written)}{did_you_mean(name, known)}")
        found[known[name].name] = _check_toml(path, written, value, known[name])
    ctx.default_map = found


def _check_toml(path: Path, name: str, value: Any, parameter: click.Parameter) -> Any:
    """TOML's own types must fit: click would turn true into 1 and 3 into "3"."""
    many = parameter.multiple or parameter.nargs == -1
    if many and not isinstance(value, list):
        value = [value]
    flag = isinstance(parameter, click.Option) and parameter.is_flag
    allowed = parameter.allowed if isinstance(parameter, GroupedOption) else TYPE_NAMES[str]
    wanted: tuple[type, ...] = (str,)
    if flag:
        wanted = (bool,)
    elif isinstance(parameter.type, click.types.IntParamType):
        wanted = (int,)
    elif isinstance(parameter.type, click.types.FloatParamType):
        wanted = (int, float)
    for one in value if many else [value]:
        if not isinstance(one, wanted) or (isinstance(one, bool) and not flag):
            raise SettingError(
                f"{path}: {name} is {repr_short(one)}: it must be {TYPE_NAMES[wanted[-1]] if flag else allowed}"
            )
        if isinstance(one, int) and one.bit_length() > 10_000:
            raise SettingError(f"{path}: {name} is {repr_short(one)}: it must be {allowed}")
    return value
