"""A setting is written once: name, type, default, range and help, in a frozen dataclass beside its use.

The command line derives its options from these fields, and every dataclass checks its own values.
"""

import dataclasses
import math
import numbers
import operator
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from chargen.errors import SettingError, repr_short

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
    resumable: bool = False,
) -> Any:
    """A dataclass field with its range (`low`, `high` inclusive; `above`, `below` exclusive) and its help.

    `resumable` marks what a resumed run may change without becoming another run.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "low": low,
            "high": high,
            "above": above,
            "below": below,
            "choices": tuple(choices),
            "resumable": resumable,
        },
    )


def setting_types(cls: type) -> dict[str, tuple[type, bool, bool]]:
    """For each field of `cls`: its plain type, whether it may be None, and whether it is a tuple of that type."""
    found = {}
    for name, hint in typing.get_type_hints(cls).items():
        optional = isinstance(hint, types.UnionType)
        if optional:
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        many = typing.get_origin(hint) is tuple
        found[name] = (typing.get_args(hint)[0] if many else hint, optional, many)
    return found


def make_settings(cls: type[Settings], values: Mapping[str, Any]) -> Settings:
    """A settings dataclass from values by name, such as keywords or a stored table. Raises SettingError."""
    known = {field.name for field in dataclasses.fields(typing.cast(Any, cls))}
    for name in values:
        if name not in known:
            raise SettingError(f"there is no setting {name!r} here; there are {', '.join(sorted(known))}")
    return cls(**values)


TYPE_NAMES: dict[type, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def describe_range(metadata: Mapping[str, Any]) -> str:
    """The allowed values in words, such as "at least 1" or "one of lstm, gru"."""
    if metadata["choices"]:
        return "one of " + ", ".join(metadata["choices"])
    if metadata["low"] is not None and metadata["high"] is not None:
        return f"{metadata['low']:,} to {metadata['high']:,}"
    words = []
    for key, word in (("low", "at least"), ("above", "more than"), ("high", "at most"), ("below", "less than")):
        if metadata[key] is not None:
            words.append(f"{word} {metadata[key]:,}")
    return " and ".join(words) or "finite"


def check_settings(instance: Any) -> None:
    """Check every field of a settings dataclass against its type and range; whole numbers become floats where asked.

    Raises SettingError naming the setting, its value and the range.
    """
    kinds = setting_types(type(instance))
    for field in dataclasses.fields(instance):
        kind, optional, many = kinds[field.name]
        value = getattr(instance, field.name)
        if value is None and optional:
            continue
        if many and not isinstance(value, (tuple, list)):
            raise SettingError(f"{field.name} is {repr_short(value)}: it must be a list", field.name)
        checked = [_check_value(field.name, one, kind, field.metadata) for one in (value if many else [value])]
        object.__setattr__(instance, field.name, tuple(checked) if many else checked[0])


def _check_value(name: str, value: Any, kind: type, metadata: Mapping[str, Any]) -> Any:
    if kind in (int, float) and not isinstance(value, bool) and isinstance(value, numbers.Integral):
        whole = int(value)  # NumPy's whole numbers too
        value = float(whole) if kind is float and abs(whole) < 2**1000 else whole
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise SettingError(f"{name} is {repr_short(value)}: it must be {TYPE_NAMES[kind]}", name)
    if isinstance(value, float) and not math.isfinite(value):
        ends = describe_range(metadata)
        raise SettingError(f"{name} is {value}: it must be finite{f', {ends}' * (ends != 'finite')}", name)
    wrong = bool(metadata["choices"]) and value not in metadata["choices"]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high, above, below = (metadata[key] for key in ("low", "high", "above", "below"))
        wrong = (
            (low is not None and value < low)
            or (high is not None and value > high)
            or (above is not None and value <= above)
            or (below is not None and value >= below)
        )
    if wrong:
        raise SettingError(f"{name} is {repr_short(value)}: it must be {describe_range(metadata)}", name)
    return value


def changed_settings(instance: Any) -> str:
    """A settings dataclass as Python writes it, without what is as by default."""
    values = ((field, getattr(instance, field.name)) for field in dataclasses.fields(instance))
    named = (f"{field.name}={value!r}" for field, value in values if value != field.default)
    return f"{type(instance).__name__}({', '.join(named)})"


def resumable_settings(cls: type) -> set[str]:
    """The names of the settings of `cls` that a resumed run may change."""
    return {field.name for field in dataclasses.fields(cls) if field.metadata["resumable"]}


def check_text(name: str, value: Any) -> str:
    """A text. Raises SettingError for anything but a str."""
    if not isinstance(value, str):
        advice = f"; decode it first, as in {name}.decode()" if isinstance(value, (bytes, bytearray)) else ""
        raise SettingError(f"{name} is of type {type(value).__name__}: it must be a str{advice}", name)
    return value


def check_int(name: str, value: Any, low: int, high: int = 2**64 - 1) -> int:
    """A whole number in a range, of any integer type. Raises SettingError."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise SettingError(f"{name} is {repr_short(value)}: it must be a whole number", name) from error
    if number < low or number > high:
        raise SettingError(f"{name} is {repr_short(value)}: it must be {low:,} to {high:,}", name)
    return number
