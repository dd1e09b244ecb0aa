"""The loss on a text: every character counted once, with carried state, divided by what was counted."""

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from chargen.data.reading import ReadingConfig, clean
from chargen.data.vocabulary import Vocabulary
from chargen.errors import NOT_FINITE, ChargenError, DataError, amount
from chargen.model.device import autocast, pick_device
from chargen.model.language_model import CharModel
from chargen.model.loss import costs
from chargen.settings import check_int, check_text
from chargen.storage.model_file import ModelFile, as_model_file, build_model, check_vocabulary

WARMUP = 500
MAX_ROWS = 32
WINDOW = 256


@dataclass(frozen=True)
class Loss:
    """A sum of nats over a number of characters. Each is exact, so sums of parts are sums of wholes.

    Args:
        nats: their cost together.
        characters: how many begin in what was scored.
        ids: how many ids that was: as many, or its bytes.
    """

    nats: float
    characters: int
    ids: int = 0

    @property
    def mean(self) -> float:
        """Nats per character."""
        return self.nats / self.characters


def loss_windows(
    model: CharModel,
    ids: NDArray[Any],
    *,
    vocabulary: Vocabulary | None = None,
    limit: int | None = None,
    rows: int | None = None,
    precision: str = "fp32",
    direction: str = "forward",
) -> Iterator[Loss]:
    """Score a text in pieces; the sum of the pieces is its loss. Between pieces the caller may look at a clock.

    The text is cut into rows that run side by side. Each is warmed on the 500 characters before it, uncounted, so that
    cutting costs less than 0.001 nats. The first character has nothing before it and is left out; for "backward" the
    text is read from its end, and it is the last one.

    Args:
        ids: (N,), in the order of the text; N >= 2.
        vocabulary: says whether ids are bytes, so that characters are counted where they begin, and what the characters
            cost that share the unknown symbol (`Vocabulary.folded_nats`).
        limit: score about this many ids, in evenly spaced stretches that depend on N and `limit` only.
        rows: how many rows; by default one per 1,000 ids scored, at most 32.
        direction: "forward", or "backward" where the model is bidirectional.
    """
    byte_mode = vocabulary is not None and vocabulary.byte_mode
    backward = direction == "backward"
    ids = ids[::-1] if backward else ids
    first = first_scored(ids, byte_mode, backward)
    size = len(ids) - first
    if size < 1:
        raise DataError(f"scoring needs at least 2 characters, found {amount(len(ids), 'id')}; give more text")
    rows = check_int("rows", rows or max(1, min(MAX_ROWS, min(size, limit or size) // 1000)), 1)
    borders = first + np.arange(rows + 1) * size // rows
    begin, end = borders[:-1], borders[1:]
    if limit is not None and limit < size:
        end = np.minimum(end, begin + max(1, limit // rows))
    warm = np.maximum(begin - WARMUP, 1)
    state = None
    for offset in range(0, int((end - warm).max()), WINDOW):
        targets_at = warm[:, None] + offset + np.arange(WINDOW)
        counted = torch.from_numpy((targets_at >= begin[:, None]) & (targets_at < end[:, None]))
        places = np.minimum(targets_at, len(ids) - 1)
        inputs = torch.from_numpy(ids[places - 1].astype(np.int64)).to(model.device)
        targets = torch.from_numpy(ids[places].astype(np.int64))
        with torch.inference_mode(), autocast(precision, model.device):
            values, state = model.read(inputs, state, direction=direction)
            wanted = counted.to(model.device)
            each = costs(values[wanted], model.output, targets.to(model.device)[wanted])
        scored = targets[counted].numpy()
        nats = float(each.cpu().double().sum())
        if vocabulary is None:
            yield Loss(nats, scored.size, scored.size)
        else:
            characters = vocabulary.count_characters(scored)
            yield Loss(nats + folding_nats(vocabulary, scored), characters, scored.size)


def first_scored(ids: NDArray[Any], byte_mode: bool, backward: bool = False) -> int:
    """Where the second character begins, in the order of reading: backward, a character ends with its lead byte."""
    at = 1
    while byte_mode and at < len(ids) and ids[at - backward] & 0xC0 == 0x80:
        at += 1
    return at


def folding_nats(vocabulary: Vocabulary, targets: NDArray[Any]) -> float:
    """What unknown symbols among `targets` cost beside themselves, each taken for a folded character."""
    if vocabulary.unknown_id is None:
        return 0.0
    return int(np.count_nonzero(targets == vocabulary.unknown_id)) * vocabulary.folded_nats


def evaluate_ids(model: CharModel, ids: NDArray[Any], **options: Any) -> Loss:
    """The loss on ids (N,); options as for `loss_windows`."""
    return total(loss_windows(model, ids, **options))


def total(parts: Iterable[Loss]) -> Loss:
    """The loss of the whole from those of its parts."""
    found = list(parts)
    characters, ids = sum(part.characters for part in found), sum(part.ids for part in found)
    return Loss(math.fsum(part.nats for part in found), characters, ids)


@dataclass(frozen=True)
class Evaluation:
    """A model's score on a text. The first character is context only and is not counted.

    Args:
        characters: how many were counted.
        bytes: how many bytes of UTF-8 they take.
        nats: their cost together.
        folded: how many of them share the unknown symbol, each charged its share of it (`Vocabulary.folded_nats`).
        unseen: how many the model has never met, each charged alike (`Vocabulary.unseen_nats`).
        skipped: how many unknown ones were left out, where there is no symbol or on request.
    """

    characters: int
    bytes: int
    nats: float
    folded: int = 0
    unseen: int = 0
    skipped: int = 0

    @property
    def nats_per_character(self) -> float:
        """The mean cost in nats."""
        return self.nats / self.characters

    @property
    def bits_per_character(self) -> float:
        """The mean cost in bits."""
        return self.nats_per_character / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """Bits for each byte of UTF-8: comparable between alphabets and units."""
        return self.nats / math.log(2) / self.bytes

    @property
    def perplexity(self) -> float:
        """E to the nats per character: how many equally likely characters would be as hard."""
        return math.exp(min(self.nats_per_character, 700))

    def __repr__(self) -> str:
        counts = {"folded": self.folded, "unseen": self.unseen, "skipped": self.skipped}
        more = "".join(f", {count:,} {name}" for name, count in counts.items() if count)
        return (
            f"Evaluation({self.nats_per_character:.4f} nats, {self.bits_per_character:.4f} bits per character, "
            f"{self.bits_per_byte:.4f} bits per byte, perplexity {self.perplexity:.4f}, "
            f"on {amount(self.characters, 'character')}{more})"
        )


@overload
def evaluate(
    model: ModelFile | str | os.PathLike[str],
    text: str,
    /,
    *,
    unknown: str | None = None,
    rows: int | None = None,
    precision: str = "fp32",
    direction: str = "forward",
    device: str = "cpu",
) -> Evaluation: ...


@overload
def evaluate(
    model: CharModel | ModelFile | str | os.PathLike[str],
    vocabulary: Vocabulary | None = None,
    text: str | None = None,
    *,
    unknown: str | None = None,
    rows: int | None = None,
    precision: str = "fp32",
    direction: str = "forward",
    device: str = "cpu",
    reading: ReadingConfig | None = None,
    pieces: Callable[[NDArray[Any]], Iterable[Loss]] | None = None,
) -> Evaluation: ...


def evaluate(
    model: CharModel | ModelFile | str | os.PathLike[str],
    vocabulary: Vocabulary | str | None = None,
    text: str | None = None,
    *,
    unknown: str | None = None,
    rows: int | None = None,
    precision: str = "fp32",
    direction: str = "forward",
    device: str = "cpu",
    reading: ReadingConfig | None = None,
    pieces: Callable[[NDArray[Any]], Iterable[Loss]] | None = None,
) -> Evaluation:
    """Score a text whole: `evaluate(path, text)`, or `evaluate(model, vocabulary, text)` with a CharModel.

    With characters folded into an unknown symbol, it is a proper code still: see `Vocabulary.folded_nats`.

    Args:
        model: the path of a model file or a run folder, what `read_model` returned, or a CharModel.
        vocabulary: of a CharModel; the others have their own.
        unknown: what to do with characters that the model has never seen: "error", "skip" them and count them, or
            "replace" them by the unknown symbol; by default "replace" where there is one, else "skip".
        direction: "backward" reads from the end and predicts each character from those behind it.
        device: "cpu", "cuda", "mps" or "auto"; a CharModel computes where it is.
        reading: how a CharModel's text was read: this one is cleaned alike; None: it is taken as it is. A file says so.
        pieces: scores the ids instead of `loss_windows`, as `dynamic.DynamicEvaluator.losses` does.

    Raises DataError for unknown characters or a text of fewer than two characters, SettingError for a direction that
    the model does not read in.
    """
    if text is None and not isinstance(vocabulary, Vocabulary):
        vocabulary, text = None, vocabulary
    assert not isinstance(vocabulary, str)
    text = check_text("text", text)
    if isinstance(model, CharModel):
        vocabulary = check_vocabulary(model, vocabulary)
    else:
        file = as_model_file(model, vocabulary)
        reading = reading or file.reading
        model, vocabulary = build_model(file, str(pick_device(device))), file.vocabulary
    text = clean(text, reading)
    symbol = vocabulary.unknown_id
    unknown = unknown or ("skip" if symbol is None else "replace")
    ids = vocabulary.encode(text, unknown)
    kept = text
    if unknown == "skip":
        kept = "".join(itertools.compress(text, vocabulary.knows(text)))
    skipped = len(text) - len(kept)
    if len(kept) < 2 <= len(text):
        raise DataError(
            f"scoring needs at least 2 characters that the model knows, found {len(kept)}; "
            f"{amount(skipped, 'unknown one')} left out"
        )
    options: dict[str, Any] = {"vocabulary": vocabulary, "rows": rows, "precision": precision, "direction": direction}
    loss = total(pieces(ids)) if pieces else evaluate_ids(model, ids, **options)
    counted, scored = (kept[:-1], ids[:-1]) if direction == "backward" else (kept[1:], ids[1:])
    folded = unseen = 0
    if symbol is not None:
        unseen = int(np.count_nonzero(~vocabulary.knows(counted)))
        folded = int(np.count_nonzero(scored == symbol)) - unseen
    # The loss has charged every unknown symbol as a folded character.
    nats = loss.nats + unseen * (vocabulary.unseen_nats - vocabulary.folded_nats)
    size = loss.ids if vocabulary.unit == "byte" else len(counted.encode("utf-8", "surrogatepass"))
    if not math.isfinite(nats):
        raise ChargenError(NOT_FINITE)
    return Evaluation(loss.characters, size, nats, folded, unseen, skipped)
