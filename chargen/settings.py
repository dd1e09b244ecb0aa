"""Settings: fields of frozen dataclasses that hold name, type, default, range and help in one place.

The command line derives its options from these fields, and every dataclass checks its own values.
"""

import dataclasses
import math
import numbers
import operator
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from chargen.errors import SettingError, repr_short
from chargen.suggestions import did_you_mean

Settings = typing.TypeVar("Settings")


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
    words: Mapping[str, Any] = types.MappingProxyType({}),
    resumable: bool = False,
) -> Any:
    """Make a dataclass field that knows its range and its help.

    Args:
        default: its value where none is chosen.
        help: one line; empty for what is not a person's to choose, which gets no option.
        low: the least allowed number.
        high: the largest allowed number.
        above: what a number must be more than.
        below: what a number must be less than.
        choices: the allowed texts.
        words: what a person may write for some values; None is that which is chosen to fit.
        resumable: whether a resumed run may change it.
    """
    metadata = {"help": help, "low": low, "high": high, "above": above, "below": below, "choices": tuple(choices)}
    return dataclasses.field(default=default, metadata=metadata | {"words": words, "resumable": resumable})


def setting_types(cls: type) -> dict[str, tuple[type, bool, bool]]:
    """Read the types of a settings dataclass.

    Args:
        cls: the dataclass.

    Returns:
        For each field: its plain type, whether it may be None, and whether it is a tuple of that type.
    """
    return _read_types(typing.cast(Any, cls))


@cache
def _read_types(cls: Any) -> dict[str, tuple[type, bool, bool]]:
    by_name = {}
    for name, hint in typing.get_type_hints(cls).items():
        optional = isinstance(hint, types.UnionType)
        if optional:
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        is_tuple = typing.get_origin(hint) is tuple
        by_name[name] = (typing.get_args(hint)[0] if is_tuple else hint, optional, is_tuple)
    return by_name


def as_json(settings: Any) -> dict[str, Any]:
    """The values of a settings dataclass by name, as JSON has them: tuples are lists.

    Args:
        settings: the dataclass.
    """
    values = dataclasses.asdict(settings)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def make_settings(cls: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Make a settings dataclass.

    Args:
        cls: the dataclass.
        values: by name, such as keywords or a stored table.

    Raises:
        SettingError: where a name is unknown or a value is not allowed.
    """
    known = {field.name for field in dataclasses.fields(typing.cast(Any, cls))}
    for name in values:
        if name not in known:
            advice = did_you_mean(name, known) or f"; there are {', '.join(sorted(known))}"
            raise SettingError(f"there is no setting {name!r} here{advice}")
    return cls(**values)


def read_words(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Put values in the place of words that stand for them.

    Args:
        cls: a settings dataclass.
        values: by name; those that are no settings of this class stay as they are.
    """
    words = {field.name: field.metadata["words"] for field in dataclasses.fields(typing.cast(Any, cls))}
    return {
        name: words[name].get(value, value) if name in words and isinstance(value, str) else value
        for name, value in values.items()
    }


def drop_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """Drop settings that are None: where none is given, the default is taken.

    Args:
        values: by name.
    """
    return {name: value for name, value in values.items() if value is not None}


_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "low": ("at least", operator.ge),
    "above": ("more than", operator.gt),
    "high": ("at most", operator.le),
    "below": ("less than", operator.lt),
}
"""The bounds of a number: how they are called, and what is true of a number within."""

TYPE_NAMES: dict[type, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def describe_range(metadata: Mapping[str, Any]) -> str:
    """Say which values are allowed, such as "at least 1" or "one of lstm, gru".

    Args:
        metadata: of a dataclass field that `setting` made; what is missing is no limit.
    """
    if metadata.get("choices"):
        return "one of " + ", ".join(metadata["choices"])
    bounds = {name: metadata[name] for name in _BOUNDS if metadata.get(name) is not None}
    if {"low", "high"} <= bounds.keys():
        return f"{bounds['low']:,} to {bounds['high']:,}"
    return " and ".join(f"{_BOUNDS[name][0]} {bound:,}" for name, bound in bounds.items()) or "finite"


def check_settings(instance: Any) -> None:
    """Check every field of a settings dataclass against its type and range.

    Args:
        instance: the dataclass; whole numbers in fields of floats become floats, lists become tuples.

    Raises:
        SettingError: naming the setting, its value and the range.
    """
    field_types = setting_types(type(instance))
    for field in dataclasses.fields(instance):
        plain_type, optional, is_tuple = field_types[field.name]
        value = getattr(instance, field.name)
        if value is None and optional:
            continue
        if is_tuple and not isinstance(value, (tuple, list)):
            raise SettingError(f"{field.name} is {repr_short(value)}: it must be a list", field.name)
        items = value if is_tuple else [value]
        checked = [_check_value(field.name, item, plain_type, field.metadata) for item in items]
        object.__setattr__(instance, field.name, tuple(checked) if is_tuple else checked[0])


def _check_value(name: str, value: Any, plain_type: type, metadata: Mapping[str, Any]) -> Any:
    """The value, as its type where a whole number stands for it; raises SettingError."""
    if plain_type in (int, float) and not isinstance(value, bool) and isinstance(value, numbers.Integral):
        value = int(value)  # NumPy's integers too
        value = float(value) if plain_type is float and abs(value) < 2**1000 else value
    if not isinstance(value, plain_type) or (plain_type is not bool and isinstance(value, bool)):
        raise SettingError(f"{name} is {repr_short(value)}: it must be {TYPE_NAMES[plain_type]}", name)
    if isinstance(value, float) and not math.isfinite(value):
        ends = describe_range(metadata)
        raise SettingError(f"{name} is {value}: it must be finite{f', {ends}' * (ends != 'finite')}", name)
    is_choice = not metadata["choices"] or value in metadata["choices"]
    bounds = ((holds, metadata[name]) for name, (_, holds) in _BOUNDS.items())
    if not is_choice or not all(bound is None or holds(value, bound) for holds, bound in bounds):
        raise SettingError(f"{name} is {repr_short(value)}: it must be {describe_range(metadata)}", name)
    return value


def changed_settings(instance: Any) -> str:
    """Format a settings dataclass as Python writes it, without fields that have their default.

    Args:
        instance: the dataclass.
    """
    values = ((field, getattr(instance, field.name)) for field in dataclasses.fields(instance))
    named = (f"{field.name}={value!r}" for field, value in values if value != field.default)
    return f"{type(instance).__name__}({', '.join(named)})"


def resumable_settings(cls: type) -> set[str]:
    """List the settings that a resumed run may change.

    Args:
        cls: a settings dataclass.

    Returns:
        Their names.
    """
    return {field.name for field in dataclasses.fields(cls) if field.metadata["resumable"]}


def check_text(name: str, value: Any) -> str:
    """Return a value that must be a str.

    Args:
        name: of the argument, for messages.
        value: the text.

    Raises:
        SettingError: for anything but a str.
    """
    if not isinstance(value, str):
        advice = f"; decode it first, as in {name}.decode()" if isinstance(value, (bytes, bytearray)) else ""
        raise SettingError(f"{name} is of type {type(value).__name__}: it must be a str{advice}", name)
    return value


def check_path(name: str, value: Any) -> Path:
    """Return a path that must be a str or a path, and not empty.

    Args:
        name: of the argument, for messages.
        value: the path.

    Raises:
        SettingError: for anything else.
    """
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise SettingError(f"{name} is {repr_short(value)}: it must be a path", name)
    return Path(value)


def check_int(name: str, value: Any, low: int, high: int = 2**64 - 1) -> int:
    """Return a whole number, of any integer type, as an int.

    Args:
        name: of the setting or argument, for messages.
        value: the number.
        low: the least allowed.
        high: the largest allowed.

    Raises:
        SettingError: where it is no whole number, or out of range.
    """
    try:
        number = operator.index(value)
    except TypeError as error:
        raise SettingError(f"{name} is {repr_short(value)}: it must be a whole number", name) from error
    if number < low or number > high:
        raise SettingError(f"{name} is {repr_short(value)}: it must be {low:,} to {high:,}", name)
    return number
