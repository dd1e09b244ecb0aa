"""Text -> ids on disk: cut where promised, cached under its content, the same however it is read."""

import io
import json
import os
import shutil
import sys
import threading
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chargen.errors import ChargenError, DataError, SettingError
from chargen.text import reading
from chargen.text.corpus import Corpus, CorpusConfig, split
from chargen.text.reading import clean
from chargen.text.vocabulary import Vocabulary

texts = st.text(st.one_of(st.sampled_from("aab\r\né\u0301漢😀\ufffd"), st.characters(codec="utf-8")))
fractions = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).filter(lambda pair: sum(pair) < 1000)


def parts(corpus: Corpus) -> tuple[str, str, str]:
    return tuple(corpus.vocabulary.decode(part) for part in (corpus.train, corpus.valid, corpus.test))


@pytest.fixture
def poem(tmp_path: Path) -> Path:
    path = tmp_path / "poem.txt"
    path.write_bytes(b"ein Reh, zwei Rehe\r\n" * 50)
    return path


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


@settings(max_examples=40)
@given(texts.filter(lambda text: not text.startswith("\ufeff")), st.sampled_from(["character", "byte"]),
       st.sampled_from([{}, {"newline": "lf"}, {"normalize": "NFC"}, {"newline": "lf", "normalize": "NFC"}]),
       st.sampled_from([1, 3, 1 << 20]))  # fmt: skip
@example("a\r\ne\u0301\r", "character", {"newline": "lf", "normalize": "NFC"}, 3)
def test_a_file_and_a_text_in_memory_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, unit: str, options: dict[str, Any], block: int
):
    monkeypatch.setattr(reading, "BLOCK", block)
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
    assert parts(Corpus.from_files(train, test=[test, valid], **cut)) == ("abcdefgh", "ij", "eeeeevvv")
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


def test_a_second_reading_comes_from_the_cache(poem: Path, monkeypatch: pytest.MonkeyPatch):
    first, steps = Corpus.from_files(poem), []
    monkeypatch.setattr(Vocabulary, "encode", lambda *_: pytest.fail("encoded again"))
    second = Corpus.from_files(poem, valid_fraction=0.5, progress=lambda what, *_: steps.append(what))
    assert set(steps) == {"reading"}
    assert second.key == first.key
    assert "".join(parts(second)) == "".join(parts(first)) == poem.read_bytes().decode()
    assert second.report == first.report
    assert first.report.bytes == poem.stat().st_size
    assert first.report.carriage_returns == 50


@pytest.mark.parametrize(
    "options",
    [{"encoding": "latin-1"}, {"errors": "replace"}, {"newline": "lf"}, {"normalize": "NFC"}, {"unit": "byte"},
     {"min_count": 2}],
)  # fmt: skip
def test_the_cache_dies_with_any_option_that_shapes_the_ids(poem: Path, options: dict[str, Any]):
    steps: list[str] = []
    first = Corpus.from_files(poem)
    second = Corpus.from_files(poem, **options, progress=lambda what, *_: steps.append(what))
    assert "encoding" in steps
    assert first.key != second.key


def test_the_cache_dies_with_the_text_its_cut_into_files_and_its_roles(tmp_path: Path):
    for name, text in (("a", "xy"), ("b", "xyx"), ("c", "y"), ("d", "xyxy"), ("e", "")):
        (tmp_path / name).write_text(text)
    names = [["a"], ["b"], ["a", "a"], ["d"], ["b", "c"], ["d", "e"]]
    keys = [Corpus.from_files([tmp_path / name for name in given]).key for given in names]
    keys += [Corpus.from_files(tmp_path / "a", valid=tmp_path / "a").key]
    keys += [Corpus.from_files(tmp_path / "a", test=tmp_path / "a").key]
    assert len(set(keys)) == len(keys)


def test_ids_are_mapped_from_the_cache_not_loaded(poem: Path, own_cache: Path):
    corpus = Corpus.from_files(poem, test_fraction=0.1)
    for part in (corpus.train, corpus.valid, corpus.test):
        assert isinstance(part, np.memmap)
        assert part.filename == own_cache / corpus.key / "ids"
        assert not part.flags.writeable


def shorter(entry: Path) -> None:
    (entry / "ids").write_bytes((entry / "ids").read_bytes()[:-1])


def restored(change: dict[str, Any]) -> Any:
    def damage(entry: Path) -> None:
        stored = json.loads((entry / "corpus.json").read_text("utf-8"))
        stored.update(change)
        kept = {key: value for key, value in stored.items() if value is not None}
        (entry / "corpus.json").write_text(json.dumps(kept), "utf-8")

    return damage


UNCHECKED = pytest.mark.xfail(strict=True, reason="a traceback: only `bytes` is checked")


@pytest.mark.parametrize(
    "damage",
    [
        shorter, lambda entry: (entry / "ids").unlink(), lambda entry: (entry / "corpus.json").unlink(),
        lambda entry: (entry / "corpus.json").write_text("{"), lambda entry: (entry / "corpus.json").write_text("[]"),
        lambda entry: (entry / "corpus.json").write_bytes(b"\xff"), restored({"bytes": None}),
        lambda entry: [file.unlink() for file in entry.iterdir()],
        pytest.param(restored({"characters": None}), marks=UNCHECKED),
        pytest.param(restored({"characters": "ba"}), marks=UNCHECKED),
        pytest.param(restored({"sizes": [9999, 0, 0]}), marks=UNCHECKED),
        pytest.param(restored({"report": {"no": 1}}), marks=UNCHECKED),
    ],
)  # fmt: skip
def test_a_damaged_cache_entry_is_built_again(poem: Path, own_cache: Path, damage: Any):
    entry = own_cache / Corpus.from_files(poem).key
    damage(entry)
    assert "".join(parts(Corpus.from_files(poem))) == poem.read_bytes().decode()
    assert sorted(os.listdir(own_cache)) == [entry.name]


def test_progress_ends_at_the_whole_three_times(poem: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "BLOCK", 300)
    steps: list[tuple[str, int, int | None]] = []
    Corpus.from_files([poem, poem], progress=lambda *step: steps.append(step))
    size = 2 * poem.stat().st_size
    for what, total in (("reading", None), ("counting", size), ("encoding", size)):
        done = [step for step in steps if step[0] == what]
        assert done[-1] == (what, size, total)
        assert [step[1] for step in done] == sorted({step[1] for step in done})
        assert {step[2] for step in done} == {total}


NAMED_WRONGLY = pytest.mark.xfail(strict=True, reason="says: 'c' is unknown to the model")


@pytest.mark.parametrize(
    ("when", "content"),
    [("reading", b"aaabb"), ("reading", b"aaa"), ("counting", b"aabaa"), ("counting", b""),
     pytest.param("counting", b"aaabc", marks=NAMED_WRONGLY)],
)  # fmt: skip
def test_a_source_that_changes_while_it_is_read_is_noticed(tmp_path: Path, own_cache: Path, when: str, content: bytes):
    path = tmp_path / "log.txt"
    path.write_bytes(b"aaaba")
    with pytest.raises(DataError, match="a source changed while it was read"):
        Corpus.from_files(path, progress=lambda what, *_: path.write_bytes(content) if what == when else None)
    assert os.listdir(own_cache) == []


def test_an_interrupted_encoding_leaves_nothing_behind(poem: Path, own_cache: Path):
    def interrupt(what: str, done: int, total: int | None) -> None:
        if what == "encoding":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Corpus.from_files(poem, progress=interrupt)
    assert os.listdir(own_cache) == []


def test_only_work_abandoned_for_a_day_is_removed(poem: Path, own_cache: Path):
    for name in ("old.tmp", "new.tmp"):
        (own_cache / name).mkdir()
    os.utime(own_cache / "old.tmp", (0, 0))
    key = Corpus.from_files(poem).key
    assert sorted(os.listdir(own_cache)) == sorted([key, "new.tmp"])


@pytest.mark.xfail(strict=True, reason="the loser of the race fails: Directory not empty")
def test_two_that_encode_the_same_text_at_once_both_succeed(poem: Path, monkeypatch: pytest.MonkeyPatch):
    real, others = os.replace, []

    def replace(source: Any, target: Any) -> None:
        if os.path.isdir(source) and not others:
            others.append(None)
            others.append(Corpus.from_files(poem))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    assert parts(Corpus.from_files(poem)) == parts(others[1])


def test_a_cache_that_cannot_be_written_is_named(poem: Path):
    with pytest.raises(ChargenError, match=r"cannot write the cache .*poem\.txt: .*CHARGEN_CACHE"):
        Corpus.from_files(poem, cache=poem)


def test_memory_does_not_grow_with_the_text(tmp_path: Path):
    peaks = []
    for size in (8, 32):
        path = tmp_path / f"{size}.txt"
        path.write_bytes("añb漢 lorem ipsum dolor\n".encode() * (size * 40_000))
        tracemalloc.start()
        Corpus.from_files(path, newline="lf", normalize="NFC")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2_000_000 < 60_000_000


@pytest.mark.xfail(strict=True, reason="accepted; the vocabulary then fails with TypeError when it is stored")
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


def again(corpus: Corpus) -> Corpus:
    """What a run that remembers `corpus` finds."""
    return Corpus.from_description(json.loads(json.dumps(corpus.describe())))


def test_a_description_leads_back_from_any_folder_and_without_the_cache(
    poem: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(poem.parent)
    corpus = Corpus.from_files("poem.txt", valid="*.txt", test="poem.txt", test_fraction=0.3)
    monkeypatch.chdir("/")
    for _ in ("cached", "not cached"):
        found = again(corpus)
        assert (parts(found), found.key, found.config) == (parts(corpus), corpus.key, corpus.config)
        shutil.rmtree(own_cache / corpus.key)


def test_a_changed_text_is_refused_and_a_lost_one_comes_from_the_cache(poem: Path, own_cache: Path):
    corpus, content = Corpus.from_files(poem), poem.read_bytes()
    poem.write_bytes(content + b"!")
    with pytest.raises(DataError, match=r"has changed \(.*poem\.txt\)"):
        again(corpus)
    poem.unlink()
    assert parts(again(corpus)) == parts(corpus)
    shutil.rmtree(own_cache / corpus.key)
    with pytest.raises(DataError, match=r"poem\.txt"):
        again(corpus)


@pytest.mark.xfail(strict=True, reason="any DataError is taken for a lost text: the old one comes from the cache")
def test_a_text_changed_into_an_unreadable_one_is_refused(poem: Path):
    corpus = Corpus.from_files(poem)
    poem.write_bytes(b"\xff")
    with pytest.raises(DataError):
        again(corpus)


def test_a_text_given_once_is_found_in_the_cache_or_refused(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"h\xc3\xa9llo")))
    corpus = Corpus.from_files("-")
    assert "".join(parts(corpus)) == "héllo"
    assert sorted(os.listdir(own_cache / corpus.key)) == ["corpus.json", "ids"]
    assert parts(again(corpus)) == parts(corpus)
    shutil.rmtree(own_cache / corpus.key)
    for lost in (corpus, Corpus.from_text("abc")):
        with pytest.raises(DataError, match="given once and is no longer in the cache"):
            again(lost)


@pytest.mark.xfail(strict=True, reason="a file named - in the folder: the text is then looked for there")
def test_standard_input_is_never_a_file_named_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"hello")))
    monkeypatch.chdir(tmp_path)
    Path("-").write_text("other")
    corpus = Corpus.from_files("-")
    assert parts(again(corpus)) == parts(corpus)


def writing(path: Path) -> Path:
    """A pipe to which somebody writes once."""
    os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(b"abcabc",), daemon=True).start()
    return path


def test_a_pipe_is_read_once_and_found_in_the_cache_when_it_is_gone(tmp_path: Path):
    pipe = writing(tmp_path / "pipe")
    corpus = Corpus.from_files(pipe, valid_fraction=0)
    assert parts(corpus) == ("abcabc", "", "")
    pipe.unlink()
    assert parts(again(corpus)) == ("abcabc", "", "")


@pytest.mark.xfail(strict=True, reason="the pipe is opened again: waits for ever for somebody to write")
def test_a_pipe_that_is_still_there_is_not_waited_for(tmp_path: Path):
    pipe = writing(tmp_path / "pipe")
    corpus, found = Corpus.from_files(pipe), []
    seeker = threading.Thread(target=lambda: found.append(parts(again(corpus))), daemon=True)
    seeker.start()
    seeker.join(0.5)
    if waits := seeker.is_alive():
        pipe.write_bytes(b"abcabc")
        seeker.join()
    assert not waits
    assert found == [parts(corpus)]
