"""The `tokenizers` file of an export gives the ids that chargen gives."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

import chargen
from chargen.data.reading import clean
from chargen.data.reading_config import ReadingConfig
from chargen.data.vocabulary import RAW_BYTES, Vocabulary
from chargen.exporting.tokenizer_file import tokenizer_json
from chargen.model.config import ModelConfig
from chargen.storage.model_file import ModelFile
from tests.exporting.models import KINDS, exported_model

KNOWN = "".join(sorted(set("abcefikmnopqruABE<>/ \n\r\tàéÅß月日 أ🙂.-\u0301\u030a\u200d\ufeff")))
TEXTS = st.text(st.one_of(st.sampled_from(KNOWN), st.characters(exclude_categories=("Cs", "Cn"))), max_size=40)


def vocabularies() -> dict[str, Vocabulary]:
    return {
        "characters": Vocabulary(KNOWN),
        "folded": Vocabulary(KNOWN, folded="xyzö"),
        "bytes": Vocabulary(unit="byte"),
        "raw": Vocabulary(RAW_BYTES, unit="byte"),
        "records": Vocabulary(KNOWN, records=True, labels=("sea", "<unk>", "a")),
        "records of bytes": Vocabulary(unit="byte", records=True, labels=("sea",)),
        "folded records": Vocabulary(KNOWN, folded="xyzö", records=True),
    }


def model_of(vocabulary: Vocabulary, **reading: str) -> ModelFile:
    """What a tokenizer is made from: there are no weights."""
    counts = np.ones(len(vocabulary), np.int64)
    return ModelFile(ModelConfig(), vocabulary, {}, counts, ReadingConfig(**reading))


READINGS: list[dict[str, str]] = [{}, {"newline": "lf"}, {"normalize": "NFC"}, {"newline": "lf", "normalize": "NFC"}]


@pytest.mark.parametrize("name", vocabularies())
@given(text=TEXTS, reading=st.sampled_from(READINGS))
@example("<unk> <end> <begin sea> a\r\nb\rc\n\n \t e\u0301A\u030a\u0301 \u200d\ufeff", {})
@example("<unk> <end> <begin sea> a\r\nb\rc\n\r\n \t e\u0301A\u030a\u0301 \u200d\ufeff", READINGS[3])
@example("", {})
def test_ids_are_those_of_chargen(name: str, text: str, reading: dict[str, str]) -> None:
    vocabulary = vocabularies()[name]
    if vocabulary.raw:
        reading = {"encoding": "raw"}
    file = model_of(vocabulary, **reading)
    expected = vocabulary.encode(clean(text, file.reading), vocabulary.default_unknown)
    tokenizer = Tokenizer.from_str(tokenizer_json(file))
    encoded = tokenizer.encode(text)
    assert encoded.ids == expected.tolist()
    assert tokenizer.get_vocab_size() == len(vocabulary)
    if vocabulary.unit == "byte":
        assert tokenizer.decode(encoded.ids) == clean(text, ReadingConfig(**(reading if not vocabulary.raw else {})))
    elif not vocabulary.folded:
        assert tokenizer.decode(encoded.ids) == vocabulary.decode(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_holds_it(kind: str, tmp_path: Path) -> None:
    file = exported_model("gru", kind)
    folder = chargen.export(file, tmp_path / "out")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in ("abc cab\n", "x\u0301 <unk>", "<end>"):
        expected = file.vocabulary.encode(text, file.vocabulary.default_unknown)
        assert tokenizer.encode(text).ids == expected.tolist()
    assert tokenizer.get_vocab() == {name: id_ for id_, name in enumerate(file.vocabulary.names())}
