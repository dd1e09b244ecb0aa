"""Every public function and class, called with what fits and with what does not.

Arguments fit at first, and then some are changed: in shape, type, layout, device or value, or into another thing. A
call may give an answer, the one that the reference gives; or refuse in one line. It happens in a process of its own,
since what compiled code would do to the interpreter could not be caught.
"""

import contextlib
import copy
import io
import itertools
import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import small_model
from torch import nn

import chargen
from chargen.data.batches import BackwardBatches
from chargen.data.reading import ReadingConfig
from chargen.decoding.choose import choose, draw, log_softmax, probabilities
from chargen.decoding.cloze import NumpyCloze
from chargen.decoding.compiled_engine import CompiledEngine
from chargen.decoding.numpy_engine import Chunk, NumpyEngine
from chargen.decoding.pick_engine import new_engine
from chargen.decoding.rules import Rules
from chargen.decoding.torch_engine import TorchEngine, choose_rows
from chargen.errors import ChargenError
from chargen.model import dropout, layers, loss
from chargen.model.cloze import Cloze
from chargen.model.dropout import DropoutKey, drop
from chargen.model.layers import detach, new_layer, run_embedded, run_layer, start_fresh, zero_state
from chargen.model.loss import cross_entropy, nats_per_target
from chargen.rng import Purpose, generator_seed, uniform
from chargen.storage.model_file import build_model
from chargen.storage.quantize import quantize

CALLS = 10_000
"""Of the long test."""
FEW = 400
"""Of the short one."""
PARTS = 4
"""Processes that share them."""

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


@dataclass
class Call:
    """A function with arguments that fit, by name.

    Args:
        reference: gives the answer that is right, from the same arguments.
        close: how far from it an answer may be.
        small: arguments of which large numbers would take memory or time.
        fixed: arguments that stay as they are.
    """

    function: Callable[..., Any]
    arguments: dict[str, Any]
    reference: Callable[..., Any] | None = None
    close: float = 1e-3
    small: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """A context in which nothing compiled runs."""
    with contextlib.ExitStack() as patches:
        for module in (layers, loss, dropout):
            patches.enter_context(mock.patch.object(module, "available", return_value=False))
        yield


def by_torch(function: Callable[..., Any]) -> Callable[..., Any]:
    def reference(**arguments: Any) -> Any:
        with plainly():
            return function(**arguments)

    return reference


@cache
def file(cell: str, bidirectional: bool, unit: str = "character", hidden_size: int = 12) -> Any:
    return small_model(cell, bidirectional=bidirectional, unit=unit, hidden_size=hidden_size, scale=1.0)


@cache
def torch_model(cell: str, tie_weights: bool, dropout: float, kind: torch.dtype, device: str, hidden_size: int) -> Any:
    config = chargen.ModelConfig(
        cell, 2, hidden_size, None if tie_weights else 8, dropout, bidirectional=True, tie_weights=tie_weights
    )
    return chargen.CharModel(config, 10).to(kind).to(device)


class Calls:
    """One random call of each kind; the methods' names are those of the kinds."""

    def __init__(self, random: np.random.Generator, folder: Path) -> None:
        self.random, self.folder = random, folder
        self.odd = Odd(random)

    def ids(self, *shape: int, size: int = 10) -> Any:
        return self.random.integers(0, size, shape)

    def floats(self, *shape: int) -> Any:
        return torch.from_numpy(self.random.normal(size=shape).astype(np.float32))

    def model(self) -> Any:
        rare = self.random.random() < 0.2
        kind = self.odd.pick(FLOATS) if rare else torch.float32
        device = "meta" if self.random.random() < 0.05 else "cpu"
        cell, dropout, hidden = self.odd.pick(["gru", "lstm"]), self.odd.pick([0.0, 0.5]), self.odd.pick([12, 32])
        return torch_model(cell, bool(self.random.integers(2)), dropout, kind, device, hidden)

    def file(self, both: bool | None = None) -> Any:
        both = bool(self.random.integers(2)) if both is None else both
        unit = self.odd.pick(["character", "character", "byte"])
        return file(self.odd.pick(["gru", "lstm"]), both, unit, self.odd.pick([12, 64]))

    def rows(self) -> int:
        return int(self.odd.pick([1, 3, 8, 9, 33]))

    # The model

    def make_model(self) -> Call:
        def make(config: Any, vocabulary_size: Any, seed: Any) -> Any:
            return chargen.CharModel(config, vocabulary_size, seed).output.weight

        arguments = {"config": chargen.ModelConfig(num_layers=1, hidden_size=4), "vocabulary_size": 5, "seed": 1}
        return Call(make, arguments, small=("vocabulary_size",))

    def read_model(self) -> Call:
        model, rows = self.model(), self.rows()
        learn = bool(self.random.integers(2))
        mode = self.odd.pick(["", "", "no_grad", "inference_mode", "autocast"])
        twice = bool(self.random.integers(2))

        def read(ids: Any, state: Any, noise: Any, direction: Any) -> Any:
            with contextlib.ExitStack() as modes:
                if mode == "autocast":
                    modes.enter_context(torch.autocast("cpu", torch.bfloat16))
                elif mode:
                    modes.enter_context(getattr(torch, mode)())
                logits, after = model(ids, state, noise, direction)
                if learn and not mode and logits.numel():
                    cost = logits.double().pow(2).mean() + sum(part.double().mean() for part in after)
                    weights = list(model.embedding.parameters()) + list(model.stack(direction).parameters())
                    gradients = torch.autograd.grad(cost, weights, retain_graph=twice)
                    again = torch.autograd.grad(cost, weights) if twice else ()
                    return logits, *after, *gradients, *again
                return logits, *after

        state = (
            tuple(self.floats(rows, model.config.state_size) / 3 for _ in range(2))
            if self.random.random() < 0.7
            else None
        )
        if state and model.device.type == "meta":
            state = tuple(part.to("meta") for part in state)
        ids = torch.from_numpy(self.ids(rows, int(self.random.integers(0, 7))))
        noise = DropoutKey(3, 4) if self.random.random() < 0.2 else None
        reference = None if noise and model.config.dropout else by_torch(read)
        arguments = {"ids": ids, "state": state, "masks": noise, "direction": self.odd.pick(["forward", "backward"])}
        narrow = mode == "autocast" or next(model.parameters()).dtype in (torch.float16, torch.bfloat16)
        return Call(read, arguments, reference, 0.2 if narrow else 1e-3)

    def cloze_logits(self) -> Call:
        model, rows = self.model(), self.rows()
        left, right = (self.floats(rows, model.config.hidden_size) for _ in range(2))
        return Call(lambda left, right: model.cloze_logits(left, right), {"left": left, "right": right})

    def layer(self) -> Call:
        cell, rows, hidden = self.odd.pick(["gru", "lstm"]), self.rows(), self.odd.pick([12, 32])
        config = chargen.ModelConfig(cell, 1, hidden, 8)
        state = self.floats(rows, config.state_size)
        arguments = {"module": new_layer(config, 0), "inputs": self.floats(rows, 4, 8), "state": state}
        return Call(run_layer, arguments, by_torch(run_layer))

    def embedded_layer(self) -> Call:
        cell, rows, hidden = self.odd.pick(["gru", "lstm"]), self.rows(), self.odd.pick([12, 32])
        config = chargen.ModelConfig(cell, 1, hidden, 8)
        module, table = new_layer(config, 0), nn.Embedding(10, 8)

        def run(ids: Any, state: Any) -> Any:
            return run_embedded(module, table, ids, state)

        ids = torch.from_numpy(self.ids(rows, 6))
        return Call(run, {"ids": ids, "state": self.floats(rows, config.state_size)}, by_torch(run))

    def loss(self) -> Call:
        rows, output = self.rows(), nn.Linear(12, 10)
        fixed = (self.floats(rows, 3, 5), self.floats(10, 5), self.floats(10)) if self.random.random() < 0.2 else None
        grad = bool(self.random.integers(2))

        def run(values: Any, output: Any, targets: Any, fixed: Any) -> Any:
            with torch.set_grad_enabled(grad):
                mean_loss = cross_entropy(values, output, targets, fixed)
                if grad:
                    return mean_loss, *torch.autograd.grad(mean_loss, list(output.parameters()))
                return mean_loss

        arguments = {
            "values": self.floats(rows, 3, 12), "output": output, "targets": torch.from_numpy(self.ids(rows, 3)),
            "fixed": fixed,
        }  # fmt: skip
        return Call(run, arguments, by_torch(run))

    def costs(self) -> Call:
        rows, output = self.rows(), nn.Linear(12, 10)

        def reference(values: Any, output: Any, targets: Any) -> Any:
            with torch.no_grad():
                logits = output(values.to(output.weight.dtype) if values.is_floating_point() else None)
                are_integers = not targets.is_floating_point() and targets.dtype != torch.bool
                if targets.shape != logits.shape[:-1] or not are_integers or (targets < 0).any():
                    raise ValueError("other targets")
                return nn.functional.cross_entropy(logits.flatten(0, -2), targets.long().flatten(), reduction="none")

        targets = torch.from_numpy(self.ids(rows, 3))
        arguments = {"values": self.floats(rows, 3, 12), "output": output, "targets": targets}
        return Call(nats_per_target, arguments, reference, 0.1)

    def drop(self) -> Call:
        arguments = {"values": self.floats(self.rows(), 3, 12), "rate": 0.5, "masks": DropoutKey(1, 2), "layer": 1}
        return Call(drop, arguments)

    def dropout_key(self) -> Call:
        return Call(DropoutKey, {"seed": 1, "step": 2, "first_row": 3})

    def states(self) -> Call:
        config = chargen.ModelConfig("gru", 2, 12)

        def run(rows: Any) -> Any:
            return detach(start_fresh(zero_state(config, rows, torch.device("cpu")), None)[0])

        return Call(run, {"rows": 3}, small=("rows",))

    # Engines

    def engines(self, stored: Any) -> tuple[Any, Callable[..., Any], Any]:
        arrays = stored.arrays
        if self.random.random() < 0.3:
            arrays = quantize(arrays, self.odd.pick(["int8", "bf16"]))
        direction = self.odd.pick(stored.config.directions)
        reference = NumpyEngine(stored.config, arrays, direction)
        if arrays is stored.arrays and self.random.random() < 0.3:
            return TorchEngine(build_model(stored), direction), reference, direction
        return CompiledEngine(stored.config, arrays, direction), reference, direction

    def engine(self) -> Call:
        stored, rows, positions = self.file(), self.rows(), int(self.random.integers(0, 5))
        fast, slow, _ = self.engines(stored)
        size = len(stored.vocabulary)
        state = tuple(self.floats(rows, stored.config.state_size).numpy() / 3 for _ in range(2))
        method = self.odd.pick(["step", "read", "write"])
        arguments: dict[str, Any] = {"ids": self.ids(rows, size=size), "state": state}
        if method == "read":
            counts = self.random.integers(0, positions + 1, rows)
            logits = np.zeros((rows, size), np.float32)
            ids = self.ids(rows, positions, size=size)
            arguments = {"ids": ids, "counts": counts, "logits": logits, "state": state}
        if method == "write":
            masks, follow = self.random.random((2, size)) < 0.9, self.random.integers(-1, 2, (2, size))
            rules = Rules(masks, follow, self.random.random(size) < 0.1)
            config = chargen.SampleConfig(temperature=self.odd.pick([0.0, 1.0]), top_k=self.odd.pick([0, 3]))
            arguments = {
                "logits": self.floats(rows, size).numpy(), "state": state, "rules": rules, "config": config,
                "uniforms": self.random.random((rows, positions)), "mask_index": self.random.integers(0, 2, rows),
            }  # fmt: skip
        return Call(getattr(fast, method), arguments, getattr(slow, method))

    def new_engine(self) -> Call:
        stored = self.file()

        def make(config: Any, arrays: Any, device: Any, direction: Any) -> Any:
            return new_engine(config, arrays, device, direction).step(np.array([1, 2]), state)

        def reference(config: Any, arrays: Any, device: Any, direction: Any) -> Any:
            return NumpyEngine(config, arrays, direction).step(np.array([1, 2]), state)

        state = NumpyEngine(stored.config, stored.arrays).start(2)
        quantizes = self.random.random() < 0.4
        arrays = quantize(stored.arrays, self.odd.pick(["int8", "bf16"])) if quantizes else stored.arrays
        arguments = {
            "config": stored.config,
            "arrays": arrays,
            "device": "cpu",
            "direction": self.odd.pick(stored.config.directions),
        }
        return Call(make, arguments, reference, fixed=("device",))

    def cloze(self) -> Call:
        stored = file("gru", True)
        layer = Cloze(stored.config, 10)
        arrays = {f"cloze.{name}": weight.detach().numpy() for name, weight in layer.named_parameters()}
        left, right, forward, backward = (self.floats(*shape).numpy() for shape in ((2, 12), (3, 12), (2, 10), (3, 10)))

        def logits(arrays: Any, left: Any, right: Any, forward: Any, backward: Any) -> Any:
            return NumpyCloze(arrays).logits(left, right, forward, backward)

        return Call(logits, {"arrays": arrays, "left": left, "right": right, "forward": forward, "backward": backward})

    def choose(self) -> Call:
        logits, allowed = self.floats(10).numpy(), self.random.random(10) < 0.9
        allowed[3] = True
        config = chargen.SampleConfig(top_k=4, top_p=0.9, min_p=0.01)

        def on_a_device(logits: Any, allowed: Any, uniform: Any) -> Any:
            rows = (torch.from_numpy(array)[None] for array in (logits, allowed))
            return int(choose_rows(*rows, torch.tensor([[uniform]]), config))

        def at_once(logits: Any, allowed: Any, uniform: Any) -> Any:
            return choose(logits, allowed, uniform, config)

        def step_by_step(logits: Any, allowed: Any, uniform: Any) -> Any:
            assert np.exp(log_softmax(logits)).sum() == pytest.approx(1)
            return draw(probabilities(logits, allowed, config), uniform)

        arguments = {"logits": logits, "allowed": allowed, "uniform": float(self.random.random())}
        function = self.odd.pick([on_a_device, step_by_step])
        return Call(function, arguments, at_once, fixed=("logits", "allowed", "uniform"))

    # Texts and ids

    def vocabulary(self) -> Call:
        return Call(chargen.Vocabulary, {"characters": "abc", "folded": "xy", "unit": "character"})

    def vocabulary_of_counts(self) -> Call:
        arguments = {"counts": np.bincount([97, 98, 98]), "unit": self.odd.pick(["character", "byte"]), "min_count": 2}
        return Call(lambda **options: len(chargen.Vocabulary.from_counts(**options)), arguments)

    def encode(self) -> Call:
        stored = self.odd.pick(
            [chargen.Vocabulary("abc"), chargen.Vocabulary("abc", folded="xy"), chargen.Vocabulary(unit="byte")]
        )
        return Call(stored.encode, {"text": "abc", "unknown": self.odd.pick(["error", "skip", "replace"])})

    def decode(self) -> Call:
        stored = self.odd.pick(
            [chargen.Vocabulary("abc"), chargen.Vocabulary("abc", folded="xy"), chargen.Vocabulary(unit="byte")]
        )

        def reference(ids: Any) -> str:
            numbers = np.asarray(ids)
            if (
                numbers.ndim != 1
                or (numbers.size and numbers.dtype.kind not in "iu")
                or not np.isin(numbers, np.arange(len(stored))).all()
            ):
                raise ValueError("no ids")
            if stored.byte_mode:
                return bytes(numbers.tolist()).decode("utf-8", "replace")
            return "".join((stored.characters + "\ufffd" * bool(stored.folded))[number] for number in numbers.tolist())

        return Call(stored.decode, {"ids": self.ids(5, size=3)}, reference)

    def count(self) -> Call:
        stored = self.odd.pick([chargen.Vocabulary("abc"), chargen.Vocabulary(unit="byte")])
        return Call(stored.count_characters, {"ids": self.ids(5, size=3)})

    def batches(self) -> Call:
        kind = self.odd.pick([chargen.ConsecutiveBatches, chargen.RandomBatches])

        def run(ids: Any, batch_size: Any, seq_length: Any, seed: Any, step: Any) -> Any:
            batches = kind(ids, batch_size, seq_length, seed)
            if self.random.random() < 0.3:
                batches = BackwardBatches(batches)
            batch = batches.batch(step)
            assert batch.inputs.dtype == np.int64
            assert batch.inputs.shape == batch.targets.shape == (batch_size, seq_length)
            assert np.isin(batch.inputs, ids).all()
            return batch.fresh

        arguments = {"ids": self.ids(30), "batch_size": 3, "seq_length": 5, "seed": 1, "step": 2}
        return Call(run, arguments, small=("batch_size", "seq_length"))

    def draws(self) -> Call:
        def run(seed: Any, n: Any) -> Any:
            assert 0 <= uniform(seed, 1, n, Purpose.SAMPLE) < 1
            return generator_seed(seed, 1, n, Purpose.SAMPLE)

        return Call(run, {"seed": 1, "n": 2}, fixed=("n",))

    def clean(self) -> Call:
        reading = self.odd.pick([None, ReadingConfig(newline="lf"), ReadingConfig(normalize="NFC")])
        return Call(chargen.clean, {"text": "a\r\nb", "config": reading})

    # Settings

    def settings(self) -> Call:
        kind = self.odd.pick([chargen.ModelConfig, chargen.TrainConfig, chargen.SampleConfig, chargen.CorpusConfig])
        plain = kind()
        names = self.random.permutation(sorted(plain.__dataclass_fields__))[:3]
        return Call(lambda **options: repr(kind(**options)), {name: getattr(plain, name) for name in names})

    # Writing and judging

    def sampler(self) -> Call:
        stored = self.file()
        direction = self.odd.pick(stored.config.directions)
        method = self.odd.pick(["generate", "feed", "feed_ids", "stream", "reseed", "all", "position"])

        def run(num: Any, seed: Any, value: Any, length: Any, **settings: Any) -> Any:
            sampler = chargen.Sampler(stored, num=num, seed=seed, direction=direction, **settings)
            if method in ("feed", "feed_ids", "reseed"):
                getattr(sampler, method)(value)
            if method == "stream":
                return list(itertools.islice(sampler.stream(length), 9))  # None has no end
            if method == "position":
                return sampler.hidden_and_logits()
            if method == "generate":
                return sampler.generate(length)
            return [sample.text for sample in sampler.generate_all(length)]

        value: Any = {"feed": "abc", "feed_ids": self.ids(5, size=len(stored.vocabulary)), "reseed": 4}.get(method, 0)
        settings = dict(
            [self.odd.pick([("temperature", 0.5), ("top_k", 3), ("no_repeat", 3), ("stop", ("a",)), ("ban", "b")])]
        )
        arguments = {"num": 1 if method in ("stream", "generate") else 2, "seed": 1, "value": value, "length": 6}

        def reference(**options: Any) -> Any:
            engine = NumpyEngine(stored.config, stored.arrays, direction)
            with mock.patch("chargen.sampling.sampler.new_engine", return_value=engine):
                answer = run(**options)
            return answer if options["seed"] is not None else None  # then any text is right

        return Call(run, arguments | settings, reference, small=("num", "length", "no_repeat"))

    def sampler_of_model(self) -> Call:
        stored = self.file()
        model = build_model(stored)

        def run(vocabulary: Any, counts: Any) -> Any:
            return chargen.Sampler(model, seed=1, vocabulary=vocabulary, counts=counts).generate(5)

        return Call(run, {"vocabulary": stored.vocabulary, "counts": stored.counts}, fixed=("vocabulary",))

    def model_of_arrays(self) -> Call:
        """A ModelFile made by hand, which is saved or writes a text."""
        stored = self.file()
        way = self.odd.pick(["save", "write", "torch"])

        def run(arrays: Any, counts: Any) -> Any:
            model = replace(stored, arrays=arrays, counts=counts)
            if way == "save":
                chargen.save_model(self.folder / "made.safetensors", model)
                return chargen.load_model(self.folder / "made.safetensors").vocabulary_size
            if way == "torch":
                return build_model(model).vocabulary_size
            return len(chargen.Sampler(model, seed=1).generate(5))

        return Call(run, {"arrays": stored.arrays, "counts": stored.counts})

    def files(self) -> Call:
        path = self.folder / "model.safetensors"
        if not path.exists():
            chargen.save_model(path, file("gru", True))
        if self.random.random() < 0.3:
            return Call(chargen.load_model, {"path": str(path), "device": "cpu"})
        kind = self.odd.pick([chargen.read_model, chargen.load_model, chargen.Sampler.from_file])
        return Call(lambda path: kind(path), {"path": str(path)})

    def fill(self) -> Call:
        stored = file(self.odd.pick(["gru", "lstm"]), True)

        def run(**options: Any) -> Any:
            return chargen.fill(stored, **options, particles=8).alternatives[0].text

        arguments = {"before": "abc", "after": "ab", "length": 2, "num": 1, "seed": 1}
        return Call(run, arguments, small=("length", "num"))

    def fill_text(self) -> Call:
        stored = file(self.odd.pick(["gru", "lstm"]), True)

        def run(**options: Any) -> Any:
            return [filled.text for filled in chargen.fill_text(stored, **options, particles=8)]

        arguments = {"text": "ab___c___{1}", "length": 2, "marker": "___", "num": 1, "seed": 1}
        return Call(run, arguments, small=("length", "num"))

    def generate(self) -> Call:
        stored = self.file()
        arguments = {"prime": "ab", "length": 6, "num": self.odd.pick([None, 2]), "seed": 1, "temperature": 0.5}
        return Call(lambda **options: chargen.generate(stored, **options), arguments, small=("length", "num"))

    def filler(self) -> Call:
        stored = file("gru", True)

        def run(particles: Any, seed: Any, shortest: Any, longest: Any) -> Any:
            return chargen.Filler(stored, particles=particles, seed=seed).fill("ab", "c", shortest, longest).exact

        return Call(
            run, {"particles": 8, "seed": 1, "shortest": 1, "longest": 2}, small=("shortest", "longest", "particles")
        )

    def score(self) -> Call:
        stored = self.file(True)

        def run(**options: Any) -> Any:
            return [score.forward for score in chargen.score(stored, **options)]

        by = self.odd.pick(["cloze", "forward"])
        if self.random.random() < 0.3:  # many texts
            texts = {"text": ["abc", "", "b" * 300]}
            return Call(lambda text: [len(scores) for scores in chargen.score(stored, text, by=by)], texts)
        arguments = {"text": "abc\n", "by": by, "threshold": 0.01, "num_alternatives": 2, "unknown": "error"}
        return Call(run, arguments, by_torch(run))

    def evaluate(self) -> Call:
        stored = self.file()
        model = build_model(stored)

        def run(**options: Any) -> Any:
            return chargen.evaluate(model, stored.vocabulary, **options).nats

        arguments = {"text": "abcabc\n" * 3, "unknown": "error", "rows": self.odd.pick([1, 9]), "direction": "forward"}
        return Call(run, arguments, by_torch(run), small=("rows",))

    def causality(self) -> Call:
        table = self.floats(10, 10).numpy()

        def predict(ids: Any) -> Any:
            return np.concatenate([np.zeros((1, 10)), table[ids[:-1]]])

        arguments = {"vocabulary_size": 10, "sees": "before", "length": 4, "seed": 1}
        return Call(
            lambda **chosen: chargen.check_causality(predict, **chosen), arguments, small=("length", "vocabulary_size")
        )

    def check(self) -> Call:
        stored = small_model("gru", hidden_size=4, num_layers=1, scale=1.0)
        return (
            Call(lambda model: len(chargen.check(model)), {"model": stored})
            if self.random.random() < 0.2
            else self.score()
        )

    def train(self) -> Call:
        if self.random.random() < 0.7:
            return self.batches()
        if self.random.random() < 0.3:
            return self.train_in_one_call()

        def run(text: Any, hidden_size: Any, batch_size: Any, seq_length: Any, dropout: Any, seed: Any) -> Any:
            corpus = chargen.Corpus.from_text(text, valid_fraction=0.2)
            shape = chargen.ModelConfig(num_layers=1, hidden_size=hidden_size, embedding_size=4, dropout=dropout)
            config = chargen.TrainConfig(
                steps=1, batch_size=batch_size, seq_length=seq_length, seed=seed, precision="fp32", device="cpu"
            )
            return [progress.train_loss for progress in chargen.Trainer(corpus, shape, config).run()][-1]

        arguments = {
            "text": "abcd " * 30,
            "hidden_size": 6,
            "batch_size": 9,
            "seq_length": 5,
            "dropout": 0.0,
            "seed": 1,
        }
        return Call(
            run, arguments, by_torch(run), small=("hidden_size", "batch_size", "seq_length"), fixed=("dropout",)
        )

    def train_in_one_call(self) -> Call:
        path = self.folder / "text.txt"
        path.write_text("abcd " * 30)

        def run(**options: Any) -> Any:
            trained = chargen.train(**options, num_layers=1, precision="fp32", device="cpu")
            assert isinstance(trained, chargen.Run)
            return repr(trained)

        sizes = {"steps": 1, "hidden_size": 6, "batch_size": 9, "seq_length": 5, "seed": 1}
        return Call(run, {"sources": str(path), **sizes}, small=tuple(sizes), fixed=("steps",))


KINDS = sorted(name for name in vars(Calls) if not name.startswith("_") and name not in
               {"ids", "floats", "model", "file", "rows", "engines", "train_in_one_call"})  # fmt: skip


def outcome(function: Callable[..., Any], arguments: dict[str, Any]) -> tuple[str, Any]:
    """The outcome of a call: its answer, or the error that refused it."""
    try:
        return "answer", function(**arguments)
    except BaseException as error:  # KeyboardInterrupt too: nobody is there to press a key
        return "error", error


def complaint(actual: tuple[str, Any], reference: tuple[str, Any] | None, close: float) -> str:
    """What is wrong with an outcome; empty where nothing is."""
    kind, answer = actual
    if kind == "error":
        line = str(answer)
        if not isinstance(answer, (ChargenError, TypeError, ValueError)) or isinstance(answer, UnicodeError):
            return f"{type(answer).__name__}: {line[:300]}"
        if len(line.splitlines()) != 1 or len(line) > 600:
            return f"not one line: {type(answer).__name__}: {line[:300]!r}"
        if reference and reference[0] == "answer":
            return f"refused, though the reference gives an answer: {line}"
    elif reference:
        if reference[0] == "error":
            return f"an answer, though the reference refuses: {type(reference[1]).__name__}: {reference[1]}"
        return difference(answer, reference[1], close)
    return ""


def difference(actual: Any, expected: Any, close: float) -> str:
    """How an answer differs from the expected one; empty where it does not."""
    if isinstance(actual, Chunk):
        actual, expected = (
            (part.ids, part.counts, part.log_probs, part.logits, *part.state) for part in (actual, expected)
        )
    if isinstance(actual, (tuple, list)) and not all(isinstance(part, (str, float, int)) for part in actual):
        if len(actual) != len(expected):
            return f"{len(actual)} parts, not {len(expected)}"
        return next((words for pair in zip(actual, expected, strict=True) if (words := difference(*pair, close))), "")
    if expected is None:
        return ""
    if isinstance(actual, str) or actual is None:
        return "" if actual == expected else f"{actual!r}, not {expected!r}"
    if isinstance(actual, torch.Tensor):
        if actual.is_meta:
            return "" if actual.shape == expected.shape else f"shape {actual.shape}, not {expected.shape}"
        actual, expected = (part.detach().double().numpy() for part in (actual, expected))
    if isinstance(actual, list) and actual and isinstance(actual[0], str):
        return "" if actual == expected else f"{actual!r}, not {expected!r}"
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if actual.shape != expected.shape:
        return f"shape {actual.shape}, not {expected.shape}"
    size = np.maximum(1, np.abs(np.where(np.isfinite(expected), expected, 1)))
    if not np.allclose(actual / size, expected / size, rtol=0, atol=close, equal_nan=True):
        return f"{actual.ravel()[:4]}, not {expected.ravel()[:4]}"
    return ""


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


def main(first: int, last: int) -> int:
    """Make calls, and print what is wrong; the last line before a crash describes the call."""
    warnings.simplefilter("ignore")
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, last):
            random = np.random.default_rng([19, number])
            kind = KINDS[number % len(KINDS)]
            torch.manual_seed(number)
            call = getattr(Calls(random, Path(folder)), kind)()
            odd, arguments = Odd(random), dict(call.arguments)
            free = [name for name in arguments if name not in call.fixed]
            for name in random.permutation(free)[: int(odd.pick([0, 1, 1, 1, 2]))]:
                arguments[name] = odd.change(arguments[name], name in call.small)
            description = f"{number} {kind}({', '.join(f'{name}={shown(value)}' for name, value in arguments.items())})"
            print(description, file=sys.stderr, flush=True)
            reference_arguments = {name: copied(value) for name, value in arguments.items()} if call.reference else {}
            with contextlib.redirect_stdout(io.StringIO()):
                actual = outcome(call.function, arguments)
                reference = outcome(call.reference, reference_arguments) if call.reference else None
            if reference and actual[0] == reference[0] == "answer" and not finite(arguments):
                reference = None  # what infinity makes of a sum depends on its order
            if wrong := complaint(actual, reference, call.close):
                bad += 1
                print(f"{description}\n    {wrong}", flush=True)
    return bad


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


def run(first: int, last: int, folder: Path, threads: int = 1) -> str:
    """What is wrong with some calls, made in a process of its own."""
    log = folder / f"calls-{first}"
    words = [sys.executable, "-X", "faulthandler", __file__, str(first), str(last)]
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(chargen.__file__).parents[1])])
    with log.open("w") as errors:
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=errors, text=True, check=False,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip
    if done.returncode not in (0, 1):
        end = log.read_text(errors="replace")[-3000:]
        return f"{done.stdout}\nended with {done.returncode} after\n{end}"
    return done.stdout


def test_some_hundred_calls_are_answered_rightly_or_refused_in_one_line(tmp_path: Path) -> None:
    assert run(0, FEW, tmp_path) == ""


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_ten_thousand_calls_are_answered_rightly_or_refused_in_one_line(part: int, tmp_path: Path) -> None:
    first, last = (FEW + CALLS * number // PARTS for number in (part, part + 1))
    assert run(first, last, tmp_path, threads=1 + part % 2) == ""


def test_every_public_name_is_called() -> None:
    source = Path(__file__).read_text("utf-8")
    for name in set(chargen.__all__) - {"__version__", "ModelFile", "ArgumentError"}:
        assert f"chargen.{name}" in source or f" {name}" in source, name


if __name__ == "__main__":
    sys.exit(min(1, main(*map(int, sys.argv[1:]))))
