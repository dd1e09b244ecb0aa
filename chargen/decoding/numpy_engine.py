"""One character further: `(ids, state) -> (logits, state)`, and chunks of characters.

The NumPy stepper is the reference: every row is computed alone, by the same operations in the same order, so that its
logits do not depend on how many rows there are.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import fitting, within
from chargen.decoding.arguments import (
    check_config,
    fitting_reading,
    fitting_rules,
    fitting_state,
    fitting_uniforms,
)
from chargen.decoding.choose import SampleConfig, choose, log_softmax
from chargen.decoding.rules import Rules
from chargen.kernels import NONE_ALLOWED, NOT_FINITE
from chargen.model.config import ModelConfig
from chargen.settings import check_int
from chargen.storage.quantize import as_float32
from chargen.storage.weight_checks import as_stack_weights

State = tuple[NDArray[np.float32], ...]
"""One array (R, S) per layer, as in the torch model."""


class Stepper(ABC):
    """What a sampler needs of a model.

    Whatever the way to compute, what does not fit the model is an ArgumentError: ids that it does not have, or arrays
    of another shape or type than is said here.

    Args:
        config: the model's shape.
        size: V.
    """

    def __init__(self, config: ModelConfig, size: int) -> None:
        self.config = config
        self.size = size

    def start(self, rows: int) -> State:
        """The state of an unknown context: zeros, one array (R, S) per layer."""
        shape = check_int("rows", rows, 0), self.config.state_size
        return tuple(np.zeros(shape, np.float32) for _ in range(self.config.num_layers))

    def step(self, ids: NDArray[Any], state: State) -> tuple[NDArray[np.float32], State]:
        """Ids (R,) and the state before them -> logits (R, V) for what follows, and the state after them."""
        ids = fitting("ids", ids, (None,), np.int64)
        within("ids", ids, 0, self.size)
        return self._step(ids, fitting_state(self.config, state, len(ids)))

    def read(
        self, ids: NDArray[Any], counts: NDArray[np.int64], logits: NDArray[Any], state: State
    ) -> tuple[NDArray[np.float32], State]:
        """Each row reads the first `counts` (R,) of its ids (R, T); rows that read none keep logits and state."""
        ids, counts = fitting_reading(ids, counts, self.size)
        logits = fitting("logits", logits, (len(ids), self.size), np.float32)
        return self._read(ids, counts, logits, fitting_state(self.config, state, len(ids)))

    def write(
        self, logits: NDArray[Any], state: State, uniforms: NDArray[np.float64], rules: Rules,
        mask_index: NDArray[np.int64], config: SampleConfig, *, fits: bool = False,
    ) -> "Chunk":  # fmt: skip
        """Each row writes an id for each of its uniforms (R, T), or fewer where the rules stop it.

        Args:
            logits, state: where the rows stand.
            uniforms: from 0 to below 1.
            mask_index: (R,), which mask holds for each row's first id.
            fits: where it is known already that all this fits: to look takes as long as to write two characters.
        """
        if not fits:
            logits = fitting("logits", logits, (None, self.size), np.float32)
            uniforms = fitting_uniforms(uniforms, len(logits))
            rules, mask_index = fitting_rules(rules, mask_index, len(logits), uniforms.shape[1], self.size)
            check_config(config)
            state = fitting_state(self.config, state, len(logits))
        return self._write(logits, state, uniforms, rules, mask_index, config)

    @abstractmethod
    def _step(self, ids: NDArray[np.int64], state: State) -> tuple[NDArray[np.float32], State]:
        """As `step`, with what fits; so below."""

    def _read(
        self, ids: NDArray[np.int64], counts: NDArray[np.int64], logits: NDArray[np.float32], state: State
    ) -> tuple[NDArray[np.float32], State]:
        logits, state = logits.copy(), tuple(layer.copy() for layer in state)
        for turn in range(ids.shape[1]):
            self._step_some(np.flatnonzero(counts > turn), ids[:, turn], logits, state)
        return logits, state

    def _write(
        self, logits: NDArray[np.float32], state: State, uniforms: NDArray[np.float64], rules: Rules,
        mask_index: NDArray[np.int64], config: SampleConfig,
    ) -> "Chunk":  # fmt: skip
        logits, state = logits.copy(), tuple(layer.copy() for layer in state)
        ids, log_probs = np.zeros(uniforms.shape, np.int64), np.zeros(uniforms.shape)
        counts, mask_index = np.zeros(len(ids), np.int64), mask_index.copy()
        active = np.arange(len(ids))
        for turn in range(uniforms.shape[1]):
            for row in active:
                allowed = rules.masks[mask_index[row]]
                if not np.isfinite(logits[row]).all():
                    ids[row, turn] = NOT_FINITE
                elif not allowed.any():
                    ids[row, turn] = NONE_ALLOWED
                else:
                    one = ids[row, turn] = choose(logits[row], allowed, uniforms[row, turn], config)
                    log_probs[row, turn] = log_softmax(logits[row])[one]
                    counts[row] += 1
                    mask_index[row] = rules.next_mask[mask_index[row], one]
            written = active[ids[active, turn] >= 0]
            self._step_some(written, ids[:, turn], logits, state)
            active = written[(mask_index[written] >= 0) & ~rules.stop_after[ids[written, turn]]]
        return Chunk(logits, state, ids, log_probs, counts)

    def _step_some(self, rows: NDArray[np.int64], ids: NDArray[Any], logits: NDArray[Any], state: State) -> None:
        """Let some rows read, changing their logits and state."""
        if len(rows):
            logits[rows], after = self._step(ids[rows], tuple(layer[rows] for layer in state))
            for layer, new in zip(state, after, strict=True):
                layer[rows] = new


@dataclass(frozen=True, eq=False)
class Chunk:
    """What rows wrote.

    Args:
        logits, state: (R, V) and one (R, S) per layer, after it.
        ids, log_probs: (R, T), and the model's log-probability of each in nats, before temperature and filters.
        counts: (R,), how many of them a row wrote. Where it could not write on, the next id is `NONE_ALLOWED` or
            `NOT_FINITE`.
    """

    logits: NDArray[np.float32]
    state: State
    ids: NDArray[np.int64]
    log_probs: NDArray[np.float64]
    counts: NDArray[np.int64]


class NumpyStepper(Stepper):
    """The model's equations, one row at a time, in float32.

    LSTM: i, f, o = sigmoid, g = tanh of W_ih x + b_ih + W_hh h + b_hh; c' = f c + i g; h' = o tanh c'.
    GRU: r, z = sigmoid; n = tanh(W_in x + b_in + r (W_hn h + b_hn)); h' = (1 - z) n + z h. Both as in PyTorch.

    Args:
        config: the model's shape.
        arrays: its weights by name, in float32 or quantized.
        direction: which of its stacks; ids come in the order of its reading.
    """

    def __init__(self, config: ModelConfig, arrays: dict[str, NDArray[Any]], direction: str = "forward") -> None:
        arrays = as_stack_weights(config, arrays, direction)
        super().__init__(config, len(arrays["output.bias"]))
        self.embedding = as_float32(arrays, "embedding.weight")
        self.output = as_float32(arrays, config.output_table), as_float32(arrays, "output.bias")
        self.layers = [
            tuple(
                as_float32(arrays, f"{direction}_layers.{layer}.{part}_l0")
                for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            for layer in range(config.num_layers)
        ]
        self._step_layer = _lstm if config.cell == "lstm" else _gru

    def _step(self, ids: NDArray[np.int64], state: State) -> tuple[NDArray[np.float32], State]:
        after = tuple(np.empty_like(layer) for layer in state)
        weight, bias = self.output
        logits = np.empty((len(ids), len(bias)), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # the sampler looks at the logits
            for row, one in enumerate(ids):
                values = self.embedding[one]
                for layer, weights in enumerate(self.layers):
                    after[layer][row] = self._step_layer(values, state[layer][row], *weights)
                    values = after[layer][row, : self.config.hidden_size]
                logits[row] = weight @ values + bias
        return logits, after


Vector = NDArray[np.float32]


def _sigmoid(values: Vector) -> Vector:
    half: Vector = np.tanh(np.float32(0.5) * values)  # never overflows, as exp would
    return np.float32(0.5) * (np.float32(1) + half)


def _lstm(x: Vector, state: Vector, weight_ih: Vector, weight_hh: Vector, bias_ih: Vector, bias_hh: Vector) -> Vector:
    size = len(state) // 2
    gates = weight_ih @ x + bias_ih + weight_hh @ state[:size] + bias_hh
    enter, forget, leave = (_sigmoid(gates[at * size : (at + 1) * size]) for at in (0, 1, 3))
    cell = forget * state[size:] + enter * np.tanh(gates[2 * size : 3 * size])
    return np.concatenate([leave * np.tanh(cell), cell])


def _gru(x: Vector, state: Vector, weight_ih: Vector, weight_hh: Vector, bias_ih: Vector, bias_hh: Vector) -> Vector:
    size = len(state)
    inputs, carried = weight_ih @ x + bias_ih, weight_hh @ state + bias_hh
    reset, update = (_sigmoid(inputs[at : at + size] + carried[at : at + size]) for at in (0, size))
    new = np.tanh(inputs[2 * size :] + reset * carried[2 * size :])
    after: Vector = (np.float32(1) - update) * new + update * state
    return after
