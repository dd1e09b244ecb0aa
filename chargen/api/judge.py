"""Judge a long text in one call."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from chargen.api.texts import Path, Sources, read_for_model
from chargen.counting.recorder import Recorder
from chargen.data.corpus_cache import ROLES
from chargen.data.reading_config import ReadingConfig
from chargen.data.reading_report import ReadingReport
from chargen.data.vocabulary import Vocabulary
from chargen.errors import SettingError
from chargen.evaluation.parts import choose_tuning_text, cut_part
from chargen.model.config import check_direction
from chargen.storage.model_file import ModelFile, as_model_file, build_networks

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
    dynamic_counts: bool = False,
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
        dynamic_counts: whether what was scored before is counted, and predicts too.
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
    check_choice("part", part, PARTS)
    check_choice("precision", precision, PRECISIONS)
    check_direction(file.config, direction)
    if tune and not dynamic:
        raise SettingError("`tune` says what `dynamic` chooses its rates on: give both", "tune")
    adapts = dynamic or dynamic_counts
    _check_by_label(by_label, file.vocabulary, adapts)
    report = ReadingReport.of_model(file.vocabulary.labels)
    full_text = read_for_model(file, text, encoding, errors, sources=sources, report=report)
    scored_text, tuning = cut_part(full_text, part, file), ""
    if dynamic:
        tuning = choose_tuning_text(full_text, scored_text, part, file, _read_tuning(file, tune, encoding, errors))
    from chargen.evaluation.by_label import LabelSums
    from chargen.evaluation.evaluation import evaluate_text
    from chargen.evaluation.loss import loss_windows

    networks, precision = prepare_networks(model, file, device, precision)
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
    counts = file.mixtures.get(direction)
    mixture = Recorder(counts, file.vocabulary.end_id) if dynamic_counts else counts
    settings_of_rows: dict[str, Any] = {"rows": rows, "mixture": mixture} | ({"watch": sums.add} if sums else {})
    result = evaluate_by(partial(loss_windows, networks, vocabulary=file.vocabulary, **settings, **settings_of_rows))
    static = result.nats_per_character if adapts else None
    if dynamic:
        from chargen.evaluation.dynamic import tuned_evaluator

        report_try = partial(progress, "choosing rates")
        mixture = Recorder(counts, file.vocabulary.end_id) if dynamic_counts else counts
        evaluator = tuned_evaluator(networks, file.vocabulary, tuning, mixture=mixture, progress=report_try, **settings)
        result = evaluate_by(evaluator.losses)
        result = replace(result, dynamic=evaluator.rates, tail=len(tuning))
    if isinstance(mixture, Recorder):
        from chargen.evaluation.dynamic_counts import add_dynamic_counts

        result = add_dynamic_counts(result, mixture, counts, file.vocabulary)
    return replace(
        result, part=part, direction=direction, precision=precision, device=networks[0].device.type,
        replaced=report.replaced, passed_over=len(report.passed_over), by_label=sums.losses() if sums else {},
        unknown_labels=tuple(sorted(report.unknown_labels or ())), static_nats_per_character=static,
    )  # fmt: skip


def _check_by_label(by_label: bool, vocabulary: Vocabulary, adapts: bool) -> None:
    if by_label and not vocabulary.labels:
        raise SettingError("by_label is for a model of labelled records: this one has no labels", "by_label")
    if by_label and adapts:
        raise SettingError("by_label is for a model that stays as it is, without `dynamic…`", "by_label")


def _read_tuning(file: ModelFile, tune: Path | Sequence[Path] | None, encoding: str | None, errors: str) -> str:
    """The text on which rates are chosen; empty where none is named."""
    if not tune:
        return ""
    own, files = (tune, None) if isinstance(tune, (str, os.PathLike)) else (None, tune)
    return read_for_model(file, own, encoding, errors, sources=files)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Check that a setting has a value that there is.

    Args:
        name: of the setting.
        value: its value.
        choices: those there are.

    Raises:
        SettingError: it is none of them.
    """
    if value not in choices:
        raise SettingError(f"{name} is {value!r}: it must be one of {', '.join(choices)}", name)


def prepare_networks(
    model: "CharModel | ModelFile | Path", file: ModelFile, device: str, precision: str
) -> tuple["list[CharModel]", str]:
    """Build the torch models of all networks where there are none, and choose the precision on their device.

    Args:
        model: as a call got it.
        file: what it is as a ModelFile.
        device: "cpu", "cuda", "mps" or "auto"; a CharModel computes where it is.
        precision: "fp32", "bf16", or "auto".

    Raises:
        SettingError: there is no such device.
    """
    from chargen.model.device import pick_device, pick_precision

    if isinstance(model, (ModelFile, str, os.PathLike)):
        networks = build_networks(file, str(pick_device(device)))
    else:
        networks = [model]
    return networks, pick_precision(precision, networks[0].device)
