"""Text -> ids: cut where promised, the same however it is read, read again from its description."""

import io
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chargen.data import text_files
from chargen.data.corpus import Corpus, split
from chargen.data.corpus_config import CorpusConfig
from chargen.data.reading import clean
from chargen.errors import DataError, SettingError
from tests.texts import parts

texts = st.text(st.one_of(st.sampled_from("aab\r\né\u0301漢😀\ufffd"), st.characters(codec="utf-8")))
fractions = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).filter(lambda pair: sum(pair) < 1000)


@given(st.integers(0, 10**6), fractions)
@example(10, (100, 200))
@example(100, (290, 0))
@example(1000, (1, 700))
def test_train_is_the_floor_of_the_exact_share(size: int, thousandths: tuple[int, int]):
    valid, test = thousandths
    ids = np.arange(size)
    cut = split(ids, CorpusConfig(valid_fraction=valid / 1000, test_fraction=test / 1000), False)
    assert len(cut[0]) == size * (1000 - valid - test) // 1000
    assert len(cut[0]) + len(cut[1]) == size * (1000 - test) // 1000
    np.testing.assert_array_equal(np.concatenate(cut), ids)


@given(texts, fractions, st.sampled_from(["character", "byte"]))
def test_the_parts_follow_one_another_and_give_the_text(text: str, thousandths: tuple[int, int], unit: str):
    valid, test = thousandths
    corpus = Corpus.from_text(text, unit=unit, valid_fraction=valid / 1000, test_fraction=test / 1000)
    assert "".join(parts(corpus)) == text
    if unit == "character":
        assert len(corpus.train) == len(text) * (1000 - valid - test) // 1000


@given(texts, fractions)
@example("é" * 9, (100, 200))
def test_bytes_are_cut_between_characters_at_most_three_before_the_share(text: str, thousandths: tuple[int, int]):
    valid, test = thousandths
    corpus = Corpus.from_text(text, unit="byte", valid_fraction=valid / 1000, test_fraction=test / 1000)
    for part in (corpus.train, corpus.valid, corpus.test):
        part.tobytes().decode()
    assert 0 <= len(text.encode()) * (1000 - valid - test) // 1000 - len(corpus.train) <= 3


@given(texts.filter(lambda text: not text.startswith("\ufeff")), st.sampled_from(["character", "byte"]),
       st.sampled_from([{}, {"newline": "lf"}, {"normalize": "NFC"}, {"newline": "lf", "normalize": "NFC"}]),
       st.sampled_from([1, 3, 1 << 20]))  # fmt: skip
@example("a\r\ne\u0301\r", "character", {"newline": "lf", "normalize": "NFC"}, 3)
def test_a_file_and_a_text_in_memory_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, unit: str, options: dict[str, Any], block: int
):
    monkeypatch.setattr(text_files, "BLOCK_SIZE", block)
    path = tmp_path / "x.txt"
    path.write_bytes(text.encode())
    options = {**options, "unit": unit, "valid_fraction": 0.2, "test_fraction": 0.1}
    read, held = Corpus.from_files(path, **options), Corpus.from_text(text, **options)
    assert read.vocabulary == held.vocabulary
    for role in ("train", "valid", "test"):
        np.testing.assert_array_equal(getattr(read, role), getattr(held, role))
        assert getattr(read, role).dtype == getattr(held, role).dtype
    assert "".join(parts(read)) == clean(text, CorpusConfig(**options))


def test_a_role_with_sources_of_its_own_takes_no_share(tmp_path: Path):
    for name, text in (("t", "abcdefghij"), ("v", "vvv"), ("e", "eeeee")):
        (tmp_path / name).write_text(text)
    train, valid, test = (tmp_path / name for name in "tve")
    cut = {"valid_fraction": 0.2, "test_fraction": 0.1}
    assert parts(Corpus.from_files(train, **cut)) == ("abcdefg", "hi", "j")
    assert parts(Corpus.from_files(train, valid=valid, **cut)) == ("abcdefghi", "vvv", "j")
    assert parts(Corpus.from_files(train, test=[test, valid], **cut)) == ("abcdefgh", "ij", "eeeee\nvvv")
    corpus = Corpus.from_files(train, valid=valid, test=test, **cut)
    assert parts(corpus) == ("abcdefghij", "vvv", "eeeee")
    assert corpus.vocabulary.characters == "abcdefghijv"


def test_min_count_counts_over_all_parts(tmp_path: Path):
    (tmp_path / "t").write_text("aaab")
    (tmp_path / "v").write_text("bc")
    corpus = Corpus.from_files(tmp_path / "t", valid=tmp_path / "v", min_count=2)
    assert (corpus.vocabulary.characters, corpus.vocabulary.folded) == ("ab", "c")
    assert parts(corpus) == ("aaab", "b\ufffd", "")
    assert corpus.counts.tolist() == [3, 1, 0]


@pytest.mark.parametrize("unit", ["character", "byte"])
@pytest.mark.parametrize("text", ["", "é"])
def test_a_corpus_of_nothing_and_of_one_character(tmp_path: Path, text: str, unit: str):
    (tmp_path / "x").write_bytes(text.encode())
    for corpus in (Corpus.from_files(tmp_path / "x", unit=unit), Corpus.from_text(text, unit=unit)):
        assert parts(corpus) == ("", text, "")
        assert corpus.counts.tolist() == [0] * len(corpus.vocabulary)
        assert len(corpus.vocabulary) == (256 if unit == "byte" else len(text))


def test_a_lone_surrogate_is_refused_in_memory_and_in_a_file(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"+2AA-")
    with pytest.raises(DataError, match="lone surrogate"):
        Corpus.from_text("a\udc80")
    with pytest.raises(DataError, match="surrogate"):
        Corpus.from_files(tmp_path / "x", encoding="utf-7")


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"valid_fraction": 0.6, "test_fraction": 0.4}, "valid_fraction"), ({"valid_fraction": -0.1}, "valid_fraction"),
        ({"test_fraction": 1.0}, "test_fraction"), ({"min_count": 0}, "min_count"), ({"unit": "word"}, "unit"),
        ({"unit": "byte", "min_count": 2}, "min_count"), ({"valid_fraction": float("nan")}, "valid_fraction"),
        ({"newline": "crlf"}, "newline"), ({"colour": 1}, None), ({"config": CorpusConfig(), "unit": "byte"}, None),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_named(options: dict[str, Any], setting: str | None):
    with pytest.raises(SettingError) as caught:
        Corpus.from_text("abc", **options)
    assert caught.value.setting == setting


@pytest.mark.parametrize("nothing", [[], ()])
def test_no_source_to_learn_from_is_an_error(poem: Path, nothing: Any, own_cache: Path):
    for others in ({}, {"valid": poem}, {"valid": poem, "test": poem}):
        with pytest.raises(DataError, match="no text to learn"):
            Corpus.from_files(nothing, **others)
    assert os.listdir(own_cache) == []


@pytest.mark.parametrize(
    "roles",
    [{"sources": "-", "valid": "-"}, {"sources": "-", "test": "-"}, {"valid": "-", "test": "-"},
     {"sources": ["-", "-"]}, {"valid": ["-", "-"]}],
)  # fmt: skip
def test_standard_input_is_named_once_in_all_roles(poem: Path, monkeypatch: pytest.MonkeyPatch, roles: dict[str, Any]):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"hello")))
    with pytest.raises(DataError, match="standard input can be read only once"):
        Corpus.from_files(**{"sources": poem, **roles})
    assert sys.stdin.buffer.read() == b"hello"


def read_again(corpus: Corpus) -> Corpus:
    """What a run that remembers `corpus` finds."""
    return Corpus.from_description(json.loads(json.dumps(corpus.describe())))


def test_a_description_leads_back_from_any_folder_and_without_the_cache(
    poem: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(poem.parent)
    corpus = Corpus.from_files("poem.txt", valid="*.txt", test="poem.txt", test_fraction=0.3)
    monkeypatch.chdir("/")
    for _ in ("cached", "not cached"):
        reread = read_again(corpus)
        assert (parts(reread), reread.key, reread.config) == (parts(corpus), corpus.key, corpus.config)
        shutil.rmtree(own_cache / corpus.key)


def test_a_changed_text_is_refused_and_a_lost_one_comes_from_the_cache(poem: Path, own_cache: Path):
    corpus, content = Corpus.from_files(poem), poem.read_bytes()
    poem.write_bytes(content + b"!")
    with pytest.raises(DataError, match=r"has changed \(.*poem\.txt\)"):
        read_again(corpus)
    poem.unlink()
    assert parts(read_again(corpus)) == parts(corpus)
    shutil.rmtree(own_cache / corpus.key)
    with pytest.raises(DataError, match=r"poem\.txt"):
        read_again(corpus)


def test_a_text_changed_into_an_unreadable_one_is_refused(poem: Path):
    corpus = Corpus.from_files(poem)
    poem.write_bytes(b"\xff")
    with pytest.raises(DataError):
        read_again(corpus)


def test_a_text_given_once_is_found_in_the_cache_or_refused(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"h\xc3\xa9llo")))
    corpus = Corpus.from_files("-")
    assert "".join(parts(corpus)) == "héllo"
    assert sorted(os.listdir(own_cache / corpus.key)) == ["corpus.json", "ids", "verified.json"]
    assert parts(read_again(corpus)) == parts(corpus)
    shutil.rmtree(own_cache / corpus.key)
    for lost in (corpus, Corpus.from_text("abc")):
        with pytest.raises(DataError, match="given once and is no longer in the cache"):
            read_again(lost)


def test_standard_input_is_never_a_file_named_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"hello")))
    monkeypatch.chdir(tmp_path)
    Path("-").write_text("other")
    corpus = Corpus.from_files("-")
    assert parts(read_again(corpus)) == parts(corpus)


def make_pipe(path: Path) -> Path:
    """A pipe to which somebody writes once."""
    os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(b"abcabc",), daemon=True).start()
    return path


def test_a_pipe_is_read_once_and_found_in_the_cache_when_it_is_gone(tmp_path: Path):
    pipe = make_pipe(tmp_path / "pipe")
    corpus = Corpus.from_files(pipe, valid_fraction=0)
    assert parts(corpus) == ("abcabc", "", "")
    pipe.unlink()
    assert parts(read_again(corpus)) == ("abcabc", "", "")


def test_a_pipe_that_is_still_there_is_not_waited_for(tmp_path: Path):
    pipe = make_pipe(tmp_path / "pipe")
    corpus, reread = Corpus.from_files(pipe), []
    reader = threading.Thread(target=lambda: reread.append(parts(read_again(corpus))), daemon=True)
    reader.start()
    reader.join(5)
    assert reread == [parts(corpus)]


def test_files_are_joined_as_between_says(tmp_path: Path):
    for name in "abc":
        (tmp_path / name).write_text(name.upper())
    for options, expected in (({}, "A\nB\nC"), ({"between": ""}, "ABC"), ({"between": "|"}, "A|B|C")):
        corpus = Corpus.from_files(tmp_path, valid_fraction=0, **options)
        assert parts(corpus)[0] == expected
        assert corpus.report.joined == (2 if len(expected) == 5 else 0)
        assert parts(read_again(corpus)) == parts(corpus)
    files = [tmp_path / "a", tmp_path / "b"]
    assert parts(Corpus.from_files(files, valid=files)) == ("A\nB", "A\nB", "")


ANY = b"\xff\0\xc3\xa9\r\n" + bytes(range(256))


@given(st.binary(max_size=300), fractions)
def test_raw_bytes_are_cut_anywhere_and_kept(content: bytes, thousandths: tuple[int, int]):
    valid, test = thousandths
    options = {"unit": "byte", "encoding": "raw", "valid_fraction": valid / 1000, "test_fraction": test / 1000}
    corpus = Corpus.from_text(content.decode("utf-8", "surrogateescape"), **options)
    assert b"".join(part.tobytes() for part in (corpus.train, corpus.valid, corpus.test)) == content
    assert len(corpus.train) == len(content) * (1000 - valid - test) // 1000


def test_a_raw_corpus_comes_from_a_file_the_cache_and_a_description(tmp_path: Path, own_cache: Path):
    (tmp_path / "x").write_bytes(ANY)
    first, second = (Corpus.from_files(tmp_path / "x", unit="byte", encoding="raw") for _ in range(2))
    for corpus in (first, second, read_again(second)):
        assert corpus.train.tobytes() + corpus.valid.tobytes() == ANY
        assert corpus.vocabulary.raw
        assert corpus.occurring == 256
    (tmp_path / "x").unlink()
    assert read_again(first).vocabulary == first.vocabulary


def test_raw_needs_bytes():
    with pytest.raises(SettingError, match='encoding is raw: it needs `unit="byte"`') as caught:
        CorpusConfig(encoding="raw")
    assert caught.value.setting == "encoding"


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_what_occurs_is_counted_in_all_parts(unit: str):
    corpus = Corpus.from_text("aaaaaaaab" + "é", unit=unit, valid_fraction=0.1, test_fraction=0.1)
    assert corpus.occurring == (4 if unit == "byte" else 3)
    assert Corpus.from_text("aaabc", min_count=2).occurring == 3
    known = Corpus.from_text("xyz").vocabulary
    assert Corpus.from_text("ab", known=known).occurring == 2


def test_a_corpus_shows_itself_in_one_line() -> None:
    text = "abc\n" * 2000
    shown = repr(Corpus.from_text(text, valid_fraction=0.2, test_fraction=0.1))
    assert shown == "Corpus(8,000 characters, 4 different: train 5,600, valid 1,600, test 800)"
    assert (
        repr(Corpus.from_text(text + "z", min_count=2))
        == "Corpus(8,001 characters, 5 different: train 7,200, valid 801)"
    )
    assert repr(Corpus.from_text("é" * 100, unit="byte")) == "Corpus(200 bytes: train 180, valid 20)"


@pytest.mark.parametrize("text", [b"abc", ["a"], None, 5])
def test_what_is_no_text_is_named_as_such(text: Any) -> None:
    with pytest.raises(SettingError, match=f"text is of type {type(text).__name__}: it must be a str"):
        Corpus.from_text(text)


@pytest.mark.parametrize("sources", [b"abc", [b"a"], None, 5, [5]])
@pytest.mark.parametrize("role", ["sources", "valid"])
def test_what_is_no_name_of_a_text_is_named_as_such(role: str, sources: Any, poem: Path) -> None:
    with pytest.raises(SettingError, match=r"must be the name of a text, a str or a Path; give one, or a list of such"):
        Corpus.from_files(**{"sources": poem, role: sources})
