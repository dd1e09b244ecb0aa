"""Records -> ids in three parts: the same from a file, from memory and the cache, split by a hash of the text."""

import io
import json
import os
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chargen.data import corpus as corpus_module
from chargen.data import records, text_files
from chargen.data.code_points import END_MARK, label_mark
from chargen.data.corpus import Corpus
from chargen.data.records import MARK, split_records
from chargen.data.vocabulary import Vocabulary
from chargen.errors import DataError, ModelFileError, SettingError
from tests.texts import names, parts

ROLES = ("train", "valid", "test")
lines = st.lists(st.tuples(st.text(st.characters(codec="utf-8"), min_size=1, max_size=5), st.sampled_from("xyz")))
fractions = st.tuples(st.integers(0, 99), st.integers(0, 99)).filter(lambda pair: sum(pair) < 100)


def jsonl(rows: Any) -> str:
    return "".join(json.dumps({"text": text, "l": label}) + "\n" for text, label in rows)


def cut(text: str) -> list[str]:
    """The records of a marked text."""
    return re.split(MARK, text)[1:]


def hash_parts(texts: list[str], valid: float, test: float, seed: int = 0) -> list[list[str]]:
    return [cut(part) for part in split_records("".join(END_MARK + each for each in texts), valid, test, seed)]


@given(lines, fractions, st.sampled_from(["character", "byte"]), st.booleans(), st.sampled_from([1, 5, 1 << 20]))
@example([("e\u0301", "x"), ("é", "y")] * 9, (20, 20), "byte", True, 5)
def test_files_a_text_in_memory_and_the_cache_give_the_same(
    tmp_path: Path, rows: Any, shares: Any, unit: str, shuffle: bool, block: int
) -> None:
    options: dict[str, Any] = {
        "records": "jsonl", "label_field": "l", "normalize": "NFC", "unit": unit, "shuffle": shuffle,
        "valid_fraction": shares[0] / 100, "test_fraction": shares[1] / 100, "split_seed": 5 * shuffle,
    }  # fmt: skip
    (tmp_path / "x.jsonl").write_text(jsonl(rows))
    held = Corpus.from_text(jsonl(rows), **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "BLOCK_SIZE", block)
        patch.setattr(records, "BLOCK", block)
        read = Corpus.from_files(tmp_path / "x.jsonl", **options)
    for corpus in (read, Corpus.from_files(tmp_path / "x.jsonl", **options), read_again(read)):
        assert corpus.vocabulary == held.vocabulary
        assert corpus.key == read.key
        for role in ROLES:
            np.testing.assert_array_equal(getattr(corpus, role), getattr(held, role))
            assert corpus.count_records(role) == held.count_records(role) == len(cut(parts(held)[ROLES.index(role)]))
    assert held.vocabulary.labels == tuple(dict.fromkeys(label for _, label in rows))


@settings(max_examples=40)
@given(
    st.text("ab\n\r\u00e9\u6f22\x85 ", max_size=60), fractions, st.sampled_from(["character", "byte"]), st.booleans(),
    st.sampled_from([1, 5, 1 << 20]),
)  # fmt: skip
@example("\nab\r\n\r\n\u00e9b\nab", (20, 20), "character", True, 5)
def test_lines_of_a_file_are_the_records_of_a_text_in_memory(
    tmp_path: Path, text: str, shares: Any, unit: str, shuffle: bool, block: int
) -> None:
    """Whatever stands for the end symbol while they are prepared."""
    text = f"a\u00e9\n{text}\nb"
    options: dict[str, Any] = {
        "records": "line", "unit": unit, "shuffle": shuffle, "split_seed": 5 * shuffle,
        "valid_fraction": shares[0] / 100, "test_fraction": shares[1] / 100,
    }  # fmt: skip
    (tmp_path / "x.txt").write_text(text, "utf-8", newline="")
    held = Corpus.from_text(text, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "BLOCK_SIZE", block)
        read = Corpus.from_files(tmp_path / "x.txt", **options)
    assert read.vocabulary == held.vocabulary
    for role in ROLES:
        np.testing.assert_array_equal(getattr(read, role), getattr(held, role))
        np.testing.assert_array_equal(read.counts_by_role[role], held.counts_by_role[role])
    np.testing.assert_array_equal(read.counts, held.counts)
    lines_read = [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line]
    assert sum(read.count_records(role) for role in ROLES) == len(lines_read)


def read_again(corpus: Corpus) -> Corpus:
    return Corpus.from_description(json.loads(json.dumps(corpus.describe())))


@pytest.mark.parametrize("unit", ["character", "byte"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ids_of_parts_are_counted_without_being_read(tmp_path: Path, unit: str, shuffle: bool) -> None:
    rows = [(name, "xyz"[number % 3]) for number, name in enumerate([*names(3, 60), "漢字é"])]
    (tmp_path / "x.jsonl").write_text(jsonl(rows), "utf-8")
    options: dict[str, Any] = {"records": "jsonl", "label_field": "l", "unit": unit, "shuffle": shuffle}
    for corpus in (Corpus.from_files(tmp_path / "x.jsonl", **options), Corpus.from_text(jsonl(rows), **options)):
        assert corpus.counts.tolist() == np.bincount(corpus.train, minlength=len(corpus.vocabulary)).tolist()
        assert corpus.count_records("train") + corpus.count_records("valid") == 61


def test_a_file_the_cache_and_a_lost_file_give_the_same_labels(tmp_path: Path, own_cache: Path) -> None:
    (tmp_path / "x.jsonl").write_text(jsonl([("a", "y"), ("b", "x"), ("c", "y")]))
    known = Vocabulary("z", records=True, labels=["w", "x"])
    options = {"records": "jsonl", "label_field": "l", "known": known}
    corpus = Corpus.from_files(tmp_path / "x.jsonl", **options)
    assert corpus.vocabulary.labels == ("w", "x", "y")
    assert sorted(os.listdir(own_cache / corpus.key)) == ["corpus.json", "ids", "verified.json"]
    (tmp_path / "x.jsonl").unlink()
    assert (parts(read_again(corpus)), read_again(corpus).vocabulary) == (parts(corpus), corpus.vocabulary)
    shutil.rmtree(own_cache / corpus.key)
    with pytest.raises(DataError, match=r"x\.jsonl"):
        read_again(corpus)


# The key of the cache.

BASE: dict[str, Any] = {"records": "jsonl", "label_field": "l", "text_field": "text", "valid_fraction": 0.3}
CHANGES: list[dict[str, Any]] = [
    {"records": "line"}, {"label_field": "m"}, {"label_field": None}, {"label_field": None, "label_from": "file"},
    {"text_field": "m"}, {"valid_fraction": 0.2}, {"test_fraction": 0.1}, {"split_seed": 1}, {"shuffle": False},
    {"unit": "byte"}, {"min_count": 2}, {"normalize": "NFC"}, {"newline": "lf"}, {"encoding": "latin-1"},
]  # fmt: skip


def test_the_key_changes_with_what_shapes_the_ids_and_with_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "l": "x", "m": "y"}\n{"text": "b", "l": "y", "m": "x"}\n' * 3)

    def key(**options: Any) -> str:
        return Corpus.from_files(options.pop("sources", path), **{**BASE, **options}).key

    keys = [key(), *(key(**change) for change in CHANGES)]
    assert len(set(keys)) == len(keys)
    assert key(test_fraction=0.0) == key(cache=tmp_path / "elsewhere") == keys[0]
    for known in (Vocabulary("q"), Vocabulary("q", records=True), Vocabulary("q", records=True, labels=["y"]),
                  Vocabulary("q", records=True, labels=["y", "z"])):  # fmt: skip
        keys += [key(known=known)]
    assert len(set(keys)) == len(keys)
    # What is read from files of their own takes no share, and running text is cut when it is read from the cache.
    assert key(valid=path) == key(valid=path, valid_fraction=0.5)
    assert key(valid=path, test=path) == key(valid=path, test=path, split_seed=9)
    assert key(shuffle=False) == key(shuffle=False, valid_fraction=0.5)


def test_the_key_changes_with_names_only_where_they_say_something(tmp_path: Path) -> None:
    for name in ("a/x.txt", "b/x.txt", "a/y.txt", "a/x.csv", "a/x.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text\nb\n")

    def key(name: str, **options: Any) -> str:
        return Corpus.from_files(tmp_path / name, **{"records": "line", **options}).key

    assert key("a/x.txt") == key("b/x.txt") == key("a/x.csv")
    for label_from, others in (("folder", ["b/x.txt"]), ("file", ["a/y.txt"])):
        assert len({key(name, label_from=label_from) for name in ("a/x.txt", *others)}) == 2
    for name in ("a/x.csv", "a/x.tsv"):
        labels = [Corpus.from_files(tmp_path / name, records="csv", label_from="file").vocabulary.labels]
        assert labels == [("x",)]
    assert key("a/x.csv", records="csv") != key("a/x.tsv", records="csv")
    both = [Corpus.from_files(tmp_path / name, records="line", label_from="folder") for name in ("a/x.txt", "b/x.txt")]
    assert [corpus.vocabulary.labels for corpus in both] == [("a",), ("b",)]


def test_labels_of_texts_in_memory_make_other_keys() -> None:
    keys = {Corpus.from_text(jsonl([("a", label)]), records="jsonl", label_field="l").key for label in "xyx"}
    assert len(keys) == 2


# Parts.


@given(lines, fractions, st.integers(0, 2**64 - 1))
def test_equal_records_are_on_one_side_and_none_is_lost(rows: Any, shares: Any, seed: int) -> None:
    texts = [text for text, _ in rows]
    split = hash_parts(texts, shares[0] / 100, shares[1] / 100, seed)
    assert Counter(each for part in split for each in part) == Counter(texts)
    assert sum(len(set(part)) for part in split) == len(set(texts))
    for part in split:
        assert part == [each for each in texts if each in set(part)]


@given(lines, lines, fractions, st.integers(0, 9), st.integers(1, 40))
def test_records_that_come_later_move_nobody_and_neither_do_blocks(
    rows: Any, more: Any, shares: Any, seed: int, block: int
) -> None:
    valid, test = shares[0] / 100, shares[1] / 100
    before = hash_parts([text for text, _ in rows], valid, test, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "BLOCK", block)
        after = hash_parts([text for text, _ in rows + more], valid, test, seed)
    assert [part[: len(old)] for part, old in zip(after, before, strict=True)] == before


@given(fractions, fractions)
def test_a_larger_share_only_adds(shares: Any, larger: Any) -> None:
    texts = names(3, 300)
    before, after = (hash_parts(texts, pair[0] / 100, pair[1] / 100) for pair in (shares, larger))
    for number in (0, 1):
        small, large = sorted((before, after), key=lambda split: (shares if split is before else larger)[number])
        assert set(small[number + 1]) <= set(large[number + 1])


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_parts_are_as_large_as_asked_for(seed: int) -> None:
    texts = [str(number) for number in range(20_000)]
    sizes = [len(part) for part in hash_parts(texts, 0.1, 0.05, seed)]
    for size, share in zip(sizes, (0.85, 0.1, 0.05), strict=True):
        assert abs(size - share * 20_000) < 4 * (20_000 * share * (1 - share)) ** 0.5
    assert hash_parts(texts, 0, 0) == [texts, [], []]
    assert len(hash_parts(texts, 0.9999999, 0)[0]) < 20


def test_another_seed_makes_other_parts() -> None:
    texts = names(3, 1000)
    held_out = [set(hash_parts(texts, 0.2, 0, seed)[1]) for seed in range(4)]
    for first in range(4):
        for second in range(first):
            assert 10 < len(held_out[first] & held_out[second]) < 80


def test_a_record_is_hashed_by_all_its_characters_and_their_places() -> None:
    texts = ["", "\0", "\0\0", "a", "aa", "ab", "ba", "a\0", "\0a", "abc", "acb", "😀", "é", "e\u0301"]
    marked = "".join(END_MARK + each for each in texts)
    starts, hashes = records.hash_records(marked)
    assert len(set(hashes.tolist())) == len(texts)
    assert starts.tolist() == [place for place, char in enumerate(marked) if char == END_MARK]
    _, again = records.hash_records("".join(label_mark(3) + each for each in reversed(texts)))
    assert again.tolist() == hashes.tolist()[::-1]


@given(lines, fractions, st.sampled_from(["character", "byte"]))
def test_without_shuffling_parts_are_cut_in_order_at_borders(rows: Any, shares: Any, unit: str) -> None:
    corpus = Corpus.from_text(
        jsonl(rows), records="jsonl", label_field="l", shuffle=False, unit=unit,
        valid_fraction=shares[0] / 100, test_fraction=shares[1] / 100,
    )  # fmt: skip
    split = [cut(part) for part in parts(corpus)]
    assert split[0] + split[1] + split[2] == [text for text, _ in rows]
    assert all(not len(part) or part[0] >= corpus.vocabulary.end_id for part in map(corpus.__getattribute__, ROLES))
    total = sum(len(getattr(corpus, role)) for role in ROLES)
    longest = max((1 + len(text.encode()) for text, _ in rows), default=0)
    exact = total * (100 - sum(shares)) // 100
    assert exact - longest <= len(corpus.train) <= exact


def test_a_border_in_a_long_record_moves_to_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "CHUNK", 7)
    for length in range(1, 40):
        corpus = Corpus.from_text("ab\n" + "c" * length, records="line", shuffle=False, valid_fraction=0.1)
        assert [cut(part) for part in parts(corpus)[:2]] == [["ab"], ["c" * length]]


def test_files_of_their_own_take_no_share(tmp_path: Path) -> None:
    texts = names(3, 300)
    for name, part in (("t", texts[:200]), ("v", texts[200:260]), ("e", texts[260:])):
        (tmp_path / name).write_text("\n".join(part))
    train, valid, test = (tmp_path / name for name in "tve")
    for options in ({}, {"shuffle": False}, {"unit": "byte"}):
        corpus = Corpus.from_files(train, valid=valid, test=test, records="line", **options)
        assert [cut(part) for part in parts(corpus)] == [texts[:200], texts[200:260], texts[260:]]
        both = Corpus.from_files(train, valid=valid, test_fraction=0.1, records="line", **options)
        split = [cut(part) for part in parts(both)]
        assert split[1] == texts[200:260]
        assert sorted(split[0] + split[2]) == sorted(texts[:200])
        assert 5 < len(split[2]) < 50
        assert parts(read_again(both)) == parts(both)


# Settings that did nothing, and what a corpus says of itself.


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("a\nb\n", {"records": "lines"}, "'lines': that stands nowhere between two records; did you mean line"),
        ("a\nb\n", {"records": "%"}, "that stands nowhere between two records; kinds of records are line, blank-line"),
        ("a\nb\n", {"records": "line", "text_field": "t"}, "`text_field` is t, but no text is a table"),
        ("a\nb\n", {"records": "line", "label_field": "t"}, "`label_field` is t, but no text is a table"),
        ("text,l\na,\n", {"records": "csv", "label_field": "l"}, "`label_field` is l, but no record has a label"),
    ],
)  # fmt: skip
def test_a_setting_that_did_nothing_is_named(tmp_path: Path, text: str, options: Any, words: str) -> None:
    (tmp_path / "x").write_text(text)
    for make in (lambda: Corpus.from_text(text, **options), lambda: Corpus.from_files(tmp_path / "x", **options)):
        with pytest.raises(DataError, match=words):
            make()


def test_standard_input_has_no_name_to_label_it_by(monkeypatch: pytest.MonkeyPatch) -> None:
    for label_from in ("folder", "file"):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a\nb\n")))
        with pytest.raises(DataError, match=f"`label_from` is {label_from}, but no record has a label"):
            Corpus.from_files("-", records="line", label_from=label_from)
    with pytest.raises(DataError, match="no record has a label"):
        Corpus.from_text("a\nb", records="line", label_from="file")


def test_a_folder_whose_name_is_no_text_is_no_label(tmp_path: Path) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"\xff")
    os.mkdir(folder)
    Path(os.fsdecode(folder), "x").write_text("a")
    with pytest.raises(DataError, match="lone surrogate"):
        Corpus.from_files(os.fsdecode(folder), records="line", label_from="folder")


def test_a_corpus_of_records_shows_itself_in_one_line() -> None:
    corpus = Corpus.from_text("a\nbb\n" * 500, records="line", test_fraction=0.1, shuffle=False)
    assert repr(corpus) == "Corpus(1,000 records of 2,500 characters: train 800, valid 100, test 100)"
    assert corpus.occurring == 2
    assert Corpus.from_text("", records="line").count_records("train") == 0


def test_records_in_order_are_seen_to_be_sorted() -> None:
    for unit in ("character", "byte"):
        options = {"records": "line", "unit": unit}
        assert Corpus.from_text("\n".join(names(0)), shuffle=False, **options).sorted_lines
        assert not Corpus.from_text("\n".join(names(0)), **options).sorted_lines
    labelled = jsonl((name, name[0]) for name in names(0))
    assert Corpus.from_text(labelled, records="jsonl", label_field="l", shuffle=False).sorted_lines


def test_a_description_that_was_tampered_with_is_refused() -> None:
    described = Corpus.from_text("a\nb", records="line", known=Vocabulary("c", records=True, labels=["x"])).describe()
    for known in ({"labels": ["x"]}, {"records": True, "labels": ["x", "x"]}, {"records": True, "labels": 5}, [], None):
        with pytest.raises(ModelFileError, match="does not remember its text"):
            Corpus.from_description({**described, "known": known})
    for config in ({"records": ""}, {"records": 5}, {"label_field": "x"}, {"records": "line", "split_seed": -1}):
        with pytest.raises(ModelFileError, match="does not remember its text"):
            Corpus.from_description({**described, "config": config})


@pytest.mark.parametrize(
    "options",
    [{"shuffle": False}, {"split_seed": 1}, {"records": "line", "shuffle": False, "split_seed": 1}],
)  # fmt: skip
def test_settings_of_a_split_by_hash_need_one(options: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="is for records that are split by a hash: leave it out"):
        Corpus.from_text("a\nb", **options)
