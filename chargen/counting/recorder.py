"""What the ids of a text cost a network, remembered while it is scored."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.counting.mixture import Mixture

Floats = NDArray[np.float64]


class Recorder:
    """Takes the place of a `Mixture` while a text is scored.

    Args:
        mixture: what it takes the place of; None for the network alone.
    """

    def __init__(self, mixture: Mixture | None = None) -> None:
        self.mixture = mixture
        self.ids: NDArray[Any] = np.zeros(0, np.int64)
        self._parts: list[tuple[NDArray[Any], ...]] = [(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))]

    def nats(self, ids: NDArray[Any], places: NDArray[np.int64], nats: Floats, entropies: Floats) -> Floats:
        """Remember what ids cost the network; the arguments are those of `Mixture.nats`.

        Args:
            ids: (N,), the text in the order of reading.
            places: (n,), of the ids.
            nats: (n,), what they cost the network.
            entropies: (n,), of what it predicted, in nats.

        Returns:
            (n,), what they cost the mixture, or the network where there is none.
        """
        self.ids = ids
        self._parts.append((places, nats, entropies))
        return self.mixture.nats(ids, places, nats, entropies) if self.mixture else nats

    def in_order(self) -> tuple[NDArray[np.int64], Floats, Floats]:
        """The places, nats and entropies (n,) of all ids that were scored, in the order of reading."""
        places, nats, entropies = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        order = np.argsort(places)
        return places[order], nats[order], entropies[order]
