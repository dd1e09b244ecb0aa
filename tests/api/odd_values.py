"""Values that may stand for an argument, and those that do not fit."""

import contextlib
import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from chargen.decoding.rules import Rules

ODD_NUMBERS = [
    0, -1, 1, 2, 3, 7, 9, 1.0, 1.5, -0.5, math.nan, math.inf, -math.inf, True, "3", "", None, b"1", np.int32(2),
    np.uint8(3), np.float64(0.5), np.float32("nan"), 2**31, 2**63, 2**64, -(2**63), 10**30, 1j,
]  # fmt: skip
"""What may stand for a number."""
SMALL = [number for number in ODD_NUMBERS if not isinstance(number, int) or abs(number) < 100]
TEXTS = ["", "a", "abc", "b" * 50, "\n", "é", "e\u0301", "漢", "\0", "\ud800", "a\udcff", "\U0010ffff", "🎭", b"abc",
         None, 5, ["a"], ("a", "b"), "\u202e"]  # fmt: skip
THINGS: list[Any] = [None, 0, -1, 1.5, "x", b"x", [], (), {}, [1, 2], np.zeros(3), torch.zeros(2), object()]
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
OTHERS = [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64, torch.int8, torch.float64]
TYPES = ["i8", "i4", "u1", "u8", "f4", "f8", "f2", "c8", "?", ">i8", ">f4", "O", "U3"]


class Odd:
    """Changes one argument."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random

    def pick(self, values: Any) -> Any:
        return values[int(self.random.integers(len(values)))]

    def change(self, value: Any, small: bool = False) -> Any:
        """Change a value into another one that a caller might pass.

        Args:
            small: whether large numbers would take memory or time.
        """
        if isinstance(value, torch.Tensor):
            return self.tensor(value)
        if isinstance(value, np.ndarray):
            return self.array(value)
        if isinstance(value, (bool, int, float)):
            return self.pick(SMALL if small else ODD_NUMBERS)
        if isinstance(value, str):
            return self.pick(TEXTS)
        if isinstance(value, tuple) and value:
            return self.parts(value)
        if isinstance(value, dict) and value:
            changed = dict(value)
            name = self.pick(sorted(value))
            if self.random.random() < 0.3:
                del changed[name]
            else:
                changed[name] = self.change(value[name])
            return changed
        if isinstance(value, Rules):
            name = self.pick(["masks", "next_mask", "stop_after"])
            return replace(value, **{name: self.change(getattr(value, name))})
        return self.pick(THINGS)

    def parts(self, value: tuple[Any, ...]) -> Any:
        at = int(self.random.integers(len(value)))
        ways: list[Callable[[], Any]] = [
            lambda: (*value[:at], self.change(value[at]), *value[at + 1 :]),
            lambda: tuple(self.change(part) for part in value),
            lambda: value[:-1],
            lambda: (*value, value[0]),
            lambda: list(value),
            lambda: self.pick(THINGS),
        ]
        return self.pick(ways)()

    def tensor(self, value: torch.Tensor) -> Any:
        size = value.numel()
        ways: list[Callable[[], Any]] = [
            lambda: value[:-1],
            lambda: value[..., :-1],
            lambda: torch.cat([value, value]) if value.dim() else value,
            lambda: value[None],
            lambda: value[..., None],
            lambda: value.flatten(),
            lambda: value[:0],
            lambda: value[..., :0],
            lambda: value[0] if len(value) else value,
            lambda: value.transpose(0, -1).contiguous().transpose(0, -1),
            lambda: value.transpose(0, -1),
            lambda: torch.stack([value, value], -1)[..., 0],
            lambda: value[:1].expand(value.shape),
            lambda: value.flip(0),
            lambda: value.to(self.pick(OTHERS)),
            lambda: value.to(self.pick(FLOATS)),
            lambda: value.to("meta"),
            lambda: value.to_sparse(),
            lambda: value.clone().requires_grad_() if value.is_floating_point() else value,
            lambda: self.filled(value, size),
            lambda: self.filled(value, size),
            lambda: self.filled(value, size),
            lambda: self.inference(value),
            value.numpy if not value.requires_grad and value.dtype != torch.bfloat16 else lambda: None,
            value.tolist,
            lambda: nn.Parameter(value.clone(), requires_grad=False),
            lambda: self.pick(THINGS),
        ]
        with contextlib.suppress(IndexError, TypeError):  # of nothing there is no part
            return self.pick(ways)()
        return None

    def filled(self, value: torch.Tensor, size: int) -> torch.Tensor:
        """Change some numbers."""
        number = self.pick([-1, -100, 2**31, 10**8, 127, 31, 10, 11, -(2**62)])
        if value.is_floating_point():
            number = self.pick([math.nan, math.inf, -math.inf, 1e30, -1e30, 1e-40])
        other = value.detach().clone()
        if size:
            with contextlib.suppress(RuntimeError):  # where a type holds no such number
                other.view(-1)[int(self.random.integers(size))] = number
        return other

    def inference(self, value: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return value.detach().clone()

    def array(self, value: Any) -> Any:
        def number() -> Any:
            other = value.copy()
            if other.size:
                odd_values = {
                    "i": [-1, 10**9, -(2**62), 10, 31],
                    "b": [True],
                    "u": [200],
                    "f": [math.nan, math.inf, 1e30, 1.0],
                }
                other.flat[int(self.random.integers(other.size))] = self.pick(odd_values.get(other.dtype.kind, [0]))
            return other

        def read_only() -> Any:
            other = value.copy()
            other.flags.writeable = False
            return other

        ways: list[Callable[[], Any]] = [
            lambda: value[:-1],
            lambda: value[..., :-1],
            lambda: np.concatenate([value, value]),
            lambda: value[None],
            lambda: value[..., None],
            value.ravel,
            lambda: value[:0],
            lambda: value[..., :0],
            lambda: value[0],
            lambda: np.asfortranarray(value),
            lambda: value.T,
            lambda: np.stack([value, value], -1)[..., 0],
            lambda: np.broadcast_to(value[:1], value.shape),
            lambda: value[::-1],
            lambda: value.astype(self.pick(TYPES)),
            lambda: value.astype(self.pick(TYPES)),
            number,
            number,
            number,
            read_only,
            read_only,
            value.tolist,
            lambda: torch.from_numpy(value.copy()),
            lambda: self.pick(THINGS),
        ]
        with contextlib.suppress(IndexError, TypeError, ValueError):
            return self.pick(ways)()
        return None


def shown(value: Any) -> str:
    """An argument as a log shows it."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        end = "" if 0 in value.shape or getattr(value, "is_meta", False) else f" {str(value).split(chr(10))[0][:40]}"
        return f"{type(value).__name__}{tuple(value.shape)} {value.dtype}{end}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {shown(part)}" for name, part in value.items()) + "}"
    if isinstance(value, (tuple, list)) and not all(isinstance(part, (int, str, float)) for part in value):
        return f"{type(value).__name__}[" + ", ".join(map(shown, value)) + "]"
    return repr(value)[:80]


def finite(value: Any) -> bool:
    """Whether all numbers of an argument are ones that a model can be expected to read."""
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, (tuple, list)):
        return all(map(finite, value))
    if isinstance(value, torch.Tensor):
        return value.is_meta or not value.is_floating_point() or bool((value.detach().double().abs() < 1e6).all())
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "fc" or bool((np.abs(value) < 1e6).all())
    return not isinstance(value, float) or math.isfinite(value)


def copied(value: Any) -> Any:
    """A copy, so that a call does not see what another call has changed."""
    try:
        return copy.deepcopy(value) if isinstance(value, (np.ndarray, tuple, list, dict)) else value
    except (RuntimeError, TypeError):
        return value
