"""Begin symbols among the ids: marked texts become ids and come back; a changed description is refused."""

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from chargen.data import code_points as code_points_module
from chargen.data.code_points import END_MARK, code_points, count_code_points, from_code_points, label_mark
from chargen.data.records import MARK
from chargen.data.vocabulary import MAX_LABELS, Vocabulary
from chargen.errors import DataError, ModelFileError, SettingError
from chargen.storage.stored_vocabulary import describe_vocabulary, read_vocabulary

LABELS = ("sea", "<end>", "é ü", "x" * 300)
MARKS = [END_MARK, *map(label_mark, range(len(LABELS)))]
letters = st.one_of(st.sampled_from("ab\n é漢😀\ufffd\0"), st.characters(codec="utf-8"))
marked = st.text(st.one_of(letters, st.sampled_from(MARKS)))
units = st.sampled_from(["character", "byte"])


def vocabulary_of(text: str, unit: str = "character", min_count: int = 1, labels: Any = LABELS) -> Vocabulary:
    return Vocabulary.from_counts(count_code_points(text), unit=unit, min_count=min_count, records=True, labels=labels)


@given(marked, units)
@example("\ud800\ud800\udfffé\ud801", "byte")
def test_a_marked_text_becomes_ids_and_comes_back(text: str, unit: str) -> None:
    vocabulary = vocabulary_of(text, unit)
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert len(ids) == sum(1 if mark or unit == "character" else len(char.encode()) for char in text
                           for mark in [MARK.match(char)])  # fmt: skip
    assert ids.dtype == np.min_scalar_type(len(vocabulary) - 1)
    assert vocabulary.count_characters(ids) == len(text)
    assert vocabulary.knows(text).all()


@given(marked, units)
def test_marks_are_the_last_ids_and_nothing_else_is(text: str, unit: str) -> None:
    vocabulary = vocabulary_of(text, unit)
    assert vocabulary.begin_symbols == 1 + len(LABELS)
    assert vocabulary.encode("".join(MARKS)).tolist() == [*range(vocabulary.end_id, len(vocabulary))]
    assert [vocabulary.begin_id(label) for label in (None, *LABELS)] == [*range(vocabulary.end_id, len(vocabulary))]
    assert [vocabulary.begin_mark(label) for label in (None, *LABELS)] == MARKS
    assert (vocabulary.encode(MARK.sub("", text)) < vocabulary.end_id).all()


@given(marked, st.integers(2, 3))
def test_rare_characters_are_folded_but_no_mark_is(text: str, min_count: int) -> None:
    vocabulary = vocabulary_of(text, min_count=min_count)
    expected = [char if MARK.match(char) or text.count(char) >= min_count else "\ufffd" for char in text]
    assert vocabulary.decode(vocabulary.encode(text)) == "".join(expected)
    assert not MARK.search(vocabulary.characters + vocabulary.folded)


@given(st.text(letters), st.text(letters), units)
def test_an_unknown_character_or_mark_is_skipped_and_the_others_stay(known: str, other: str, unit: str) -> None:
    vocabulary = vocabulary_of(known, unit, labels=LABELS[:1])
    text = END_MARK + other + label_mark(0) + label_mark(1) + other
    unknown = set() if unit == "byte" else set(other) - set(known)
    kept = "".join(char for char in text if char not in unknown and char != label_mark(1))
    assert vocabulary.decode(vocabulary.encode(text, "skip")) == kept
    assert vocabulary.unseen(text) == "".join(sorted(unknown | {label_mark(1)}))
    with pytest.raises(DataError):
        vocabulary.encode(text)


@given(marked)
@example("\0")
@example("\udfff\0\0")
def test_code_points_are_those_of_python_whatever_the_length(text: str) -> None:
    for limit in (1, 1 << 28):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(code_points_module, "LONG_TEXT", limit)
            assert code_points(text).tolist() == [*map(ord, text)]
            assert from_code_points(code_points(text)) == from_code_points(code_points(text).astype(np.int64)) == text


def test_among_bytes_the_end_symbol_is_the_one_that_no_text_has() -> None:
    assert len(Vocabulary(unit="byte", records=True)) == 256
    assert len(Vocabulary(unit="byte", records=True, labels=["a", "b"])) == 258
    vocabulary = Vocabulary(unit="byte", records=True)
    assert vocabulary.end_id == 0xFF
    assert vocabulary.encode("\udfffab\udfff").tolist() == [255, 97, 98, 255]
    assert vocabulary.encode("\udfff").dtype == np.uint8


@pytest.mark.parametrize("number", [0, 127, 128, 191, 192, MAX_LABELS - 1])
def test_each_label_counts_as_a_character_among_bytes_too(number: int) -> None:
    vocabulary = Vocabulary(unit="byte", records=True, labels=[f"l{n}" for n in range(number + 1)])
    assert vocabulary.count_characters(vocabulary.encode(label_mark(number) + "é")) == 2


def test_what_is_no_vocabulary_of_records_is_refused() -> None:
    raw = Vocabulary.from_counts(count_code_points(""), unit="byte", raw=True).characters
    for wrong in (
        {"characters": raw, "unit": "byte"}, {"records": False, "labels": ["a"]}, {"labels": ["a", "a"]},
        {"labels": [""]}, {"labels": ["\udc80"]}, {"labels": [5]}, {"labels": map(str, range(MAX_LABELS + 1))},
        {"characters": "a\udfff"},
    ):  # fmt: skip
        labels = list(wrong.pop("labels", ()))
        with pytest.raises(ValueError, match=r"label|raw bytes|surrogate"):
            Vocabulary(**{"records": True, "labels": labels, **wrong})


def test_a_label_that_there_is_none_of_names_near_ones() -> None:
    vocabulary = Vocabulary("ab", records=True, labels=["dickens", "austen"])
    with pytest.raises(SettingError, match=r"label is 'dikens': .* did you mean dickens\?"):
        vocabulary.begin_id("dikens")
    with pytest.raises(SettingError, match="it has dickens, austen"):
        vocabulary.begin_id("zzz")
    with pytest.raises(SettingError, match="no records"):
        Vocabulary("ab").begin_id()
    assert vocabulary.begin_mark("zzz") == END_MARK


@given(st.text(letters), units, st.integers(1, 2), st.sampled_from([(), LABELS]))
def test_a_description_gives_the_vocabulary_back(text: str, unit: str, min_count: int, labels: Any) -> None:
    vocabulary = vocabulary_of(text, unit, 1 if unit == "byte" else min_count, labels)
    assert read_vocabulary(describe_vocabulary(vocabulary)) == vocabulary
    assert Vocabulary(**vocabulary.arguments()) == vocabulary
    assert read_vocabulary(describe_vocabulary(Vocabulary(vocabulary.characters, unit=unit))).records is False


@given(st.text(letters), units, st.integers(1, 2))
def test_tokenizers_reads_the_same_ids(text: str, unit: str, min_count: int) -> None:
    vocabulary = vocabulary_of(text, unit, 1 if unit == "byte" else min_count)
    tokenizer = Tokenizer.from_str(vocabulary.tokenizer().to_str())
    assert tokenizer.get_vocab_size() == len(vocabulary)
    assert tokenizer.encode(text).ids == vocabulary.encode(text).tolist()
    names = [tokenizer.id_to_token(id_) for id_ in range(len(vocabulary))]
    assert names == vocabulary.names()
    assert names[len(vocabulary) - len(LABELS) :] == [f"<begin {label}>" for label in LABELS]
    if unit == "byte":
        assert tokenizer.decode(vocabulary.encode(text).tolist()) == text
    else:
        assert names[vocabulary.end_id] == "<end>"


odd = st.sampled_from([None, True, -1, 0, 1.5, "", "<end>", "\ud800", [], [[]], ["a"], ["a", "a"], [1], {}, {"a": 0}])


@given(st.data())
def test_a_description_that_was_tampered_with_is_refused_or_still_one(data: st.DataObject) -> None:
    unit = data.draw(units)
    described = copy.deepcopy(describe_vocabulary(vocabulary_of("abc", unit, labels=("x", "y"))))
    model = described["tokenizer"]["model"]
    place, key = data.draw(st.sampled_from([
        (described, "labels"), (described, "unit"), (described, "folded"), (described, "tokenizer"), (model, "vocab"),
        (model, "merges"), (model, "type"), (model["vocab"], "<begin x>"), (model["vocab"], "<begin y>"),
        (model["vocab"], "a"), (model["vocab"], "new"),
    ]))  # fmt: skip
    if data.draw(st.booleans()):
        place.pop(key, None)
    else:
        place[key] = data.draw(odd)
    try:
        vocabulary = read_vocabulary(described, raw=data.draw(st.booleans()))
    except ModelFileError:
        return
    assert vocabulary.names() == sorted(model["vocab"], key=model["vocab"].get)


def test_labels_that_are_not_those_of_the_ids_are_refused() -> None:
    described = describe_vocabulary(Vocabulary("ab", records=True, labels=["x", "y"]))
    for labels in (["y", "x"], ["x"], ["x", "y", "z"], [], ["b", "<end>", "x", "y"]):
        with pytest.raises(ModelFileError, match="not one that chargen wrote"):
            read_vocabulary({**described, "labels": labels})
    del described["labels"]
    with pytest.raises(ModelFileError):
        read_vocabulary(described)


def test_what_a_model_to_start_from_knows_stays_in_its_order() -> None:
    known = Vocabulary("bz", folded="q", records=True, labels=["x", "y"])
    counts = count_code_points(f"{END_MARK}abq")
    vocabulary = Vocabulary.from_counts(counts, records=True, labels=["x", "y", "w"], known=known)
    assert (vocabulary.characters, vocabulary.labels) == ("abqz", ("x", "y", "w"))
    vocabulary = Vocabulary.from_counts(counts, records=True, labels=["w", "y"], known=known)
    assert vocabulary.labels == ("x", "y", "w")
    assert Vocabulary.from_counts(count_code_points("ab"), known=known).records is False
