"""The compiled engine: whole chunks of ids are read or written outside the interpreter."""

import copy
import math
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import Arrays
from chargen.counting.mixture import Mixture
from chargen.decoding.choose import FILTERS, SampleConfig, active_filters, need_ranks
from chargen.decoding.mixed_engine import as_ids, check_size, read_on
from chargen.decoding.numpy_engine import Chunk, Engine, State
from chargen.decoding.pack_networks import pack_networks
from chargen.decoding.rules import Rules
from chargen.kernels.context_tree import Tree
from chargen.kernels.decode_matmul import WIDTH
from chargen.kernels.decode_step import Choice, Counts, Team, read_or_write
from chargen.kernels.mixture import Tables
from chargen.kernels.threads import AutoTuner, halves, parallel_for, run_team, threads
from chargen.model.config import ModelConfig

Floats = NDArray[np.float32]
NO_RULES = Rules(np.zeros((1, 1), bool), np.zeros((1, 1), np.int64), np.zeros(1, bool))
"""Rules for rows that only read."""
NO_CHOICE = SampleConfig()
"""Of rows that only read."""
_NO_IDS, _NO_FLOATS = np.zeros(0, np.int32), np.zeros(0)
NO_COUNTS = (
    Tree(_NO_IDS, _NO_IDS, _NO_IDS, _NO_FLOATS, _NO_FLOATS, _NO_IDS, np.zeros(0, np.uint8), _NO_FLOATS, 0),
    Tables(np.zeros((0, 2)), 0, 0, _NO_FLOATS, _NO_FLOATS),
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
        members: the weights of other networks of this shape, which predict beside the first; as `MembersEngine` does.
    """

    def __init__(
        self,
        config: ModelConfig,
        arrays: Arrays,
        direction: str = "forward",
        mixture: Mixture | None = None,
        members: Sequence[Arrays] = (),
    ) -> None:
        networks = arrays, *members
        self._weights = pack_networks(config, networks, direction)
        super().__init__(config, self._weights.table.shape[1], mixture.context if mixture else 0, len(networks))
        if mixture:
            check_size(mixture, self.size)
        self._mixture = mixture
        self._counts = mixture.compiled if mixture else NO_COUNTS
        large = self._weights.packed.nbytes >= TEAM_BYTES * len(networks) and config.hidden_size % WIDTH == 0
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
        history = np.concatenate([*map(as_ids, contexts), ids], 1)
        choice = Choice(rules.masks, rules.next_mask, rules.stop_after, config.temperature, *compiled_filters(config))

        def run(rows: slice) -> None:
            rows_state = np.stack([layer[rows] for layer in layers])
            size = rows.stop - rows.start
            counter, active = np.zeros(1, np.int64), np.zeros(size + 1, np.int64)
            outputs = np.empty((2, size, self.config.hidden_size), np.float32)
            own_logits = np.empty((self.networks, size, self.size), np.float32)
            arguments = (
                self._weights, logits[rows], rows_state, ids[rows], log_probs[rows], counts[rows], write,
                uniforms[rows], mask_index[rows], choice, Counts(*self._counts, history[rows]),
            )  # fmt: skip
            timed = len(ids) == 1 and ids.shape[1] >= MIN_TIMED_LENGTH
            members, begun = self._tuner.choose() if timed else 1, time.perf_counter()
            shared = members, counter, active, outputs, own_logits
            run_team(lambda member: read_or_write(*arguments, Team(member, *shared)), members)
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
