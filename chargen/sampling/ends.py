"""Where a piece of text ends while it is written: behind a word, a sentence or a paragraph."""

import re

from chargen.errors import SettingError, repr_short

MAX_PIECE = {"word": 100, "sentence": 1_000, "paragraph": 5_000}
"""What a piece can be, and the characters at which it is cut."""
_STOPS = ".!?…‥؟۔।॥։።"
_WIDE_STOPS = "。！？｡"
_CLOSERS = "\"'”’»›)]}」』）》〉】〕"
UNSPACED = re.compile("[\u2e80-\u4dbf\u4e00-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff]")
"""Characters of Chinese and Japanese, which have no blanks between words and no blank behind a full stop."""
LOOKED_AT = 20_000
"""Characters before a piece that tell what a paragraph is."""
LONG_LINE = 120
"""Columns of a line that nobody has broken: it is a paragraph."""


class Ending:
    """Finds the end of a piece of text.

    A word ends with the blank behind it, in Chinese and Japanese with each character; a sentence with the blank behind
    its full stop and closing quotes; a paragraph at a blank line or, in a text that has none and whose lines are long,
    at the end of a line. Each holds something that is no blank.

    Args:
        until: the end of what: "word", "sentence" or "paragraph".
        before: the text that the piece goes on from.

    Raises:
        SettingError: `until` is none of these.
    """

    def __init__(self, until: str, before: str) -> None:
        if not isinstance(until, str) or until not in MAX_PIECE:
            raise SettingError(f"until is {repr_short(until)}: it must be one of {', '.join(MAX_PIECE)}", "until")
        self.until = until
        self.text = ""
        """The piece so far."""
        self.ended = False
        *lines, self._line = before[-LOOKED_AT:].replace("\r", "").split("\n")
        self._has_blank_lines = "" in lines[1:]
        self._has_long_lines = any(_columns(line) > LONG_LINE for line in lines)

    def add(self, character: str) -> str:
        """Take the next character that was written.

        Args:
            character: any.

        Returns:
            The character, or "" where the piece has ended before it.
        """
        if self.ended or (self._begun and self._ends_before(character)):
            self.ended = True
            return ""
        self.ended = self._ends_with(character) or len(self.text) + 1 >= MAX_PIECE[self.until]
        self.text += character
        if character == "\n":
            self._has_blank_lines |= not self._line
            self._has_long_lines |= _columns(self._line) > LONG_LINE
        self._line = "" if character == "\n" else self._line + character.strip("\r")
        return character

    @property
    def _begun(self) -> bool:
        return bool(self.text) and not self.text.isspace()

    def _ends_before(self, character: str) -> bool:
        """Whether no character like this belongs to a piece such as this: so it ends where nothing is blank."""
        if self.until == "word":
            return bool(UNSPACED.match(character))
        stopped = self.text.rstrip(_CLOSERS)[-1:]
        goes_on = character.isspace() or character in _CLOSERS + _STOPS + _WIDE_STOPS
        return self.until == "sentence" and bool(stopped) and stopped in _WIDE_STOPS and not goes_on

    def _ends_with(self, character: str) -> bool:
        if self.until == "word":
            return bool(UNSPACED.match(character)) or (self._begun and character.isspace())
        if not self._begun or not character.isspace():
            return False
        stopped = self.text.rstrip(_CLOSERS)[-1:]
        if self.until == "sentence" and stopped and stopped in _STOPS + _WIDE_STOPS:
            return True
        return character == "\n" and self._is_paragraph_end()

    def _is_paragraph_end(self) -> bool:
        """Whether a line end here ends a paragraph."""
        is_long = self._has_long_lines or _columns(self._line) > LONG_LINE
        return not self._line or (is_long and not self._has_blank_lines)


def _columns(line: str) -> int:
    return len(line) + len(UNSPACED.findall(line))
