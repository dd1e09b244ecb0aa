"""Which files of folders and archives are read."""

import glob
import gzip
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from chargen.data.corpus import Corpus
from chargen.data.sources import SourceFilter, find_sources
from chargen.errors import DataError, SettingError
from tests.texts import parts

FILES = {
    "a.txt": "A", "a.md": "B", "notes/b.txt.gz": "C", "notes/old/c.txt": "D", "notes/[x].txt": "E",
    "shelf.zip": {"d.txt": "F", "old/e.txt": "G", "e.md": "H"}, "shelf.tar.gz": {"f.txt": "I"},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Texts of one letter each, some in archives."""
    root = tmp_path / "texts"
    for name, content in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                for member, text in content.items():
                    archive.writestr(member, text)
        elif name.endswith(".tar.gz"):
            (tmp_path / "f.txt").write_text("I")
            with tarfile.open(path, "w:gz") as packed:
                packed.add(tmp_path / "f.txt", "f.txt")
        else:
            path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return root


@pytest.mark.parametrize(
    ("include", "exclude", "letters"),
    [
        ((), (), "ABCDEFGHI"), (("*.txt",), (), "ACDEFGI"), (("*.txt", "*.md"), (), "ABCDEFGHI"),
        ((), ("*.md",), "ACDEFGI"), (("*.txt",), ("old/*",), "ACEFI"), (("old/*",), (), "DG"),
        (("notes/*",), (), "CDE"), (("notes/*",), ("notes/old/*",), "CE"), (("*.gz",), (), "C"),
        (("[[]x].txt",), (), "E"), (("?.txt",), (), "ACDFGI"), (("*.TXT", "a.*"), (), "AB"),
    ],
)  # fmt: skip
def test_files_are_chosen_by_patterns(folder: Path, include: Any, exclude: Any, letters: str) -> None:
    corpus = Corpus.from_files(folder, include=include, exclude=exclude, between="")
    assert sorted("".join(parts(corpus))) == sorted(letters)
    assert corpus.report.excluded == 9 - len(letters)
    assert corpus.report.files == len(letters)
    again = Corpus.from_description(json.loads(json.dumps(corpus.describe())))
    assert (again.key, again.report.excluded) == (corpus.key, corpus.report.excluded)


def test_a_file_that_is_named_is_read_and_its_members_are_chosen(folder: Path) -> None:
    assert "".join(parts(Corpus.from_files(folder / "a.md", include=["*.txt"]))) == "B"
    corpus = Corpus.from_files(folder / "shelf.zip", include=["*.txt"], exclude=["old/*"])
    assert "".join(parts(corpus)) == "F"
    assert corpus.report.excluded == 2


def test_the_same_text_has_the_same_key_however_it_was_chosen(folder: Path) -> None:
    keys = {
        Corpus.from_files(folder, **choice).key for choice in ({"include": ["a.txt"]}, {"include": ["texts/a.txt"]})
    }
    assert keys == {Corpus.from_files(folder / "a.txt").key}


def test_patterns_that_leave_nothing_are_refused(folder: Path) -> None:
    for sources in (folder, folder / "shelf.zip"):
        with pytest.raises(DataError, match=r"^`include` and `exclude` leave none of \d files: change them$"):
            Corpus.from_files(sources, include=["*.pdf"])


@pytest.mark.parametrize("name", ["a.txt.gz", "a.zip"])
def test_what_a_packed_file_may_unpack_to_is_chosen(tmp_path: Path, name: str) -> None:
    path, text = tmp_path / name, "text\n" * 100
    if name.endswith("gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", text[:250])
            archive.writestr("b", text[250:])
    assert "".join(parts(Corpus.from_files(path, max_bytes=500))) == text
    with pytest.raises(DataError, match=rf"{name} unpacks to more than `max_bytes=499`"):
        Corpus.from_files(path, max_bytes=499)
    with pytest.raises(SettingError):
        Corpus.from_files(path, max_bytes=0)
    (tmp_path / "plain.txt").write_text(text)
    assert "".join(parts(Corpus.from_files(tmp_path / "plain.txt", max_bytes=1))) == text


def test_a_pattern_is_for_a_name_or_the_end_of_a_path() -> None:
    takes = SourceFilter(include=("b/*.txt", "/c.txt")).takes
    assert [takes(path) for path in ("/x/b/a.txt", "b/a.txt", "ab/a.txt", "b/y/a.txt", "c.txt", "d/c.txt.gz")] == [
        True, True, False, True, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "pattern",
    ["**", "**/*.txt", "notes/**", "**/old/*", "./**/*.md", "*/**/*.txt", "**/notes/**/*.txt", "**/[[]*", "a**/*",
     "n*s/**", "notes/../**/c.txt", "**/nowhere", "n**"],
)  # fmt: skip
def test_two_stars_match_as_in_python(folder: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    (folder / "notes" / ".hidden").mkdir()
    (folder / "notes" / ".hidden" / "x.txt").write_text("hidden")
    monkeypatch.chdir(folder)
    for each in (pattern, str(folder / pattern)):
        expected = sorted({name for name in glob.glob(each, recursive=True) if Path(name).is_file()})
        if expected:
            assert [source.name for source in find_sources([each])[0]] == expected
        else:
            with pytest.raises(DataError, match="no file"):
                find_sources([each])


def test_two_stars_follow_no_links_to_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    expected = [source.name for source in find_sources(["**/*.txt"])[0]]
    for name in ("up", "away"):
        (folder / "notes" / name).symlink_to("..")
    assert [source.name for source in find_sources(["**/*.txt"])[0]] == expected
    assert [source.name for source in find_sources(["notes/up/*.txt"])[0]] == ["notes/up/a.txt"]
