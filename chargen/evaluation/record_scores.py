"""What records, or lines of running text, cost a model, many of them side by side, and which label they likely have."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from chargen.data.placed_records import PlacedRecord
from chargen.errors import NOT_FINITE_MESSAGE, ChargenError
from chargen.evaluation.layout import lay_out
from chargen.evaluation.loss import costs_together
from chargen.evaluation.mixed_rows import MixedRows
from chargen.evaluation.rows import Networks, read_together
from chargen.model.device import autocast
from chargen.storage.model_file import ModelFile


@dataclass(frozen=True, slots=True)
class RecordScore:
    """A model's score of a record, or of a line of running text.

    Args:
        text: the record's, as it was scored.
        log_prob: its log-probability in nats, its end included.
        end_log_prob: that of its end, a part of it; None where the model knows no end of a line.
        characters: how many were scored.
        unknown: its characters that the model has never seen, each once, sorted.
        name: of its file; "" where it was in memory.
        line: the number of its first line there, or its own among texts in memory, from 1.
        label: its own; None for none.
        label_probs: on request, how likely it has each of the model's labels.
    """

    text: str
    log_prob: float
    end_log_prob: float | None
    characters: int
    unknown: str = ""
    name: str = ""
    line: int = 0
    label: str | None = None
    label_probs: dict[str, float] | None = None

    @property
    def mean(self) -> float:
        """Nats of log-probability per character; the end counts as one. 0 where nothing was scored."""
        return self.log_prob / max(self.characters + (self.end_log_prob is not None), 1)

    @property
    def guess(self) -> str | None:
        """The likeliest label; None where labels were not guessed."""
        return max(self.label_probs, key=self.label_probs.__getitem__) if self.label_probs else None


@dataclass(frozen=True)
class RecordJudge:
    """Scores records, or lines of running text, of which it reads many side by side.

    Args:
        networks: of the model.
        file: its vocabulary, its begin text, and how often each id occurs.
        direction: "forward" or "backward".
        unknown: what to do with characters that the model has never seen: "error", "skip" (they cost nothing), or
            "replace" by the unknown symbol. None replaces them too; where there is no such symbol they are left out,
            and each costs as much as what occurs once among the characters that the model learned, and may be any of
            those that it did not.
        precision: "fp32" or "bf16".
        prior: how likely labels are beforehand, to guess them: "counts", as frequent as in training, or "uniform"; None
            guesses none.
    """

    networks: Networks
    file: ModelFile
    direction: str = "forward"
    unknown: str | None = None
    precision: str = "fp32"
    prior: str | None = None

    def score(self, records: Sequence[PlacedRecord], label: str | None = None) -> Iterator[RecordScore]:
        """Score records, each behind the begin symbol of its label, if the model knows that.

        Args:
            records: with texts cleaned as the text that the model learned.
            label: of all of them, instead of their own.

        Raises:
            DataError: a text has unknown characters and `unknown` is "error".
            ChargenError: predictions are not finite.
        """
        vocabulary, texts = self.file.vocabulary, [record.text for record in records]
        labels = [label or (record.label if record.label in vocabulary.labels else None) for record in records]
        log_probs, ends, label_probs = self._read_labelled(texts, labels)
        owners, known = np.repeat(np.arange(len(texts)), list(map(len, texts))), vocabulary.knows("".join(texts))
        log_probs -= np.bincount(owners, self._extra_nats("".join(texts), known), len(texts))
        unseen = np.bincount(owners, ~known, len(texts)).astype(int)
        left_out = unseen * (self.unknown == "skip")
        has_end = vocabulary.records or bool(self.file.begin)
        for number, record in enumerate(records):
            yield RecordScore(
                record.text,
                float(log_probs[number]),
                float(ends[number]) if has_end else None,
                len(record.text) - int(left_out[number]),
                vocabulary.unseen(record.text) if unseen[number] else "",
                record.name,
                record.line,
                label or record.label or None,
                dict(zip(vocabulary.labels, label_probs[number].tolist(), strict=True)) if self.prior else None,
            )

    def _extra_nats(self, text: str, known: NDArray[np.bool_]) -> NDArray[np.float64]:
        """What characters cost beside the symbols that were read for them, (N,)."""
        vocabulary = self.file.vocabulary
        extra = vocabulary.extra_nats(text)
        if self.unknown == "skip":
            extra[~known] = 0.0
        elif vocabulary.unknown_id is None:
            extra[~known] = math.log(self.file.counts.sum() + 1) + vocabulary.unseen_nats
        return extra

    def _read_labelled(
        self, texts: list[str], labels: list[str | None]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Log-probabilities of N texts with their labels and of their ends, (N,), and those of K labels, (N, K)."""
        vocabulary = self.file.vocabulary
        if not self.prior:
            return *self._read(texts, labels), np.zeros(0)
        # Each text is read once with each label, and once without if that is how it is scored.
        names = list(dict.fromkeys([*vocabulary.labels, *labels]))
        sums = self._read([text for text in texts for _ in names], names * len(texts))
        table, ends = (column.reshape(len(texts), len(names)) for column in sums)
        own = np.arange(len(texts)), np.array([names.index(label) for label in labels], int)
        likely = table[:, : len(vocabulary.labels)]
        if self.prior == "counts":
            likely = likely + np.log(np.maximum(self.file.counts[len(vocabulary) - len(vocabulary.labels) :], 1))
        label_probs = np.exp(likely - likely.max(1, keepdims=True))
        return table[own], ends[own], label_probs / label_probs.sum(1, keepdims=True)

    def _read(self, texts: list[str], labels: list[str | None]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The log-probabilities of texts and of their ends, (N,), by the ids that are read."""
        vocabulary, size = self.file.vocabulary, sum(map(len, texts))
        layout = lay_out(self.file, texts, self.unknown or vocabulary.default_unknown, self.direction, labels)
        text_of = np.concatenate([np.repeat(np.arange(len(texts)), times) for times in (list(map(len, texts)), 2)])
        first_nats = -(self.file.first_logits - np.logaddexp.reduce(self.file.first_logits))
        nats, end_nats = np.zeros(len(texts)), np.zeros(len(texts))
        options: dict[str, Any] = {"direction": self.direction, "precision": self.precision}
        mixture = self.file.mixtures.get(self.direction)
        mixed = MixedRows(mixture, layout.rows) if mixture else None
        for reads in read_together(self.networks, layout.rows, counted=layout.counted, **options):
            network, window = reads[0]
            places, targets = layout.owner[layout.starts[window.rows] + window.positions], torch.from_numpy(window.ids)
            mix = partial(mixed.nats, window.rows, window.positions) if mixed else None
            with autocast(self.precision, network.device):
                _, costs = costs_together(reads, targets, mix)
            if not np.isfinite(costs).all():
                raise ChargenError(NOT_FINITE_MESSAGE)
            costs = np.where(window.positions == 0, first_nats[window.ids], costs)
            ends = (places >= size) & ((places - size) % 2 == 1)  # what is read before a text is no part of it
            nats += np.bincount(text_of[places], costs * (ends | (places < size)), len(texts))
            end_nats += np.bincount(text_of[places], costs * ends, len(texts))
        return -nats, -end_nats
