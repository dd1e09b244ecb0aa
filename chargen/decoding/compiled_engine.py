"""Compiled steps: whole chunks of characters are read or written outside the interpreter."""

import time

import numpy as np
from numpy.typing import NDArray

from chargen.decoding.choose import SampleConfig
from chargen.decoding.numpy_engine import Chunk, State, Stepper
from chargen.decoding.rules import Rules
from chargen.kernels.decode import read_or_write
from chargen.kernels.packing import pack_rows
from chargen.kernels.products import WIDTH, pack
from chargen.kernels.threads import Faster, share, threads, together
from chargen.kernels.tiles import SETTINGS, SIDE, aligned
from chargen.kernels.units import amx
from chargen.model.config import ModelConfig
from chargen.storage.quantize import SCALE, as_float32
from chargen.storage.weight_checks import Arrays, as_stack_weights

Floats = NDArray[np.float32]
NO_RULES = Rules(np.zeros((1, 1), bool), np.zeros((1, 1), np.int64), np.zeros(1, bool))
"""For rows that only read."""
FAR = 2**21
"""Bytes of weights from which threads share the steps of a single row."""
MEASURED = 8
"""Characters that tell how fast it goes."""


class Decoder(Stepper):
    """The equations of NumpyStepper, compiled; agrees with it to 1e-5.

    An output is summed in one order whatever the number of rows, so text does not depend on the rows beside it. Rows
    are shared out among threads, each for a whole chunk, so threads never wait for each other within it.

    Args:
        config, arrays, direction: as for NumpyStepper.
    """

    def __init__(self, config: ModelConfig, arrays: Arrays, direction: str = "forward") -> None:
        arrays = as_stack_weights(config, arrays, direction)
        super().__init__(config, len(arrays["output.bias"]))
        gates = (4 if config.cell == "lstm" else 3) * config.hidden_size
        padded = -(-gates // WIDTH) * WIDTH
        scale_in, scale, bias = (np.zeros((config.num_layers, padded), np.float32) for _ in range(3))
        new_bias = np.zeros((config.num_layers, config.hidden_size), np.float32)
        stored = arrays
        if len({array.dtype for array in arrays.values() if array.ndim == 2}) > 1:
            stored = {name: as_float32(arrays, name) for name in arrays}  # a file that somebody put together
        # bf16 weights are multiplied in matrix units where there are such, whatever the number of rows.
        in_units = amx() and stored[config.output_table].dtype == np.uint16 and config.hidden_size % SIDE == 0
        pack_weights = pack_rows if in_units else pack
        parts = []
        for layer in range(config.num_layers):
            name = f"{direction}_layers.{layer}."
            bias_ih, bias_hh = (as_float32(arrays, f"{name}bias_{part}_l0") for part in ("ih", "hh"))
            with np.errstate(over="ignore"):  # the caller looks at the logits
                bias[layer, :gates] = bias_ih + bias_hh
            if config.cell == "gru":
                bias[layer, 2 * config.hidden_size : gates] = bias_ih[2 * config.hidden_size :]
                new_bias[layer] = bias_hh[2 * config.hidden_size :]
            scale[layer, :gates] = _scale(arrays, f"{name}weight_hh_l0")
            scale_in[layer, :gates] = _scale(arrays, f"{name}weight_ih_l0") if layer else 1
            if layer:
                parts.append(pack_weights(stored[f"{name}weight_ih_l0"]).ravel())
            parts.append(pack_weights(stored[f"{name}weight_hh_l0"]).ravel())
        parts.append(pack_weights(stored[config.output_table]).ravel())
        size = self.size
        head_scale, head_bias = _scale(arrays, config.output_table), as_float32(arrays, "output.bias")
        head_scale, head_bias = (np.pad(one, (0, -size % WIDTH)) for one in (head_scale, head_bias))
        # What layer 0 makes of a character is the same wherever it stands.
        inputs = as_float32(arrays, f"{direction}_layers.0.weight_ih_l0")
        with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the logits
            table = as_float32(arrays, "embedding.weight") @ inputs.T
        weights = aligned((sum(map(len, parts)),), parts[0].dtype)
        np.concatenate(parts, out=weights)
        lstm, units = config.cell == "lstm", SETTINGS if in_units else SETTINGS[:0]
        self._model = (
            lstm, units, config.hidden_size, weights, table, scale_in, scale, bias, new_bias, head_scale, head_bias
        )  # fmt: skip
        large = weights.nbytes >= FAR and config.hidden_size % WIDTH == 0
        self._team = min(threads(), config.hidden_size // WIDTH) if large else 1
        self._faster = Faster()  # with the team, for a single row

    def _step(self, ids: NDArray[np.int64], state: State) -> tuple[Floats, State]:
        logits = np.zeros((len(ids), self.size), np.float32)
        return self._read(ids[:, None], np.ones(len(ids), np.int64), logits, state)

    def _read(
        self, ids: NDArray[np.int64], counts: NDArray[np.int64], logits: Floats, state: State
    ) -> tuple[Floats, State]:
        which = np.zeros(len(ids), np.int64)
        chunk = self._run(logits, state, ids, counts, False, np.zeros((len(ids), 1)), NO_RULES, which, SampleConfig())
        return chunk.logits, chunk.state

    def _write(
        self, logits: Floats, state: State, uniforms: NDArray[np.float64], rules: Rules, mask_index: NDArray[np.int64],
        config: SampleConfig,
    ) -> Chunk:  # fmt: skip
        ids, counts = np.zeros(uniforms.shape, np.int64), np.zeros(len(uniforms), np.int64)
        return self._run(logits, state, ids, counts, True, uniforms, rules, mask_index, config)

    def _run(
        self, logits: Floats, state: State, ids: NDArray[np.int64], counts: NDArray[np.int64], write: bool,
        uniforms: NDArray[np.float64], rules: Rules, mask_index: NDArray[np.int64], config: SampleConfig,
    ) -> Chunk:  # fmt: skip
        logits, after = logits.copy(), tuple(layer.copy() for layer in state)
        counts, mask_index, log_probs = counts.copy(), mask_index.copy(), np.zeros(ids.shape)
        choice = config.temperature, min(config.top_k, self.size), config.top_p, config.min_p

        def run(rows: slice) -> None:
            part = np.stack([layer[rows] for layer in after])
            size = rows.stop - rows.start
            shared = (
                np.zeros(1, np.int64), np.zeros(size + 1, np.int64),
                np.empty((2, size, self.config.hidden_size), np.float32),
            )  # fmt: skip
            arguments = (
                self._model, logits[rows], part, ids[rows], log_probs[rows], counts[rows], write, uniforms[rows],
                rules.masks, mask_index[rows], rules.next_mask, rules.stop_after, *choice,
            )  # fmt: skip
            timed = self._team > 1 and len(ids) == 1 and ids.shape[1] >= MEASURED
            way, begun = timed and self._faster.choose(), time.perf_counter()
            members = self._team if way else 1
            together(lambda member: read_or_write(*arguments, member, members, shared), members)
            if timed:
                self._faster.took(way, time.perf_counter() - begun, ids.shape[1])
            for layer, new in zip(after, part, strict=True):
                layer[rows] = new

        share(run, len(ids))
        return Chunk(logits, after, ids, log_probs, counts)


def _scale(arrays: Arrays, name: str) -> Floats:
    """What the sums of each row of weights (N,) are multiplied by."""
    found: Floats = arrays.get(name + SCALE, np.ones(len(arrays[name]), np.float32))
    return found
