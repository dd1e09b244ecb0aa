"""The rules for the next id as tables, so that a whole chunk can be written without asking."""

import numpy as np
from numpy.typing import NDArray

from chargen.data.utf8 import utf8_unfinished
from chargen.data.vocabulary import Vocabulary
from chargen.decoding.rules import Rules
from chargen.sampling.stream import Stream


class RuleTable:
    """The rules of streams that differ only in where they stand.

    Characters have one mask. Bytes have one for each unfinished character, added when a stream first comes there. With
    no_repeat, masks hold for one id only.

    Args:
        vocabulary: the model's.
        stop: texts that end a stream's turn: the streams stop behind the id they end with (backward: begin with).
        no_repeat: as in `SampleConfig`.
        backward: whether the streams are written from their end.
    """

    def __init__(self, vocabulary: Vocabulary, stop: tuple[str, ...], no_repeat: int, backward: bool) -> None:
        self.vocabulary = vocabulary
        self.backward = backward
        self.turns = 1 if no_repeat else None
        """For how many ids the rules hold; None: until a stream pauses."""
        size = len(vocabulary)
        self._stop_after = np.zeros(size, bool)
        for text in stop:
            last = vocabulary.encode(text[0] if backward else text[-1], "skip")
            self._stop_after[last[:1] if backward else last[-1:]] = True
        self._places: dict[bytes, int] = {}
        self._masks = np.zeros((0, size), bool)
        self._next_mask = np.zeros((0, size), np.int64)

    def of(self, streams: list[Stream]) -> tuple[Rules, NDArray[np.int64]]:
        """The rules, and which mask holds for each stream (R,)."""
        if self.turns:
            masks = np.stack([stream.allowed.mask(stream.partial) for stream in streams])
            return Rules(masks, np.zeros(masks.shape, np.int64), self._stop_after), np.arange(len(streams))
        allowed = streams[0].allowed
        for partial in (b"", *(stream.partial for stream in streams)):
            if partial not in self._places:
                self._add(partial, allowed.mask(partial))
        which = np.array([self._places[stream.partial] for stream in streams])
        return Rules(self._masks, self._next_mask, self._stop_after), which

    def _add(self, partial: bytes, mask: NDArray[np.bool_]) -> None:
        place = self._places[partial] = len(self._masks)
        next_mask = np.zeros(len(mask), np.int64)
        if self.vocabulary.byte_mode:
            longer = [bytes([byte]) + partial if self.backward else partial + bytes([byte]) for byte in range(256)]
            next_mask[:] = [self._places.get(one if utf8_unfinished(one) else b"", -1) for one in longer]
        self._masks = np.concatenate([self._masks, mask[None]])
        self._next_mask = np.concatenate([self._next_mask, next_mask[None]])
        shorter, byte = (partial[1:], partial[:1]) if self.backward else (partial[:-1], partial[-1:])
        if byte and shorter in self._places:
            self._next_mask[self._places[shorter], byte[0]] = place
