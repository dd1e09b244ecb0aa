"""Which part of a text is scored, and on which other text the rates of dynamic evaluation are chosen."""

from collections.abc import Iterator
from dataclasses import fields
from itertools import islice

from chargen.data.code_points import END_MARK
from chargen.data.corpus import split
from chargen.data.corpus_cache import ROLES
from chargen.data.corpus_config import CorpusConfig
from chargen.data.placed_records import PlacedRecord
from chargen.data.records import choose_parts, split_records
from chargen.errors import ModelFileError, SettingError
from chargen.storage.model_file import ModelFile

TAIL = 10_000
"""Characters of tuning text on which the rates of dynamic evaluation are chosen."""
TOGETHER = 1000
"""Records whose parts are found together."""
PIECE = 500
"""Characters in a row that two texts have in common only where one was taken from the other."""


def cut_part(text: str, part: str, file: ModelFile) -> str:
    """Cut the part of a text that has this name in training.

    Args:
        text: the whole.
        part: "all", "train", "valid" or "test".
        file: of the model, which says how its text was cut.

    Raises:
        SettingError: where there is no such part, or the file says nothing.
        ModelFileError: where the file says it wrongly.
    """
    if part == "all":
        return text
    config, number = _read_config(part, file), ROLES.index(part)
    vocabulary = file.vocabulary
    if config.by_hash:
        return split_records(text, config.valid_fraction, config.test_fraction, config.split_seed)[number]
    if vocabulary.byte_mode or vocabulary.records:
        ids = vocabulary.encode(text, vocabulary.default_unknown)
        return vocabulary.decode(split(ids, config, vocabulary.byte_mode, vocabulary.end_id)[number])
    return str(split(text, config, False)[number])


def records_of_part(records: Iterator[PlacedRecord], part: str, file: ModelFile) -> Iterator[PlacedRecord]:
    """Choose the records that have this part in training; it is decided by a hash of their text.

    Args:
        records: in any number.
        part: "all", "train", "valid" or "test".
        file: of the model, which says how its text was cut.

    Raises:
        SettingError: where there is no such part, or parts are not records here and there, or the file says nothing.
        ModelFileError: where the file says it wrongly.
    """
    if part == "all":
        return records
    config, number = _read_config(part, file), ROLES.index(part)
    if not config.by_hash:
        raise SettingError("part is for records that were split by a hash of their text, not in their order", "part")
    return _choose_records(records, config, number)


def _choose_records(records: Iterator[PlacedRecord], config: CorpusConfig, number: int) -> Iterator[PlacedRecord]:
    shares = config.valid_fraction, config.test_fraction
    while some := list(islice(records, TOGETHER)):
        marked = "".join(END_MARK + record.text for record in some)
        parts = choose_parts(marked, *shares, config.split_seed)
        yield from (record for record, part in zip(some, parts, strict=True) if part == number)


def _read_config(part: str, file: ModelFile) -> CorpusConfig:
    """How the text of a model was cut into parts, this one among them."""
    config = split_config(file)
    if config is None:
        raise SettingError('this model does not say how its text was cut: score a text of its own with `part="all"`')
    if part != "train" and config.fractions[part] == 0:
        raise SettingError(f'no {part} part was cut from the text of this model: score a text with `part="all"`')
    return config


def split_config(file: ModelFile) -> CorpusConfig | None:
    """Read how the text of a model was cut.

    Args:
        file: of the model.

    Returns:
        The settings; None where the file does not say them.

    Raises:
        ModelFileError: where the file says them wrongly.
    """
    settings = file.training.get("settings", {})
    if not isinstance(settings, dict) or not {"valid_fraction", "test_fraction"} <= settings.keys():
        return None
    names = {field.name for field in fields(CorpusConfig)} & settings.keys()
    try:
        return CorpusConfig(**{name: settings[name] for name in names})
    except SettingError as error:
        raise ModelFileError(f"this model says wrongly how its text was cut: {error}") from error


def choose_tuning_text(full_text: str, text: str, part: str, file: ModelFile, given_tuning: str) -> str:
    """Choose the text for the rates of dynamic evaluation: the end of one that is not scored.

    Args:
        full_text: from which the scored text was cut.
        text: the scored one.
        part: which that is.
        file: of the model.
        given_tuning: the text that was given for it; empty where none was.

    Raises:
        SettingError: where there is no other text than the scored one.
    """
    if not given_tuning and part in ("all", "train"):
        raise SettingError(
            '`dynamic` chooses its rates on other text than it scores: score `part="valid"` or `part="test"` of the '
            "text that the model was trained on, or give `tune`"
        )
    if given_tuning and _texts_overlap(given_tuning, text):
        raise SettingError("`tune` is part of the text that is scored, or holds it: choose rates on other text", "tune")
    return (given_tuning or cut_part(full_text, "train", file))[-TAIL:]


def _texts_overlap(tuning: str, text: str) -> bool:
    """Tell whether one text holds the other, or the scored text a piece of the tuning text's tail."""
    tail = tuning[-TAIL:]
    pieces = (tail[start : start + PIECE] for start in range(0, len(tail) - PIECE + 1, PIECE))
    return text in tuning or tuning in text or any(piece in text for piece in pieces)
