"""Score records, or lines of running text, one after the other in one call."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chargen.api.judge import PARTS, PRECISIONS, check_choice, prepare_networks
from chargen.api.texts import Path, Sources, clean_for_model, find_files
from chargen.data.placed_records import PlacedRecord, read_records
from chargen.data.reading_report import ReadingReport
from chargen.data.vocabulary import Vocabulary, check_unknown
from chargen.errors import SettingError
from chargen.evaluation.parts import records_of_part
from chargen.model.config import DIRECTIONS, check_direction
from chargen.storage.model_file import ModelFile, as_model_file

if TYPE_CHECKING:
    from chargen.evaluation.record_scores import RecordJudge, RecordScore
    from chargen.model.language_model import CharModel

PRIORS = ("counts", "uniform")
"""How likely labels are beforehand: as frequent as among the records that the model learned, or all alike."""
BATCH, MAX_RECORDS = 2**17, 2**13
"""Characters, and records, that are read side by side; each record as often as there are labels to guess."""


@dataclass
class RecordTotals:
    """What all records together cost.

    Args:
        records: how many there are.
        characters: how many were scored.
        ends: how many ends of records were; each counts as a character.
        log_prob: the sum of their log-probabilities in nats.
        end_log_prob: that of the ends, a part of it.
        unknown: how many characters the model has never seen.
        unseen: these, each once, sorted.
        labelled: where labels are guessed, how many records have one that the model knows.
        right: how many of them were guessed.
        unknown_labels: labels that the model does not know.
        replaced: bytes that did not fit the encoding.
        passed_over: files that are no text.
    """

    records: int = 0
    characters: int = 0
    ends: int = 0
    log_prob: float = 0.0
    end_log_prob: float = 0.0
    unknown: int = 0
    unseen: str = ""
    labelled: int = 0
    right: int = 0
    unknown_labels: set[str] = field(default_factory=set)
    replaced: int = 0
    passed_over: int = 0

    @property
    def mean(self) -> float:
        """Nats of log-probability per character; 0 where nothing was scored."""
        return self.log_prob / max(self.characters + self.ends, 1)


class RecordScores(Iterator["RecordScore"]):
    """The scores of records, in their order, each computed with those of some records behind it.

    Args:
        judge: scores them.
        records: with texts cleaned as the text that the model learned.
        label: of all of them, instead of their own.
        report: filled in while they are read.
        progress: called with a task, the number of characters read, and None.
    """

    def __init__(
        self, judge: "RecordJudge", records: Iterable[PlacedRecord], label: str | None, report: ReadingReport,
        progress: Callable[[str, int, None], object],
    ) -> None:  # fmt: skip
        self.totals = RecordTotals()
        """What the records cost that were handed over so far."""
        self._judge, self._label, self._report, self._progress = judge, label, report, progress
        self._labels = judge.file.vocabulary.labels
        self._scores = self._score(iter(records))

    def __next__(self) -> "RecordScore":
        score = next(self._scores)
        totals = self.totals
        totals.records += 1
        totals.characters += score.characters
        totals.log_prob += score.log_prob
        if score.end_log_prob is not None:
            totals.ends += 1
            totals.end_log_prob += score.end_log_prob
        if score.unknown:
            totals.unknown += sum(map(score.text.count, score.unknown))
            totals.unseen = "".join(sorted({*totals.unseen, *score.unknown}))
        if score.label is not None and score.label not in self._labels:
            totals.unknown_labels.add(score.label)
        elif score.label is not None and score.label_probs is not None:
            totals.labelled += 1
            totals.right += score.guess == score.label
        return score

    def _score(self, records: Iterator[PlacedRecord]) -> Iterator["RecordScore"]:
        size, done = BATCH // (1 + len(self._labels) if self._judge.prior else 1), 0
        while batch := _take(records, size):
            yield from self._judge.score(batch, self._label)
            self.totals.replaced, self.totals.passed_over = self._report.replaced, len(self._report.passed_over)
            done += sum(len(record.text) for record in batch)
            self._progress("scoring", done, None)


def _take(records: Iterator[PlacedRecord], size: int) -> list[PlacedRecord]:
    """Some records, at least one of those that are left, with hardly more characters than that."""
    taken: list[PlacedRecord] = []
    characters = 0
    while len(taken) < MAX_RECORDS and characters < size and (record := next(records, None)):
        taken.append(record)
        characters += len(record.text)
    return taken


def score_records(
    model: "CharModel | ModelFile | Path",
    texts: Iterable[str] | None = None,
    *,
    sources: Sources | None = None,
    part: str = "all",
    label: str | None = None,
    guess_label: bool = False,
    prior: str = "counts",
    by: str = "forward",
    unknown: str | None = None,
    encoding: str | None = None,
    errors: str = "strict",
    precision: str = "fp32",
    device: str = "auto",
    vocabulary: Vocabulary | None = None,
    counts: NDArray[np.int64] | None = None,
    progress: Callable[[str, int, None], object] = lambda task, done, total: None,
) -> RecordScores:
    """Score records one after the other: what each costs, and which label it likely has.

    A record stands behind the begin symbol of its label and before the end symbol, which is scored too. A model of
    running text scores lines, each between two of its begin texts, that is line ends. Any number of records takes the
    memory of some thousands: they are read side by side, many at a time.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel.
        texts: records or lines, one by one.
        sources: files to read instead, as the model's own text was read.
        part: "all", or the records that training on them would take: "train", "valid" or "test".
        label: of all records, instead of their own; a label that the model does not know counts as none.
        guess_label: whether to tell how likely each record has each of the model's labels (by Bayes' rule).
        prior: how likely labels are beforehand: "counts", as frequent as in training, or "uniform".
        by: "forward", or "backward" with a model that reads both ways.
        unknown: what to do with characters that the model has never seen: "error", "skip" (they cost nothing), or
            "replace" by the unknown symbol. By default they are replaced; where there is no such symbol each costs
            ln(N + 1) nats, as what occurs once among the N characters that the model learned, and its share of all
            characters that the model has never seen.
        encoding: of files; by default that of the training text.
        errors: what to do with bytes that do not fit it: "strict" or "replace".
        precision: of matrix products: "fp32", "bf16", or "auto".
        device: "cpu", "cuda", "mps" or "auto"; a CharModel computes where it is.
        vocabulary: the vocabulary of a CharModel, which has none of its own.
        counts: (V,), how often each id of a CharModel occurs; without them all are taken to be equally frequent.
        progress: called now and then with the task, "scoring", the number of characters read, and None.

    Returns:
        An iterator over a `RecordScore` for each record, in their order. Its `totals` are those of the records so far.

    Raises:
        SettingError: an argument is out of range, or the model does not know the label, or reads in one direction only.
        DataError: a text cannot be read, or has unknown characters and `unknown` is "error"; then while it is read.
        ModelFileError: there is no model file, or it is damaged or contradicts itself.
        ChargenError: predictions are not finite.
    """
    file = as_model_file(model, vocabulary, counts)
    check_choice("by", by, DIRECTIONS)
    check_direction(file.config, by)
    check_choice("part", part, PARTS)
    check_choice("precision", precision, PRECISIONS)
    check_choice("prior", prior, PRIORS)
    if unknown is not None:
        check_unknown(unknown)
    if label is not None:
        file.vocabulary.begin_id(label)
    if guess_label and not file.vocabulary.labels:
        raise SettingError("guess_label is for a model of labelled records: this one has no labels", "guess_label")
    if guess_label and label is not None:
        raise SettingError("guess_label asks for what `label` says: give one", "guess_label")
    report = ReadingReport()
    records = records_of_part(_read(file, texts, sources, encoding, errors, report), part, file)
    networks, precision = prepare_networks(model, file, device, precision)
    from chargen.evaluation.record_scores import RecordJudge

    judge = RecordJudge(networks, file, by, unknown, precision, prior if guess_label else None)
    return RecordScores(judge, records, label, report, progress)


def _read(
    file: ModelFile, texts: Iterable[str] | None, sources: Sources | None, encoding: str | None, errors: str,
    report: ReadingReport,
) -> Iterator[PlacedRecord]:  # fmt: skip
    """The records, in memory or of files."""
    if (texts is None) == (sources is None):
        raise SettingError("give `texts` or `sources`: one of them, and not both", "texts")
    if texts is not None:
        if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
            raise SettingError(f"texts is of type {type(texts).__name__}: it must be a list of texts", "texts")
        return (PlacedRecord(clean_for_model(file, text), "", number) for number, text in enumerate(texts, 1))
    reading = file.reading if file.vocabulary.records else replace(file.reading, newline="lf")
    assert sources is not None
    return read_records(
        find_files(sources), replace(reading, encoding=encoding or reading.encoding, errors=errors), report
    )
