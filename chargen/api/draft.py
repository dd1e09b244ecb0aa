"""A draft: a text that a person and a model write together, with all its changes and the file that holds it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from chargen.api.draft_file import Bookmark, DraftFile
from chargen.data.utf8 import SURROGATE
from chargen.errors import ChargenError
from chargen.settings import check_int, check_text


@dataclass(frozen=True)
class Edit:
    """A change of a text.

    Args:
        position: where.
        removed: what stood there.
        inserted: what stands there now.
        by_model: whether it is a piece that a model wrote.
    """

    position: int
    removed: str
    inserted: str
    by_model: bool = False

    def apply(self, text: str) -> str:
        """Make the change."""
        return text[: self.position] + self.inserted + text[self.position + len(self.removed) :]

    def reverse(self) -> "Edit":
        """The change that takes this one back."""
        return replace(self, removed=self.inserted, inserted=self.removed)

    @property
    def end(self) -> int:
        """The position behind what was inserted."""
        return self.position + len(self.inserted)


class Draft:
    """A text, where a person writes in it, and every change since it was opened.

    Args:
        path: the file that it is read from and saved to; it need not exist. None: no file.
        encoding: of the file; None: UTF-8, or what its byte order mark says.

    Raises:
        DataError: the file is none, is too large, or cannot be kept byte for byte.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, encoding: str | None = None) -> None:
        self.file = None if path is None else DraftFile(path, encoding)
        self.text = self.file.text if self.file else ""
        bookmark = self.file.bookmark if self.file else None
        self.cursor = min(bookmark.cursor, len(self.text)) if bookmark else len(self.text)
        """Where the person writes, and where the next piece stands."""
        self.left_out = ""
        """Characters of the last change that the file's encoding does not have, each once."""
        self._done: list[Edit] = []
        self._undone: list[Edit] = []
        self._held = ""
        """A CR at the end of the piece, which the next character may make a line end."""
        self._in_piece = False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the draft's file, so that no other chargen opens it.

        Raises:
            ChargenError: another one holds it.
        """
        if self.file is None:
            yield
            return
        with self.file.lock():
            yield

    def change(self, text: str, cursor: int) -> None:
        """Take over what a person made of the text; letters of a word are undone together.

        Args:
            text: all of it.
            cursor: where the person writes.

        Raises:
            SettingError: the text is no str, or the cursor does not stand in it.
        """
        self.cursor = check_int("cursor", cursor, 0, len(check_text("text", text)))
        if text == self.text:
            return
        grown = max(0, len(text) - len(self.text))
        begin = min(_common_length(self.text, text), max(0, cursor - grown))  # of equal letters, those at the cursor
        limit = min(len(text), len(self.text)) - begin
        end = _common_length(self.text[len(self.text) - limit :][::-1], text[len(text) - limit :][::-1])
        inserted = self._kept(text[begin : len(text) - end])
        edit = Edit(begin, self.text[begin : len(self.text) - end], inserted)
        self._undone.clear()
        self.text = edit.apply(self.text)
        if self.text != text:
            self.cursor = edit.end
        if self._done and (joined := _join(self._done[-1], edit)):
            self._done[-1] = joined
        else:
            self._done.append(edit)

    def begin_piece(self, *, again: bool = False) -> None:
        """Let a piece of the model begin where the person writes.

        Args:
            again: whether it takes the place of the last change, which is a piece.
        """
        self._undone.clear()
        edit = Edit(self.cursor, "", "", by_model=True)
        if again and (last := self.last_piece):
            edit = Edit(last.position, last.inserted, "", by_model=True)
        self._done.append(edit)
        self.text, self.cursor, self._held, self._in_piece = edit.apply(self.text), edit.position, "", True

    def extend_piece(self, text: str) -> None:
        """Let the piece that has begun go on.

        Args:
            text: what the model wrote; CR LF is a line end as in the rest of the draft.

        Raises:
            SettingError: it is no str.
            ChargenError: no piece has begun.
        """
        self._check_begun()
        check_text("text", text)
        text = (self._held + text).replace("\r\n", "\n")
        self._held = "\r" if text.endswith("\r") else ""
        self._insert(text.removesuffix("\r"))

    def end_piece(self) -> None:
        """Let the piece that has begun be complete; where nothing was written, all is as before it.

        Raises:
            ChargenError: no piece has begun.
        """
        self._check_begun()
        self._in_piece = False
        self._insert(self._held)
        self._held = ""
        if not self._done[-1].inserted:
            edit = self._done.pop().reverse()
            self.text, self.cursor = edit.apply(self.text), edit.end

    def _check_begun(self) -> None:
        if not self._in_piece:
            raise ChargenError("no piece has begun: call `begin_piece` first")

    def _insert(self, text: str) -> None:
        edit = self._done[-1]
        kept = self._kept(text)
        self.text = Edit(edit.end, "", kept).apply(self.text)
        self._done[-1] = replace(edit, inserted=edit.inserted + kept)
        self.cursor = self._done[-1].end

    @property
    def last_piece(self) -> Edit | None:
        """The last change, where it is a piece of the model."""
        return self._done[-1] if self._done and self._done[-1].by_model else None

    def undo(self) -> bool:
        """Take the last change back; tell whether there was any."""
        return self._move(self._done, self._undone)

    def redo(self) -> bool:
        """Make the change again that was taken back last; tell whether there was any."""
        return self._move(self._undone, self._done)

    def _move(self, source: list[Edit], target: list[Edit]) -> bool:
        if not source:
            return False
        edit = source.pop().reverse()
        self.text, self.cursor = edit.apply(self.text), edit.end
        target.append(edit)
        return True

    def text_before(self) -> str:
        """What stands before the cursor, with the line ends of the file: what a model goes on from."""
        text = self.text[: self.cursor]
        return text.replace("\n", self.file.line_end) if self.file else text

    def save(self) -> None:
        """Write the text to its file, durably, where it is not there yet.

        Raises:
            WriteError: the disk refuses.
        """
        if self.file:
            self.file.save(self.text)

    def save_bookmark(self, bookmark: Bookmark) -> None:
        """Write what is to go on tomorrow to the small file beside the draft, durably.

        Args:
            bookmark: what to write; the cursor is the draft's.

        Raises:
            WriteError: the disk refuses.
        """
        if self.file:
            self.file.save_bookmark(replace(bookmark, cursor=self.cursor), self.text)

    def _kept(self, text: str) -> str:
        """A text without the characters that the file cannot hold, and with line ends as the draft has them."""
        text = text.replace("\r\n", "\n")
        self.left_out = self.file.missing(text) if self.file else "".join({*SURROGATE.findall(text)})
        return "".join(character for character in text if character not in self.left_out) if self.left_out else text


def _join(first: Edit, second: Edit) -> Edit | None:
    """Both changes as one, where a person typed or deleted on within a word."""
    if first.by_model:
        return None
    goes_on = second.position == first.end and not second.removed and not first.removed
    new_word = first.inserted[-1:].isspace() and not second.inserted.isspace()
    if goes_on and len(second.inserted) == 1 and not new_word:
        return Edit(first.position, "", first.inserted + second.inserted)
    if not second.inserted and not first.inserted and second.position + len(second.removed) == first.position:
        return Edit(second.position, second.removed + first.removed, "")
    return None


def _common_length(first: str, second: str) -> int:
    """How many characters two texts have in common at their beginning; by halves, each of which is compared at once."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
