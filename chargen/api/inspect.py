"""Look inside a model while it reads a text, in one call."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chargen.api.activations import read_texts
from chargen.api.judge import PRECISIONS, check_choice, prepare_networks
from chargen.api.texts import Path, Sources
from chargen.data.vocabulary import Vocabulary, check_unknown
from chargen.durable import write_durably
from chargen.insight.activation_blocks import join_activations, read_blocks
from chargen.insight.activations import Activations
from chargen.insight.features import text_features
from chargen.insight.gates import gate_saturation
from chargen.insight.inspection import Inspection
from chargen.insight.loss_profile import LossTable, loss_by_distance
from chargen.insight.neurons import rank_units
from chargen.insight.predictions import loss_from_fresh_states, predict_texts
from chargen.pages.render import check_page_path, require_packages
from chargen.settings import check_int, check_path
from chargen.storage.model_file import ModelFile, as_model_file

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel

GATE_CHARACTERS = 10_000
"""Characters whose gates are looked at: they take longer than all else, and change little with the text."""


def inspect(
    model: "CharModel | ModelFile | Path",
    text: Path | Sequence[str] | None = None,
    *,
    sources: Sources | None = None,
    label: str | Sequence[str | None] | None = None,
    out: Path | None = None,
    length: int = 100_000,
    patterns: Mapping[str, str] | None = None,
    unknown: str | None = None,
    encoding: str | None = None,
    errors: str = "strict",
    precision: str = "auto",
    device: str = "auto",
    vocabulary: Vocabulary | None = None,
    counts: NDArray[np.int64] | None = None,
    progress: Callable[[str, int, int], object] = lambda task, done, total: None,
) -> Inspection:
    """Look inside a model while it reads a text: what it expects, what its hidden units do, and where it loses.

    The page shows the text coloured by surprise or by a hidden unit, and stands for itself: it loads nothing.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel.
        text: a str is the text itself, a Path a file, and a list holds many texts. Cleaned as the text that the model
            learned.
        sources: files to read instead, as one text; with a model of records, each record is a text.
        label: of the record, or of each of many; of files each record has its own.
        out: the page, written as an HTML file; by default nothing is written, and `page` of what is returned has it.
        length: the most characters of the text that are read, its first ones; of records, whole ones.
        patterns: regular expressions by name, for which hidden units are looked for too.
        unknown: what to do with characters that the model has never seen: "error", "skip" (they are taken out of every
            context) or "replace" by the unknown symbol; by default "replace" where there is one, else "skip".
        encoding: of files; by default that of the training text.
        errors: what to do with bytes that do not fit it: "strict" or "replace".
        precision: of matrix products: "fp32", "bf16" (faster where a machine has it), or "auto".
        device: "cpu", "cuda", "mps" or "auto"; a CharModel computes where it is.
        vocabulary: the vocabulary of a CharModel, which has none of its own.
        counts: (V,), how often each id of a CharModel occurs; without them all are taken to be equally frequent.
        progress: called now and then with a task, how many characters are done, and that of all.

    Returns:
        The inspection, which a notebook shows as its page.

    Raises:
        SettingError: an argument is out of range, or the page needs a package that is missing.
        DataError: a text cannot be read, has unknown characters and `unknown` is "error", or has a lone surrogate; or
            `out` is a file that is no page.
        ModelFileError: there is no model file, or it is damaged or contradicts itself.
        ChargenError: predictions are not finite.
        WriteError: the page cannot be written.
    """
    file = as_model_file(model, vocabulary, counts)
    check_choice("precision", precision, PRECISIONS)
    length = check_int("length", length, 0)
    unknown = file.vocabulary.default_unknown if unknown is None else check_unknown(unknown)
    text_features([""], patterns=patterns)  # a wrong one is told before anything is read
    if out is not None:
        out = check_path("out", out)
        check_page_path(out)
        require_packages()
    texts, labels = read_texts(file, text, sources, label, encoding, errors)
    texts, left_out = _cut(texts, length, whole=file.vocabulary.records)
    labels = labels and labels[: len(texts)]
    (network, *_), precision = prepare_networks(model, file, device, precision)
    settings: dict[str, Any] = {"unknown": unknown, "precision": precision}
    predictions = predict_texts(network, file, texts, progress=progress, labels=labels, **settings)
    forward = predictions.log_probs["forward"]
    by_distance: dict[str, LossTable] = {}
    if file.vocabulary.records or len(texts) > 1:
        by_distance["from the start of each text"] = loss_by_distance(predictions.distances, forward)
    else:
        text = "".join(texts)
        fresh, carried = loss_from_fresh_states(network, file, text, forward, progress=progress, **settings)
        by_distance |= {"from a fresh state": fresh, "with what was read before": carried}
    settings |= {"labels": labels}
    blocks = read_blocks(network, file, texts, **settings)
    activations = join_activations(texts, _report(blocks, sum(map(len, texts)), progress))
    some, _ = _cut(texts, GATE_CHARACTERS, whole=False)
    saturation = gate_saturation(read_blocks(network, file, some, gates=True, **settings)) if any(texts) else {}
    features = text_features(texts, labels=labels, patterns=patterns)
    name = str(model) if isinstance(model, (str, os.PathLike)) else "the model"
    neurons = rank_units(activations, features)
    inspection = Inspection(name, file, predictions, activations, neurons, saturation, by_distance, left_out)
    if out is not None:
        write_durably(out, [inspection.page().encode()])
    return inspection


def _report(
    blocks: Iterator[Activations], total: int, progress: Callable[[str, int, int], object]
) -> Iterator[Activations]:
    done = 0
    for block in blocks:
        done += len(block.text)
        progress("reading hidden units", done, total)
        yield block


def _cut(texts: list[str], length: int, *, whole: bool) -> tuple[list[str], int]:
    """The first texts, of so many characters together, and what is left; of a first that has more, its beginning.

    A record is never cut: its end would be judged where it has none.
    """
    sizes = np.cumsum([0, *map(len, texts)])
    number = int(np.searchsorted(sizes, length, "right")) - 1
    kept = texts[:number] or [text if whole else text[:length] for text in texts[:1]]
    return kept, int(sizes[-1]) - sum(map(len, kept))
