"""An engine whose logits are those of another one, mixed with counts."""

import numpy as np
from numpy.typing import NDArray

from chargen.counting.mixture import Mixture
from chargen.decoding.numpy_engine import Engine, State


class MixedEngine(Engine):
    """Mixes what any engine computes with counts, id by id: logits are logarithms of the mixture's probabilities.

    The reference for the compiled engine, which does the same inside its loop.

    Args:
        engine: computes the network.
        mixture: of the same direction.
    """

    def __init__(self, engine: Engine, mixture: Mixture) -> None:
        super().__init__(engine.config, engine.size, mixture.context, engine.networks)
        self.engine, self.mixture, self.many_rows = engine, mixture, engine.many_rows

    def limited(self, longest: int) -> Engine:
        """The same engine, whose counts look back less; see `Engine.limited`."""
        mixture = self.mixture.limited(longest)
        return self if mixture is self.mixture else MixedEngine(self.engine, mixture)

    def _step(self, ids: NDArray[np.int64], state: State) -> tuple[NDArray[np.float32], State]:
        logits, layers = self.engine._step(ids, state[1:])
        context = read_on(state[0], ids[:, None], np.ones(len(ids), np.int64))
        return self._mix(context, logits), (context, *layers)

    def _read(
        self, ids: NDArray[np.int64], counts: NDArray[np.int64], logits: NDArray[np.float32], state: State
    ) -> tuple[NDArray[np.float32], State]:
        after, layers = self.engine._read(ids, counts, logits, state[1:])
        context, reads = read_on(state[0], ids, counts), counts > 0
        after[reads] = self._mix(context[reads], after[reads])
        return after, (context, *layers)

    def _mix(self, context: NDArray[np.float32], logits: NDArray[np.float32]) -> NDArray[np.float32]:
        places = self.context * (1 + np.arange(len(context)))
        return self.mixture.mix(context.astype(np.int64).ravel(), places, logits)


def read_on(context: NDArray[np.float32], ids: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The last ids of rows that read more.

    Args:
        context: (R, n), the last ids that each has read.
        ids: (R, T).
        counts: (R,), how many of these each reads.

    Returns:
        (R, n); another array.
    """
    whole = np.concatenate([context, ids.astype(np.float32)], 1)
    last: NDArray[np.float32] = np.take_along_axis(whole, counts[:, None] + np.arange(context.shape[1]), 1)
    return last
