"""Files that have not changed are not read again; whatever changes, they are."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chargen.data import corpus_cache, encoder, source_index
from chargen.data.corpus import Corpus
from chargen.data.corpus_cache import list_entries, open_entry, remove_entries
from tests.texts import parts


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done with the bytes of sources; files may be young."""
    monkeypatch.setattr(source_index, "MIN_AGE", 0)
    activities: list[str] = []

    def watch(self: Any, activity: str, *rest: Any) -> None:
        activities.append(activity)
        begin(self, activity, *rest)

    begin = encoder._Pass.__init__
    monkeypatch.setattr(encoder._Pass, "__init__", watch)
    return activities


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def replace(path: Path) -> None:
    """Another file of the same size and times in its place."""
    status, copy = path.stat(), path.with_name("copy")
    copy.write_bytes(path.read_bytes().swapcase())
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(copy, path)


def turn_back(path: Path) -> None:
    """The same file, of the same size, with the old times."""
    status = path.stat()
    path.write_bytes(path.read_bytes().swapcase())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def grow(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def test_files_that_have_not_changed_are_not_read_again(poem: Path, steps: list[str]) -> None:
    first = Corpus.from_files(poem, test_fraction=0.1)
    assert steps == ["copying", "counting", "encoding"]
    second = Corpus.from_files(str(poem), test_fraction=0.1)
    assert len(steps) == 3
    assert (second.key, second.report, second.vocabulary) == (first.key, first.report, first.vocabulary)
    assert parts(second) == parts(first)


@pytest.mark.parametrize("change", [rewrite, replace, turn_back, grow])
def test_a_file_that_changed_is_read_again(poem: Path, steps: list[str], change: Callable[[Path], None]) -> None:
    Corpus.from_files(poem)
    change(poem)
    steps.clear()
    assert "".join(parts(Corpus.from_files(poem))) == poem.read_bytes().decode()
    assert "counting" in steps


def test_a_file_that_joins_a_folder_is_read(tmp_path: Path, steps: list[str]) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("abc\n")
    (folder / "c.txt").write_bytes(bytes(range(256)) * 9)
    first = Corpus.from_files(folder)
    assert Corpus.from_files(folder).report.passed_over == first.report.passed_over != []
    assert steps.count("counting") == 1
    (folder / "b.txt").write_text("xyz\n")
    assert "".join(parts(Corpus.from_files(folder))) == "abc\nxyz\n"


def test_options_and_roles_are_part_of_what_is_remembered(poem: Path, steps: list[str]) -> None:
    keys = {
        Corpus.from_files(poem, **options).key
        for options in ({}, {"newline": "lf"}, {"unit": "byte"}, {"records": "line"}, {"valid": poem}, {"test": poem})
    }
    assert len(keys) == steps.count("encoding") == 6


def test_young_files_streams_and_files_that_change_meanwhile_are_not_remembered(
    poem: Path, own_cache: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Corpus.from_files(poem, progress=lambda activity, *_: poem.touch() if activity == "encoding" else None)
    monkeypatch.setattr(source_index, "MIN_AGE", 2 * 10**9)
    Corpus.from_files(poem)
    assert not list(own_cache.glob("sources/*"))
    monkeypatch.setattr(source_index, "MIN_AGE", 0)
    Corpus.from_files(poem)
    assert len(list(own_cache.glob("sources/*"))) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": 1}', b"\xff", b"other"])
def test_what_is_remembered_wrongly_is_no_harm(poem: Path, own_cache: Path, steps: list[str], content: bytes) -> None:
    first = Corpus.from_files(poem)
    for path in own_cache.glob("sources/*"):
        path.write_bytes(path.read_bytes().replace(b"excluded", b"included") if content == b"other" else content)
    assert list_entries(own_cache)[0].path.name == first.key
    assert parts(Corpus.from_files(poem)) == parts(first)
    assert steps.count("counting") == 2
    shutil.rmtree(own_cache / first.key)
    assert parts(Corpus.from_files(poem)) == parts(first)
    assert steps.count("encoding") == 2


def test_ids_are_verified_once_per_change_of_their_files(poem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus.from_files(poem)
    entry, verified = Path(corpus.train.filename).parent, []
    real = corpus_cache._checksum
    monkeypatch.setattr(corpus_cache, "_checksum", lambda *rest: verified.append(None) or real(*rest))
    assert open_entry(entry) is not None
    assert not verified
    assert open_entry(entry, verify=True) is not None
    assert len(verified) == 1
    status = (entry / "ids").stat()
    ids = np.fromfile(entry / "ids", np.uint8)
    ids[7] ^= 1
    ids.tofile(entry / "ids")
    os.utime(entry / "ids", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert open_entry(entry) is None
    assert len(verified) == 2


def test_entries_are_listed_and_removed(poem: Path, tmp_path: Path, own_cache: Path, steps: list[str]) -> None:
    assert list_entries(tmp_path / "none") == []
    other = tmp_path / "other.txt"
    other.write_text("other text\n")
    corpora = [Corpus.from_files(path) for path in (poem, other)]
    for number, corpus in enumerate(corpora):
        os.utime(own_cache / corpus.key, (1000 + number, 1000 + number))
    entries = list_entries(own_cache)
    assert [entry.path.name for entry in entries] == [corpora[1].key, corpora[0].key]
    assert [entry.sources for entry in entries] == [[str(other)], [str(poem)]]
    assert [entry.used for entry in entries] == [1001, 1000]
    assert entries[1].bytes == sum(file.stat().st_size for file in entries[1].path.iterdir())
    assert remove_entries(own_cache, entries[1:]) == entries[1].bytes
    assert [entry.path.name for entry in list_entries(own_cache)] == [corpora[1].key]
    assert len(list(own_cache.glob("sources/*"))) == 1
    assert "".join(parts(corpora[0])) == poem.read_bytes().decode(), "who has it open keeps it"
    assert remove_entries(own_cache, entries) == entries[0].bytes
    assert sorted(os.listdir(own_cache)) == ["sources"]
