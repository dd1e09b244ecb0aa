"""Engines to compare, and chunks for them to write."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from chargen.decoding.choose import SampleConfig
from chargen.decoding.compiled_engine import CompiledEngine
from chargen.decoding.numpy_engine import Chunk, Engine, NumpyEngine, State
from chargen.decoding.rules import Rules
from chargen.storage.model_file import ModelFile
from chargen.storage.quantize import quantize
from tests.small_models import small_model

CELLS = ("lstm", "gru")
DIRECTIONS = ("forward", "backward")
STORED = ("float32", "bf16", "int8")
ODD = "".join(map(chr, range(97, 97 + 31)))
CLOSE = 1e-5

configs = st.builds(
    SampleConfig,
    temperature=st.sampled_from([0.0, 5e-324, 1e-300, 1e-6, 0.3, 1.0, 2.5, 1e6, 1e308]),
    top_k=st.sampled_from([0, 1, 2, 5, 40]),
    top_p=st.sampled_from([0.0, 1e-9, 0.5, 0.9, 1.0]) | st.floats(0, 1),
    min_p=st.sampled_from([0.0, 0.1, 1.0]) | st.floats(0, 1),
)
random_seeds = st.integers(0, 2**32)


@cache
def model(
    cell: str, layers: int, hidden: int, stored: str = "float32", scale: float = 1.0, characters: str = ODD
) -> ModelFile:
    file = small_model(
        cell, num_layers=layers, hidden_size=hidden, characters=characters, scale=scale, bidirectional=True
    )
    return file if stored == "float32" else replace(file, arrays=quantize(file.arrays, stored))


@cache
def both(*arguments: Any, direction: str = "forward", **more: Any) -> tuple[CompiledEngine, NumpyEngine]:
    file = model(*arguments, **more)
    return CompiledEngine(file.config, file.arrays, direction), NumpyEngine(file.config, file.arrays, direction)


def apart(ours: State, theirs: State) -> float:
    return max(float(np.abs(a - b).max(initial=0)) for a, b in zip(ours, theirs, strict=True))


# Bits


def free(size: int, pause: tuple[int, ...] = ()) -> Rules:
    """Rules that allow everything."""
    stops = np.zeros(size, bool)
    stops[list(pause)] = True
    return Rules(np.ones((1, size), bool), np.zeros((1, size), np.int64), stops)


class Case:
    """Rows that stand somewhere, and their draws."""

    def __init__(
        self, cell: str, hidden: int, rows: int, length: int, layers: int = 2, stored: str = "float32", seed: int = 0
    ) -> None:
        self.engine, _ = both(cell, layers, hidden, stored)
        random = np.random.default_rng(seed)
        self.logits = random.normal(size=(rows, 31)).astype(np.float32)
        self.state = tuple(random.normal(size=part.shape).astype(np.float32) / 3 for part in self.engine.start(rows))
        self.uniforms = random.random((rows, length))
        self.rules = free(31, (3, 17))
        self.rows = np.arange(rows)

    def write(self, rows: Any = None, columns: slice = slice(None), after: Chunk | None = None) -> Chunk:
        """Let some rows write some columns, from the beginning or after another chunk of theirs."""
        rows = self.rows if rows is None else np.atleast_1d(rows)
        logits, state = self.logits[rows], tuple(part[rows] for part in self.state)
        if after is not None:
            logits, state = after.logits, after.state
        mask_index = np.zeros(len(rows), np.int64)
        uniforms = np.ascontiguousarray(self.uniforms[rows][:, columns])
        return self.engine.write(logits, state, uniforms, self.rules, mask_index, SampleConfig())

    def read(self, ids: np.ndarray, counts: np.ndarray, rows: Any = None) -> tuple[np.ndarray, State]:
        rows = self.rows if rows is None else np.atleast_1d(rows)
        return self.engine.read(ids[rows], counts[rows], self.logits[rows], tuple(part[rows] for part in self.state))


def bits(chunk: Chunk, row: int) -> tuple[bytes, ...]:
    """Everything about a row."""
    parts = chunk.logits, *chunk.state, chunk.ids, chunk.log_probs, chunk.counts
    return tuple(part[row].tobytes() for part in parts)


# Whole chunks against the reference


def same(ours: Chunk, theirs: Chunk) -> None:
    assert ours.ids.tolist() == theirs.ids.tolist()
    assert ours.counts.tolist() == theirs.counts.tolist()
    assert np.abs(ours.log_probs - theirs.log_probs).max(initial=0) < CLOSE
    assert np.allclose(ours.logits, theirs.logits, rtol=0, atol=CLOSE, equal_nan=True)
    for ours_layer, theirs_layer in zip(ours.state, theirs.state, strict=True):
        assert np.allclose(ours_layer, theirs_layer, rtol=0, atol=CLOSE, equal_nan=True)


def chunk_to_write(
    engine: Engine, config: SampleConfig, seed: int, rows: int, length: int, number: int, allowed: float,
    paused: float, unknown: float, broken: bool,
) -> tuple[Any, ...]:  # fmt: skip
    """Arguments for `write`: random logits and states, and rules with `number` masks; shares are of ids."""
    random = np.random.default_rng(seed)
    masks = random.random((number, 31)) < allowed
    follow = random.integers(0, number, (number, 31))
    follow[random.random(follow.shape) < unknown] = -random.integers(1, 9)
    rules = Rules(masks, follow, random.random(31) < paused)
    logits = random.normal(size=(rows, 31)).astype(np.float32) * 2
    if broken:
        logits[random.integers(rows), random.integers(31)] = random.choice([np.inf, -np.inf, np.nan])
    state = tuple(random.normal(size=part.shape).astype(np.float32) / 3 for part in engine.start(rows))
    return logits, state, random.random((rows, length)), rules, random.integers(0, number, rows), config


chunks = (
    configs, random_seeds, st.integers(1, 6), st.integers(0, 12), st.integers(1, 4),
    st.sampled_from([0.05, 0.3, 0.9, 1.0]), st.sampled_from([0.0, 0.1, 0.4]), st.sampled_from([0.0, 0.1]),
    st.booleans(),
)  # fmt: skip
