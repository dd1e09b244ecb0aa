"""The compiled engine: whole chunks of ids are read or written outside the interpreter."""

import copy
import math
import time

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import Arrays
from chargen.counting.mixture import Mixture
from chargen.decoding.choose import FILTERS, SampleConfig, active_filters, need_ranks
from chargen.decoding.mixed_engine import read_on
from chargen.decoding.numpy_engine import Chunk, Engine, State
from chargen.decoding.rules import Rules
from chargen.kernels.amx import SIDE, TILE_CONFIG, aligned_zeros
from chargen.kernels.context_tree import MixtureWeights, Tree
from chargen.kernels.cpu_features import amx
from chargen.kernels.decode_matmul import WIDTH, pack
from chargen.kernels.decode_step import Choice, Counts, Team, Weights, read_or_write
from chargen.kernels.packing import pack_rows
from chargen.kernels.threads import AutoTuner, halves, parallel_for, run_team, threads
from chargen.model.config import ModelConfig
from chargen.storage.quantize import SCALE, as_float32
from chargen.storage.weight_checks import as_stack_weights

Floats = NDArray[np.float32]
NO_RULES = Rules(np.zeros((1, 1), bool), np.zeros((1, 1), np.int64), np.zeros(1, bool))
"""Rules for rows that only read."""
NO_CHOICE = SampleConfig()
"""Of rows that only read."""
_NO_IDS, _NO_FLOATS = np.zeros(0, np.int32), np.zeros(0)
NO_COUNTS = (
    Tree(_NO_IDS, _NO_IDS, _NO_IDS, _NO_FLOATS, _NO_FLOATS, _NO_IDS, np.zeros(0, np.uint8), _NO_FLOATS, 0),
    MixtureWeights(np.zeros((0, 0)), _NO_FLOATS),
)
"""Of a model without."""
TEAM_BYTES = 2**21
"""Bytes of weights from which several threads share the time steps of a single row."""
HANDOVER = 2**21
"""Products of a number and a weight that a thread computes while rows are handed over to another thread."""
ROWS_AT_ONCE = 4
"""Rows for which weights are read once; fewer in a thread take nearly as long."""
MIN_TIMED_LENGTH = 8
"""Ids of the shortest chunk whose time says which number of threads is faster."""


class CompiledEngine(Engine):
    """The model's equations, compiled; logits agree with those of NumpyEngine to 1e-5.

    An output is summed in one order whatever the number of rows, so text does not depend on the rows beside it. Rows
    are shared out among threads, each for a whole chunk; the hidden units of a single row of a large model are shared
    among threads that meet at a barrier.

    Args:
        config: the model's shape.
        arrays: its weights by name, in float32 or quantized.
        direction: the stack that is computed; ids come in the order of its reading.
        mixture: what logits are mixed with; as `MixedEngine` does.
    """

    def __init__(
        self, config: ModelConfig, arrays: Arrays, direction: str = "forward", mixture: Mixture | None = None
    ) -> None:
        arrays = as_stack_weights(config, arrays, direction)
        super().__init__(config, len(arrays["output.bias"]), mixture.context if mixture else 0)
        self._mixture = mixture
        self._counts = mixture.compiled if mixture else NO_COUNTS
        gates = (4 if config.cell == "lstm" else 3) * config.hidden_size
        padded = -(-gates // WIDTH) * WIDTH
        scale_in, scale, bias = (np.zeros((config.num_layers, padded), np.float32) for _ in range(3))
        new_bias = np.zeros((config.num_layers, config.hidden_size), np.float32)
        stored = arrays
        if len({array.dtype for array in arrays.values() if array.ndim == 2}) > 1:
            stored = {name: as_float32(arrays, name) for name in arrays}  # a file that somebody put together
        # bf16 weights are multiplied in the processor's tile registers where it has them, whatever the number of rows.
        use_amx = amx() and stored[config.output_table].dtype == np.uint16 and config.hidden_size % SIDE == 0
        pack_weights = pack_rows if use_amx else pack
        packed = []
        for layer in range(config.num_layers):
            name = f"{direction}_layers.{layer}."
            bias_ih, bias_hh = (as_float32(arrays, f"{name}bias_{part}_l0") for part in ("ih", "hh"))
            with np.errstate(over="ignore"):  # the caller looks at the logits
                bias[layer, :gates] = bias_ih + bias_hh
            if config.cell == "gru":
                bias[layer, 2 * config.hidden_size : gates] = bias_ih[2 * config.hidden_size :]
                new_bias[layer] = bias_hh[2 * config.hidden_size :]
            scale[layer, :gates] = _row_scales(arrays, f"{name}weight_hh_l0")
            scale_in[layer, :gates] = _row_scales(arrays, f"{name}weight_ih_l0") if layer else 1
            if layer:
                packed.append(pack_weights(stored[f"{name}weight_ih_l0"]).ravel())
            packed.append(pack_weights(stored[f"{name}weight_hh_l0"]).ravel())
        packed.append(pack_weights(stored[config.output_table]).ravel())
        size = self.size
        head_scale, head_bias = _row_scales(arrays, config.output_table), as_float32(arrays, "output.bias")
        head_scale, head_bias = (np.pad(values, (0, -size % WIDTH)) for values in (head_scale, head_bias))
        # Layer 0 sees only the embedding, so its products are one table with a row for each id.
        weight_ih = as_float32(arrays, f"{direction}_layers.0.weight_ih_l0")
        with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the logits
            table = as_float32(arrays, "embedding.weight") @ weight_ih.T
        weights = aligned_zeros((sum(map(len, packed)),), packed[0].dtype)
        np.concatenate(packed, out=weights)
        tile_config = TILE_CONFIG if use_amx else TILE_CONFIG[:0]
        self._weights = Weights(
            config.cell == "lstm", tile_config, config.hidden_size, self.first_begin, weights, table, scale_in, scale,
            bias, new_bias, head_scale, head_bias,
        )  # fmt: skip
        large = weights.nbytes >= TEAM_BYTES and config.hidden_size % WIDTH == 0
        most = min(threads(), config.hidden_size // WIDTH) if large else 1
        self.many_rows = max(self.many_rows, 64 * threads())
        self._tuner = AutoTuner(dict.fromkeys(halves(most), 0.0))  # how many threads share a single row

    def limited(self, longest: int) -> Engine:
        """The same engine, whose counts look back less; see `Engine.limited`."""
        mixture = self._mixture and self._mixture.limited(longest)
        if not mixture or mixture is self._mixture:
            return self
        other = copy.copy(self)
        other._mixture, other._counts = mixture, mixture.compiled
        return other

    def _read(
        self, ids: NDArray[np.int64], counts: NDArray[np.int64], logits: Floats, state: State
    ) -> tuple[Floats, State]:
        read = Chunk(logits, state, ids, np.zeros(ids.shape), counts)
        mask_index, uniforms = np.zeros(len(ids), np.int64), np.zeros((len(ids), 1))
        after = self._run(read, False, uniforms, NO_RULES, mask_index, NO_CHOICE)
        return after.logits, after.state

    def _write(
        self, logits: Floats, state: State, uniforms: NDArray[np.float64], rules: Rules, mask_index: NDArray[np.int64],
        config: SampleConfig,
    ) -> Chunk:  # fmt: skip
        ids = np.zeros(uniforms.shape, np.int64)
        unwritten = Chunk(logits, state, ids, np.zeros(ids.shape), np.zeros(len(ids), np.int64))
        return self._run(unwritten, True, uniforms, rules, mask_index, config)

    def _run(
        self, before: Chunk, write: bool, uniforms: NDArray[np.float64], rules: Rules, mask_index: NDArray[np.int64],
        config: SampleConfig,
    ) -> Chunk:  # fmt: skip
        """Read or write the ids of a chunk, of which logits, state and counts are those before."""
        logits, layers = before.logits.copy(), [layer.copy() for layer in before.state]
        ids, log_probs, counts, mask_index = before.ids, before.log_probs, before.counts.copy(), mask_index.copy()
        contexts = [layers.pop(0)] if self.context else []
        history = np.concatenate([*contexts, ids], 1).astype(np.int64)
        choice = Choice(rules.masks, rules.next_mask, rules.stop_after, config.temperature, *compiled_filters(config))

        def run(rows: slice) -> None:
            rows_state = np.stack([layer[rows] for layer in layers])
            size = rows.stop - rows.start
            counter, active = np.zeros(1, np.int64), np.zeros(size + 1, np.int64)
            outputs = np.empty((2, size, self.config.hidden_size), np.float32)
            arguments = (
                self._weights, logits[rows], rows_state, ids[rows], log_probs[rows], counts[rows], write,
                uniforms[rows], mask_index[rows], choice, Counts(*self._counts, history[rows]),
            )  # fmt: skip
            timed = len(ids) == 1 and ids.shape[1] >= MIN_TIMED_LENGTH
            members, begun = self._tuner.choose() if timed else 1, time.perf_counter()
            run_team(lambda member: read_or_write(*arguments, Team(member, members, counter, active, outputs)), members)
            if timed:
                self._tuner.record(members, time.perf_counter() - begun, ids.shape[1])
            for layer, new in zip(layers, rows_state, strict=True):
                layer[rows] = new

        parallel_for(run, len(ids), most=worthwhile_threads(len(ids), ids.size * len(self._weights.packed)))
        after = [read_on(context, ids, counts) for context in contexts]
        return Chunk(logits, (*after, *layers), ids, log_probs, counts)


def worthwhile_threads(rows: int, products: int) -> int:
    """How many threads compute a chunk the fastest, however many there are: each further one costs a handover.

    A product takes c, so n threads with r = R / n rows each take about c P / n + n handovers; where r is below
    `ROWS_AT_ONCE`, a row less saves but a third.

    Args:
        rows: R.
        products: P, of all rows.
    """
    by_rows = min(math.isqrt(products // HANDOVER), rows // ROWS_AT_ONCE)
    return max(1, by_rows, math.isqrt(products // (3 * HANDOVER)))


def compiled_filters(config: SampleConfig) -> tuple[NDArray[np.float64], bool]:
    """The settings (F,) of all filters, NaN where one is off, none where all are; and whether they need ranks."""
    active = active_filters(config)
    return np.array([active.get(name, np.nan) for name in FILTERS] if active else [], float), need_ranks(active)


def _row_scales(arrays: Arrays, name: str) -> Floats:
    """The factors (N,) of the sums of N rows of weights: 1 where they are not int8."""
    scales: Floats = arrays.get(name + SCALE, np.ones(len(arrays[name]), np.float32))
    return scales
