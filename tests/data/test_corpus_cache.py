"""Text -> ids on disk: cached under its content, built again where damaged, in flat memory."""

import contextlib
import json
import os
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chargen.data import corpus_cache, encoder, text_files
from chargen.data.corpus import Corpus
from chargen.data.vocabulary import Vocabulary
from chargen.errors import ChargenError, DataError
from tests.texts import parts


def test_a_second_reading_comes_from_the_cache(poem: Path, monkeypatch: pytest.MonkeyPatch):
    first, steps = Corpus.from_files(poem), []
    monkeypatch.setattr(Vocabulary, "encode", lambda *_: pytest.fail("encoded again"))
    second = Corpus.from_files(poem, valid_fraction=0.5, progress=lambda what, *_: steps.append(what))
    assert set(steps) == {"counting"}
    assert second.key == first.key
    assert "".join(parts(second)) == "".join(parts(first)) == poem.read_bytes().decode()
    assert second.report == first.report
    assert first.report.bytes == poem.stat().st_size
    assert first.report.carriage_returns == 50


@pytest.mark.parametrize(
    "options",
    [{"encoding": "latin-1"}, {"errors": "replace"}, {"newline": "lf"}, {"normalize": "NFC"}, {"unit": "byte"},
     {"min_count": 2}, {"between": ""}],
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
    keys = [Corpus.from_files([tmp_path / name for name in sources]).key for sources in names]
    keys += [Corpus.from_files(tmp_path / "a", valid=tmp_path / "a").key]
    keys += [Corpus.from_files(tmp_path / "a", test=tmp_path / "a").key]
    assert len(set(keys)) == len(keys)


def test_ids_are_mapped_from_the_cache_not_loaded(poem: Path, own_cache: Path):
    corpus = Corpus.from_files(poem, test_fraction=0.1)
    for part in (corpus.train, corpus.valid, corpus.test):
        assert isinstance(part, np.memmap)
        assert Path(part.filename or "") == own_cache / corpus.key / "ids"
        assert not part.flags.writeable


def shorter(entry: Path) -> None:
    (entry / "ids").write_bytes((entry / "ids").read_bytes()[:-1])


def flipped(entry: Path) -> None:
    ids = bytearray((entry / "ids").read_bytes())
    ids[len(ids) // 2] ^= 1
    (entry / "ids").write_bytes(ids)


def beyond(entry: Path) -> None:
    (entry / "ids").write_bytes(b"\xfa" * (entry / "ids").stat().st_size)


def restored(change: dict[str, Any]) -> Any:
    def damage(entry: Path) -> None:
        stored = json.loads((entry / "corpus.json").read_text("utf-8"))
        stored.update(change)
        kept = {key: value for key, value in stored.items() if value is not None}
        (entry / "corpus.json").write_text(json.dumps(kept), "utf-8")

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        shorter, flipped, beyond, restored({"sha256": None}), restored({"sha256": "0" * 64}),
        restored({"folded": "\uffff"}), lambda entry: (entry / "ids").unlink(),
        lambda entry: (entry / "corpus.json").unlink(),
        lambda entry: (entry / "corpus.json").write_text("{"), lambda entry: (entry / "corpus.json").write_text("[]"),
        lambda entry: (entry / "corpus.json").write_bytes(b"\xff"), restored({"sizes": None}),
        lambda entry: [file.unlink() for file in entry.iterdir()], restored({"characters": None}),
        restored({"characters": "ba"}), restored({"sizes": [9999, 0, 0]}), restored({"sizes": [1000, 0]}),
        restored({"report": {"no": 1}}), restored({"report": None}), restored({"folded": None}),
        restored({"unit": None}),
    ],
)  # fmt: skip
def test_a_damaged_cache_entry_is_built_again(poem: Path, own_cache: Path, damage: Any):
    entry = own_cache / Corpus.from_files(poem).key
    damage(entry)
    assert "".join(parts(Corpus.from_files(poem))) == poem.read_bytes().decode()
    assert {*os.listdir(own_cache)} - {".lock"} == {entry.name}


def test_those_who_see_a_damage_at_once_mend_it_once(poem: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    entry = own_cache / Corpus.from_files(poem).key
    shorter(entry)
    real, all_see_it = corpus_cache.open_entry, threading.Barrier(4)

    def see(path: Path) -> Any:
        seen = real(path)
        with contextlib.suppress(threading.BrokenBarrierError):
            all_see_it.wait(0.1)
        return seen

    monkeypatch.setattr(corpus_cache, "open_entry", see)
    with ThreadPoolExecutor(4) as threads:
        mended = list(threads.map(lambda _: parts(Corpus.from_files(poem)), range(4)))
    assert all("".join(each) == poem.read_bytes().decode() for each in mended)


def test_progress_ends_at_the_whole_twice(poem: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_files, "BLOCK_SIZE", 300)
    steps: list[tuple[str, int, int | None]] = []
    Corpus.from_files([poem, poem], progress=lambda *step: steps.append(step))
    size = 2 * poem.stat().st_size
    for what, total in (("counting", size), ("encoding", size)):
        done = [step for step in steps if step[0] == what]
        assert done[-1] == (what, size, total)
        assert [step[1] for step in done] == sorted({step[1] for step in done})
        assert {step[2] for step in done} == {total}


@pytest.mark.parametrize(
    ("when", "content"),
    [("counting", b"aabaa"), ("counting", b""), ("counting", b"aaabc")],
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
    old, new, thesis = ("0123456789abcdef.tmp", "fedcba9876543210.tmp", "thesis.tmp")
    for name in (old, new, thesis):
        (own_cache / name).mkdir()
    for name in (old, thesis):
        os.utime(own_cache / name, (0, 0))
    key = Corpus.from_files(poem).key
    assert sorted(os.listdir(own_cache)) == sorted([key, new, thesis]), "the folder may be somebody's own"


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
    assert peaks[1] < peaks[0] + 16_000_000 < 64_000_000, "of 27 MB more"


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_what_an_entry_needs_is_counted_before_it_is_written(
    tmp_path: Path, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[str, Any] = {}
    real = encoder.write_durably

    def watched(path: Path, blocks: Any, size: int | None = None) -> None:
        sizes[path.name] = size
        real(path, blocks, size)

    monkeypatch.setattr(encoder, "write_durably", watched)
    edges = "\0\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff"
    (tmp_path / "text.txt").write_text((edges + "abc") * 30, encoding="utf-8")
    corpus = Corpus.from_files(tmp_path / "text.txt", cache=tmp_path / "cache", unit=unit)
    assert sizes["ids"] == corpus.train.nbytes + corpus.valid.nbytes + corpus.test.nbytes
