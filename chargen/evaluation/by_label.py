"""What the records of each label cost a model."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.borders import as_targets
from chargen.data.vocabulary import Vocabulary
from chargen.evaluation.evaluation import LabelLoss, encode_scored
from chargen.evaluation.loss import in_reading_order


class LabelSums:
    """Adds up the nats of a text's ids by the labels of their records.

    Args:
        vocabulary: the model's, with labels.
        text: of records, as it is scored.
        unknown: what is done with characters that the model has never seen; None for the vocabulary's default.
        direction: in which the text is read.
    """

    def __init__(self, vocabulary: Vocabulary, text: str, unknown: str | None, direction: str) -> None:
        assert vocabulary.end_id is not None
        ids, kept = encode_scored(vocabulary, text, unknown)
        self.vocabulary, self.end_id = vocabulary, vocabulary.end_id
        self.ids, _ = in_reading_order(ids, vocabulary, direction, "scoring")
        self.begins = np.flatnonzero(self.ids >= self.end_id)
        self.extra: NDArray[np.float64] | None = None
        if vocabulary.unknown_id is not None:
            extra = np.append(vocabulary.extra_nats(kept), 0.0)
            self.extra = extra[::-1] if direction == "backward" else extra
        self.sums = np.zeros((4, vocabulary.begin_symbols))

    def add(self, places: NDArray[Any], nats: NDArray[Any]) -> None:
        """Add ids that were scored.

        Args:
            places: (n,), of the ids in the order of reading; not the first one.
            nats: (n,), of each.
        """
        # An id belongs to the record whose begin symbol was read last before it, also where it ends that record.
        labels = self.ids[self.begins[np.searchsorted(self.begins, places) - 1]].astype(np.int64) - self.end_id
        targets = as_targets(self.ids[places], self.end_id)
        ends = targets == self.end_id
        first_bytes = (targets & 0xC0) != 0x80 if self.vocabulary.byte_mode else np.ones(len(targets), bool)
        nats = nats if self.extra is None else nats + self.extra[places]
        for sums, weights in zip(self.sums, (ends, first_bytes, nats, nats * ends), strict=True):
            sums += np.bincount(labels, weights, len(sums))

    def losses(self) -> dict[str, LabelLoss]:
        """What the records of each label cost, the most frequent label first; "" is no label."""
        by_label = {}
        for name, sums in zip(["", *self.vocabulary.labels], self.sums.T, strict=True):
            records, characters, nats, end_nats = sums.tolist()
            if records:
                by_label[name] = LabelLoss(int(records), int(characters), nats, end_nats)
        return dict(sorted(by_label.items(), key=lambda item: -item[1].records))
