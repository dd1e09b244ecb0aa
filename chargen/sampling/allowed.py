"""Which ids may come next: bans, no repeated runs, no unknown symbol, and in bytes only valid UTF-8."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from chargen.data.reading import ReadingConfig, clean
from chargen.data.twins import advise
from chargen.data.vocabulary import Vocabulary
from chargen.decoding.choose import SampleConfig
from chargen.errors import SettingError, told


def fitted(config: SampleConfig, vocabulary: Vocabulary, reading: ReadingConfig | None) -> SampleConfig:
    """A config for a model, whose bans and stop texts are cleaned as the text that it learned.

    Raises SettingError for a stop text that can never be written.
    """
    stops = tuple(clean(text, reading) for text in config.stop)
    config = replace(config, ban=clean(config.ban, reading), stop=stops)
    for text in stops:
        if reason := _never(text, config, vocabulary):
            raise SettingError(f"stop is {told(text)}, which is never written: {reason}", "stop")
    return config


def _never(text: str, config: SampleConfig, vocabulary: Vocabulary) -> str:
    """Why a text can never be written, and what to do; nothing where it can."""
    known = set(vocabulary.characters)
    if vocabulary.byte_mode:
        known = {character for character in text if not "\ud800" <= character <= "\udfff"}
    for place, character in enumerate(text):
        if character not in known:
            advice = advise(text, [place], known) or "give a text without it"
            return f"the model does not have {character!r} (U+{ord(character):04X}); {advice.removesuffix('; ')}"
        if character in config.ban:
            return f"ban forbids {character!r}; ban less, or give another stop text"
    run = config.no_repeat
    runs = [text[at : at + run] for at in range(len(text) + 1 - run)] if run else []
    if len(runs) != len(set(runs)):
        return f"no_repeat {run} forbids a run in it; raise no_repeat, or give another stop text"
    return ""


def utf8_range(partial: bytes) -> tuple[int, int]:
    """The bytes that may follow an unfinished character, from and to inclusive (Unicode 17, table 3-7).

    For an empty `partial` the range is 0x00 to 0xF4, of which 0x80 to 0xC1 start nothing.
    """
    if not partial:
        return 0x00, 0xF4
    if len(partial) == 1:
        return {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}.get(
            partial[0], (0x80, 0xBF)
        )
    return 0x80, 0xBF


def utf8_length(lead: int) -> int:
    """How many bytes the character has that starts with `lead`."""
    return 1 + (lead >= 0xC2) + (lead >= 0xE0) + (lead >= 0xF0)


def utf8_unfinished(part: bytes) -> bool:
    """Whether a part of a character, from its first byte on or up to its last, is not all of it."""
    return part[0] & 0xC0 == 0x80 or len(part) < utf8_length(part[0])


def utf8_next(partial: bytes) -> list[int]:
    """The bytes that may follow an unfinished character."""
    first, last = utf8_range(partial)
    return [byte for byte in range(first, last + 1) if partial or not 0x80 <= byte < 0xC2]


def utf8_capacity(prefix: bytes) -> int:
    """How many characters start with `prefix`, an unfinished or whole character."""
    missing = utf8_length(prefix[0]) - len(prefix)
    if missing == 0:
        return 1
    first, last = utf8_range(prefix)
    return int((last - first + 1) * 64 ** (missing - 1))


def utf8_before(partial: bytes) -> list[int]:
    """The bytes that may stand before the end of a character, for a text written from its end.

    Args:
        partial: the continuation bytes so far, 0 to 3 of them, in the order of the text.
    """
    if not partial:
        return [*range(0x80), *range(0x80, 0xC0)]
    leads = {1: range(0xC2, 0xE0), 2: range(0xE0, 0xF0), 3: range(0xF0, 0xF5)}[len(partial)]
    fitting = [lead for lead in leads if partial[0] in range(*_closed(*utf8_range(bytes([lead]))))]
    return [*(range(0x80, 0xC0) if len(partial) < 3 else ()), *fitting]


def utf8_capacity_before(partial: bytes) -> int:
    """How many characters end with `partial`: a whole character, or 0 to 3 continuation bytes.

    There are 128 characters of one byte; 30 lead bytes of two; and for each second byte 15 lead bytes of three and 4 of
    four, since what E0 and F0 exclude, ED and F4 allow.
    """
    if partial and not 0x80 <= partial[0] < 0xC0:
        return 1
    leads = 128, 30, 15, 4
    return sum(leads[length] * 64 ** (length - len(partial)) for length in range(len(partial), 4))


def _closed(first: int, last: int) -> tuple[int, int]:
    return first, last + 1


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


class Allowed:
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
