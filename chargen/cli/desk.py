"""Where a person and a model write a draft by turns: what each may do while the other does something."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from chargen.api.draft import Draft
from chargen.api.draft_file import Bookmark
from chargen.api.writer import Writer
from chargen.cli.draft_saver import DraftSaver
from chargen.cli.report import list_characters
from chargen.errors import ChargenError

SLICE = 0.03
"""Seconds that the model reads or writes before keys are looked at again."""
PROGRESS = 0.25
"""Seconds of reading after which it is shown how far it is."""
MAX_TEMPERATURE = 2.0
SURE = "at temperature 0 the model always writes the same; ^U raises it"
CHOICES = 3


class Desk:
    """The draft, the model, and what the model is doing. All that a person does ends that first.

    Args:
        draft: what is written.
        writer: writes, too.
        refresh: called whenever something is to be shown anew.
    """

    def __init__(self, draft: Draft, writer: Writer, refresh: Callable[[], object]) -> None:
        self.draft, self.writer, self.refresh = draft, writer, refresh
        self.saver = DraftSaver(draft, self.bookmark)
        self.note = self.error = ""
        """What is to be known of what was done last, and why it failed."""
        self.unknown = ""
        """Characters of the draft that the model reads past."""
        self.until = "sentence"
        """How far the model wrote last."""
        self.choices: list[str] = []
        self.share_read = 1.0
        self.failure: Exception | None = None
        """A bug, with which the program ends."""
        self._task: asyncio.Task[None] | None = None
        self._is_asked = False
        """Whether the task is what a person asked for, and no reading ahead."""
        self._in_piece = False

    def bookmark(self) -> Bookmark:
        """What goes on tomorrow, but for the cursor."""
        writer = self.writer
        return Bookmark(writer.seed, writer.pieces, writer.config.temperature, writer.label, writer.model.sha256)

    @property
    def is_busy(self) -> bool:
        """Whether there is something to end that a person knows of."""
        return bool(self.choices or (self._task and (self._is_asked or self.share_read < 1)))

    @property
    def state(self) -> str:
        """What is going on, in a word or two."""
        if self.share_read < 1:
            return f"reading {self.share_read:.0%}"
        if self._in_piece or (self._task and self.choices):
            return "writing"
        return "choose" if self.choices else "saved" if self.saver.is_saved else "unsaved"

    def end(self) -> None:
        """End what the model is doing: what it has written stays, what it has offered goes."""
        if self._task:
            self._task.cancel()
        self._task, self.choices, self.share_read = None, [], 1.0
        self._end_piece()

    def _end_piece(self) -> None:
        if self._in_piece:
            self._in_piece = False
            self.draft.end_piece()
            self._changed()
        self.refresh()

    def _changed(self) -> None:
        self.saver.changed.set()
        self.refresh()

    # What the person does.

    def take_over(self, text: str, cursor: int) -> None:
        """Take over what the person made of the text.

        Args:
            text: all of it.
            cursor: where the person writes.
        """
        self.end()
        self.draft.change(text, cursor)
        left_out = list_characters(self.draft.left_out)
        self.note = f"left out, as the file's encoding does not have it: {left_out}" if left_out else ""
        self._changed()

    def move(self, cursor: int) -> None:
        """Take over where the person writes.

        Args:
            cursor: the position.
        """
        if cursor != self.draft.cursor:
            if self._in_piece or self.choices:
                self.end()
            self.draft.cursor = cursor

    def undo(self) -> None:
        """Take the last change back."""
        self.end()
        self.note = "" if self.draft.undo() else "there is nothing to undo"
        self._changed()

    def redo(self) -> None:
        """Make the change again that was taken back last."""
        self.end()
        self.note = "" if self.draft.redo() else "there is nothing to redo"
        self._changed()

    def warm(self, change: float) -> None:
        """Let the model write more wildly, from its next piece on.

        Args:
            change: of the temperature.
        """
        temperature = round(self.writer.config.temperature + change, 6)
        self.writer.set_temperature(max(0.0, min(temperature, MAX_TEMPERATURE)))
        self._changed()

    def relabel(self) -> None:
        """Let the model write records of the next label."""
        self.end()
        labels = [None, *self.writer.vocabulary.labels]
        self.writer.set_label(labels[(labels.index(self.writer.label) + 1) % len(labels)])
        self._changed()

    def choose(self, number: int) -> None:
        """Put an offered piece into the draft.

        Args:
            number: of the piece, from 0.
        """
        text = self.choices[number]
        self.end()
        self.draft.begin_piece()
        self.draft.extend_piece(text)
        self.draft.end_piece()
        self._changed()

    # What the model does.

    def go_on(self, until: str) -> None:
        """Let the model write where the person writes.

        Args:
            until: "word", "sentence" or "paragraph".
        """
        self._start(lambda: self._go_on(until))

    def retry(self) -> None:
        """Let the model write another piece in the place of its last."""
        self.end()
        if piece := self.draft.last_piece:
            self.draft.cursor = piece.position
            self._start(lambda: self._go_on(self.until, again=True))
            self._warn_if_sure()
        else:
            self.note = "nothing to retry: the model has not made the last change"

    def offer(self) -> None:
        """Let the model write pieces to choose from, as far as it wrote last."""
        self._start(self._offer)
        self._warn_if_sure()

    def _warn_if_sure(self) -> None:
        self.note = "" if self.writer.config.temperature else SURE

    def read_on(self) -> None:
        """Let the model read what was typed, while it has nothing else to do: then it goes on at once."""
        self.unknown = self.writer.unseen(self.draft.text)
        if not (self._task or self.choices):
            self._is_asked = False
            self._task = asyncio.ensure_future(self._run(self._read))
        self.refresh()

    def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        self.end()
        self.note = self.error = ""
        self._is_asked = True
        self._task = asyncio.ensure_future(self._run(work))

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except ChargenError as error:
            self.error = str(error)
        except Exception as error:
            self.failure = error
        if self._task is asyncio.current_task():
            self._task = None
            self._end_piece()

    async def _read(self) -> None:
        shown = time.monotonic()
        for share in self.writer.read(self.draft.text_before()):
            if time.monotonic() - shown > PROGRESS:
                self.share_read, shown = share, time.monotonic()
                self.refresh()
            await asyncio.sleep(0.001)
        self.share_read = 1.0

    async def _write(self, until: str, num: int) -> AsyncIterator[list[str]]:
        """What the model writes in slices of time, once all is read and saved."""
        self.until = until
        await self._read()
        batch, writing = [""] * num, self.writer.write(self.draft.text_before(), until, num)
        await self.saver.save()
        begun = time.monotonic()
        for added in writing:
            batch = [piece + more for piece, more in zip(batch, added, strict=True)]
            if time.monotonic() - begun > SLICE:
                yield batch
                await asyncio.sleep(0.001)
                batch, begun = [""] * num, time.monotonic()
        yield batch

    async def _go_on(self, until: str, again: bool = False) -> None:
        written = ""
        async for (text,) in self._write(until, 1):
            if not self._in_piece:
                self._in_piece = True
                self.draft.begin_piece(again=again)
            self.draft.extend_piece(text)
            written += text
            self._changed()
        if not written:
            self.note = "the model ends here; asked once more it may go on"

    async def _offer(self) -> None:
        self.choices = [""] * CHOICES
        async for added in self._write(self.until, CHOICES):
            self.choices = [piece + more for piece, more in zip(self.choices, added, strict=True)]
            self.refresh()
