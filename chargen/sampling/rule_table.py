"""The constraints of streams as tables, so that an engine can write a whole chunk without asking for each id."""

import numpy as np
from numpy.typing import NDArray

from chargen.data.utf8 import utf8_unfinished
from chargen.data.vocabulary import Vocabulary
from chargen.decoding.rules import Rules
from chargen.sampling.stream import Stream


class RuleTable:
    """The tables of streams with the same bans, stop texts, no_repeat and direction.

    Characters have one mask. Bytes have one for each unfinished character, added when a stream first comes there. With
    no_repeat and logits processors, masks hold for one id only. A stream stops behind the end symbol of its record.

    Args:
        vocabulary: the model's.
        stop: texts that end what a stream writes: it stops behind the id that they end with (backward: begin with).
        id_by_id: whether masks hold for one id only.
        backward: whether the streams are written from their end.
    """

    def __init__(self, vocabulary: Vocabulary, stop: tuple[str, ...], id_by_id: bool, backward: bool) -> None:
        self.vocabulary = vocabulary
        self.backward = backward
        self.max_ids = 1 if id_by_id else None
        """For how many ids the rules hold; None: until a stream stops."""
        size = len(vocabulary)
        self._stop_after = np.zeros(size, bool)
        if vocabulary.end_id is not None:
            self._stop_after[vocabulary.end_id] = True
        for text in stop:
            ids = vocabulary.encode(text[0] if backward else text[-1], "skip")
            self._stop_after[ids[:1] if backward else ids[-1:]] = True
        self.may_stop = bool(self._stop_after.any())
        """Whether a stop text or an end symbol may come."""
        self._mask_index: dict[bytes, int] = {}
        self._masks = np.zeros((0, size), bool)
        self._next_mask = np.zeros((0, size), np.int64)

    def rules_for(self, streams: list[Stream]) -> tuple[Rules, NDArray[np.int64]]:
        """Make the tables for what streams write next.

        Args:
            streams: R streams.

        Returns:
            The rules, and the number of the mask that holds for each stream's next id (R,).
        """
        if self.max_ids:
            masks = np.stack([stream.constraints.mask(stream.partial) for stream in streams])
            return Rules(masks, np.zeros(masks.shape, np.int64), self._stop_after), np.arange(len(streams))
        constraints = streams[0].constraints
        for partial in (b"", *(stream.partial for stream in streams)):
            if partial not in self._mask_index:
                self._add_mask(partial, constraints.mask(partial))
        mask_index = np.array([self._mask_index[stream.partial] for stream in streams])
        return Rules(self._masks, self._next_mask, self._stop_after), mask_index

    def _add_mask(self, partial: bytes, mask: NDArray[np.bool_]) -> None:
        """Append the mask of an unfinished character, and link it with those that lead to it and on from it."""
        index = self._mask_index[partial] = len(self._masks)
        next_mask = np.zeros(len(mask), np.int64)
        if self.vocabulary.byte_mode:
            for value in range(256):  # the end symbol, too: behind it no mask is needed
                longer = bytes([value]) + partial if self.backward else partial + bytes([value])
                next_mask[value] = self._mask_index.get(longer if utf8_unfinished(longer) else b"", -1)
        self._masks = np.concatenate([self._masks, mask[None]])
        self._next_mask = np.concatenate([self._next_mask, next_mask[None]])
        shorter, byte = (partial[1:], partial[:1]) if self.backward else (partial[:-1], partial[-1:])
        if byte and shorter in self._mask_index:
            self._next_mask[self._mask_index[shorter], byte[0]] = index
