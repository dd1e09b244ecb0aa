"""Texts laid out as rows of ids to read, between begin texts or as records, with the character that each id is of."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen.errors import DataError
from chargen.storage.model_file import ModelFile

MAX_ROWS = 32
"""Rows that a long text is cut into, at most."""
SPAN = 2000
"""The fewest ids of a row where a long text is cut to be read side by side; four times as many from both sides."""
CONTEXT = 1000
"""Ids beyond a cut that a row reads as context."""


class Layout(NamedTuple):
    """Texts as rows to read.

    Args:
        rows: the ids of each.
        behind: where they are read from both sides, as they are read backward: a label stands at the other end.
        counted: for each, the first id that counts and the one to stop before.
        starts: for each, where it begins among the ids of all texts.
        owner: for each of these ids, the character that it belongs to, counted over all texts; behind them, two
            numbers for each text are what is read before it and behind it.
        size: how many of these numbers there are.
    """

    rows: list[NDArray[Any]]
    behind: list[NDArray[Any]]
    counted: list[tuple[int, int]]
    starts: NDArray[np.int64]
    owner: NDArray[np.int64]
    size: int


def lay_out(
    file: ModelFile, texts: Sequence[str], unknown: str, direction: str, labels: Sequence[str | None] | None = None
) -> Layout:
    """Lay out texts: each between two begin texts of the model, or behind a begin symbol and before the end symbol.

    Args:
        file: the model.
        texts: cleaned as the text that it learned.
        unknown: what to do with characters that it has never seen: "error", "skip" or "replace".
        direction: "forward"; "backward", with all ids in the order of reading; or "both", in that of the text.
        labels: of each text, where the model has records; none by default.

    Raises:
        DataError: a text has unknown characters and `unknown` is "error", or it has a lone surrogate.
        SettingError: the model does not know a label.
    """
    vocabulary, num_characters, both = file.vocabulary, sum(map(len, texts)), direction == "both"
    order = -1 if direction == "backward" else 1
    begin, end = vocabulary.encode(file.begin)[::order], np.array([vocabulary.end_id] * vocabulary.records, int)
    rows: list[NDArray[Any]] = []
    behind: list[NDArray[Any]] = []
    counted, starts, owners = [], [], [np.zeros(0, np.int64)]
    num_ids, first_character = 0, 0
    for number, text in enumerate(texts):
        ids, positions = vocabulary.encode(text, unknown)[::order], _positions_of_ids(file, text, unknown)[::order]
        if len(positions) != len(ids):
            raise DataError("the text holds a lone surrogate, which is not a character")
        left, right, again = begin, begin, begin[:0]
        if vocabulary.records:
            left, right = np.array([vocabulary.begin_id(labels[number] if labels else None)]), end
            again = left if left != end else left[:0]
        read = np.concatenate([left, ids, right])
        for first, stop, first_counted, stop_counted in cut_text(len(read), both):
            # A label is known where a record begins; a row that begins later reads it too.
            before, after = again[: first > 0], again[: both and stop < len(read)]
            rows.append(np.concatenate([before, read[first:stop], after]))
            if both:
                read_behind = np.concatenate([right, ids, left])[first:stop]
                behind.append(np.concatenate([before, read_behind, after]))
            shift = first - len(before)
            counted.append((first_counted - shift, stop_counted - shift))
            starts.append(num_ids + shift)
        borders = (np.full(len(left), num_characters + 2 * number + side) for side in range(2))
        owners += [next(borders), positions + first_character, next(borders)]
        num_ids, first_character = num_ids + len(read), first_character + len(text)
    size = num_characters + 2 * len(texts)
    return Layout(rows, behind, counted, np.array(starts, np.int64), np.concatenate(owners), size)


def cut_text(size: int, both: bool) -> Iterator[tuple[int, int, int, int]]:
    """Cut a long text into rows, each with enough context that its predictions hardly change.

    Args:
        size: ids of the text.
        both: whether it is read from both sides; such rows stay short, since outputs of the backward stack are kept.

    Yields:
        For each row, what it reads and what of it counts: begin, end, begin, end.
    """
    number = max(1, size // (4 * SPAN) if both else min(MAX_ROWS, size // SPAN))
    for row in range(number):
        begin, end = size * row // number, size * (row + 1) // number
        yield max(0, begin - CONTEXT), min(size, end + CONTEXT) if both else end, begin, end


def _positions_of_ids(model: ModelFile, text: str, unknown: str) -> NDArray[np.int64]:
    """For every id, the position in the text of the character that it belongs to."""
    if model.vocabulary.byte_mode:
        return np.repeat(np.arange(len(text)), [len(character.encode("utf-8", "ignore")) for character in text])
    if unknown != "skip":
        return np.arange(len(text))
    return np.flatnonzero(model.vocabulary.knows(text))
