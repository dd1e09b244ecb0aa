"""What a text cost a model, in the units of the field, and how it was scored."""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.records import MARK
from chargen.data.vocabulary import Vocabulary
from chargen.errors import NOT_FINITE_MESSAGE, ChargenError, DataError, amount
from chargen.evaluation.dynamic import Rates
from chargen.evaluation.loss import Loss, sum_losses


@dataclass(frozen=True)
class LabelLoss:
    """A model's score on the records of a label; the scores of all labels add up to that of the text.

    Args:
        records: how many there are.
        characters: theirs; the end of a record counts as a character.
        nats: the sum of their -ln p.
        end_nats: the nats of their ends, a part of `nats`.
    """

    records: int
    characters: int
    nats: float
    end_nats: float

    @property
    def nats_per_character(self) -> float:
        """The mean loss of a character in nats."""
        return self.nats / self.characters

    @property
    def nats_per_record(self) -> float:
        """The mean loss of a record in nats, its end included."""
        return self.nats / self.records


@dataclass(frozen=True)
class Evaluation:
    """A model's score on a text. The first character read is context only and is not scored.

    Of records, everything is scored but the begin symbol of the first, and the end of a record counts as a character.

    Args:
        characters: the number of characters scored.
        bytes: the bytes of UTF-8 that they take.
        nats: the sum of their -ln p.
        folded: how many of them share the unknown symbol; each costs `Vocabulary.folded_nats` more.
        unseen: how many of them the model has never seen; each costs `Vocabulary.unseen_nats` more.
        skipped: how many unknown characters were left out, on request or because there is no unknown symbol.
        unseen_characters: those that the model has never seen, each once, sorted.
        part: of the text: "all", "train", "valid" or "test".
        direction: "forward" or "backward".
        precision: of matrix products: "fp32" or "bf16".
        device: "cpu", "cuda" or "mps".
        replaced: bytes that did not fit the encoding, where the text was read from files.
        passed_over: files that are no text.
        dynamic: the rates at which the model followed the text; None where its weights stayed as they were.
        dynamic_counts: whether counts of what was scored before have predicted too.
        tail: characters of the other text on which they were chosen.
        static_nats_per_character: the mean loss of the model as it was, where it followed the text.
        network_nats: the sum for the network alone, where the model has counts too; else that of `nats`.
        records: how many records were scored; 0 for running text.
        end_nats: the nats of their ends, a part of `nats`.
        by_label: on request, what the records of each label cost, the most frequent label first; "" is no label.
        unknown_labels: labels of the text that the model does not know; their records were read without.
    """

    characters: int
    bytes: int
    nats: float
    folded: int = 0
    unseen: int = 0
    skipped: int = 0
    unseen_characters: str = ""
    part: str = "all"
    direction: str = "forward"
    precision: str = "fp32"
    device: str = "cpu"
    replaced: int = 0
    passed_over: int = 0
    dynamic: Rates | None = None
    dynamic_counts: bool = False
    tail: int = 0
    static_nats_per_character: float | None = None
    network_nats: float = math.nan
    records: int = 0
    end_nats: float = 0.0
    by_label: dict[str, LabelLoss] = field(default_factory=dict)
    unknown_labels: tuple[str, ...] = ()

    @property
    def has_counts(self) -> bool:
        """Whether counts have predicted beside the network."""
        return self.network_nats != self.nats

    @property
    def network_nats_per_character(self) -> float:
        """The mean loss of the network alone, in nats; that of the model where it has no counts."""
        return self.network_nats / self.characters

    @property
    def nats_per_record(self) -> float | None:
        """The mean loss of a record in nats, its end included; None for running text."""
        return self.nats / self.records if self.records else None

    @property
    def bits_per_record(self) -> float | None:
        """The mean loss of a record in bits, its end included; None for running text."""
        return self.nats_per_record and self.nats_per_record / math.log(2)

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
        return self.nats / self.bytes / math.log(2)

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
            f"on {amount(self.records, 'record') + ' of ' if self.records else ''}"
            f"{amount(self.characters, 'character')}{details})"
        )


def evaluate_text(
    vocabulary: Vocabulary,
    text: str,
    score_ids: Callable[[NDArray[Any]], Iterable[Loss]],
    *,
    unknown: str | None = None,
    direction: str = "forward",
) -> Evaluation:
    """Score a text.

    Characters that share the unknown symbol cost as much as if the symbol were followed by a code for the character
    (`Vocabulary.folded_nats`), so that the score is the length of a code for the text.

    Args:
        vocabulary: the model's.
        text: cleaned as the text that the model learned.
        score_ids: gives the losses of the text's ids, part by part, as `loss_windows` or `DynamicEvaluator.losses`.
        unknown: what to do with characters that the model has never seen: "error", "skip" or "replace"; by default
            "replace" where there is an unknown symbol, else "skip".
        direction: "forward" or "backward".

    Raises:
        DataError: the text has unknown characters and `unknown` is "error", or it has fewer than two characters.
        ChargenError: predictions are not finite.
    """
    unknown_id = vocabulary.unknown_id
    ids, kept = encode_scored(vocabulary, text, unknown)
    skipped = len(text) - len(kept)
    if len(kept) < 2 <= len(text):
        raise DataError(
            f"scoring needs at least 2 characters that the model knows, found {len(kept)}; "
            f"{amount(skipped, 'unknown one')} left out"
        )
    loss = sum_losses(score_ids(ids))
    # Of records, the first mark is not scored in either direction: it is the end of none.
    counted = slice(0, -1) if direction == "backward" and not vocabulary.records else slice(1, None)
    scored_text = kept[counted]
    folded = unseen = 0
    if unknown_id is not None:
        unseen = int(np.count_nonzero(~vocabulary.knows(scored_text)))
        folded = int(np.count_nonzero(ids[counted] == unknown_id)) - unseen
    # The loss has charged every unknown symbol as a folded character.
    extra = unseen * (vocabulary.unseen_nats - vocabulary.folded_nats)
    nats, network_nats = loss.nats + extra, loss.network_nats + extra
    size = loss.ids
    if vocabulary.unit == "character":  # the end of a record counts as a byte
        characters = MARK.sub("", scored_text) if vocabulary.records else scored_text
        size = len(characters.encode("utf-8", "surrogatepass")) + loss.ids - len(characters)
    if not math.isfinite(nats):
        raise ChargenError(NOT_FINITE_MESSAGE)
    return Evaluation(
        loss.characters, size, nats, folded, unseen, skipped, unseen_characters=vocabulary.unseen(text),
        network_nats=network_nats, records=loss.records, end_nats=loss.end_nats,
    )  # fmt: skip


def encode_scored(vocabulary: Vocabulary, text: str, unknown: str | None) -> tuple[NDArray[Any], str]:
    """Convert a text to the ids that are scored.

    Args:
        vocabulary: the model's.
        text: any.
        unknown: what to do with characters that the model has never seen; None for the vocabulary's default.

    Returns:
        Ids (N,), and the text without the characters that were left out.

    Raises:
        DataError: the text has unknown characters and `unknown` is "error".
    """
    unknown = unknown or vocabulary.default_unknown
    ids = vocabulary.encode(text, unknown)
    return ids, "".join(itertools.compress(text, vocabulary.knows(text))) if unknown == "skip" else text
