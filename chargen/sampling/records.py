"""Many records: rows that are refilled as soon as their records end."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.errors import ChargenError, SettingError
from chargen.sampling.chunks import explain_stuck
from chargen.sampling.rounding import MAX_RECORD
from chargen.sampling.sample import Character, Sample
from chargen.sampling.sampler import Sampler
from chargen.sampling.selection import Selection
from chargen.sampling.stream import Stream
from chargen.settings import check_int

ROWS = 128
"""Records that are written side by side even where fewer are wanted, if some may be thrown away."""
CHUNK = 16
"""Ids that rows write before those whose records have ended are refilled."""


def write_records(
    sampler: Sampler,
    num: int,
    *,
    length: int | None = None,
    selection: Selection | None = None,
    rows: int | None = None,
) -> Iterator[Sample]:
    """Write records from where a sampler of one sample stands, many side by side.

    Record i is what sample i of a sampler would be: it depends on the seed and on i only, not on the rows. The first is
    that of the sampler's own sample, where filters throw none away.

    Args:
        sampler: of a model of records; it may have been fed their beginning. It does not change.
        num: records.
        length: characters of a record at most; None: 10,000.
        selection: which records are kept; others are written until there are enough. None keeps all.
        rows: written side by side; None: as many as are fast.

    Returns:
        An iterator over the records, in the order of i.

    Raises:
        SettingError: the model has no records, or a number is out of its range.
        ChargenError: the sampler's record has ended, no record is kept of very many, or none can be written.
    """
    num = check_int("num", num, 1)
    length = check_int("length", MAX_RECORD if length is None else length, 1)
    if not sampler.vocabulary.records:
        raise SettingError("num is for records here: this model was trained on running text", "num")
    if sampler.num != 1 or sampler.snapshot().streams[0].ended:
        raise ChargenError("records go on from a sampler of one sample that has not ended: make one, or call `reset`")
    selection = selection or Selection()
    if rows is None:  # where filters may throw records away, not many times as many are begun as are wanted
        rows = min(sampler.engine.many_rows, max(ROWS, num * selection.best_of))
    first = sampler.snapshot().streams[0].index * selection.best_of
    end = math.inf if selection.filters else first + num * selection.best_of
    batches = _iterate(sampler, length, first, end, check_int("rows", rows, 1))
    return _select(batches, num, selection)


def _select(batches: Iterator[list[Sample]], num: int, selection: Selection) -> Iterator[Sample]:
    """The first records that are kept."""
    kept = 0
    for batch in batches:
        for sample in selection.select(batch)[: num - kept]:
            kept += 1
            yield sample
        if kept == num:
            return
        selection.check(kept, num)


def _iterate(sampler: Sampler, length: int, first: int, end: float, rows: int) -> Iterator[list[Sample]]:
    """Records in the order of their numbers, as many together as come after a chunk."""
    here = sampler.snapshot()
    in_text = sampler.vocabulary.byte_mode or here.config.stop or sampler.writer.rule_table.max_ids
    kind = _Draft if in_text else _CharacterDraft
    start = here.logits, *here.layers
    values: list[NDArray[Any]] = [array[:0] for array in start]
    drafts: list[_Draft] = []
    ended: dict[int, Sample] = {}
    begun = handed_over = first
    while True:
        new = int(min(rows - len(drafts), end - begun))
        drafts += [kind(here.streams[0].fork(begun + index), length) for index in range(new)]
        values = [np.concatenate([array, np.repeat(row, new, 0)]) for array, row in zip(values, start, strict=True)]
        begun += new
        if not drafts:
            return
        streams = [draft.stream for draft in drafts]
        chunk = sampler.writer.write(here.seed, streams, values[0], tuple(values[1:]), min(CHUNK, length))
        ids, log_probs, going_on = chunk.ids.tolist(), chunk.log_probs.tolist(), []
        for row, (draft, count) in enumerate(zip(drafts, chunk.counts.tolist(), strict=True)):
            if not count:
                raise ChargenError(explain_stuck(draft.stream, ids[row][0]))
            if draft.add(ids[row][:count], log_probs[row][:count], here.config.stop):
                ended[draft.stream.index] = draft.sample()
            else:
                going_on.append(row)
        drafts = [drafts[row] for row in going_on]
        values = [array[going_on] for array in (chunk.logits, *chunk.state)]
        ready = []
        while handed_over in ended:
            ready.append(ended.pop(handed_over))
            handed_over += 1
        if ready:
            yield ready


class _Draft:
    """A record that is being written.

    Args:
        stream: at its beginning.
        length: characters of it at most.
    """

    def __init__(self, stream: Stream, length: int) -> None:
        self.stream = stream
        self.length = length
        self.characters: list[Character] = []

    def add(self, ids: list[int], log_probs: list[float], stop: tuple[str, ...]) -> bool:
        """Add the ids of a chunk; tell whether the record is complete, or as long as it may become."""
        for drawn, log_prob in zip(ids, log_probs, strict=True):
            if character := self.stream.write(drawn, log_prob, stop):
                self.characters.append(character)
                if character.stopped or len(self.characters) == self.length:
                    return True
        return False

    def sample(self) -> Sample:
        """The record, once it is complete."""
        return Sample.of(self.characters, self.stream.constraints.backward)


class _CharacterDraft(_Draft):
    """A record whose ids are characters, in which nothing is looked for: chunks are added as a whole."""

    def __init__(self, stream: Stream, length: int) -> None:
        super().__init__(stream, length)
        self.ids: list[int] = []
        self.log_probs: list[float] = []

    def add(self, ids: list[int], log_probs: list[float], stop: tuple[str, ...]) -> bool:
        """Add the ids of a chunk, of which only the last can be the end symbol."""
        self.ids += ids
        self.log_probs += log_probs
        self.stream.draws += len(ids)
        return ids[-1] == self.stream.end_id or len(self.ids) >= self.length

    def sample(self) -> Sample:
        """The record, once it is complete."""
        vocabulary, order = self.stream.constraints.vocabulary, -1 if self.stream.constraints.backward else 1
        ended = len(self.ids) <= self.length and self.ids[-1] == self.stream.end_id
        size = min(len(self.ids) - ended, self.length)
        text = "".join(vocabulary.characters[id_] for id_ in self.ids[:size][::order])
        return Sample(text, tuple(self.log_probs[:size][::order]), ended, self.log_probs[-1] if ended else None)
