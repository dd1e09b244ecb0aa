"""The loss on a text: every character scored once, with carried state, divided by the number of characters scored."""

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
from chargen.errors import NOT_FINITE_MESSAGE, ChargenError, DataError, amount
from chargen.model.device import autocast, pick_device
from chargen.model.language_model import CharModel
from chargen.model.loss import nats_per_target
from chargen.settings import check_int, check_text
from chargen.storage.model_file import ModelFile, as_model_file, build_model, check_vocabulary

WARMUP = 500
"""Characters that a row reads before it is scored."""
MAX_ROWS = 32
WINDOW = 256
"""Characters of a row that are read at a time."""


@dataclass(frozen=True)
class Loss:
    """The sum of the nats of a number of characters; losses of parts of a text add up to that of the text.

    Args:
        nats: the sum of -ln p.
        characters: how many characters begin in the part that was scored.
        ids: how many ids the part has.
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
    """Score a text window by window, so that the caller may stop in between; the sum of the windows is its loss.

    The text is cut into rows that are read side by side. Each row first reads the 500 characters before it, unscored,
    so that cutting changes the mean by less than 0.001 nats. The first character read is context only and is not
    scored: that is the text's first one or, for "backward", its last one.

    Args:
        model: the model.
        ids: (N,), in the order of the text; N >= 2.
        vocabulary: says whether ids are bytes, so that characters are counted by their first bytes, and the cost of
            characters that share the unknown symbol (`Vocabulary.folded_nats`); None counts ids and adds no such cost.
        limit: score about this many ids, in evenly spaced stretches that depend on N and `limit` only.
        rows: how many rows; by default one per 1,000 ids scored, at most 32.
        precision: "fp32" or "bf16".
        direction: "forward", or "backward" where the model is bidirectional.

    Yields:
        The loss of a window of all rows.

    Raises:
        DataError: the text has fewer than two characters.
        SettingError: `rows` is no whole number from 1, or the model does not read in this direction.
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
    warmup_begin = np.maximum(begin - WARMUP, 1)
    state = None
    for offset in range(0, int((end - warmup_begin).max()), WINDOW):
        positions = warmup_begin[:, None] + offset + np.arange(WINDOW)
        is_scored = torch.from_numpy((positions >= begin[:, None]) & (positions < end[:, None]))
        positions = np.minimum(positions, len(ids) - 1)
        inputs = torch.from_numpy(ids[positions - 1].astype(np.int64)).to(model.device)
        targets = torch.from_numpy(ids[positions].astype(np.int64))
        with torch.inference_mode(), autocast(precision, model.device):
            values, state = model.read(inputs, state, direction=direction)
            mask = is_scored.to(model.device)
            nats_per_id = nats_per_target(values[mask], model.output, targets.to(model.device)[mask])
        scored_ids = targets[is_scored].numpy()
        nats = float(nats_per_id.cpu().double().sum())
        if vocabulary is None:
            yield Loss(nats, scored_ids.size, scored_ids.size)
        else:
            characters = vocabulary.count_characters(scored_ids)
            yield Loss(nats + folding_nats(vocabulary, scored_ids), characters, scored_ids.size)


def first_scored(ids: NDArray[Any], byte_mode: bool, backward: bool = False) -> int:
    """The position of the first id that is scored, which is where the second character read begins.

    Args:
        ids: (N,), in the order of reading.
        byte_mode: whether ids are bytes of UTF-8.
        backward: whether the text is read from its end, where a character ends with its lead byte.
    """
    position = 1
    while byte_mode and position < len(ids) and ids[position - backward] & 0xC0 == 0x80:
        position += 1
    return position


def folding_nats(vocabulary: Vocabulary, targets: NDArray[Any]) -> float:
    """The nats that unknown symbols cost beyond their own, where each stands for a folded character.

    Args:
        vocabulary: the vocabulary.
        targets: ids of any shape.
    """
    if vocabulary.unknown_id is None:
        return 0.0
    return int(np.count_nonzero(targets == vocabulary.unknown_id)) * vocabulary.folded_nats


def evaluate_ids(model: CharModel, ids: NDArray[Any], **options: Any) -> Loss:
    """Compute the loss on a text.

    Args:
        model: the model.
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
    return Loss(math.fsum(part.nats for part in parts), characters, ids)


@dataclass(frozen=True)
class Evaluation:
    """A model's score on a text. The first character read is context only and is not scored.

    Args:
        characters: the number of characters scored.
        bytes: the bytes of UTF-8 that they take.
        nats: the sum of their -ln p.
        folded: how many of them share the unknown symbol; each costs `Vocabulary.folded_nats` more.
        unseen: how many of them the model has never seen; each costs `Vocabulary.unseen_nats` more.
        skipped: how many unknown characters were left out, on request or because there is no unknown symbol.
    """

    characters: int
    bytes: int
    nats: float
    folded: int = 0
    unseen: int = 0
    skipped: int = 0

    @property
    def nats_per_character(self) -> float:
        """The mean loss in nats."""
        return self.nats / self.characters

    @property
    def bits_per_character(self) -> float:
        """The mean loss in bits."""
        return self.nats_per_character / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of UTF-8, which can be compared between alphabets and units."""
        return self.nats / math.log(2) / self.bytes

    @property
    def perplexity(self) -> float:
        """The exponential of the nats per character: so many equally likely characters would cost as much."""
        return math.exp(min(self.nats_per_character, 700))

    def __repr__(self) -> str:
        counts = {"folded": self.folded, "unseen": self.unseen, "skipped": self.skipped}
        details = "".join(f", {count:,} {name}" for name, count in counts.items() if count)
        return (
            f"Evaluation({self.nats_per_character:.4f} nats, {self.bits_per_character:.4f} bits per character, "
            f"{self.bits_per_byte:.4f} bits per byte, perplexity {self.perplexity:.4f}, "
            f"on {amount(self.characters, 'character')}{details})"
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
    scorer: Callable[[NDArray[Any]], Iterable[Loss]] | None = None,
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
    scorer: Callable[[NDArray[Any]], Iterable[Loss]] | None = None,
) -> Evaluation:
    """Score a text with a model: `evaluate(path, text)`, or `evaluate(model, vocabulary, text)` with a CharModel.

    Characters that share the unknown symbol cost as much as if the symbol were followed by a code for the character
    (`Vocabulary.folded_nats`), so that the score is the length of a code for the text.

    Args:
        model: the path of a model file or a run folder, what `read_model` returned, or a CharModel.
        vocabulary: the vocabulary of a CharModel, which has none of its own.
        text: the text; with a model file it is cleaned as the text that the model learned.
        unknown: what to do with characters that the model has never seen: "error", "skip" them and count them, or
            "replace" them by the unknown symbol; by default "replace" where there is one, else "skip".
        rows: how many parts of the text are read side by side; by default one per 1,000 ids, at most 32.
        precision: "fp32" or "bf16".
        direction: "forward"; or "backward", which reads from the end and predicts each character from those behind it.
        device: "cpu", "cuda", "mps" or "auto"; a CharModel computes where it is.
        reading: how the text that a CharModel learned was read, so that this one is cleaned alike; None leaves it as
            it is. A model file has its own.
        scorer: scores the ids instead of `loss_windows`; `DynamicEvaluator.losses` is one.

    Raises:
        DataError: the text has unknown characters and `unknown` is "error", or it has fewer than two characters.
        SettingError: an argument is out of range, or the model does not read in this direction.
        ModelFileError: there is no model file, or it is damaged or contradicts itself.
        ChargenError: predictions are not finite.
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
    unknown_id = vocabulary.unknown_id
    unknown = unknown or ("skip" if unknown_id is None else "replace")
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
    loss = sum_losses(scorer(ids)) if scorer else evaluate_ids(model, ids, **options)
    scored_text, scored_ids = (kept[:-1], ids[:-1]) if direction == "backward" else (kept[1:], ids[1:])
    folded = unseen = 0
    if unknown_id is not None:
        unseen = int(np.count_nonzero(~vocabulary.knows(scored_text)))
        folded = int(np.count_nonzero(scored_ids == unknown_id)) - unseen
    # The loss has charged every unknown symbol as a folded character.
    nats = loss.nats + unseen * (vocabulary.unseen_nats - vocabulary.folded_nats)
    size = loss.ids if vocabulary.unit == "byte" else len(scored_text.encode("utf-8", "surrogatepass"))
    if not math.isfinite(nats):
        raise ChargenError(NOT_FINITE_MESSAGE)
    return Evaluation(loss.characters, size, nats, folded, unseen, skipped)
