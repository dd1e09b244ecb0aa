"""Score every character of texts in one call."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from chargen.api.judge import PRECISIONS, check_choice, prepare_networks
from chargen.api.texts import Path, Sources, clean_for_model, read_given
from chargen.data.reading_report import ReadingReport
from chargen.data.vocabulary import Vocabulary
from chargen.errors import SettingError, amount, repr_short
from chargen.evaluation.per_character import Predict, Scores, score_texts
from chargen.evaluation.predicted_ids import JUDGES, predict_ids
from chargen.evaluation.short_texts import ShortTexts
from chargen.model.config import require_bidirectional
from chargen.settings import check_int
from chargen.storage.model_file import ModelFile, as_model_file

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel


@overload
def score(model: "CharModel | ModelFile | Path", text: str | Path | None = None, **settings: Any) -> Scores: ...


@overload
def score(model: "CharModel | ModelFile | Path", text: Sequence[str], **settings: Any) -> list[Scores]: ...


def score(  # type: ignore[misc]  # the overloads leave the settings to this signature
    model: "CharModel | ModelFile | Path",
    text: Path | Sequence[str] | None = None,
    *,
    sources: Sources | None = None,
    label: str | Sequence[str | None] | None = None,
    by: str | None = None,
    threshold: float = 0.01,
    num_alternatives: int = 3,
    unknown: str | None = None,
    encoding: str | None = None,
    errors: str = "strict",
    precision: str = "fp32",
    device: str = "auto",
    vocabulary: Vocabulary | None = None,
    counts: NDArray[np.int64] | None = None,
    progress: Callable[[str, int, int], object] = lambda task, done, total: None,
) -> Scores | list[Scores]:
    """Score every character of a text, or of many, the first and the last included.

    A text stands between two begin texts of the model; where the model has none, a character with an unknown context is
    scored by the counts of the training text. With a model of records each text is a record: it stands behind the begin
    symbol of its label and before the end symbol, which is scored too. Many texts are read side by side, much faster
    than one after the other; so are the parts of a long one, each after 1,000 characters of context.

    Forward log-probabilities add up to that of the text, and so do backward ones, with that of a record's end. The sum
    of cloze log-probabilities is a pseudo-likelihood (Besag, "Statistical analysis of non-lattice data", 1975): each
    character is predicted from all others, so it must not be compared with the two.

    In bytes, a character's log-probability is the sum over its bytes, and alternatives are given for single bytes.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel.
        text: a str is the text itself, a Path a file, and a list holds many texts. Cleaned as the text that the model
            learned; the scores are those of the cleaned text.
        sources: files to read instead, as one text; `score_records` reads records.
        label: of the record, or of each of many; None is no label.
        by: the judge: "cloze", "forward" or "backward"; by default "cloze" where the model has it, else "forward".
            A character without a cloze score is unlikely where both forward and backward find it unlikely.
        threshold: a probability; characters below it are unlikely.
        num_alternatives: the most alternatives that an unlikely character gets.
        unknown: what to do with characters that the model has never seen: "error", "skip" (they are taken out of every
            context) or "replace" by the unknown symbol; by default "replace" where there is one, else "skip". All are
            flagged as unlikely.
        encoding: of files; by default that of the training text.
        errors: what to do with bytes that do not fit it: "strict" or "replace".
        precision: of matrix products: "fp32", "bf16", or "auto".
        device: "cpu", "cuda", "mps" or "auto", which leaves short texts to the CPU; a CharModel computes where it is.
        vocabulary: the vocabulary of a CharModel, which has none of its own.
        counts: (V,), how often each id of a CharModel occurs; without them all are taken to be equally frequent.
        progress: called after every window with the task, "scoring", the number of characters read, and that of all.

    Returns:
        The scores of the text; of a list, those of each.

    Raises:
        SettingError: an argument is out of range, or a model that reads forward only is to judge by more.
        DataError: a text cannot be read, has unknown characters and `unknown` is "error", or has a lone surrogate.
        ModelFileError: there is no model file, or it is damaged or contradicts itself.
        ChargenError: predictions are not finite.
    """
    file = as_model_file(model, vocabulary, counts)
    settings = score_settings(file, by, threshold, num_alternatives, unknown)
    check_choice("precision", precision, PRECISIONS)
    report = ReadingReport()
    texts = _read_texts(file, text, sources, encoding, errors, report)
    labels = read_labels(file.vocabulary, label, len(texts))
    short = ShortTexts(file)
    is_file = isinstance(model, (ModelFile, str, os.PathLike))
    predict: Predict = partial(short.predict, progress=progress)
    if not is_file or device not in ("auto", "cpu") or precision == "bf16" or not short.fit(texts):
        networks, precision = prepare_networks(model, file, device, precision)
        predict = partial(predict_ids, networks, file, precision=precision, progress=progress)
    results = score_texts(predict, file, texts, labels=labels, **settings)
    if isinstance(text, (list, tuple)):
        return results
    results[0].replaced, results[0].passed_over = report.replaced, len(report.passed_over)
    return results[0]


def score_settings(
    file: ModelFile, by: str | None, threshold: float, num_alternatives: int, unknown: str | None
) -> dict[str, Any]:
    """Check the settings of `score`, where they are described, and fill in what they are by default.

    Returns:
        Arguments of `score_texts`.

    Raises:
        SettingError: a setting is out of range, or a model that reads forward only is to judge by more.
    """
    by = ("cloze" if file.config.bidirectional else "forward") if by is None else by
    check_choice("by", by, JUDGES)
    if not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
        raise SettingError(f"threshold is {threshold!r}: it must be 0 to 1", "threshold")
    if by != "forward":
        require_bidirectional(file.config, f"{by} scoring")
    unknown = unknown or file.vocabulary.default_unknown
    num_alternatives = check_int("num_alternatives", num_alternatives, 0)
    return {"by": by, "threshold": threshold, "num_alternatives": num_alternatives, "unknown": unknown}


def _read_texts(
    file: ModelFile, text: Any, sources: Sources | None, encoding: str | None, errors: str, report: ReadingReport
) -> list[str]:
    """The texts that are scored: one, or all of a list. Of a model of records each is a record."""
    if isinstance(text, (list, tuple)) and sources is None:
        return [clean_for_model(file, each) for each in text]
    if file.vocabulary.records and (sources is not None or isinstance(text, os.PathLike)):
        raise SettingError("a file may hold many records: `score_records(model, sources=…)` scores each", "sources")
    if file.vocabulary.records:
        return [clean_for_model(file, text)]
    return [read_given(text, file.reading, encoding, errors, sources=sources, report=report)]


def read_labels(vocabulary: Vocabulary, label: Any, count: int) -> list[str | None] | None:
    """Check the labels of some texts.

    Args:
        vocabulary: of the model.
        label: of all of them, or of each; None for none.
        count: of the texts.

    Returns:
        The label of each text; None where none has one.

    Raises:
        SettingError: the model does not know a label, or there are not as many as texts.
    """
    if label is None:
        return None
    labels = [label] * count if isinstance(label, str) else label
    if not isinstance(labels, (list, tuple)) or len(labels) != count:
        problem = f"it must be a label, or one for each of {amount(count, 'text')}"
        raise SettingError(f"label is {repr_short(label)}: {problem}", "label")
    for name in labels:
        vocabulary.begin_id(name)
    return list(labels)
