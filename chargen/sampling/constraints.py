"""Which ids may come next: bans, no repeated runs, no unknown symbol, and in bytes only valid UTF-8."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from chargen.data.lookalikes import suggest_lookalikes
from chargen.data.reading import ReadingConfig, clean
from chargen.data.utf8 import utf8_before, utf8_capacity, utf8_capacity_before, utf8_next
from chargen.data.vocabulary import Vocabulary
from chargen.decoding.choose import SampleConfig
from chargen.errors import SettingError, repr_short


def fitted(config: SampleConfig, vocabulary: Vocabulary, reading: ReadingConfig | None) -> SampleConfig:
    """A config for a model, whose bans and stop texts are cleaned as the text that it learned.

    Raises SettingError for a stop text that can never be written.
    """
    stops = tuple(clean(text, reading) for text in config.stop)
    config = replace(config, ban=clean(config.ban, reading), stop=stops)
    for text in stops:
        if reason := _never(text, config, vocabulary):
            raise SettingError(f"stop is {repr_short(text)}, which is never written: {reason}", "stop")
    return config


def _never(text: str, config: SampleConfig, vocabulary: Vocabulary) -> str:
    """Why a text can never be written, and what to do; nothing where it can."""
    known = set(vocabulary.characters)
    if vocabulary.byte_mode:
        known = {character for character in text if not "\ud800" <= character <= "\udfff"}
    for place, character in enumerate(text):
        if character not in known:
            advice = suggest_lookalikes(text, [place], known) or "give a text without it"
            return f"the model does not have {character!r} (U+{ord(character):04X}); {advice.removesuffix('; ')}"
        if character in config.ban:
            return f"ban forbids {character!r}; ban less, or give another stop text"
    run = config.no_repeat
    runs = [text[at : at + run] for at in range(len(text) + 1 - run)] if run else []
    if len(runs) != len(set(runs)):
        return f"no_repeat {run} forbids a run in it; raise no_repeat, or give another stop text"
    return ""


def repeats(before: str, text: str, length: int) -> frozenset[str]:
    """The characters that would complete a run of `length` characters that `text` holds already.

    Args:
        before: what stands before it: runs may begin there, but none counts that ends there.
        length: of a run; 0 is off.
    """
    if not length:
        return frozenset()
    whole = before + text
    begun = whole[1 - length :] if length > 1 else ""
    found = set()
    if len(begun) == length - 1:
        at = whole.find(begun)
        while 0 <= at < len(whole) - len(begun):
            if at + len(begun) >= len(before):
                found.add(whole[at + len(begun)])
            at = whole.find(begun, at + 1)
    return frozenset(found)


class Constraints:
    """The rules for one stream of text.

    Args:
        vocabulary: whose ids are asked about.
        ban: characters never to write.
        no_repeat: never complete a run of this many characters that the stream has already written; 0 is off.
        backward: whether the stream is written from its end.
    """

    def __init__(self, vocabulary: Vocabulary, ban: str = "", no_repeat: int = 0, backward: bool = False) -> None:
        self.vocabulary = vocabulary
        self.backward = backward
        self.ban = frozenset(one for one in ban if vocabulary.raw or not "\ud800" <= one <= "\udfff")
        self.no_repeat = no_repeat
        self.recent = ""
        self.followers: defaultdict[str, set[str]] = defaultdict(set)
        self._always = np.ones(len(vocabulary), bool)
        if not vocabulary.byte_mode:
            self._always[
                [number for number, character in enumerate(vocabulary.characters) if character in self.ban]
            ] = False
            if vocabulary.unknown_id is not None:
                self._always[vocabulary.unknown_id] = False

    def read(self, text: str) -> None:
        """Note text that was fed, not written: it is context for later runs, but none of its own runs count."""
        if self.no_repeat > 1:
            self.recent = (self.recent + text)[1 - self.no_repeat :]

    def wrote(self, character: str) -> None:
        """Note a character that the stream wrote."""
        if self.no_repeat:
            if len(self.recent) == self.no_repeat - 1:
                self.followers[self.recent].add(character)
            self.read(character)

    def mask(self, partial: bytes = b"", also: frozenset[str] = frozenset()) -> NDArray[np.bool_]:
        """The allowed ids (V,); all False where every way on is forbidden.

        Args:
            also: characters that are forbidden here besides.
            partial: in bytes, the unfinished character so far, in the order of the text.
        """
        forbidden = self._repeats() | also
        if self.vocabulary.byte_mode:
            return self._byte_mask(partial, self.ban | forbidden)
        if not forbidden:
            return self._always
        mask = self._always.copy()
        mask[self.vocabulary.encode("".join(forbidden))] = False
        return mask

    def _repeats(self) -> set[str]:
        """The characters that would complete a run already written."""
        if not self.no_repeat or len(self.recent) < self.no_repeat - 1:
            return set()
        return self.followers.get(self.recent, set())

    def _byte_mask(self, partial: bytes, forbidden: frozenset[str]) -> NDArray[np.bool_]:
        """A byte is forbidden where every character that it can still become is."""
        mask = np.zeros(256, bool)
        mask[utf8_before(partial) if self.backward else utf8_next(partial)] = True
        used: defaultdict[int, int] = defaultdict(int)
        for character in forbidden:
            encoded = character.encode()
            if self.backward and encoded.endswith(partial):
                used[encoded[-1 - len(partial)]] += 1
            elif not self.backward and encoded.startswith(partial):
                used[encoded[len(partial)]] += 1
        for byte, count in used.items():
            one = bytes([byte])
            if count == (utf8_capacity_before(one + partial) if self.backward else utf8_capacity(partial + one)):
                mask[byte] = False
        return mask
