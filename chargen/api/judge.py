"""Judge texts in one call: `evaluate` a long one, `score` each character of some."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from chargen.api.texts import Path, Sources, read_for_model, read_given
from chargen.data.corpus_cache import ROLES
from chargen.data.reading import ReadingConfig, ReadingReport, clean
from chargen.data.vocabulary import Vocabulary
from chargen.errors import SettingError
from chargen.evaluation.parts import choose_tuning_text, cut_part
from chargen.evaluation.per_character import JUDGES, Scores, score_texts
from chargen.model.config import check_direction, require_bidirectional
from chargen.settings import check_int, check_text
from chargen.storage.model_file import ModelFile, as_model_file, build_model

if TYPE_CHECKING:
    from chargen.evaluation.evaluation import Evaluation
    from chargen.evaluation.loss import Loss
    from chargen.model.language_model import CharModel

PARTS = ("all", *ROLES)
PRECISIONS = ("fp32", "bf16", "auto")


def evaluate(
    model: "CharModel | ModelFile | Path",
    vocabulary: Vocabulary | Path | None = None,
    text: Path | None = None,
    *,
    sources: Sources | None = None,
    part: str = "all",
    direction: str = "forward",
    dynamic: bool = False,
    tune: Path | Sequence[Path] | None = None,
    unknown: str | None = None,
    encoding: str | None = None,
    errors: str = "strict",
    rows: int | None = None,
    by_label: bool = False,
    precision: str = "fp32",
    device: str = "auto",
    reading: ReadingConfig | None = None,
    progress: Callable[[str, int, int], object] = lambda task, done, total: None,
) -> "Evaluation":
    """Score a text with a model: `evaluate(path, text)`, or `evaluate(model, vocabulary, text)` with a CharModel.

    The whole text is scored with carried state, every character once. The first one (read backward, the last) is
    context and is not counted. The text is cleaned as the one that the model learned. Where that consists of records,
    every character of every record is counted, and its end as one more.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel.
        vocabulary: the vocabulary of a CharModel, which has none of its own.
        text: a str is the text itself, of records that of a file; a Path is a file.
        sources: files to read instead.
        part: "all", or the part that training on this text would cut: "train", "valid" or "test".
        direction: "forward"; or "backward", which reads from the end and predicts each character from those behind it.
        dynamic: whether a copy of the model learns from each segment once it is scored.
        tune: other text, on whose end the rates of `dynamic` are chosen: a str, a Path, or a list of sources. By
            default that is the training part, where another part is scored.
        unknown: what to do with characters that the model has never seen: "error", "skip" them and count them, or
            "replace" them by the unknown symbol; by default "replace" where there is one, else "skip".
        encoding: of files; by default that of the training text.
        errors: what to do with bytes that do not fit it: "strict" or "replace".
        rows: how many parts of the text are read side by side; by default one per 1,000 ids, at most 32.
        by_label: whether to tell what the records of each label cost.
        precision: of matrix products: "fp32", "bf16", or "auto".
        device: "cpu", "cuda", "mps" or "auto"; a CharModel computes where it is.
        reading: how the text that a CharModel learned was read. A model file has its own.
        progress: called now and then with a task ("scoring", "choosing rates"), what is done of it, and the total.

    Raises:
        DataError: the text cannot be read, has unknown characters and `unknown` is "error", or has fewer than two
            characters.
        SettingError: an argument is out of range, or the model does not read in this direction.
        ModelFileError: there is no model file, or it is damaged or contradicts itself.
        ChargenError: predictions are not finite.
    """
    if text is None and not isinstance(vocabulary, Vocabulary):
        vocabulary, text = None, vocabulary
    if isinstance(vocabulary, (str, os.PathLike)):
        raise SettingError("vocabulary and text are two texts: give one", "text")
    file = as_model_file(model, vocabulary)
    file = file if reading is None else replace(file, reading=reading)
    _check_choice("part", part, PARTS)
    _check_choice("precision", precision, PRECISIONS)
    check_direction(file.config, direction)
    if tune and not dynamic:
        raise SettingError("`tune` says what `dynamic` chooses its rates on: give both", "tune")
    _check_by_label(by_label, file.vocabulary, dynamic)
    report = ReadingReport()
    full_text = read_for_model(file, text, encoding, errors, sources=sources, report=report)
    scored_text, tuning = cut_part(full_text, part, file), ""
    if dynamic:
        tuning = choose_tuning_text(full_text, scored_text, part, file, _read_tuning(file, tune, encoding, errors))
    from chargen.evaluation.by_label import LabelSums
    from chargen.evaluation.evaluation import evaluate_text
    from chargen.evaluation.loss import loss_windows

    network, precision = _build(model, file, device, precision)
    settings: dict[str, Any] = {"precision": precision, "direction": direction}

    def evaluate_by(scorer: Callable[[NDArray[Any]], Iterable["Loss"]]) -> "Evaluation":
        def score_ids(ids: NDArray[Any]) -> Iterator["Loss"]:
            done = 0
            for loss in scorer(ids):
                done += loss.ids
                progress("scoring", done, len(ids))
                yield loss

        return evaluate_text(file.vocabulary, scored_text, score_ids, unknown=unknown, direction=direction)

    sums = LabelSums(file.vocabulary, scored_text, unknown, direction) if by_label else None
    settings_of_rows: dict[str, Any] = {"rows": rows} | ({"watch": sums.add} if sums else {})
    result = evaluate_by(partial(loss_windows, network, vocabulary=file.vocabulary, **settings, **settings_of_rows))
    if dynamic:
        from chargen.evaluation.dynamic import tuned_evaluator

        report_try = partial(progress, "choosing rates")
        evaluator = tuned_evaluator(network, file.vocabulary, tuning, progress=report_try, **settings)
        static = result.nats_per_character
        result = evaluate_by(evaluator.losses)
        result = replace(result, dynamic=evaluator.rates, tail=len(tuning), static_nats_per_character=static)
    return replace(
        result, part=part, direction=direction, precision=precision, device=network.device.type,
        replaced=report.replaced, passed_over=len(report.passed_over), by_label=sums.losses() if sums else {},
        unknown_labels=tuple(report.labels[len(file.vocabulary.labels) :]),
    )  # fmt: skip


def _check_by_label(by_label: bool, vocabulary: Vocabulary, dynamic: bool) -> None:
    if by_label and not vocabulary.labels:
        raise SettingError("by_label is for a model of labelled records: this one has no labels", "by_label")
    if by_label and dynamic:
        raise SettingError("by_label is for a model that stays as it is: leave `dynamic` out", "by_label")


def _read_tuning(file: ModelFile, tune: Path | Sequence[Path] | None, encoding: str | None, errors: str) -> str:
    """The text on which rates are chosen; empty where none is named."""
    if not tune:
        return ""
    own, files = (tune, None) if isinstance(tune, (str, os.PathLike)) else (None, tune)
    return read_for_model(file, own, encoding, errors, sources=files)


@overload
def score(model: "CharModel | ModelFile | Path", text: str | Path | None = None, **settings: Any) -> Scores: ...


@overload
def score(model: "CharModel | ModelFile | Path", text: Sequence[str], **settings: Any) -> list[Scores]: ...


def score(  # type: ignore[misc]  # the overloads leave the settings to this signature
    model: "CharModel | ModelFile | Path",
    text: Path | Sequence[str] | None = None,
    *,
    sources: Sources | None = None,
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
    scored by the counts of the training text. Many texts are read side by side, much faster than one after the other;
    so are the parts of a long one, each after 1,000 characters of context.

    Forward log-probabilities add up to that of the text, and so do backward ones. The sum of cloze log-probabilities is
    a pseudo-likelihood (Besag, "Statistical analysis of non-lattice data", 1975): each character is predicted from all
    others, so it must not be compared with the two.

    In bytes, a character's log-probability is the sum over its bytes, and alternatives are given for single bytes.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel.
        text: a str is the text itself, a Path a file, and a list holds many texts. Cleaned as the text that the model
            learned; the scores are those of the cleaned text.
        sources: files to read instead, as one text.
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
        device: "cpu", "cuda", "mps" or "auto"; a CharModel computes where it is.
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
    num_alternatives = check_int("num_alternatives", num_alternatives, 0)
    by = ("cloze" if file.config.bidirectional else "forward") if by is None else by
    _check_choice("by", by, JUDGES)
    _check_choice("precision", precision, PRECISIONS)
    if not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
        raise SettingError(f"threshold is {threshold!r}: it must be 0 to 1", "threshold")
    if by != "forward":
        require_bidirectional(file.config, f"{by} scoring")
    report = ReadingReport()
    if isinstance(text, (list, tuple)):
        texts = [clean(check_text("text", each), file.reading) for each in text]
    else:
        # What is neither a text nor a path is refused there.
        texts = [read_given(text, file.reading, encoding, errors, sources=sources, report=report)]  # type: ignore[arg-type]
    network, precision = _build(model, file, device, precision)
    unknown = unknown or ("skip" if file.vocabulary.unknown_id is None else "replace")
    results = score_texts(
        network, file, texts, by=by, threshold=threshold, num_alternatives=num_alternatives, unknown=unknown,
        precision=precision, progress=progress,
    )  # fmt: skip
    if isinstance(text, (list, tuple)):
        return results
    results[0].replaced, results[0].passed_over = report.replaced, len(report.passed_over)
    return results[0]


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise SettingError(f"{name} is {value!r}: it must be one of {', '.join(choices)}", name)


def _build(
    model: "CharModel | ModelFile | Path", file: ModelFile, device: str, precision: str
) -> tuple["CharModel", str]:
    """The torch model, built where it is none, and the precision on its device."""
    from chargen.model.device import pick_device, pick_precision

    if isinstance(model, (ModelFile, str, os.PathLike)):
        model = build_model(file, str(pick_device(device)))
    return model, pick_precision(precision, model.device)
