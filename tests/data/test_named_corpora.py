"""Named corpora: the standard library's own sources."""

import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.data.named_corpora import CATALOGUE, PYTHON_BYTES, python_sources
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


def test_every_name_leads_to_files_that_exist():
    for make in CATALOGUE.values():
        files = make()
        assert files
        assert all(file.is_file() for file in files)
