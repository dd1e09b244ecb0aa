"""What `chargen train` says of a text before it learns: size, files, what was passed over, what makes losses lie."""

import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chargen.cli.report import log_corpus
from chargen.data.corpus import Corpus
from tests.texts import names, story

Report = Callable[..., str]


@pytest.fixture
def report_of(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    """What is logged of a corpus made of these sources."""
    monkeypatch.chdir(tmp_path)

    def report(*sources: str, **options: Any) -> str:
        log_corpus(Corpus.from_files(sources, **options), "it")
        return capsys.readouterr().err

    return report


def test_a_text_without_a_fault_is_one_line(report_of: Report) -> None:
    Path("a.txt").write_text(story(1))
    Path("b.txt").write_text(story(2))
    size = len(story(1) + story(2))
    assert report_of("a.txt", "b.txt").startswith(f"text     it: {size:,} characters, ")
    assert report_of("a.txt", "b.txt").count("\n") == 1
    assert "2 files (train" in report_of("a.txt", "b.txt")


@pytest.mark.parametrize(
    ("text", "distinct"), [(b"ab" * 500, 2), ("é".encode() * 500, 2), (bytes(range(32, 127)) * 9, 95)]
)
def test_distinct_bytes_are_those_that_occur(report_of: Report, text: bytes, distinct: int) -> None:
    Path("a.txt").write_bytes(text)
    assert f"{len(text):,} bytes, {distinct} distinct, 1 file" in report_of("a.txt", unit="byte")


def test_what_was_put_between_files_is_told(report_of: Report) -> None:
    for name in "abc":
        Path(name).write_text(name * 500)
    assert "3 files, 2 line ends added between them (train" in report_of(".")
    assert r"3 files, '\n--\n' between them (train" in report_of(".", between="\n--\n")
    assert "3 files (train" in report_of(".", between="")
    Path("b").write_text("b" * 500 + "\n")
    assert "3 files, 1 line end added between them (train" in report_of(".")


def test_what_was_passed_over_is_told(report_of: Report) -> None:
    Path("a.txt").write_text(story(1))
    assert "passed over" not in report_of(".")
    Path("b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "note: 1 file passed over as no text: b.png (a picture)\n" in report_of(".")
    for name in "cdef":
        Path(name).write_bytes(bytes(5000))
    assert "5 files passed over as no text: b.png (a picture), c (no text), d (no text) …\n" in report_of(".")
    assert "5 files passed over" in report_of("."), "from the cache too"


def test_a_text_in_two_roles_is_warned_of(report_of: Report) -> None:
    for name in "abc":
        Path(name).write_text(story(ord(name)))
    Path("a.gz").write_bytes(gzip.compress(Path("a").read_bytes()))
    words = "warning: 100% of the validation text stands in the training text too"
    assert words in report_of("a", valid="a")
    assert words in report_of("a", "b", valid="a.gz")
    assert words in report_of("a", "a")
    assert "warning: 100% of the test text stands in an earlier part too" in report_of("a", valid="b", test="b")
    assert "of the training text stands there twice: is a file given twice?" in report_of("a", "b", "a", valid="c")
    assert "warning" not in report_of("a", valid="b", test="c")


def test_a_sorted_list_is_warned_of(report_of: Report) -> None:
    Path("sorted").write_text("\n".join(names(0)) + "\n")
    Path("shuffled").write_text("\n".join(random.Random(0).sample(names(0), 1520)) + "\n")
    assert "warning: the lines are sorted, so the validation part" in report_of("sorted")
    assert "warning" not in report_of("shuffled")
    assert "sorted" not in report_of("sorted", valid="shuffled")
