"""Where a piece of text ends while it is written: before what follows a word, a sentence or a paragraph.

A model's page has the same rule, in `chargen/exporting/text.js`; tests take both through the same texts.
"""

import re
from unicodedata import category

from chargen.errors import SettingError, repr_short

MAX_PIECE = {"word": 100, "sentence": 1_000, "paragraph": 5_000}
"""What a piece can be, and the characters at which it is cut."""
LONG_LINE = 100
"""Columns of a line that is a paragraph."""
_JOINERS = "'’-"
_WHOLE = re.compile(
    "[\u0e01-\u0edf\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3021-\u3029\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
"""Of scripts without blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese), each character is a word."""
_WIDE = re.compile("[\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\U00020000-\U0003ffff]")
_STOPS = ".!?…‥؟۔।॥։።။។"
_WIDE_STOPS = "。！？｡"
_CLOSERS = "\"'”’»›)]}」』）》〉】〕"
_OPEN_OR_CLOSE = "“‘«‹"  # as in „German“ and »Danish«


class Ending:
    """Finds the end of a piece of text, which holds something that is no blank, and no blanks behind it.

    A word ends before what follows it: a hyphen or an apostrophe belongs to it where a letter follows, and in scripts
    without blanks each character is a word. A sentence ends with its full stop and closing quotes, where a blank
    follows, in Chinese and Japanese anyway, and with its paragraph; a paragraph before a blank line, or at the end of a
    line of `LONG_LINE` columns.

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
        self._waiting = ""
        """Characters that belong to the piece only if more of it follows."""
        self._begun = self._is_line_over = False
        self._columns = _columns(re.split("[\r\n]", before[-LONG_LINE:])[-1])
        self._last = ""
        """The last letter or joiner of a word."""

    def add(self, character: str) -> str:
        """Take the next character that was written.

        Args:
            character: any.

        Returns:
            What is sure to belong to the piece since the last call: often the character, or "".
        """
        if self.ended:
            return ""
        verdict = self._judge(character)
        if verdict == "over":
            self.ended = True
            return ""
        self._waiting += character
        is_full = len(self.text) + len(self._waiting) >= MAX_PIECE[self.until]
        return self.end() if is_full else self._take() if verdict == "go" else ""

    def end(self) -> str:
        """End the piece here, if it has not ended.

        Returns:
            What belongs to it, too.
        """
        taken = "" if self.ended else self._take()
        self.ended = True
        return taken

    def _take(self) -> str:
        taken, self._waiting = self._waiting, ""
        self.text += taken
        return taken

    def _judge(self, character: str) -> str:
        """Judge whether the piece is "over" before this character, and those that wait; else "wait", or "go"."""
        verdict = self._judge_word(character) if self.until == "word" else self._judge_lines(character)
        self._begun |= not _is_blank(character)
        self._columns = 0 if character == "\n" else self._columns + _columns(character)
        return verdict

    def _judge_word(self, character: str) -> str:
        kind, last = category(character), self._last
        if kind[0] == "M" or (not last and kind[0] not in "LN"):
            return "go"
        joins = character in _JOINERS and last not in _JOINERS
        goes_on = joins or kind[0] in "LN" or kind == "Pc" or character in "\u200c\u200d"
        if last and (not goes_on or _WHOLE.match(character) or _WHOLE.match(last)):
            return "over"
        self._last = character
        return "wait" if joins else "go"

    def _judge_lines(self, character: str) -> str:
        if self.until == "sentence" and self._begun and self._is_sentence_before(character):
            return "over"
        if not _is_blank(character):
            self._is_line_over = False
            return "go"
        if not self._begun:
            return "go"
        if character == "\n":
            if self._is_line_over or self._columns >= LONG_LINE:
                return "over"
            self._is_line_over = True
        return "wait"

    def _is_sentence_before(self, character: str) -> bool:
        text = self.text + self._waiting
        if _is_blank(character):
            return text.rstrip(_CLOSERS + _OPEN_OR_CLOSE).endswith((*_STOPS, *_WIDE_STOPS))
        return character not in _STOPS + _WIDE_STOPS + _CLOSERS and text.rstrip(_CLOSERS).endswith((*_WIDE_STOPS,))


def _is_blank(character: str) -> bool:
    return character.isspace() and not "\x1c" <= character <= "\x1f"


def _columns(text: str) -> int:
    return len(text) + len(_WIDE.findall(text))
