"""The screen of `chargen write`."""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import Any

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.layout import BufferControl, Dimension, FormattedTextControl, HSplit, Layout, Window
from prompt_toolkit.styles import Style

from chargen.api.draft import Draft
from chargen.api.writer import Writer
from chargen.cli.below_draft import rows_below
from chargen.cli.desk import Desk
from chargen.cli.draft_view import DraftView, lay_out
from chargen.cli.signals import StopRequest
from chargen.errors import ChargenError

STYLE = {
    "bar": "reverse", "note": "bold", "error": "ansired bold", "piece": "ansigreen", "escape": "reverse",
    "unknown": "ansiyellow underline", "number": "bold",
}  # fmt: skip


class _Buffer(Buffer):
    """What is typed into: undoing is the draft's, and nothing ends the input."""

    def save_to_undo_stack(self, clear_redo_stack: bool = True) -> None:
        pass

    def validate_and_handle(self) -> None:
        pass


class Editor:
    """The draft, perhaps pieces to choose from, and what is to be known at the bottom.

    Args:
        draft: what is written.
        writer: writes, too.
        note: what is said at first.
    """

    def __init__(self, draft: Draft, writer: Writer, note: str = "") -> None:
        self.draft, self.desk = draft, Desk(draft, writer, self._refresh)
        self.desk.note, self._leaving = note, False
        self._kept_column = -1, 0
        """Where the cursor was moved to by rows, and the column that it is to be in."""
        document = Document(draft.text, draft.cursor)
        self.buffer = _Buffer(document=document, on_text_changed=self._typed, on_cursor_position_changed=self._moved)
        view = BufferControl(self.buffer, input_processors=[DraftView(draft, writer)])
        below = FormattedTextControl(self._below)
        draft_window = Window(view, wrap_lines=True, height=Dimension(preferred=1))  # gets what is left
        self.app: Application[None] = Application(
            Layout(HSplit([draft_window, Window(below, dont_extend_height=True)])),
            Style.from_dict(STYLE),
            full_screen=True,
            key_bindings=self._bind_keys(),
        )
        self.app.ttimeoutlen, self.app.timeoutlen = 0.1, 0.3

    def run(self, stop: StopRequest) -> None:
        """Let the person write until they leave, or a signal comes; then all is saved.

        Args:
            stop: gets the signal.

        Raises:
            ChargenError: the disk refuses.
        """

        def end(number: int) -> None:
            stop.number = number
            with contextlib.suppress(Exception):  # it is ending already
                self.app.exit()

        def begin() -> None:
            if stop:
                self.app.exit()
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    with contextlib.suppress(NotImplementedError):  # Windows
                        asyncio.get_running_loop().add_signal_handler(number, end, number)
            self.app.create_background_task(self.desk.saver.keep_saving(self.desk.read_on))
            self.desk.read_on()

        try:
            self.app.run(pre_run=begin, handle_sigint=False)
        except (OSError, EOFError):  # the terminal is gone
            stop.number = stop.number or getattr(signal, "SIGHUP", signal.SIGTERM)
        finally:
            self.desk.end()
            self.desk.saver.save_now()

    def _bind_keys(self) -> KeyBindings:
        keys, desk = KeyBindings(), self.desk

        def bind(names: str, do: Callable[..., Any], *values: Any, when: Callable[[], Any] = lambda: True) -> None:
            for name in names.split():
                keys.add(name, filter=Condition(lambda: bool(when())), eager=name in ("escape", "c-x"))(
                    lambda event: do(*values)
                )

        bind("tab", desk.go_on, "word")
        bind("c-n", desk.go_on, "sentence")
        bind("c-p", desk.go_on, "paragraph")
        bind("c-r", desk.retry)
        bind("c-t", desk.offer)
        for number in range(3):
            bind(str(number + 1), desk.choose, number, when=lambda: desk.choices)
        bind("c-c", setattr, desk, "note", "nothing is being written; ^X leaves")
        bind("escape c-c", desk.end, when=lambda: desk.is_busy)
        bind("c-z c-_", desk.undo)
        bind("c-y", desk.redo)
        bind("c-u", desk.warm, 0.1)
        bind("c-d", desk.warm, -0.1)
        bind("c-l", desk.relabel, when=lambda: desk.writer.vocabulary.labels)
        bind("up", self._move_by_rows, -1)
        bind("down", self._move_by_rows, 1)
        bind("c-q", lambda: setattr(self.app, "quoted_insert", True))
        bind("c-x", self._leave)
        return keys

    def _refresh(self) -> None:
        """Show the draft as it is now."""
        if self.desk.failure:
            self.app.exit(exception=self.desk.failure)
        if (self.buffer.text, self.buffer.cursor_position) != (self.draft.text, self.draft.cursor):
            self.buffer.set_document(Document(self.draft.text, self.draft.cursor))
        self.app.invalidate()

    def _typed(self, buffer: Buffer) -> None:
        if buffer.text != self.draft.text:
            self.desk.take_over(buffer.text, buffer.cursor_position)

    def _moved(self, buffer: Buffer) -> None:
        if buffer.text == self.draft.text:
            self.desk.move(buffer.cursor_position)

    def _move_by_rows(self, rows: int) -> None:
        """Move the cursor by rows of the screen."""
        document, width = self.buffer.document, self._size()[1]
        number = document.cursor_position_row
        columns = lay_out(document.lines[number], width).columns
        here = columns[document.cursor_position_col]
        if self._kept_column[0] != self.buffer.cursor_position:  # it was moved otherwise in between
            self._kept_column = 0, here % width
        column = self._kept_column[1]
        target = here - here % width + column + rows * width
        if target < 0 or target // width > columns[-1] // width:
            number += rows
            if not 0 <= number < document.line_count:
                return
            columns = lay_out(document.lines[number], width).columns
            target = column + (columns[-1] // width * width if rows < 0 else 0)
        index = max(index for index, column in enumerate(columns) if column <= target)
        self.buffer.cursor_position = document.translate_row_col_to_index(number, index)
        self._kept_column = self.buffer.cursor_position, column

    def _leave(self) -> None:
        """Leave, once all is saved; where it cannot be, the second time."""
        self.desk.end()
        try:
            self.desk.saver.save_now()
        except ChargenError as error:
            if not self._leaving:
                self._leaving, self.desk.error = True, f"{error}; ^X once more leaves nevertheless"
                return
        self.app.exit()

    def _below(self) -> StyleAndTextTuples:
        return [*rows_below(self.desk, *self._size())]

    def _size(self) -> tuple[int, int]:
        size = self.app.output.get_size()
        return size.rows, size.columns
