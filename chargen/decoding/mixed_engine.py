"""An engine whose logits are those of another one, mixed with counts."""

import numpy as np
from numpy.typing import NDArray

from chargen.counting.mixture import NO_ID, Mixture
from chargen.decoding.numpy_engine import Engine, State
from chargen.errors import ArgumentError, amount


class MixedEngine(Engine):
    """Mixes what any engine computes with counts, id by id: logits are logarithms of the mixture's probabilities.

    The reference for the compiled engine, which does the same inside its loop.

    Args:
        engine: computes the network.
        mixture: of the same direction.

    Raises:
        ArgumentError: the counts are not of so many ids.
    """

    def __init__(self, engine: Engine, mixture: Mixture) -> None:
        check_size(mixture, engine.size)
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
        return self.mixture.mix(as_ids(context).ravel(), places, logits)


def check_size(mixture: Mixture, size: int) -> None:
    """Check that counts are of as many ids as a model has: compiled code fills an array of that size.

    Args:
        mixture: with the counts.
        size: V.

    Raises:
        ArgumentError: they are of more or fewer.
    """
    if mixture.tree.size != size:
        raise ArgumentError(f"counts of {amount(mixture.tree.size, 'id')}: the model has {size:,}")


def as_ids(context: NDArray[np.float32]) -> NDArray[np.int64]:
    """The ids in a state; what is none, as a file or a person may put there, is in no context.

    Args:
        context: (R, n), the last ids that rows have read.
    """
    return np.where(np.abs(context) < 2**31, context, NO_ID).astype(np.int64)


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
