"""The lines of a text, or its records: how many, how long, and how many of them stand there more than once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.hashing import BASE, Hashes, mix, powers, terms

MAX_LINES = 10_000_000
"""Lines of a part that are compared with others; of longer parts, the first ones."""


@dataclass(frozen=True)
class Lines:
    """The lines of a text, or its records, without those that are empty.

    Args:
        count: how many.
        empty: how many empty ones there are beside.
        shortest: ids of the shortest one, without its end.
        median: ids of the one in the middle.
        longest: ids of the longest one.
        repeated: how many have stood in the text before.
        repeated_ids: how many ids these have.
        compared: how many were compared for that.
        ids: how many these have.
        in_train: for "valid" and "test", the share of their lines that stand in the training part too.
    """

    count: int
    empty: int
    shortest: int
    median: int
    longest: int
    repeated: int
    repeated_ids: int
    compared: int
    ids: int
    in_train: dict[str, float]


class LineHashes:
    """Hashes of the lines of a part, which comes block by block. Memory does not grow with their length.

    Args:
        first: of the ids that end a line, or begin a record.
        last: of these ids.
        carriage_return: the id that belongs to a line's end where it stands right before it; -1 for none.
        limit: how many lines to keep hashes of.

    Attributes:
        pairs: how often that id stood before an end.
    """

    def __init__(self, first: int, last: int, carriage_return: int = -1, limit: int = MAX_LINES) -> None:
        self.first, self.last, self.carriage_return, self.limit = first, last, carriage_return, limit
        self.count = self.empty = self.kept = self.longest = self.pairs = 0
        self.shortest: int | None = None
        self._hashes: list[Hashes] = []
        self._lengths: list[NDArray[np.int32]] = []
        # Of the unfinished line: the sum, that without a carriage return at its end, and the same of the length.
        self._open_sums, self._open_lengths = np.zeros(2, np.uint64), [0, 0]

    def add(self, ids: NDArray[Any]) -> None:
        """Take a block.

        Args:
            ids: (N,), one or more.
        """
        borders = np.flatnonzero((ids >= self.first) & (ids <= self.last))
        starts = np.concatenate([[0], borders + 1])
        lengths = np.diff(starts, append=len(ids) + 1) - 1
        values = np.zeros(len(ids) + 1, np.uint64)
        values[:-1] = terms(ids)
        values[borders] = 0
        inner = borders[borders > 0] - 1
        dropped = inner[ids[inner] == self.carriage_return]
        returns = int(ids[-1] == self.carriage_return)
        last = values[-2:-1] * np.uint64(returns)
        values[dropped] = 0
        ends_before = int(len(borders) > 0 and borders[0] == 0)
        self.pairs += len(dropped) + ends_before * (self._open_lengths[0] - self._open_lengths[1])
        lengths[np.searchsorted(borders, dropped + 1)] -= 1
        # A line's polynomial begins with the power 0, wherever the line stands; an unfinished one goes on.
        factors = powers(len(values), inverse=True)[starts]
        factors[0] = pow(BASE, self._open_lengths[ends_before], 1 << 64)
        sums = np.add.reduceat(values, starts) * factors
        sums[:1] += self._open_sums[ends_before]
        lengths[0] += self._open_lengths[ends_before]
        self._open_sums = np.concatenate([sums[-1:], sums[-1:] - last * factors[-1:]])
        self._open_lengths = [int(lengths[-1]), int(lengths[-1]) - returns]
        self._keep(mix(sums[:-1]), lengths[:-1])

    def go_on(self, before: "LineHashes") -> None:
        """Take the unfinished line of the part before, of which this one has the rest.

        Args:
            before: the lines of that part.
        """
        self._open_sums, self._open_lengths = before._open_sums, before._open_lengths
        before._open_sums, before._open_lengths = np.zeros(2, np.uint64), [0, 0]

    def _keep(self, hashes: Hashes, lengths: NDArray[np.int64]) -> None:
        self.empty += int(np.count_nonzero(lengths == 0))
        hashes, lengths = hashes[lengths > 0], lengths[lengths > 0]
        if not len(lengths):
            return
        self.count += len(lengths)
        self.longest = max(self.longest, int(lengths.max()))
        self.shortest = min(int(lengths.min()), self.longest if self.shortest is None else self.shortest)
        room = self.limit - self.kept
        self._hashes.append(hashes[:room])
        self._lengths.append(np.minimum(lengths[:room], 2**31 - 1).astype(np.int32))
        self.kept += len(hashes[:room])

    def finish(self) -> tuple[Hashes, NDArray[np.int32]]:
        """Take the last line, which may lack an end.

        Returns:
            Hash and length (L,) of each line that is not empty, up to the limit.
        """
        if self._open_lengths[0]:
            self._keep(mix(self._open_sums[:1]), np.array(self._open_lengths[:1]))
            self._open_lengths = [0, 0]
        return (np.concatenate([np.zeros(0, np.uint64), *self._hashes]),
                np.concatenate([np.zeros(0, np.int32), *self._lengths]))  # fmt: skip


def describe_lines(parts: dict[str, LineHashes]) -> Lines:
    """Describe the lines of all parts, and compare them.

    Args:
        parts: by role, "train" the first.
    """
    finished = {role: part.finish() for role, part in parts.items()}
    hashes, lengths = (np.concatenate(arrays) for arrays in zip(*finished.values(), strict=True))
    ranks = np.argsort(hashes, kind="stable")
    again = ranks[1:][np.diff(hashes[ranks]) == 0]
    in_train = {
        role: float(np.isin(part, finished["train"][0]).mean())
        for role, (part, _) in finished.items()
        if role != "train" and len(part)
    }
    return Lines(
        count=sum(part.count for part in parts.values()),
        empty=sum(part.empty for part in parts.values()),
        shortest=min((part.shortest for part in parts.values() if part.shortest is not None), default=0),
        median=int(np.median(lengths)) if len(lengths) else 0,
        longest=max(part.longest for part in parts.values()),
        repeated=len(again),
        repeated_ids=int(lengths[again].sum()),
        compared=len(hashes),
        ids=int(lengths.sum()),
        in_train=in_train,
    )
