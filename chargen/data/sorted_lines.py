"""Whether a text is a sorted list of lines: then its end, the validation part, has other words than its beginning.

Lists sorted by a number or a time do not count: the end of a log or of a diary is the future, which is what its model
will be used for.
"""

import bisect
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.borders import as_targets
from chargen.data.code_points import END_MARK
from chargen.data.vocabulary import Vocabulary

MAX_LINES, MAX_LENGTH, MIN_LINES = 500, 200, 100
"""How many lines of a part are compared, how many characters of each, and how few lines are too few to judge."""
MIN_ORDERED, MIN_DISTANCE = 0.9, 0.6
"""The least share of lines in order, 0.5 in a novel; and the least Kolmogorov-Smirnov distance of the lines of both
parts: 1 where one list was cut, 0.6 for the end of the last of five lists, 0 in a novel."""


def are_sorted(train: NDArray[Any], valid: NDArray[Any], vocabulary: Vocabulary) -> bool:
    """Whether the validation part is the end of a sorted list, of lines that begin unlike those of the training part.

    The training part may be several such lists. Sorted is by words, up or down, with or without regard to capitals;
    some lines may be out of order.

    Args:
        train: ids (N,).
        valid: ids (N,).
        vocabulary: of both.
    """
    train_lines, valid_lines = (_sample_lines(ids, vocabulary) for ids in (train, valid))
    lines, border = train_lines + valid_lines, len(train_lines)
    if not (train_lines and valid_lines):
        return False
    if len(lines) < MIN_LINES or len(set(lines)) < len(lines) / 2 or _are_numbered(lines):
        return False
    return any(
        _ordered_share(keys[border:]) >= MIN_ORDERED and _distance(keys[:border], keys[border:]) >= MIN_DISTANCE
        for keys in (lines, [line.casefold() for line in lines])
    )


def _sample_lines(ids: NDArray[Any], vocabulary: Vocabulary) -> list[str]:
    """The beginnings of up to 500 evenly spaced lines, or records, of a text (N,), in its order."""
    # A lone CR ends a line where no LF is near.
    ends = [END_MARK] if vocabulary.records else ["\n", "\r"]
    line_ends = [int(id_) for end in ends for id_ in vocabulary.encode(end, "skip")]
    starts = set()
    for position in np.unique(np.linspace(0, max(len(ids) - 1, 0), MAX_LINES).astype(np.int64)).tolist():
        end = _find_line_end(as_targets(ids[position : position + 10 * MAX_LENGTH], vocabulary.end_id), line_ends)
        if end is not None:
            starts.add(position + end + 1)
    lines = []
    for start in sorted(starts):
        line = as_targets(ids[start : start + MAX_LENGTH], vocabulary.end_id)
        lines.append(vocabulary.decode(line[: _find_line_end(line, line_ends)]))
    return [line for line in lines if line.strip()]


def _find_line_end(ids: NDArray[Any], line_ends: Sequence[int]) -> int | None:
    for line_end in line_ends:
        if len(positions := np.flatnonzero(ids == line_end)):
            return int(positions[0])
    return None


def _ordered_share(keys: list[str]) -> float:
    """Of neighbouring lines that differ, the share in rising or in falling order, whichever is larger."""
    rising = [line < next_line for line, next_line in itertools.pairwise(keys) if line != next_line]
    return max(sum(rising), len(rising) - sum(rising)) / max(len(rising), MIN_LINES / 20)


def _distance(train: list[str], valid: list[str]) -> float:
    """The Kolmogorov-Smirnov distance: the largest difference of the shares of both that come before any line."""
    train, valid = sorted(train), sorted(valid)
    shares = ([bisect.bisect(keys, line) / len(keys) for keys in (train, valid)] for line in train + valid)
    return max((abs(train_share - valid_share) for train_share, valid_share in shares), default=0.0)


def _are_numbered(lines: list[str]) -> bool:
    """True where the first difference of most lines from the next line is a digit."""
    num_numbered = 0
    for line, next_line in itertools.pairwise(lines):
        differing = next(((a, b) for a, b in zip(line, next_line, strict=False) if a != b), ("", ""))
        num_numbered += any(map(str.isdigit, differing))
    return num_numbered > len(lines) / 2
