"""Random calls of models, layers, losses and engines, with the answers that are right."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

import chargen
from chargen.decoding.choose import choose, draw, log_softmax, probabilities
from chargen.decoding.cloze import NumpyCloze
from chargen.decoding.compiled_engine import CompiledEngine
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.decoding.pick_engine import new_engine
from chargen.decoding.rules import Rules
from chargen.decoding.torch_engine import TorchEngine, choose_rows
from chargen.model import dropout, layers, loss
from chargen.model.cloze import Cloze
from chargen.model.dropout import DropoutKey, drop
from chargen.model.layers import detach, new_layer, run_embedded, run_layer, start_fresh, zero_state
from chargen.model.loss import cross_entropy, nats_per_target
from chargen.storage.model_file import build_model
from chargen.storage.quantize import quantize
from tests.api.odd_values import FLOATS, Odd
from tests.small_models import small_model


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


class ModelCalls:
    """One random call of each kind that computes; the methods' names are those of the kinds."""

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

    def engines(self, stored: Any) -> tuple[Any, Any, Any]:
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
            return new_engine(replace(stored, config=config, arrays=arrays), device, direction).step(
                np.array([1, 2]), state
            )

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
            rows, closed = (torch.from_numpy(array)[None] for array in (logits, allowed))
            return int(choose_rows(rows, closed, torch.tensor([[uniform]]), config))

        def at_once(logits: Any, allowed: Any, uniform: Any) -> Any:
            return choose(logits, allowed, uniform, config)

        def step_by_step(logits: Any, allowed: Any, uniform: Any) -> Any:
            assert np.exp(log_softmax(logits)).sum() == pytest.approx(1)
            return draw(probabilities(logits, allowed, config), uniform)

        arguments = {"logits": logits, "allowed": allowed, "uniform": float(self.random.random())}
        function = self.odd.pick([on_a_device, step_by_step])
        return Call(function, arguments, at_once, fixed=("logits", "allowed", "uniform"))
