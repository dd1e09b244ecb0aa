"""What a network predicts for the ids of a text, remembered while it is scored."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.counting.mixture import Mixture
from chargen.data.borders import as_targets

Floats = NDArray[np.float64]


class Recorder:
    """Takes the place of a `Mixture` while a text is scored.

    Args:
        mixture: what it takes the place of; None for the network alone.
        end_id: of records, the end symbol, which stands for those of all labels.
        whole: whether to remember all that the network predicts, not only what ids cost.
    """

    def __init__(self, mixture: Mixture | None = None, end_id: int | None = None, whole: bool = False) -> None:
        self.mixture, self.end_id, self.whole = mixture, end_id, whole
        self.ids: NDArray[Any] = np.zeros(0, np.int64)
        self._parts: list[tuple[NDArray[Any], ...]] = []

    def nats(self, ids: NDArray[Any], places: NDArray[np.int64], log_probs: NDArray[Any]) -> Floats:
        """Remember what ids cost; the arguments are those of `Mixture.nats`.

        Args:
            ids: (N,), the text in the order of reading.
            places: (n,), of the ids.
            log_probs: (n, V), what the network predicts there.

        Returns:
            (n,), what they cost the mixture, or the network where there is none.
        """
        self.ids = ids
        if self.whole:
            self._parts.append((places, log_probs.copy()))
        network = -log_probs[np.arange(len(places)), as_targets(ids[places], self.end_id)].astype(np.float64)
        mixed = self.mixture.nats(ids, places, log_probs) if self.mixture else network
        if not self.whole:
            entropies = -(np.exp(log_probs) * log_probs).sum(1, dtype=np.float64)
            self._parts.append((places, mixed, network, entropies))
        return mixed

    def in_order(self) -> tuple[NDArray[Any], ...]:
        """What was remembered of all ids that were scored, in the order of reading: the places (n,), and either what
        the network predicts (n, V), or what ids cost the mixture, the network, and its entropies, (n,) each.
        """
        if not self._parts:
            return np.zeros(0, np.int64), *([np.zeros((0, 0), np.float32)] if self.whole else [np.zeros(0)] * 3)
        columns = [np.concatenate(parts) for parts in zip(*self._parts, strict=True)]
        order = np.argsort(columns[0])
        return tuple(column[order] for column in columns)
