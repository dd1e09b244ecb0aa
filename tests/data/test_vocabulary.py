"""Characters <-> ids: the promises of `Vocabulary`."""

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chargen.data.code_points import CODE_POINTS, count_code_points
from chargen.data.vocabulary import RAW_BYTES, UNKNOWN, Vocabulary
from chargen.errors import ArgumentError, DataError, ModelFileError, SettingError
from chargen.storage.stored_vocabulary import describe_vocabulary, read_vocabulary

texts = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from("ab<unk>\n\r\t \0é漢😀\u0301\ufeff\ufffd\u2028\U0010ffff"))
)


def vocabulary_of(text: str, **options: Any) -> Vocabulary:
    return Vocabulary.from_counts(count_code_points(text), **options)


@given(texts)
def test_decode_gives_back_what_encode_took(text: str):
    vocabulary = vocabulary_of(text)
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert len(ids) == len(text)


@given(texts)
def test_ids_are_sorted_by_code_point(text: str):
    known = sorted(set(text))
    assert vocabulary_of(text).encode("".join(known)).tolist() == list(range(len(known)))


@given(texts)
def test_bytes_know_every_text(text: str):
    vocabulary = Vocabulary(unit="byte")
    ids = vocabulary.encode(text)
    assert ids.tobytes() == text.encode()
    assert vocabulary.decode(ids) == text
    assert vocabulary.count_characters(ids) == len(text)


@pytest.mark.parametrize("every", [31, pytest.param(1, marks=pytest.mark.slow)])
def test_each_code_point_has_its_own_id(every: int):
    text = "".join(map(chr, [*range(0, 0xD800, every), *range(0xE000, CODE_POINTS, every)]))
    vocabulary = vocabulary_of(text)
    np.testing.assert_array_equal(vocabulary.encode(text), np.arange(len(text)))
    assert vocabulary.decode(vocabulary.encode(text)) == text


@given(texts, st.sampled_from(["character", "byte"]))
@example("<unk>\n\n<unk> <|endoftext|>", "character")
@example("a\r\n\u2028b\u0085\n", "character")
def test_the_tokenizer_gives_the_same_ids(text: str, unit: str):
    vocabulary = vocabulary_of(text, unit=unit)
    tokenizer = vocabulary.tokenizer()
    ids = vocabulary.encode(text).tolist()
    assert tokenizer.encode(text).ids == ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@given(texts, texts)
@example("<unk>", "aa<unk>bb\n")
@example("xyz", "x\ny x\n\nz")
def test_the_tokenizer_gives_the_same_ids_where_characters_are_folded(rare: str, text: str):
    folded = "".join(sorted(set(rare)))
    vocabulary = Vocabulary("".join(sorted(set(text) - set(folded))), folded=folded)
    mixed = text + rare
    assert vocabulary.tokenizer().encode(mixed).ids == vocabulary.encode(mixed).tolist()


@given(texts, st.integers(1, 4))
def test_rarer_than_min_count_shares_the_last_id_and_nothing_else_does(text: str, min_count: int):
    vocabulary = vocabulary_of(text, min_count=min_count)
    rare = {character for character in text if text.count(character) < min_count}
    assert set(vocabulary.folded) == rare
    assert vocabulary.unknown_id == (len(set(text)) - len(rare) if rare else None)
    ids = vocabulary.encode(text)
    assert [number == vocabulary.unknown_id for number in ids.tolist()] == [character in rare for character in text]
    assert vocabulary.decode(ids) == "".join("\ufffd" if character in rare else character for character in text)


@pytest.mark.parametrize(
    ("size", "dtype"),
    [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")],
)
def test_ids_take_the_smallest_type_that_holds_them(size: int, dtype: str):
    characters = "".join(map(chr, range(0xE000, 0xE000 + size)))
    folded = Vocabulary(characters[:-1], folded=characters[-1])
    for vocabulary in (Vocabulary(characters), folded):
        ids = vocabulary.encode(characters)
        assert (str(vocabulary.dtype), str(ids.dtype)) == (dtype, dtype)
        assert ids.tolist() == list(range(size))


def test_an_unknown_character_is_named_with_its_code_point_and_place():
    with pytest.raises(DataError, match=r"'é' \(U\+00E9\), '漢' \(U\+6F22\), first at .* 2; .*`unknown=\"skip\"`"):
        Vocabulary("ab").encode("ab漢aé漢")


def test_many_unknown_characters_are_named_in_one_line():
    with pytest.raises(DataError, match=r"and 21 more, first at position 0") as caught:
        Vocabulary("\n").encode("abcdefghijklmnopqrstuvwxyz\n")
    assert "'e'" in str(caught.value)
    assert "'f'" not in str(caught.value)


@given(texts, texts)
def test_skip_leaves_out_exactly_the_unknown(known: str, text: str):
    vocabulary = vocabulary_of(known)
    kept = "".join(character for character in text if character in known)
    assert vocabulary.decode(vocabulary.encode(text, unknown="skip")) == kept


@given(texts)
def test_replace_writes_the_unknown_symbol(text: str):
    vocabulary = Vocabulary("abc", folded="é")
    expected = ["abc".find(character) if character in "abc" else 3 for character in text]
    assert vocabulary.encode(text, unknown="replace").tolist() == expected


def test_replace_without_an_unknown_symbol_says_what_to_do():
    with pytest.raises(DataError, match=r"no unknown symbol.*`unknown=\"skip\"`"):
        Vocabulary("ab").encode("abc", unknown="replace")


@pytest.mark.parametrize("vocabulary", [Vocabulary("ab"), Vocabulary("a", folded="b"), Vocabulary(unit="byte")])
@pytest.mark.parametrize("unknown", ["bogus", "", "Skip", "ignore", None])
@pytest.mark.parametrize("text", ["", "ab", "abc"])
def test_what_to_do_with_the_unknown_is_one_of_three(vocabulary: Vocabulary, unknown: Any, text: str):
    with pytest.raises(SettingError, match=r"error, skip or replace"):
        vocabulary.encode(text, unknown=unknown)


@given(texts)
def test_every_code_point_is_counted(text: str):
    counts = count_code_points(text)
    assert len(counts) > max(map(ord, text), default=-1)
    assert counts.sum() == len(text)
    assert all(counts[ord(character)] == text.count(character) for character in text)


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_a_lone_surrogate_is_an_error_that_is_printable(unit: str):
    with pytest.raises(DataError, match="position 1") as caught:
        Vocabulary("a" if unit == "character" else "", unit=unit).encode("a\ud800")
    assert str(caught.value).encode()


def test_a_byte_vocabulary_skips_a_lone_surrogate():
    assert Vocabulary(unit="byte").encode("a\ud800b", unknown="skip").tobytes() == b"ab"


def test_broken_bytes_are_marked():
    assert Vocabulary(unit="byte").decode(np.array([0x61, 0xE2, 0x82], np.uint8)) == "a\ufffd"


@pytest.mark.parametrize(
    "arguments",
    [
        {"characters": "ba"}, {"characters": "aa"}, {"characters": "a", "folded": "a"},
        {"characters": "a", "folded": "cb"}, {"unit": "word"}, {"characters": "a", "unit": "byte"},
        {"folded": "a", "unit": "byte"},
    ],
)  # fmt: skip
def test_an_impossible_vocabulary_is_refused(arguments: dict[str, str]):
    with pytest.raises(ValueError, match=r"vocabulary|folded"):
        Vocabulary(**arguments)


@given(texts, st.integers(1, 3), st.sampled_from(["character", "byte"]))
def test_a_description_survives_json(text: str, min_count: int, unit: str):
    vocabulary = vocabulary_of(text, unit=unit, min_count=min_count)
    read = read_vocabulary(json.loads(json.dumps(describe_vocabulary(vocabulary))))
    assert read == vocabulary
    assert (read.characters, read.folded, read.unit) == (vocabulary.characters, vocabulary.folded, vocabulary.unit)
    assert len(read) == len(vocabulary)


@pytest.mark.parametrize(
    "other", [Vocabulary("abc"), Vocabulary("ab", folded="c"), Vocabulary("ab", folded="d"), Vocabulary(unit="byte")]
)
def test_different_vocabularies_are_not_equal(other: Vocabulary):
    assert other != Vocabulary("ab")
    assert other == Vocabulary(other.characters, folded=other.folded, unit=other.unit)


def description(vocab: Any, folded: Any = "", unit: Any = "character", **model: Any) -> dict[str, Any]:
    model = {"type": "BPE", "vocab": vocab, "merges": [], **model}
    return {"unit": unit, "folded": folded, "tokenizer": {"model": model}}


@pytest.mark.parametrize(
    "described",
    [
        None, [], "text", 7, {}, {"unit": "character", "folded": "", "tokenizer": []},
        description({"a": 0, "b": 2}), description({"a": 1}), description({"b": 0, "a": 1}), description({"ab": 0}),
        description({"a": 0, "": 1}), description({"a": "0"}), description({"a": None, "b": 0}), description("abc"),
        description([[0]]), description({"a": 0}, "b"), description({"<unk>": 0, "a": 1}, "b"),
        description({"a": 0, UNKNOWN: 1}, "a"), description({"a": 0, UNKNOWN: 1}, "cb"), description({UNKNOWN: 0}),
        description({"a": 0}, 1), description({"a": 0}, None), description({"a": 0}, unit="word"),
        description({"a": 0}, unit=[]), description({"a": 0}, unit="byte"), description({"a": 10**400}),
        description({"a": float("nan")}), description({"a": 0}, merges=["a b"]),
        description({"a": 0}, type="WordLevel"),
    ],
)  # fmt: skip
def test_what_is_no_vocabulary_is_refused(described: Any):
    with pytest.raises(ModelFileError, match="stored vocabulary"):
        read_vocabulary(described)


@pytest.mark.parametrize(
    "described",
    [
        description([1]), description({"a": 0, UNKNOWN: 1}, ["b"]), description({"a": 0, UNKNOWN: 1}, ["bc"]),
        description({"a": 0}, []), description({"a": 0}, {}), description({"\ud800": 0}),
        description({"a": 0, UNKNOWN: 1}, "\udfff"),
    ],
)  # fmt: skip
def test_what_only_looks_like_a_vocabulary_is_refused(described: Any):
    with pytest.raises(ModelFileError, match="stored vocabulary"):
        read_vocabulary(described)


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["byte", UNKNOWN, "a"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=3)),
    max_leaves=4,
)


@settings(max_examples=150)
@given(
    st.sampled_from([Vocabulary("ab"), Vocabulary("ab", folded="cd"), Vocabulary(unit="byte")]),
    st.sampled_from(["unit", "folded", "tokenizer", "model", "vocab", "merges", "type", "a"]),
    anything,
)
@example(Vocabulary("ab"), "vocab", [1])
@example(Vocabulary("ab"), "folded", {})
def test_a_hostile_description_is_refused_or_usable(vocabulary: Vocabulary, spoiled: str, value: Any):
    described = copy.deepcopy(describe_vocabulary(vocabulary))
    place = described
    for step in ("tokenizer", "model", "vocab"):
        if spoiled not in place:
            place = place[step]
    place[spoiled] = value
    try:
        read = read_vocabulary(described)
    except ModelFileError:
        return
    assert read_vocabulary(describe_vocabulary(read)) == read
    assert read.decode(read.encode(read.characters)) == read.characters


@given(st.binary(max_size=200))
def test_raw_bytes_are_characters(content: bytes):
    vocabulary = Vocabulary.from_counts(np.zeros(1, np.int64), unit="byte", raw=True)
    text = content.decode("ascii", "surrogateescape")
    ids = vocabulary.encode(text)
    assert ids.tobytes() == vocabulary.encode(content.decode("utf-8", "surrogateescape")).tobytes() == content
    assert vocabulary.decode(ids) == text
    assert vocabulary.count_characters(ids) == len(text) == len(content)
    assert [vocabulary.characters[id_] for id_ in ids] == list(text)


def test_raw_bytes_are_stored_as_bytes_and_are_others_than_those_of_utf_8():
    raw, utf8 = Vocabulary(RAW_BYTES, unit="byte"), Vocabulary(unit="byte")
    assert describe_vocabulary(raw) == describe_vocabulary(utf8)
    assert read_vocabulary(describe_vocabulary(raw), raw=True) == raw
    assert read_vocabulary(describe_vocabulary(raw)) == utf8 != raw
    assert (raw.raw, raw.byte_mode, len(raw), raw.dtype) == (True, False, 256, np.uint8)
    assert (utf8.raw, utf8.byte_mode) == (False, True)
    assert raw.tokenizer().encode("é").ids == raw.encode("é").tolist() == [0xC3, 0xA9]
    with pytest.raises(ModelFileError, match="raw bytes are no characters"):
        read_vocabulary(describe_vocabulary(Vocabulary("ab")), raw=True)
    for wrong in (RAW_BYTES[1:], "ab"):
        with pytest.raises(ValueError, match="no characters of its own"):
            Vocabulary(wrong, unit="byte")


def test_a_surrogate_that_is_no_byte_is_refused_or_skipped():
    raw = Vocabulary(RAW_BYTES, unit="byte")
    with pytest.raises(DataError, match="position 1, is no character"):
        raw.encode("a\ud800\udc80")
    assert raw.encode("a\ud800\udc80\udc7f", "skip").tolist() == [ord("a"), 0x80]


def test_a_vocabulary_says_what_it_knows_and_what_other_characters_cost() -> None:
    folding = Vocabulary("ab", folded="xy")
    nats = [0, folding.folded_nats, folding.unseen_nats, folding.unseen_nats, 0]
    assert folding.knows("axé\ud800b").tolist() == [True, True, False, False, True]
    assert folding.extra_nats("axé\ud800b").tolist() == nats
    for vocabulary in (Vocabulary("ab"), Vocabulary(unit="byte"), Vocabulary(RAW_BYTES, unit="byte"), Vocabulary()):
        text = "aé\udcff\U0010ffff"
        known = [character in vocabulary.characters for character in text]
        known = [True, True, False, True] if vocabulary.byte_mode else known
        assert vocabulary.knows(text).tolist() == known
        assert not vocabulary.extra_nats(text).any()
        assert vocabulary.knows("").tolist() == []


@pytest.mark.parametrize("counts", [None, "x", np.int64(3), [[1, 2]], [0.5]])
def test_counts_that_are_none_are_refused(counts: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^counts of "):
        Vocabulary.from_counts(counts)


def test_counts_are_not_changed() -> None:
    counts = count_code_points("a\ud800")
    assert "\ud800" not in Vocabulary.from_counts(counts, records=True).characters
    assert counts[0xD800] == 1


@given(texts, st.sampled_from(["character", "byte"]), st.integers(1, 3))
def test_ids_are_counted_by_code_points(text: str, unit: str, min_count: int) -> None:
    counts = count_code_points(text)
    vocabulary = Vocabulary.from_counts(counts, unit=unit, min_count=1 if unit == "byte" else min_count)
    totals = vocabulary.count_ids(counts)
    assert totals.tolist() == np.bincount(vocabulary.encode(text, "replace"), minlength=len(vocabulary)).tolist()
