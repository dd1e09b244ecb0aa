"""Named corpora: the catalogue, files in the cache, and the standard library's own sources."""

import hashlib
import re
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.data.corpus_config import CorpusConfig
from chargen.data.named_corpora import PYTHON_BYTES, NamedCorpus, catalogue, find_corpus, python_sources
from chargen.data.reading import read_text
from chargen.data.sources import find_sources
from chargen.errors import DataError


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A standard library of our own making: seven files of 10 bytes that count, and five that do not."""
    root = tmp_path / "lib"
    names = ["b.py", "a.py", "é.py", "json/x.py", "json/__init__.py", "email/mime/z.py", "zip/y.py"]
    left_out = ["test/t.py", "json/tests/t.py", "site-packages/s.py", "a.txt", "__pycache__/c.py"]
    for name in names + left_out:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x = 12345\n")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(root)})
    return root


def names_of(files: list[Path], root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in files]


def test_modules_come_before_packages_in_sorted_order(library: Path):
    assert names_of(python_sources(), library) == [
        "a.py", "b.py", "é.py", "json/__init__.py", "json/x.py", "zip/y.py", "email/mime/z.py",
    ]  # fmt: skip


def test_tests_and_installed_packages_are_left_out(library: Path):
    assert {"test", "tests", "site-packages", "__pycache__"}.isdisjoint(
        part for name in names_of(python_sources(), library) for part in name.split("/")
    )
    assert len(python_sources()) == 7


@given(limit=st.integers(10, 100))
def test_whole_files_up_to_the_limit_and_never_more(library: Path, limit: int):
    everything = python_sources()
    chosen = python_sources(limit)
    assert chosen == everything[: limit // 10]


def test_a_python_without_sources_is_an_error_that_advises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path / "none")})
    with pytest.raises(DataError, match=r"no Python sources below .*give a text file"):
        python_sources()


def test_the_real_library_fits_the_limit_and_fills_most_of_it():
    sizes = [file.stat().st_size for file in python_sources()]
    assert PYTHON_BYTES // 2 < sum(sizes) <= PYTHON_BYTES


def test_the_real_library_gives_the_same_files_twice_each_once():
    files = python_sources()
    assert files == python_sources()
    assert len(set(files)) == len(files)


def test_the_real_library_holds_no_tests():
    root = Path(sysconfig.get_paths()["stdlib"])
    names = names_of(python_sources(), root)
    assert names
    assert not [name for name in names if {"test", "tests"} & set(Path(name).parts)]


def test_every_file_of_the_real_library_is_utf_8():
    sources, hidden = find_sources(["python"])
    assert hidden == 0
    text = "".join(read_text(sources))
    assert len(text.encode()) == sum(source.path.stat().st_size for source in sources if source.path)


def test_the_catalogue_says_of_each_corpus_what_is_needed_to_get_it() -> None:
    assert catalogue()["python"].address == ""
    for name, corpus in catalogue().items():
        assert name == corpus.name
        assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name)
        assert corpus.what
        assert corpus.licence
        CorpusConfig(**corpus.settings)
        if name != "python":
            assert re.fullmatch(r"https://[^\s?#]+/[\w.]+", corpus.address)
            assert re.fullmatch("[0-9a-f]{64}", corpus.sha256)
            assert corpus.size > 0
            assert corpus.path.parts[-3:] == ("corpora", name, corpus.address.rpartition("/")[2])
    assert len({corpus.sha256 for corpus in catalogue().values()}) == len(catalogue())


@pytest.fixture
def tale(monkeypatch: pytest.MonkeyPatch) -> NamedCorpus:
    digest = hashlib.sha256(b"Once upon a time.").hexdigest()
    corpus = NamedCorpus("tale", "a tale", "none", "https://localhost:9/tale.txt", 17, digest)
    monkeypatch.setitem(catalogue(), "tale", corpus)
    monkeypatch.setattr("urllib.request.build_opener", lambda *handlers: pytest.fail("somebody was asked"))
    return corpus


def test_a_name_leads_to_the_file_in_the_cache_and_reading_fetches_nothing(tale: NamedCorpus) -> None:
    assert not tale.is_here
    with pytest.raises(DataError, match=r"tale is not on this machine: get it with get_corpus\('tale'\)"):
        find_sources(["tale"])
    tale.path.parent.mkdir(parents=True)
    for wrong in (b"", b"Once upon a tim!.", b"Once upon a time.\n"):
        tale.path.write_bytes(wrong)
        assert not tale.is_here
        with pytest.raises(DataError, match=r"tale\.txt is not the file of the corpus tale"):
            find_sources(["tale"])
    tale.path.write_bytes(b"Once upon a time.")
    assert tale.is_here
    assert [source.path for source in find_sources(["tale"])[0]] == [tale.path]


def test_a_path_goes_before_a_corpus_of_its_name(
    tale: NamedCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tale").write_text("mine")
    Path("python").mkdir()
    Path("python", "a.txt").write_text("mine too")
    assert [source.name for source in find_sources(["tale", "python"])[0]] == ["tale", "python/a.txt"]


def test_an_unknown_name_is_an_error_that_suggests_one() -> None:
    assert find_corpus("python") is catalogue()["python"]
    with pytest.raises(DataError, match="no corpus 'shakespear'; did you mean shakespeare"):
        find_corpus("shakespear")
    with pytest.raises(DataError, match=r"there are python, shakespeare, "):
        find_corpus("?")
