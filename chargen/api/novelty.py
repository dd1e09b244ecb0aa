"""Tell in one call how much of a text, or of what a model writes, stands in a corpus."""

import os
from dataclasses import asdict, replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import numpy as np

from chargen.api.texts import Path, Sources, find_files
from chargen.counting.copy_finder import MIN_LENGTH, CopyFinder, Part, require_packages
from chargen.counting.novelty import Novelty
from chargen.counting.placed_texts import Place, PlacedTexts, Progress, read_placed
from chargen.data.corpus_config import CorpusConfig
from chargen.data.reading import clean, mark_text
from chargen.data.reading_config import ReadingConfig
from chargen.data.reading_report import ReadingReport
from chargen.data.records import MARK
from chargen.data.vocabulary import Vocabulary
from chargen.decoding.choose import WRITING_DEFAULTS, SampleConfig
from chargen.errors import SettingError
from chargen.evaluation.parts import split_config
from chargen.sampling.records import write_records
from chargen.sampling.sampler import Sampler
from chargen.settings import check_int, check_text, drop_none, make_settings
from chargen.storage.model_file import FILE_NAME, ModelFile, as_model_file
from chargen.storage.named_models import named_models
from chargen.storage.run_state import can_be_resumed

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel

DEFAULT_LENGTH, DEFAULT_RECORDS = 10_000, 1_000
"""Characters, or records, that a model writes."""
PLAIN = ReadingConfig(newline="lf", normalize="NFC")
"""How a text and its corpus are read where no model says it: line ends and normal forms make no difference."""


def novelty(
    model_or_text: "CharModel | ModelFile | Path",
    corpus: Sources,
    *,
    held_out: Sources = (),
    length: int | None = None,
    num: int | None = None,
    seed: int | None = None,
    shortest: int = MIN_LENGTH,
    show: int = 10,
    encoding: str | None = None,
    errors: str = "strict",
    records: str | None = None,
    text_field: str | None = None,
    vocabulary: Vocabulary | None = None,
    progress: Progress = lambda task, done, total: None,
    **settings: Any,
) -> Novelty:
    """Tell how much of a text is copied from a corpus, as `chargen novelty` does.

    Beside it stand the same figures of real text that is as long: the middle of the corpus's validation part, cut as in
    training, looked up in what begins outside that part. Of records, as many are taken. A copy lies in a single file,
    sample or record.

    Args:
        model_or_text: a model, which writes: the path of its file or run folder, its name, what `read_model` returned,
            or a CharModel. Or a text: a Path is a file, another str the text itself.
        corpus: a file, folder, pattern, or name of a corpus, or several; read as the model read its own text.
        held_out: real text to compare with, instead of the validation part; it is not part of the corpus.
        length: characters that the model writes, of a record at most; None: 10,000, and whole records.
        num: samples, or records, that it writes; None: one sample, or 1,000 records.
        seed: same seed, same text; drawn by the system where None.
        shortest: characters of the shortest copy.
        show: how many copies, near-copies and loops to name, at most.
        encoding: of the files; None: that of the model's text, or UTF-8.
        errors: what to do with bytes that do not fit it, "strict" or "replace".
        records: of a text and its corpus, what a record is, such as "line"; None: they are running text.
        text_field: of records in tables, the field with the text.
        vocabulary: of a CharModel, which has none.
        progress: called now and then with a task, what is done of it, and the total or None.
        **settings: of the model's writing, fields of SampleConfig such as `temperature`, which is 0.8 by default.

    Raises:
        DataError: a text cannot be read.
        SettingError: an argument is out of range, or is for a model only.
        ModelFileError: the model file is missing or damaged.
        ChargenError: the package pydivsufsort is missing: pip install 'chargen[novelty]'.
    """
    require_packages()
    shortest, show = check_int("shortest", shortest, 1), check_int("show", show, 0)
    file = as_model_file(model_or_text, vocabulary) if is_model(model_or_text) else None
    if file is None and vocabulary is not None:
        raise SettingError("vocabulary is that of a CharModel, and this is a text: leave it out", "vocabulary")
    make_settings(SampleConfig, drop_none(settings))  # refuses what is no setting at all
    writing = {"length": length, "num": num, "seed": seed} | settings
    if file is None and (name := next(iter(drop_none(writing)), "")):
        raise SettingError(f"{name} says how a model writes, and this is a text: leave it out", name)
    reading = file.reading if file else replace(PLAIN, records=records, text_field=text_field)
    if file and (name := next(iter(drop_none({"records": records, "text_field": text_field})), "")):
        raise SettingError(f"{name} is for a text: a model says how its own was read", name)
    if file and file.vocabulary.records and reading.records is None:
        raise SettingError(
            "corpus is read as the model's own text, and this model of records does not say how that was"
        )
    reading = replace(reading, encoding=reading.encoding if encoding is None else encoding, errors=errors)
    report, whole = ReadingReport(), reading.records is not None
    config = None if held_out != () else split_config(file) if file else CorpusConfig(**asdict(reading))
    texts, valid = read_placed(find_files(corpus), reading, config, report, progress)
    corpus_stop = len(texts.data)
    if held_out != ():
        texts.extend(read_placed(find_files(held_out), reading, None, report, progress)[0])
        valid = corpus_stop, len(texts.data)
    text_start = len(texts.data)
    if file is not None:
        seed = _add_written(texts, file, progress, **writing)
    else:
        _add_text(texts, model_or_text, reading, report, progress)
    part = Part.of(texts, text_start, len(texts.data))
    real = Part.of(texts, *valid).cut_like(np.diff(part.borders).tolist(), whole=whole)
    progress("sorting", 0, None)
    finder = CopyFinder(texts, corpus_stop)
    options: dict[str, Any] = {"min_length": shortest, "show": show, "whole": whole}
    progress("matching", 0, None)
    return Novelty(
        text=finder.measure(part, **options),
        held_out=finder.measure(real, valid, **options) if len(real.starts) else None,
        corpus_characters=texts.count(0, corpus_stop),
        min_length=shortest,
        seed=seed,
        replaced=report.replaced,
        passed_over=len(report.passed_over),
    )


def _add_text(texts: PlacedTexts, text: Any, reading: ReadingConfig, report: ReadingReport, progress: Progress) -> None:
    """Add the text that is looked up: that of files, or one in memory."""
    if isinstance(text, os.PathLike):
        texts.extend(read_placed(find_files(text), reading, None, report, progress)[0])
    elif reading.records is None:
        texts.add([clean(check_text("text", text), reading)], Place("", 1, 1))
    else:
        for number, record in enumerate(MARK.split(mark_text(text, reading))[1:], 1):
            texts.add([record], Place("", 1, 1, number))


def _add_written(
    texts: PlacedTexts, file: ModelFile, progress: Progress, *, length: int | None, num: int | None, seed: int | None,
    **settings: Any,
) -> int:  # fmt: skip
    """Add what a model writes; its seed."""
    config = make_settings(SampleConfig, WRITING_DEFAULTS | drop_none(settings))
    if file.vocabulary.records:
        sampler = Sampler(file, config, seed=seed)
        number = DEFAULT_RECORDS if num is None else num
        for done, record in enumerate(write_records(sampler, number, length=length), 1):
            texts.add([record.text], Place("", 1, 1, done))
            progress("writing", done, number)
        return sampler.seed
    sampler = Sampler(file, config, num=1 if num is None else num, seed=seed)
    total = DEFAULT_LENGTH if length is None else check_int("length", length, 0)
    written: list[list[str]] = [[] for _ in range(sampler.num)]
    for done, characters in enumerate(sampler.write(total), 1):
        for character in characters:
            written[character.stream].append(character.character)
        progress("writing", done, total)
    for sample, stream in enumerate(written, 1):
        texts.add(["".join(stream)], Place("", 1, 1, sample))
    return sampler.seed


def is_model(value: Any) -> bool:
    """Tell whether a value is a model, rather than a text.

    Args:
        value: a path or a name of a model is: a run folder, a file whose name ends with .safetensors, "shakespeare".
            Other paths, and other str, are texts.
    """
    if not isinstance(value, (str, os.PathLike)):
        return True
    path = os.fspath(value)
    if os.path.isdir(path):
        return os.path.exists(os.path.join(path, FILE_NAME)) or can_be_resumed(FilePath(path))
    return path.endswith(".safetensors") or (path in named_models() and not os.path.lexists(path))
