"""The loss on a text: every character scored once, with carried state, divided by the number of characters scored."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chargen.counting.mixture import Mixture
from chargen.counting.recorder import Recorder
from chargen.data.borders import as_targets, labels_before
from chargen.data.vocabulary import Vocabulary
from chargen.errors import DataError, amount
from chargen.evaluation.layout import MAX_ROWS
from chargen.evaluation.rows import Networks, Window, read_together
from chargen.model.device import autocast
from chargen.model.language_model import CharModel
from chargen.model.loss import nats_per_target, predict_in_blocks
from chargen.settings import check_int

WARMUP = 500
"""Characters that a row reads before it is scored."""
Mix: TypeAlias = Callable[[slice, NDArray[np.float32]], NDArray[np.float64]]
"""Tells what rows of ids cost, from what a network predicts there (n, V)."""


@dataclass(frozen=True)
class Loss:
    """The sum of the nats of a number of characters; losses of parts of a text add up to that of the text.

    Args:
        nats: the sum of -ln p.
        characters: how many characters begin in the part that was scored; the end of a record counts as one.
        ids: how many ids the part has.
        records: how many records end in the part.
        end_nats: the nats of their ends.
        network_nats: what all cost the network alone; the same as `nats` where nothing else predicts.
    """

    nats: float
    characters: int
    ids: int = 0
    records: int = 0
    end_nats: float = 0.0
    network_nats: float = math.nan

    def __post_init__(self) -> None:
        if math.isnan(self.network_nats):
            object.__setattr__(self, "network_nats", self.nats)

    @property
    def mean(self) -> float:
        """Nats per character."""
        return self.nats / self.characters


def loss_windows(
    model: Networks,
    ids: NDArray[Any],
    *,
    vocabulary: Vocabulary | None = None,
    limit: int | None = None,
    rows: int | None = None,
    precision: str = "fp32",
    direction: str = "forward",
    mixture: Mixture | Recorder | None = None,
    share: Callable[[int], range] = range,
    watch: Callable[[NDArray[Any], NDArray[Any]], object] = lambda places, nats: None,
) -> Iterator[Loss]:
    """Score a text window by window, so that the caller may stop in between; the sum of the windows is its loss.

    The text is cut into rows that are read side by side. Each row first reads the 500 characters before it, unscored,
    so that cutting changes the mean by less than 0.001 nats; inside a labelled record its label stands for the first of
    them. The first character read is context only and is not
    scored: that is the text's first one or, for "backward", its last one.

    Args:
        model: the model, or several networks.
        ids: (N,), in the order of the text; N >= 2.
        vocabulary: says whether ids are bytes, so that characters are counted by their first bytes, and the cost of
            characters that share the unknown symbol (`Vocabulary.folded_nats`); None counts ids and adds no such cost.
        limit: score about this many ids, in evenly spaced stretches that depend on N and `limit` only.
        rows: how many rows; by default one per 1,000 ids scored, at most 32.
        precision: "fp32" or "bf16".
        direction: "forward", or "backward" where the model is bidirectional.
        mixture: counts of this direction, which predict beside the network; or who remembers what it predicts.
        share: of how many rows there are, says which are scored here; all by default.
        watch: called with the places of a window's ids (n,), counted in the order of reading, and the nats of each.

    Yields:
        The loss of a window of all rows.

    Raises:
        DataError: the text has fewer than two characters.
        SettingError: `rows` is no whole number from 1, or the model does not read in this direction.
    """
    ids, unscored = in_reading_order(ids, vocabulary, direction, "scoring", whole=limit is None)
    size = len(ids) - unscored
    rows = max(1, min(MAX_ROWS, min(size, limit or size) // 1000)) if rows is None else check_int("rows", rows, 1)
    borders = unscored + np.arange(rows + 1) * size // rows
    begin, end = borders[:-1], borders[1:]
    if limit is not None and limit < size:
        end = np.minimum(end, begin + max(1, limit // rows))
    mine = share(rows)
    begin, end = (borders[mine.start : mine.stop] for borders in (begin, end))
    start = np.maximum(begin - WARMUP, 1) - 1
    read = [ids[slice(*borders)] for borders in zip(start, end, strict=True)]
    first = model if isinstance(model, CharModel) else model[0]
    if first.config.begin_symbols > 1:
        begins = np.flatnonzero(ids >= first.first_begin)
        read = [_tell_label(row, ids[begins[begins <= at][-1:]]) for row, at in zip(read, start, strict=True)]
    counted = list(zip(begin - start, end - start, strict=True))
    for reads in read_together(model, read, direction=direction, counted=counted, precision=precision):
        window = reads[0][1]
        targets = torch.from_numpy(as_targets(window.ids, first.first_begin))
        places = start[window.rows] + window.positions
        with autocast(precision, first.device):
            network, nats_per_id = costs_together(
                reads, targets, partial(_mix, mixture, ids, places) if mixture else None
            )
        watch(places, nats_per_id)
        loss, ends = loss_of(window.ids, float(nats_per_id.sum()), vocabulary), targets.numpy() == first.first_begin
        yield replace(
            loss, records=int(ends.sum()), end_nats=float(nats_per_id[ends].sum()),
            network_nats=loss.nats + float((network - nats_per_id).sum()),
        )  # fmt: skip


def _mix(
    mixture: Mixture | Recorder, ids: NDArray[Any], places: NDArray[np.int64], rows: slice, logits: NDArray[Any]
) -> NDArray[np.float64]:
    return mixture.nats(ids, places[rows], logits)


def costs_together(
    reads: Sequence[tuple[CharModel, Window]], targets: Tensor, mix: Mix | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What targets cost networks together, and a mixture.

    Args:
        reads: each network, and what it has read.
        targets: (n,).
        mix: tells what targets cost a mixture, from rows of them and what the networks predict there (m, V); None
            where there is none.

    Returns:
        Twice (n,) in nats.
    """
    (values, output), *others = [(window.before, network.output) for network, window in reads]
    if not (mix or others):
        nats = nats_per_target(values, output, targets).cpu().double().numpy()
        return nats, nats
    nats, mixed = np.zeros(len(targets)), np.zeros(len(targets))
    for rows, log_probs in predict_in_blocks(values, output, others):
        own = targets[rows, None].to(log_probs.device)
        nats[rows] = -log_probs.gather(1, own)[:, 0].cpu().double().numpy()
        mixed[rows] = mix(rows, log_probs.float().cpu().numpy()) if mix else nats[rows]
    return nats, mixed


def _tell_label(row: NDArray[Any], begin: NDArray[Any]) -> NDArray[Any]:
    """A row, of which the first id is not scored, behind the begin symbol (1,) of the record that it begins in."""
    return np.concatenate([begin, row[1:]]) if len(begin) else row


def in_reading_order(
    ids: NDArray[Any], vocabulary: Vocabulary | None, direction: str, what: str, whole: bool = True
) -> tuple[NDArray[Any], int]:
    """Put a text into the order in which it is read, and find the first id that is scored.

    Args:
        ids: (N,), in the order of the text.
        vocabulary: says whether ids are bytes of UTF-8; None where they are not.
        direction: "forward" or "backward".
        what: what needs the text, for the message.
        whole: whether the last record needs its end; that takes a copy.

    Returns:
        The ids (N,) in the order of reading, and the position at which the second character read begins.

    Raises:
        DataError: the text has fewer than two characters.
    """
    backward, position = direction == "backward", 1
    if vocabulary is not None and vocabulary.end_id is not None:
        ids = np.append(ids, np.array(vocabulary.end_id, ids.dtype)) if whole else ids
        ids = labels_before(ids, vocabulary.end_id) if backward else ids
    ids = ids[::-1] if backward else ids
    if vocabulary is not None and vocabulary.byte_mode:
        # Read from its end, a character ends with its lead byte.
        while position < len(ids) and not vocabulary.count_characters(ids[position - backward]):
            position += 1
    if len(ids) <= position:
        raise DataError(f"{what} needs at least 2 characters, found {amount(len(ids), 'id')}; give more text")
    return ids, position


def loss_of(ids: NDArray[Any], nats: float, vocabulary: Vocabulary | None) -> Loss:
    """The loss of ids, each unknown symbol charged as a folded character (`Vocabulary.folded_nats`).

    Args:
        ids: of any shape.
        nats: the sum of their -ln p.
        vocabulary: says what ids stand for; None counts each as a character.
    """
    number, characters, unknown = count_ids(ids, vocabulary)
    if vocabulary is None:
        return Loss(nats, characters, number)
    end_id = vocabulary.end_id
    records = 0 if end_id is None else int(np.count_nonzero(as_targets(ids, end_id) == end_id))
    return Loss(charge(nats, unknown, vocabulary), characters, number, records)


def count_ids(ids: NDArray[Any], vocabulary: Vocabulary | None) -> tuple[int, int, int]:
    """Count ids that are scored, the characters that begin there, and the unknown symbols.

    Args:
        ids: of any shape.
        vocabulary: says what ids stand for; None counts each as a character.
    """
    if vocabulary is None:
        return ids.size, ids.size, 0
    unknown = 0 if vocabulary.unknown_id is None else int(np.count_nonzero(ids == vocabulary.unknown_id))
    return ids.size, vocabulary.count_characters(as_targets(ids, vocabulary.end_id)), unknown


def charge(nats: float, unknown: int, vocabulary: Vocabulary) -> float:
    """Add what tells which of the folded characters each unknown symbol stands for.

    Args:
        nats: without it.
        unknown: how many such symbols there are.
        vocabulary: knows how many characters are folded.
    """
    return nats + unknown * vocabulary.folded_nats if unknown else nats


def evaluate_ids(model: Networks, ids: NDArray[Any], **options: Any) -> Loss:
    """Compute the loss on a text.

    Args:
        model: the model, or several networks.
        ids: (N,), in the order of the text; N >= 2.
        **options: passed on to `loss_windows`.

    Raises:
        DataError: the text has fewer than two characters.
        SettingError: an option is out of range.
    """
    return sum_losses(loss_windows(model, ids, **options))


def sum_losses(losses: Iterable[Loss]) -> Loss:
    """The loss of a text from those of its parts.

    Args:
        losses: the losses of the parts.
    """
    parts = list(losses)
    characters, ids = sum(part.characters for part in parts), sum(part.ids for part in parts)
    records = sum(part.records for part in parts)
    nats, end_nats, network_nats = (
        math.fsum(getattr(part, name) for part in parts) for name in ("nats", "end_nats", "network_nats")
    )
    return Loss(nats, characters, ids, records, end_nats, network_nats)
