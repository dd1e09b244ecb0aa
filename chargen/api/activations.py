"""What is inside a model while it reads a text, in one call."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chargen.api.judge import PRECISIONS, check_choice, prepare_networks
from chargen.api.score import read_labels
from chargen.api.texts import Path, Sources, clean_for_model, find_files, read_given
from chargen.data.placed_records import read_records
from chargen.data.reading_report import ReadingReport
from chargen.data.vocabulary import Vocabulary, check_unknown
from chargen.errors import SettingError
from chargen.insight.activation_blocks import join_activations, read_blocks
from chargen.insight.activations import Activations
from chargen.model.config import check_direction
from chargen.storage.model_file import ModelFile, as_model_file

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel


def activations(
    model: "CharModel | ModelFile | Path",
    text: Path | Sequence[str] | None = None,
    *,
    sources: Sources | None = None,
    label: str | Sequence[str | None] | None = None,
    direction: str = "forward",
    cells: bool = False,
    gates: bool = False,
    unknown: str | None = None,
    encoding: str | None = None,
    errors: str = "strict",
    precision: str = "auto",
    device: str = "auto",
    vocabulary: Vocabulary | None = None,
    progress: Callable[[str, int, int], object] = lambda task, done, total: None,
) -> Activations:
    """Read a text, or many, and keep the hidden states of all layers after each character.

    A text is read as `score` reads it: behind the begin text of the model, or as a record. Parts of a long text are
    read side by side, each after 1,000 characters of context. Arrays take 2 bytes a hidden unit and character: 200 MB
    for 100,000 characters of a model of 2 x 512; `stream_activations` hands longer texts over in blocks.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel.
        text: a str is the text itself, a Path a file, and a list holds many texts. Cleaned as the text that the model
            learned.
        sources: files to read instead, as one text; with a model of records, each record is a text.
        label: of the record, or of each of many; of files each record has its own.
        direction: "forward"; or "backward", where the model reads both ways: then a state has read its character and
            those behind it.
        cells: whether to keep the cells of an LSTM.
        gates: whether to keep the gates.
        unknown: what to do with characters that the model has never seen: "error", "skip" (the state stays) or
            "replace" by the unknown symbol; by default "replace" where there is one, else "skip".
        encoding: of files; by default that of the training text.
        errors: what to do with bytes that do not fit it: "strict" or "replace".
        precision: of matrix products: "fp32", "bf16" (values then have two or three digits), or "auto".
        device: "cpu", "cuda", "mps" or "auto"; a CharModel computes where it is.
        vocabulary: the vocabulary of a CharModel, which has none of its own.
        progress: called after every block with the task, "reading", the number of characters read, and that of all.

    Returns:
        The activations; of many texts one after the other, each of which `activations[k]` cuts out.

    Raises:
        SettingError: an argument is out of range, or the model does not read in this direction or has no cells.
        DataError: a text cannot be read, has unknown characters and `unknown` is "error", or has a lone surrogate.
        ModelFileError: there is no model file, or it is damaged or contradicts itself.
        ChargenError: hidden states are not finite.
    """
    texts, _, blocks = open_blocks(
        model, text, sources, label, unknown, encoding, errors, precision, device, vocabulary, progress,
        direction=direction, cells=cells, gates=gates,
    )  # fmt: skip
    return join_activations(texts, blocks)


def stream_activations(
    model: "CharModel | ModelFile | Path",
    text: Path | Sequence[str] | None = None,
    *,
    sources: Sources | None = None,
    label: str | Sequence[str | None] | None = None,
    unknown: str | None = None,
    encoding: str | None = None,
    errors: str = "strict",
    precision: str = "auto",
    device: str = "auto",
    vocabulary: Vocabulary | None = None,
    progress: Callable[[str, int, int], object] = lambda task, done, total: None,
    **settings: Any,
) -> Iterator[Activations]:
    """Read texts as `activations` does, block by block, in memory that does not grow with them.

    A block is some whole texts, or a part of a text that is longer than a block.

    Args:
        model: as of `activations`, like all that follow.
        text: a str, a Path, or a list of texts.
        sources: files to read instead.
        label: of the record, or of each of many.
        unknown: "error", "skip" or "replace".
        encoding: of files.
        errors: "strict" or "replace".
        precision: "fp32", "bf16" or "auto".
        device: "cpu", "cuda", "mps" or "auto".
        vocabulary: of a CharModel.
        progress: called after every block.
        **settings: `direction`, `cells` and `gates`; and `size`, the characters of a block, by default so many that
            they take some 300 MB.

    Returns:
        An iterator over the activations of one block after the other.

    Raises:
        SettingError: an argument is out of range, or the model does not read in this direction or has no cells.
        DataError: a text cannot be read, has unknown characters and `unknown` is "error", or has a lone surrogate.
        ModelFileError: there is no model file, or it is damaged or contradicts itself.
        ChargenError: hidden states are not finite; while blocks are read.
    """
    return open_blocks(model, text, sources, label, unknown, encoding, errors, precision, device, vocabulary, progress,
                       **settings)[2]  # fmt: skip


def open_blocks(
    model: "CharModel | ModelFile | Path", text: Path | Sequence[str] | None = None, sources: Sources | None = None,
    label: str | Sequence[str | None] | None = None, unknown: str | None = None, encoding: str | None = None,
    errors: str = "strict", precision: str = "auto", device: str = "auto", vocabulary: Vocabulary | None = None,
    progress: Callable[[str, int, int], object] = lambda task, done, total: None, **settings: Any,
) -> tuple[list[str], list[str | None] | None, Iterator[Activations]]:  # fmt: skip
    """Read the texts of `stream_activations`, where the arguments are described.

    Returns:
        The texts, their labels where they have some, and an iterator over their blocks.
    """
    file = as_model_file(model, vocabulary)
    check_choice("precision", precision, PRECISIONS)
    check_direction(file.config, settings.get("direction", "forward"))
    if unknown is not None:
        check_unknown(unknown)
    texts, labels = read_texts(file, text, sources, label, encoding, errors)
    (network, *_), precision = prepare_networks(model, file, device, precision)
    blocks = read_blocks(network, file, texts, labels=labels, unknown=unknown, precision=precision, **settings)
    return texts, labels, _report(blocks, sum(map(len, texts)), progress)


def _report(
    blocks: Iterator[Activations], total: int, progress: Callable[[str, int, int], object]
) -> Iterator[Activations]:
    done = 0
    for block in blocks:
        done += len(block.text)
        progress("reading", done, total)
        yield block


def read_texts(
    file: ModelFile, text: Path | Sequence[str] | None, sources: Sources | None,
    label: str | Sequence[str | None] | None, encoding: str | None, errors: str,
) -> tuple[list[str], list[str | None] | None]:  # fmt: skip
    """The texts that a call is to read, cleaned, and the label of each; None where none has one.

    Args:
        file: the model.
        text: a str, a Path, or a list of texts.
        sources: files to read instead.
        label: of the record, or of each of many.
        encoding: of files; None: that of the training text.
        errors: what to do with bytes that do not fit it, "strict" or "replace".

    Raises:
        DataError: a text cannot be read.
        SettingError: there is no text, or there are two, or the model does not know a label.
    """
    if isinstance(text, (list, tuple)) and sources is None:
        texts = [clean_for_model(file, each) for each in text]
    elif file.vocabulary.records and (sources is not None or isinstance(text, os.PathLike)):
        if text is not None and sources is not None:
            raise SettingError("`text` and `sources` are two texts: give one", "sources")
        reading = replace(file.reading, encoding=encoding or file.reading.encoding, errors=errors)
        records = list(read_records(find_files(sources or text), reading, ReadingReport()))  # type: ignore[arg-type]
        known = file.vocabulary.labels
        own = [record.label if record.label in known else None for record in records]
        return [record.text for record in records], read_labels(file.vocabulary, label, len(records)) or own
    elif file.vocabulary.records:
        texts = [clean_for_model(file, text)]  # type: ignore[arg-type]  # anything but a str is refused there
    else:
        texts = [read_given(text, file.reading, encoding, errors, sources=sources)]  # type: ignore[arg-type]
    return texts, read_labels(file.vocabulary, label, len(texts))
