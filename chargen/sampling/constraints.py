"""Which ids may come next: bans, no repeated runs, no unknown symbol, in bytes only valid UTF-8, and the end symbol."""

import copy
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from chargen.data.code_points import END_MARK
from chargen.data.lookalikes import suggest_lookalikes
from chargen.data.reading import clean
from chargen.data.reading_config import ReadingConfig
from chargen.data.utf8 import SURROGATE, utf8_before, utf8_capacity, utf8_capacity_before, utf8_next
from chargen.data.vocabulary import Vocabulary
from chargen.decoding.choose import SampleConfig
from chargen.errors import SettingError, repr_short


def fit_config(config: SampleConfig, vocabulary: Vocabulary, reading: ReadingConfig | None) -> SampleConfig:
    """Clean bans and stop texts as the text that a model learned; in records that are lines, ban line ends.

    Args:
        config: as asked for.
        vocabulary: the model's.
        reading: how the model's text was cleaned.

    Returns:
        The config with cleaned bans and stop texts.

    Raises:
        SettingError: a stop text can never be written.
    """
    stops, ban = tuple(clean(text, reading) for text in config.stop), clean(config.ban, reading)
    if vocabulary.byte_mode and reading is not None and reading.records == "line":  # bytes know line ends nevertheless
        ban = "".join(sorted({*ban, *"\r\n"}))
    config = replace(config, ban=ban, stop=stops)
    for text in stops:
        if reason := _explain_impossible(text, config, vocabulary):
            raise SettingError(f"stop is {repr_short(text)}, which is never written: {reason}", "stop")
    return config


def _explain_impossible(text: str, config: SampleConfig, vocabulary: Vocabulary) -> str:
    """Why a text can never be written, and what to do; nothing where it can."""
    known = set(vocabulary.characters)
    if vocabulary.byte_mode:
        known = set(SURROGATE.sub("", text))
    for position, character in enumerate(text):
        if character not in known:
            advice = suggest_lookalikes(text, [position], known) or "give a text without it"
            return f"the model does not have {character!r} (U+{ord(character):04X}); {advice.removesuffix('; ')}"
        if character in config.ban:
            return f"`ban` forbids {character!r}; ban less, or give another stop text"
    length = config.no_repeat
    runs = [text[start : start + length] for start in range(len(text) + 1 - length)] if length else []
    if len(runs) != len(set(runs)):
        return f"`no_repeat={length}` forbids a run in it; raise `no_repeat`, or give another stop text"
    return ""


def repeating_characters(before: str, text: str, length: int) -> frozenset[str]:
    """Find the characters that would complete a run of `length` characters that a text holds already.

    Args:
        before: the text before it: runs may begin there, but none counts that ends there.
        text: the text that goes on.
        length: characters of a run; 0 is off.

    Returns:
        The characters that must not come next.
    """
    if not length:
        return frozenset()
    joined = before + text
    unfinished = joined[1 - length :] if length > 1 else ""
    last_characters = set()
    if len(unfinished) == length - 1:
        start = joined.find(unfinished)
        while 0 <= start < len(joined) - len(unfinished):
            if start + len(unfinished) >= len(before):
                last_characters.add(joined[start + len(unfinished)])
            start = joined.find(unfinished, start + 1)
    return frozenset(last_characters)


class Constraints:
    """The rules for one stream of text.

    Args:
        vocabulary: the model's.
        ban: characters never to write; `END_MARK` among them stands for the end symbol.
        no_repeat: never complete a run of this many characters that the stream has already written; 0 is off.
        backward: whether the stream is written from its end.
    """

    def __init__(self, vocabulary: Vocabulary, ban: str = "", no_repeat: int = 0, backward: bool = False) -> None:
        self.vocabulary = vocabulary
        self.backward = backward
        self.ban = frozenset(ban if vocabulary.raw else SURROGATE.sub("", ban))
        self.no_repeat = no_repeat
        self.recent = ""
        self.followers: defaultdict[str, set[str]] = defaultdict(set)
        """The characters that follow each run of one character fewer in what was written."""
        self._end_id = None if END_MARK in ban else vocabulary.end_id
        """The end symbol, where it may be written: no other begin symbol ever is."""
        self._base_mask = np.ones(len(vocabulary), bool)
        """Of characters: all but the banned ones and the unknown symbol."""
        if not vocabulary.byte_mode:
            banned = [index for index, character in enumerate(vocabulary.characters) if character in self.ban]
            self._base_mask[banned] = False
            self._base_mask[len(vocabulary.characters) :] = False
            if self._end_id is not None:
                self._base_mask[self._end_id] = True

    def fork(self) -> "Constraints":
        """Copy the rules with the runs that they remember."""
        forked = copy.copy(self)
        forked.followers = defaultdict(set, ((run, set(ends)) for run, ends in self.followers.items()))
        return forked

    def note_read(self, text: str) -> None:
        """Note text that was fed, not written: later runs may begin in it, but none of its own runs count.

        Args:
            text: in the order of reading.
        """
        if self.no_repeat > 1:
            self.recent = (self.recent + text)[1 - self.no_repeat :]

    def note_written(self, character: str) -> None:
        """Note a character that the stream wrote: it may complete a run.

        Args:
            character: the character.
        """
        if self.no_repeat:
            if len(self.recent) == self.no_repeat - 1:
                self.followers[self.recent].add(character)
            self.note_read(character)

    def mask(self, partial: bytes = b"", extra_ban: frozenset[str] = frozenset()) -> NDArray[np.bool_]:
        """Find the ids that may come next.

        Args:
            partial: in bytes, the unfinished character so far, in the order of the text.
            extra_ban: characters that are forbidden here only.

        Returns:
            (V,) bool; all False where no character is allowed.
        """
        forbidden = self.followers.get(self.recent, frozenset()) | extra_ban
        if self.vocabulary.byte_mode:
            return self._byte_mask(partial, self.ban | forbidden)
        if not forbidden:
            return self._base_mask
        mask = self._base_mask.copy()
        mask[self.vocabulary.encode("".join(forbidden))] = False
        return mask

    def _byte_mask(self, partial: bytes, forbidden: frozenset[str]) -> NDArray[np.bool_]:
        """The bytes that may follow, not those of which every completion is forbidden; or the end symbol."""
        mask = np.zeros(len(self.vocabulary), bool)
        mask[utf8_before(partial) if self.backward else utf8_next(partial)] = True
        order = slice(None, None, -1 if self.backward else 1)
        in_writing = (character.encode()[order] for character in forbidden)
        forbidden_count = Counter(encoded[len(partial)] for encoded in in_writing if encoded.startswith(partial[order]))
        for byte, count in forbidden_count.items():
            first = bytes([byte])
            if count == (utf8_capacity_before(first + partial) if self.backward else utf8_capacity(partial + first)):
                mask[byte] = False
        if self._end_id is not None and not partial:
            mask[self._end_id] = True
        return mask
