"""One time step, `(ids, state) -> (logits, state)`, and whole chunks of them: the interface, and its NumPy version.

The NumPy engine is the reference: every row is computed alone, by the same operations in the same order, so that its
logits do not depend on how many rows there are.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import Arrays, as_array, check_range
from chargen.decoding.arguments import (
    check_config,
    check_ids,
    check_rules,
    check_state,
    check_uniforms,
)
from chargen.decoding.choose import SampleConfig, choose, log_softmax
from chargen.decoding.rules import Rules
from chargen.kernels import NONE_ALLOWED, NOT_FINITE
from chargen.model.config import LAYER_WEIGHTS, ModelConfig
from chargen.settings import check_int
from chargen.storage.quantize import as_float32
from chargen.storage.weight_checks import as_stack_weights

State = tuple[NDArray[np.float32], ...]
"""One array (R, S) per layer, as in the torch model, network by network; before them, of a model with counts, the last
ids read (R, n), the latest last, and -1 where there are none."""


class Engine:
    """Computes what a sampler needs of a model. The public methods check their arguments; `_step` and the like do not.

    An engine defines `_step` or `_read`, each of which is made of the other one here, and may define `_write`. State is
    reset before a begin symbol is read.

    Args:
        config: the model's shape.
        size: V.
        context: n, the last ids that a state holds; 0 where the model has no counts.
        networks: K, how many networks predict together.
    """

    many_rows = 128
    """Rows from which on more side by side are hardly faster."""

    def __init__(self, config: ModelConfig, size: int, context: int = 0, networks: int = 1) -> None:
        self.config = config
        self.size = size
        self.context = context
        self.networks = networks
        self._layers = networks * config.num_layers
        self._widths = [context] * (context > 0) + [config.state_size] * self._layers
        self.first_begin = size - config.begin_symbols
        """The id from which on all are begin symbols."""

    def start(self, rows: int) -> State:
        """Make the state of an unknown context.

        Args:
            rows: R.

        Returns:
            Zeros, one array (R, S) per layer of each network, and no ids.

        Raises:
            SettingError: `rows` is no number from 0.
        """
        rows = check_int("rows", rows, 0)
        layers = tuple(np.zeros((rows, self.config.state_size), np.float32) for _ in range(self._layers))
        return (np.full((rows, self.context), -1, np.float32), *layers) if self.context else layers

    def limited(self, longest: int) -> "Engine":
        """The same engine, whose counts look back less.

        Args:
            longest: ids of the longest contexts, at most.

        Returns:
            Another engine that shares all weights; this one where it has no counts, or none of longer contexts.
        """
        return self

    def step(self, ids: NDArray[Any], state: State) -> tuple[NDArray[np.float32], State]:
        """Let each row read one id.

        Args:
            ids: (R,).
            state: before the ids, one (R, S) per layer.

        Returns:
            Logits (R, V) for what follows, and the state after the ids.

        Raises:
            ArgumentError: an id is not one of the model's, or a shape or a type does not fit.
        """
        ids = as_array("ids", ids, (None,), np.int64)
        check_range("ids", ids, 0, self.size)
        return self._step(ids, check_state(self._widths, state, len(ids)))

    def read(
        self, ids: NDArray[Any], counts: NDArray[np.int64], logits: NDArray[Any], state: State
    ) -> tuple[NDArray[np.float32], State]:
        """Let each row read some ids; rows that read none keep logits and state.

        Args:
            ids: (R, T).
            counts: (R,), how many of its first ids a row reads.
            logits: (R, V), before the ids.
            state: before the ids, one (R, S) per layer.

        Returns:
            Logits (R, V) for what follows, and the state after the ids.

        Raises:
            ArgumentError: an id is not one of the model's, or a shape or a type does not fit.
        """
        ids, counts = check_ids(ids, counts, self.size)
        logits = as_array("logits", logits, (len(ids), self.size), np.float32)
        return self._read(ids, counts, logits, check_state(self._widths, state, len(ids)))

    def write(
        self, logits: NDArray[Any], state: State, uniforms: NDArray[np.float64], rules: Rules,
        mask_index: NDArray[np.int64], config: SampleConfig, *, checked: bool = False,
    ) -> "Chunk":  # fmt: skip
        """Let each row write an id for each of its uniforms, or fewer where the rules stop it.

        Args:
            logits: (R, V), for each row's first id.
            state: one (R, S) per layer.
            uniforms: (R, T), from 0 to below 1.
            rules: which ids are allowed, and where rows stop.
            mask_index: (R,), the number of the mask that holds for each row's first id.
            config: how an id is chosen.
            checked: whether the arguments have been checked already: that takes as long as writing two ids.

        Returns:
            What the rows wrote.

        Raises:
            ArgumentError: a shape, a type or a value does not fit.
        """
        if not checked:
            logits = as_array("logits", logits, (None, self.size), np.float32)
            uniforms = check_uniforms(uniforms, len(logits))
            rules, mask_index = check_rules(rules, mask_index, len(logits), uniforms.shape[1], self.size)
            check_config(config)
            state = check_state(self._widths, state, len(logits))
        return self._write(logits, state, uniforms, rules, mask_index, config)

    def _step(self, ids: NDArray[np.int64], state: State) -> tuple[NDArray[np.float32], State]:
        logits = np.zeros((len(ids), self.size), np.float32)
        return self._read(ids[:, None], np.ones(len(ids), np.int64), logits, state)

    def _read(
        self, ids: NDArray[np.int64], counts: NDArray[np.int64], logits: NDArray[np.float32], state: State
    ) -> tuple[NDArray[np.float32], State]:
        logits, state = logits.copy(), tuple(layer.copy() for layer in state)
        for column in range(ids.shape[1]):
            self._step_rows(np.flatnonzero(counts > column), ids[:, column], logits, state)
        return logits, state

    def _write(
        self, logits: NDArray[np.float32], state: State, uniforms: NDArray[np.float64], rules: Rules,
        mask_index: NDArray[np.int64], config: SampleConfig,
    ) -> "Chunk":  # fmt: skip
        logits, state = logits.copy(), tuple(layer.copy() for layer in state)
        ids, log_probs = np.zeros(uniforms.shape, np.int64), np.zeros(uniforms.shape)
        counts, mask_index = np.zeros(len(ids), np.int64), mask_index.copy()
        active = np.arange(len(ids))
        for column in range(uniforms.shape[1]):
            for row in active:
                allowed = rules.masks[mask_index[row]]
                if not np.isfinite(logits[row]).all():
                    ids[row, column] = NOT_FINITE
                elif not allowed.any():
                    ids[row, column] = NONE_ALLOWED
                else:
                    chosen = ids[row, column] = choose(logits[row], allowed, uniforms[row, column], config)
                    log_probs[row, column] = log_softmax(logits[row])[chosen]
                    counts[row] += 1
                    mask_index[row] = rules.next_mask[mask_index[row], chosen]
            written = active[ids[active, column] >= 0]
            self._step_rows(written, ids[:, column], logits, state)
            active = written[(mask_index[written] >= 0) & ~rules.stop_after[ids[written, column]]]
        return Chunk(logits, state, ids, log_probs, counts)

    def _step_rows(self, rows: NDArray[np.int64], ids: NDArray[Any], logits: NDArray[Any], state: State) -> None:
        """Let some rows read one id each; their logits and state are changed in place."""
        if len(rows):
            logits[rows], after = self._step(ids[rows], tuple(layer[rows] for layer in state))
            for layer, new in zip(state, after, strict=True):
                layer[rows] = new


@dataclass(frozen=True, eq=False)
class Chunk:
    """What rows wrote.

    Args:
        logits: (R, V), after the last id.
        state: one (R, S) per layer, after the last id.
        ids: (R, T).
        log_probs: (R, T), the model's log-probability of each id in nats, before temperature and filters.
        counts: (R,), how many ids a row wrote. Where it could not write on, the next id is `NONE_ALLOWED` or
            `NOT_FINITE`.
    """

    logits: NDArray[np.float32]
    state: State
    ids: NDArray[np.int64]
    log_probs: NDArray[np.float64]
    counts: NDArray[np.int64]


class NumpyEngine(Engine):
    """The model's equations, one row at a time, in float32.

    LSTM: i, f, o = sigmoid, g = tanh of W_ih x + b_ih + W_hh h + b_hh; c' = f c + i g; h' = o tanh c'.
    GRU: r, z = sigmoid; n = tanh(W_in x + b_in + r (W_hn h + b_hn)); h' = (1 - z) n + z h. Both as in PyTorch.

    Args:
        config: the model's shape.
        arrays: its weights by name, in float32 or quantized.
        direction: the stack that is computed; ids come in the order of its reading.
    """

    def __init__(self, config: ModelConfig, arrays: Arrays, direction: str = "forward") -> None:
        arrays = as_stack_weights(config, arrays, direction)
        super().__init__(config, len(arrays["output.bias"]))
        self.embedding = as_float32(arrays, "embedding.weight")
        self.output = as_float32(arrays, config.output_table), as_float32(arrays, "output.bias")
        self.layers = [
            tuple(as_float32(arrays, f"{direction}_layers.{layer}.{name}") for name in LAYER_WEIGHTS)
            for layer in range(config.num_layers)
        ]
        self._step_layer = _lstm if config.cell == "lstm" else _gru

    def _step(self, ids: NDArray[np.int64], state: State) -> tuple[NDArray[np.float32], State]:
        after = tuple(np.empty_like(layer) for layer in state)
        weight, bias = self.output
        logits = np.empty((len(ids), len(bias)), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # the sampler looks at the logits
            for row, read_id in enumerate(ids):
                values = self.embedding[read_id]
                for layer, weights in enumerate(self.layers):
                    before = state[layer][row] * np.float32(read_id < self.first_begin)
                    after[layer][row] = self._step_layer(values, before, *weights)
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
    input_gate, forget_gate, output_gate = (_sigmoid(gates[gate * size : (gate + 1) * size]) for gate in (0, 1, 3))
    cell = forget_gate * state[size:] + input_gate * np.tanh(gates[2 * size : 3 * size])
    return np.concatenate([output_gate * np.tanh(cell), cell])


def _gru(x: Vector, state: Vector, weight_ih: Vector, weight_hh: Vector, bias_ih: Vector, bias_hh: Vector) -> Vector:
    size = len(state)
    from_input, from_state = weight_ih @ x + bias_ih, weight_hh @ state + bias_hh
    reset, update = (_sigmoid(from_input[at : at + size] + from_state[at : at + size]) for at in (0, size))
    new = np.tanh(from_input[2 * size :] + reset * from_state[2 * size :])
    after: Vector = (np.float32(1) - update) * new + update * state
    return after
