"""Records read one by one: they are those of a text of records, and each is where it is said to be."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.data import text_files
from chargen.data.placed_records import PlacedRecord, between_separators, read_records
from chargen.data.reading import read_text
from chargen.data.reading_config import ReadingConfig
from chargen.data.reading_report import ReadingReport
from chargen.data.records import MARK
from chargen.data.sources import find_sources
from chargen.errors import DataError


def records_of(path: Path, config: ReadingConfig) -> list[PlacedRecord]:
    return list(read_records(find_sources([path])[0], config, ReadingReport()))


@settings(max_examples=75)
@given(
    st.lists(st.sampled_from(["a", "b", "\n", "\r\n", "\r", " ", "\t", "--", "-", "e\u0301", "字"]), max_size=25),
    st.sampled_from(["line", "blank-line", "file", "--", "\n-"]),
    st.integers(1, 9),
    st.sampled_from(["none", "NFC"]),
)
def test_records_are_those_of_a_text_of_records(
    tmp_path: Path, pieces: list[str], kind: str, size: int, normalize: str
) -> None:
    text = "".join(pieces)
    (tmp_path / "text.txt").write_text(text, "utf-8", newline="")
    config = ReadingConfig(records=kind, normalize=normalize)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "BLOCK_SIZE", size)
        records = records_of(tmp_path / "text.txt", config)
    marked = "".join(read_text(find_sources([tmp_path / "text.txt"])[0], config))
    assert [record.text for record in records] == [record for record in MARK.split(marked) if record]
    if kind != "file" and normalize == "none":
        lines = (text.replace("\r\n", "\n").replace("\r", "\n") if config.has_lf else text).split("\n")
        for record in records:
            assert record.text.split("\n")[0] in lines[record.line - 1]


@given(st.lists(st.text("ab-\n", max_size=4), max_size=8), st.sampled_from(["\n", "-", "--", "-\n-"]))
def test_pieces_begin_where_they_are_said_to(blocks: list[str], separator: str) -> None:
    text, place = "".join(blocks), 0
    pieces = list(between_separators(blocks, separator))
    assert separator.join(piece for _, piece in pieces) == text
    for line, piece in pieces:
        assert line == 1 + text[:place].count("\n")
        place += len(piece) + len(separator)


def test_rows_of_tables_have_labels_that_may_be_missing(tmp_path: Path) -> None:
    rows = [{"text": "a\nb", "label": "x"}, {"text": ""}, {"text": "c"}, {"text": "d", "label": ""}]
    (tmp_path / "1.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    (tmp_path / "2.csv").write_text('text,label\n"e\nf",y\ng,\n')
    config = ReadingConfig(records="jsonl", label_field="label", text_field="text")
    assert records_of(tmp_path, config) == [
        PlacedRecord("a\nb", f"{tmp_path}/1.jsonl", 1, "x"),
        PlacedRecord("c", f"{tmp_path}/1.jsonl", 5, ""),
        PlacedRecord("d", f"{tmp_path}/1.jsonl", 7, ""),
        PlacedRecord("e\nf", f"{tmp_path}/2.csv", 3, "y"),
        PlacedRecord("g", f"{tmp_path}/2.csv", 4, ""),
    ]
    with pytest.raises(DataError, match="has no field 'label'"):
        list(read_text(find_sources([tmp_path])[0], config))


def test_files_give_labels_and_lines_begin_anew_in_each(tmp_path: Path) -> None:
    for folder, lines in (("x", "a\n\nb"), ("y", "c\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "f.txt").write_text(lines)
    places = [(record.text, record.line, record.label) for record in records_of(
        tmp_path, ReadingConfig(records="line", label_from="folder"))]  # fmt: skip
    assert places == [("a", 1, "x"), ("b", 3, "x"), ("c", 1, "y")]


def test_running_text_is_lines_and_may_be_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a\r\n\xff\n")
    raw = records_of(tmp_path / "a.txt", ReadingConfig(encoding="raw", newline="lf"))
    assert [(record.text, record.line) for record in raw] == [("a", 1), ("\udcff", 2)]
    with pytest.raises(DataError, match=re.escape("line 2, offset 3: bytes ff")):
        records_of(tmp_path / "a.txt", ReadingConfig(newline="lf"))
    (tmp_path / "b.txt").write_bytes(b"+2AA-\n")
    with pytest.raises(DataError, match=r"b\.txt holds a lone surrogate"):
        records_of(tmp_path / "b.txt", ReadingConfig(encoding="utf-7", newline="lf"))


def test_what_reading_meets_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a\xff\n")
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.4\n")
    report = ReadingReport()
    config = ReadingConfig(records="line", errors="replace")
    assert [record.text for record in read_records(find_sources([tmp_path])[0], config, report)] == ["a\ufffd"]
    assert (report.files, report.replaced, len(report.passed_over)) == (1, 1, 1)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match="no text among 1 file"):
        records_of(tmp_path, config)
