"""An engine that remembers where rows stood: a text that begins like an earlier one is read from there on."""

import numpy as np
from numpy.typing import NDArray

from chargen.decoding.choose import SampleConfig
from chargen.decoding.numpy_engine import Chunk, Engine, State
from chargen.decoding.rules import Rules

MAX_KEPT = 64
"""Positions that are kept; the one used longest ago is forgotten first."""
STEPS_BACK = (2048, 256, 32, 0)
"""A position is kept so many ids before the end of what is read: texts change near their end most often."""


class PrefixEngine(Engine):
    """Computes what another engine computes, bit for bit, but a single row reads only what no row has read before it.

    For editors that ask for a continuation at every key, drafts that are taken up again, and the gaps of a text.

    Args:
        engine: the engine that computes.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.config, engine.size)
        self.engine, self.many_rows = engine, engine.many_rows
        self._kept: dict[bytes, tuple[NDArray[np.float32], State]] = {}
        """Logits and state of a row, by logits and state where it started and the ids that it read from there."""

    def _step(self, ids: NDArray[np.int64], state: State) -> tuple[NDArray[np.float32], State]:
        return self.engine._step(ids, state)

    def _write(
        self, logits: NDArray[np.float32], state: State, uniforms: NDArray[np.float64], rules: Rules,
        mask_index: NDArray[np.int64], config: SampleConfig,
    ) -> Chunk:  # fmt: skip
        return self.engine._write(logits, state, uniforms, rules, mask_index, config)

    def _read(
        self, ids: NDArray[np.int64], counts: NDArray[np.int64], logits: NDArray[np.float32], state: State
    ) -> tuple[NDArray[np.float32], State]:
        if len(ids) != 1:
            return self.engine._read(ids, counts, logits, state)
        ids = ids[:, : counts[0]].astype(np.int32)
        start = b"".join(array.tobytes() for array in (logits, *state))
        wanted = start + ids.tobytes()
        nearest = max((kept for kept in self._kept if wanted.startswith(kept)), key=len, default=b"")
        read = max(len(nearest) - len(start), 0) // ids.itemsize
        if nearest:
            logits, state = self._kept.pop(nearest)
            self._kept[nearest] = logits, state  # used last, forgotten last
        for end in (ids.shape[1] - back for back in STEPS_BACK):
            if end > read:
                new = ids[:, read:end].astype(np.int64)
                logits, state = self.engine._read(new, np.array([new.shape[1]]), logits, state)
                self._kept[wanted[: len(start) + end * ids.itemsize]] = logits, state
                read = end
        while len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        return logits.copy(), tuple(layer.copy() for layer in state)
