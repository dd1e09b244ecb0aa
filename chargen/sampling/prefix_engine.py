"""An engine that remembers texts: one that begins like an earlier one is read from where they part."""

import numpy as np
from numpy.typing import NDArray

from chargen.data.vocabulary import Ids
from chargen.decoding.choose import SampleConfig
from chargen.decoding.numpy_engine import Chunk, Engine, State
from chargen.decoding.rules import Rules
from chargen.sampling.kept_states import KeptStates
from chargen.sampling.start import Start

MAX_TEXTS = 8
"""Texts that are remembered; the one used longest ago is forgotten first."""
MIN_TEXT = 32
"""Ids of a text that is worth remembering."""


class PrefixEngine(Engine):
    """Computes what another engine computes, bit for bit, but a single row reads only what is new of a longer text.

    For editors that ask for a continuation at every key, and for the gaps of a text.

    Args:
        engine: the engine that computes.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.config, engine.size, engine.context, engine.networks)
        self.engine, self.many_rows = engine, engine.many_rows
        self._texts: list[tuple[bytes, KeptStates]] = []
        """Logits and state where a text started, and the text; the last used is the last."""
        self._limited: dict[int, Engine] = {}

    def limited(self, longest: int) -> Engine:
        """The same engine, whose counts look back less and which remembers its own texts; see `Engine.limited`."""
        if longest not in self._limited:
            other = self.engine.limited(longest)
            self._limited[longest] = self if other is self.engine else PrefixEngine(other)
        return self._limited[longest]

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
        if len(ids) != 1 or counts[0] < MIN_TEXT:
            return self.engine._read(ids, counts, logits, state)
        text = ids[0, : counts[0]].astype(np.uint32)
        kept = self._nearest(text, logits, state)
        for _ in kept.read(text):
            pass
        _, logits, state = kept.nearest(len(text))
        return logits.copy(), tuple(layer.copy() for layer in state)

    def _nearest(self, text: Ids, logits: NDArray[np.float32], state: State) -> KeptStates:
        """The text that has most in common with another from the same start, if that is half of it; or a new one."""
        start = b"".join(array.tobytes() for array in (logits, *state))
        common = [kept.common_length(text) if begun == start else 0 for begun, kept in self._texts]
        best = max(range(len(common)), key=common.__getitem__, default=0)
        if common and 2 * common[best] >= max(len(text), 1):
            self._texts.append(self._texts.pop(best))
        else:
            self._texts.append((start, KeptStates(self.engine, Start(np.zeros(0, np.int64), logits, state))))
        del self._texts[:-MAX_TEXTS]
        return self._texts[-1][1]
