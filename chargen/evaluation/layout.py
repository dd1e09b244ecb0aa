"""Texts laid out as rows of ids to read, between begin texts or as records, with the character that each id is of."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen.errors import DataError
from chargen.storage.model_file import ModelFile


class Layout(NamedTuple):
    """Texts as rows to read.

    Args:
        rows: the ids of each, as they are read forward.
        behind: as they are read backward: what begins a record stands at its other end.
        counted: for each, the first id that counts and the one to stop before.
        starts: for each, where it begins among the ids of all texts.
        owner: for each of these ids, the character that it belongs to, counted over all texts; behind them, two
            numbers for each text are what stands before it and behind it.
        size: how many of these numbers there are.
    """

    rows: list[NDArray[Any]]
    behind: list[NDArray[Any]]
    counted: list[tuple[int, int]]
    starts: NDArray[np.int64]
    owner: NDArray[np.int64]
    size: int


def lay_out(
    file: ModelFile, texts: Sequence[str], unknown: str, both: bool, labels: Sequence[str | None] | None = None
) -> Layout:
    """Lay out texts: each between two begin texts of the model, or behind a begin symbol and before the end symbol.

    Args:
        file: the model.
        texts: cleaned as the text that it learned.
        unknown: what to do with characters that it has never seen: "error", "skip" or "replace".
        both: whether the rows are read from both sides.
        labels: of each text, where the model has records; none by default.

    Raises:
        DataError: a text has unknown characters and `unknown` is "error", or it has a lone surrogate.
        SettingError: the model does not know a label.
    """
    from chargen.evaluation.rows import cut_text

    vocabulary, num_characters = file.vocabulary, sum(map(len, texts))
    rows: list[NDArray[Any]] = []
    behind: list[NDArray[Any]] = []
    counted, starts, owners = [], [], [np.zeros(0, np.int64)]
    num_ids, first_character = 0, 0
    for number, text in enumerate(texts):
        ids, positions = vocabulary.encode(text, unknown), _positions_of_ids(file, text, unknown)
        if len(positions) != len(ids):
            raise DataError("the text holds a lone surrogate, which is not a character")
        if vocabulary.records:
            label = np.array([vocabulary.begin_id(labels[number] if labels else None)])
            end = np.array([vocabulary.end_id])
            read, read_behind = np.concatenate([label, ids, end]), np.concatenate([end, ids, label])
            again = label if label != end else label[:0]
        elif len(ids):
            border, again = vocabulary.encode(file.begin), ids[:0]
            read = read_behind = np.concatenate([border, ids, border])
        else:
            continue
        for first, stop, first_counted, stop_counted in cut_text(len(read), both):
            # A label is known where a record begins; a row that begins later reads it too.
            before, after = again[: first > 0], again[: stop < len(read)]
            for direction, its_ids in ((rows, read), (behind, read_behind)):
                direction.append(np.concatenate([before, its_ids[first:stop], after]))
            shift = first - len(before)
            counted.append((first_counted - shift, stop_counted - shift))
            starts.append(num_ids + shift)
        width = (len(read) - len(ids)) // 2
        borders = [np.full(width, num_characters + 2 * number + side) for side in range(2)]
        owners += [borders[0], positions + first_character, borders[1]]
        num_ids, first_character = num_ids + len(read), first_character + len(text)
    size = num_characters + 2 * len(texts)
    return Layout(rows, behind, counted, np.array(starts, np.int64), np.concatenate(owners), size)


def _positions_of_ids(model: ModelFile, text: str, unknown: str) -> NDArray[np.int64]:
    """For every id, the position in the text of the character that it belongs to."""
    if model.vocabulary.byte_mode:
        return np.repeat(np.arange(len(text)), [len(character.encode("utf-8", "ignore")) for character in text])
    if unknown != "skip":
        return np.arange(len(text))
    return np.flatnonzero(model.vocabulary.knows(text))
