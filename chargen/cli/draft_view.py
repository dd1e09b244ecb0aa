"""How a draft is shown: broken between words, nothing in it steers the terminal, unknown characters are marked."""

import re
from collections.abc import Callable
from typing import NamedTuple

from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.utils import get_cwidth

from chargen.api.draft import Draft
from chargen.api.writer import Writer
from chargen.cli.terminal import escape_control
from chargen.sampling.ends import UNSPACED

TAB = 4
"""Columns from one tab stop to the next."""
_TOKENS = re.compile(rf"{UNSPACED.pattern}|[^\S ]|(?:(?!{UNSPACED.pattern})\S)+ ?| ")
"""What is not broken: a word with the blank behind it; in Chinese and Japanese, a character."""


class Row(NamedTuple):
    """A line as it is shown: what stands in its cells, and for each character, and the end, where it begins.

    Args:
        cells: styles and texts; every row of the screen is full.
        starts: index in the text of all cells.
        columns: column, were the screen as wide as the line is long.
    """

    cells: list[tuple[str, str]]
    starts: list[int]
    columns: list[int]


def lay_out(line: str, width: int, style: Callable[[int], str] = lambda index: "") -> Row:
    """Lay out a line in rows.

    Args:
        line: a text without line ends.
        width: columns of a row.
        style: of the character at an index.
    """
    row, column, size = Row([], [], []), 0, 0

    def fill(to: int) -> tuple[int, int]:
        row.cells.append(("", " " * (to - column)))
        return to, size + to - column

    for token in _TOKENS.finditer(line):
        texts = [_shown(character, column) for character in token[0]]
        room = width - column % width
        if room < sum(map(get_cwidth, texts)) <= width:
            column, size = fill(column + room)
        for index, (character, text) in enumerate(zip(token[0], texts, strict=True), token.start()):
            cell_width = get_cwidth(text)
            if cell_width > (room := width - column % width):  # a wide one, or an escape
                column, size = fill(column + room)
            row.starts.append(size)
            row.columns.append(column)
            row.cells.append((style(index) + " class:escape" * (text != character and character != "\t"), text))
            column, size = column + cell_width, size + len(text)
    row.starts.append(size)
    row.columns.append(column)
    return row


def _shown(character: str, column: int) -> str:
    return " " * (TAB - column % TAB) if character == "\t" else escape_control(character, newlines=True)


class DraftView(Processor):
    """Shows each line of a draft.

    Args:
        draft: what is shown; its last piece is marked.
        writer: knows characters, and does not know others.
    """

    def __init__(self, draft: Draft, writer: Writer) -> None:
        self.draft = draft
        self.writer = writer

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        """Lay out a line of the document."""
        shown, document = transformation_input, transformation_input.document
        line, first = document.lines[shown.lineno], document.translate_row_col_to_index(shown.lineno, 0)
        known, piece = self.writer.knows(line), self.draft.last_piece
        selected = [fragment[0] for fragment in shown.fragments for _ in fragment[1]]

        def style(index: int) -> str:
            is_new = piece is not None and piece.position <= first + index < piece.end
            return selected[index] + " class:piece" * is_new + " class:unknown" * (not known[index])

        row = lay_out(line, max(shown.width, 2 * TAB), style)
        cells: StyleAndTextTuples = [*row.cells]
        starts = {start: index for index, start in reversed([*enumerate(row.starts)])}
        return Transformation(
            cells,
            lambda index: row.starts[min(index, len(line))],
            lambda place: next(starts[at] for at in range(place, -1, -1) if at in starts),
        )
