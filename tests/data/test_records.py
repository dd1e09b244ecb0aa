"""Files -> records: each kind as a few lines of Python would read it, whatever the blocks, and errors that advise."""

import csv
import gzip
import io
import itertools
import json
import re
import tarfile
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chargen.data import records, text_files
from chargen.data.code_points import END_MARK, label_mark
from chargen.data.reading import mark_text, read_text
from chargen.data.reading_config import ReadingConfig
from chargen.data.reading_report import ReadingReport
from chargen.data.records import MARK, mark_records
from chargen.data.sources import find_sources
from chargen.data.tables import TABLES
from chargen.data.vocabulary import MAX_LABELS
from chargen.errors import DataError, SettingError
from tests import naive

KINDS = ["line", "blank-line", "file", "jsonl", "csv", "tsv", "|", "aba", "aa", "\n\n", "\r\n", "%%\n", "é"]
texts = st.text(st.sampled_from("ab |é%\n\n\r\t"), max_size=30)
characters = st.characters(codec="utf-8", exclude_characters="\r")
blocks = st.sampled_from([1, 2, 3, 7, 1 << 20])


def read(sources: Any, labels: Any = (), **config: Any) -> list[tuple[str, str]]:
    """The records of files, each with its label."""
    report = ReadingReport(labels=[*labels])
    sources = sources if isinstance(sources, list) else [sources]
    text = "".join(read_text(find_sources(map(str, sources))[0], ReadingConfig(**config), report=report))
    return cut(text, report.labels)


def cut(text: str, labels: list[str]) -> list[tuple[str, str]]:
    first, *found = re.split(f"({MARK.pattern})", text)
    assert first == ""
    names = {END_MARK: "", **{label_mark(number): label for number, label in enumerate(labels)}}
    return [(record, names[mark]) for mark, record in zip(found[::2], found[1::2], strict=True)]


@settings(max_examples=75)
@given(texts, st.sampled_from([kind for kind in KINDS if kind not in TABLES]), blocks, st.booleans())
@example("ababa", "aba", 1, False)
@example("aaa", "aa", 1, False)
@example(" \n \n a \n\t\nb  \n \n ", "blank-line", 1, False)
@example("a\r\n\r\nb\r\n", "\n\n", 1, False)
@example("a\r\nb", "\r\n", 1, True)
@example("", "file", 1, False)
def test_records_are_those_of_a_naive_reader(tmp_path: Path, text: str, kind: str, size: int, lf: bool) -> None:
    config: dict[str, Any] = {"records": kind, "newline": "lf" if lf else "keep"}
    expected = [(record, "") for record in naive.records(text, kind, lf)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "BLOCK_SIZE", size)
        (tmp_path / "x").write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert read(tmp_path / "x", **config) == expected
        assert read([tmp_path / "x", tmp_path / "x"], **config) == 2 * expected
    assert cut(mark_text(text, ReadingConfig(**config), ReadingReport()), []) == expected


rows = st.lists(st.tuples(st.text(characters, max_size=6), st.sampled_from(["", "x", "é y"])), max_size=6)


@given(rows, st.sampled_from(["csv", "tsv", "jsonl"]), blocks, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_a_table_gives_the_fields_that_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: Any, kind: str, size: int, end: str, named: bool
) -> None:
    monkeypatch.setattr(text_files, "BLOCK_SIZE", size)
    monkeypatch.setattr(records, "BLOCK", 3)
    held = io.StringIO()
    if kind == "jsonl":
        for text, label in table:
            print(json.dumps({"label": label, "n": 1, "text": text}), end=end + " " * (size == 2) + end, file=held)
    else:
        writer = csv.writer(held, delimiter="\t" if kind == "tsv" else ",", lineterminator=end)
        writer.writerows([("label", "n", "text"), *((label, 1, text) for text, label in table)])
    path = tmp_path / (f"x.{kind}" if named else "x")
    path.write_bytes(b"\xef\xbb\xbf" + held.getvalue().encode())
    expected = [(text, label) for text, label in table if text]
    assert read(path, records=kind, label_field="label") == expected
    assert read(path, records=kind) == [(text, "") for text, _ in expected]
    path.rename(tmp_path / f"y.{kind}")
    assert read(tmp_path / f"y.{kind}", records="line", text_field="text", label_field="label") == expected


@given(st.text(st.sampled_from("a\u0301e\u0300é\n"), max_size=12), blocks)
def test_each_record_is_normalized_alone(tmp_path: Path, text: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "BLOCK_SIZE", size)
        (tmp_path / "x").write_text(text)
        (tmp_path / "y.jsonl").write_text("".join(json.dumps(line) + "\n" for line in text.split("\n")))
        expected = [(unicodedata.normalize("NFC", line), "") for line in text.split("\n") if line]
        for name, kind in (("x", "line"), ("y.jsonl", "jsonl")):
            assert read(tmp_path / name, records=kind, normalize="NFC") == expected
            config = ReadingConfig(records=kind, normalize="NFC")
            assert cut(mark_text((tmp_path / name).read_text(), config, ReadingReport()), []) == expected


def test_a_label_is_what_the_file_writes_whatever_its_type(tmp_path: Path) -> None:
    values = {"x": "x", "1": 1, "1.5": 1.5, "true": True, "false": False, "": None, "-1e+30": -1e30}
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"t": "a", "l": value}) + "\n" for value in values.values()))
    expected = [("a", label) for label in values]
    assert read(tmp_path / "x.jsonl", records="jsonl", label_field="l", text_field="t") == expected
    (tmp_path / "x.csv").write_text("t,l\n" + "".join(f"a,{label}\n" for label in values))
    assert read(tmp_path / "x.csv", records="csv", label_field="l", text_field="t") == expected


def test_labels_have_numbers_by_their_first_record_and_known_ones_go_first(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,l\n,empty\na,x\nb,\nc,y\nd,x\n")
    report = ReadingReport(labels=["y", "z"])
    config = ReadingConfig(records="csv", label_field="l")
    text = "".join(read_text(find_sources([str(tmp_path / "x.csv")])[0], config, report=report))
    assert report.labels == ["y", "z", "x"]
    assert text == "\ud802a\udfffb\ud800c\ud802d"
    report = ReadingReport.of_model(["y", "z"])
    text = "".join(read_text(find_sources([str(tmp_path / "x.csv")])[0], config, report=report))
    assert (report.labels, text) == (["y", "z"], "\udfffa\udfffb\ud800c\udfffd")
    assert report.unknown_labels == {"x"}


def test_a_mixed_folder_is_read_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.jsonl").write_text('{"s": "three", "n": 3}\n')
    (tmp_path / "c.CSV").write_text('n,s\n4,"fo,ur"\n')
    (tmp_path / "d.tsv").write_text("s\tn\nfi,ve\t5\n")
    (tmp_path / "e.ndjson.gz").write_bytes(gzip.compress(b'{"s": "six", "n": "6"}\n'))
    with zipfile.ZipFile(tmp_path / "f.csv.zip", "w") as archive:
        archive.writestr("plain.txt", "seven")
        archive.writestr("deep/g.jsonl", '{"s": "eight", "n": 8}')
    records = read(tmp_path, records="line", text_field="s", label_field="n")
    assert records == [("one", ""), ("two", ""), ("three", "3"), ("fo,ur", "4"), ("fi,ve", "5"), ("six", "6"),
                     ("eight", "8"), ("seven", "")]  # fmt: skip
    assert [text for text, _ in read(tmp_path / "b.jsonl", records="line")] == ['{"s": "three", "n": 3}']


def packed(names: dict[str, str]) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for name, text in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return held.getvalue()


def test_labels_come_from_folders_and_files_also_those_in_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sea/J. Verne.txt", "sea/deep/x.v2.txt", "sun/`odd`.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text("a")
    (tmp_path / "in/sun/b.txt.gz").write_bytes(gzip.compress(b"a"))
    (tmp_path / "in/t.tar.gz").write_bytes(packed({"moon/c.txt": "a", "d.txt": "a", "x/moon/e": "a"}))
    by = {kind: [label for _, label in read(tmp_path / "in", records="line", label_from=kind)]
          for kind in ("folder", "file")}  # fmt: skip
    assert by["folder"] == ["sea", "deep", "sun", "sun", "in", "moon", "moon"]
    assert by["file"] == ["J. Verne", "x.v2", "`odd`", "b", "d", "c", "e"]
    monkeypatch.chdir(tmp_path / "in/sea/deep")
    assert [label for _, label in read(["x.v2.txt", "../J. Verne.txt"], records="file", label_from="folder")] == [
        "deep", "sea"]  # fmt: skip


def test_a_table_in_a_labelled_folder_has_the_label_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n')
    assert read(tmp_path / "x.jsonl", records="jsonl", label_from="file") == [("a", "x")]


BAD = {
    "a.jsonl": [
        ('{"text": "a"}\n{"txt": "b", "n": 1}\n', "line 2 has no field 'text'; it has fields 'txt', 'n'; did"),
        ('\n{"text": "a"\n', r"line 2 is no JSON \(.*\): mend that line"),
        ('{"text": 5}', "line 1: text is 5: it must be text"),
        ('[1]\n', r"line 1 is \[1\]: it must be an object with fields"),
        ('{"text": "\\ud800"}\n', "line 1 holds a lone surrogate"),
        ("{}\n", "line 1 has no field 'text'; it has no fields; choose another `text_field`"),
    ],
    "a.csv": [
        ("text,n\na,1\nb\n", "line 3 has 1 field, the header 2: put a field with a comma between double quotes"),
        ("text,n\na,1\n\nb,c,2\n", "line 4 has 3 fields, the header 2"),
        ('text\n"a\nb', "line 3 is no row of a table"),
        ("n;text\n1;a\n", "line 1 names one field, 'n;text', and should name all: put commas or tabs"),
        ("n\ttext\n1\ta\n", r"line 1 names one field, 'n\\ttext', and should name all: give `records=\"tsv\"`"),
        ("text,text\na,b\n", "line 1 names a field twice"),
    ],
    "a.tsv": [("text\tn\na\tb\tc\n", "line 2 has 3 fields, the header 2: put a field with a tab")],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text", "words"), [(name, *bad) for name in BAD for bad in BAD[name]])
def test_what_is_wrong_in_a_table_is_named_by_file_and_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"^{re.escape(str(tmp_path / name))}: {words}[^\n]*$"):
        read(tmp_path / name, records="jsonl", text_field="text")


def test_a_row_of_several_texts_needs_the_name_of_one(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": "1", "b": "2", "n": 3}\n')
    with pytest.raises(DataError, match="line 1 has fields 'a', 'b', 'n': say by `text_field`"):
        read(tmp_path / "x.jsonl", records="jsonl")
    assert read(tmp_path / "x.jsonl", records="jsonl", text_field="b") == [("2", "")]
    assert read(tmp_path / "x.jsonl", records="jsonl", label_field="b") == [("1", "2")]
    (tmp_path / "y.jsonl").write_text('"a"\n\n"b"')
    assert read(tmp_path / "y.jsonl", records="jsonl") == [("a", ""), ("b", "")]
    for label in ([1], {"a": 1}):
        (tmp_path / "x.jsonl").write_text(json.dumps({"text": "a", "l": label}))
        with pytest.raises(DataError, match="a label must be text, a number"):
            read(tmp_path / "x.jsonl", records="jsonl", label_field="l")
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "a", "l": "\ud800"}))
    with pytest.raises(DataError, match="line 1 holds a lone surrogate"):
        read(tmp_path / "x.jsonl", records="jsonl", label_field="l")


def test_there_are_so_many_labels_and_no_more(tmp_path: Path) -> None:
    lines = ["text,l\n", *(f"a,{number}\n" for number in range(MAX_LABELS))]
    (tmp_path / "x.csv").write_text("".join(lines))
    assert read(tmp_path / "x.csv", records="csv", label_field="l")[-1] == ("a", f"{MAX_LABELS - 1}")
    (tmp_path / "x.csv").write_text("".join([*lines, "a,many\n"]))
    with pytest.raises(DataError, match="records have more than 2,000 different labels, such as 'many': choose"):
        read(tmp_path / "x.csv", records="csv", label_field="l")
    config, report = ReadingConfig(records="csv", label_field="l"), ReadingReport.of_model(["5"])
    marked = mark_text((tmp_path / "x.csv").read_text(), config, report)
    assert marked.count(END_MARK) == MAX_LABELS


def test_a_lone_surrogate_is_refused_whatever_the_kind() -> None:
    for kind in KINDS:
        text = "text\na\udc80\n" if kind in ("csv", "tsv") else '"a\udc80"'
        with pytest.raises(DataError, match="lone surrogate"):
            mark_text(text, ReadingConfig(records=kind), ReadingReport())


@pytest.mark.parametrize(
    ("settings", "setting"),
    [({"text_field": "a"}, "text_field"), ({"label_from": "file"}, "label_from"), ({"records": ""}, "records"),
     ({"records": "a\udc80"}, "records"), ({"records": "csv", "label_field": "a", "label_from": "file"}, "label_field"),
     ({"records": "csv", "label_field": ""}, "label_field"), ({"records": "line", "between": "a"}, "between"),
     ({"records": "line", "encoding": "raw"}, "encoding"), ({"records": "line", "label_from": "name"}, "label_from"),
     ({"records": "csv", "text_field": "\udc80"}, "text_field")],
)  # fmt: skip
def test_settings_of_records_that_make_no_sense_are_named(settings: dict[str, str], setting: str) -> None:
    with pytest.raises(SettingError) as caught:
        ReadingConfig(**settings)
    assert caught.value.setting == setting
    assert "\n" not in str(caught.value)


def test_blocks_stay_small_however_many_records_there_are(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a\n\n" * 100_000)
    (tmp_path / "x.jsonl").write_text('"' + "a" * 1000 + '"\n')
    source = find_sources([str(tmp_path / "x.txt")])[0]
    for kind in ("line", "blank-line", "\n\n", "file"):
        assert max(map(len, itertools.chain(read_text(source, ReadingConfig(records=kind))))) <= 300_001
    endless = itertools.repeat('"' + "a" * 1000 + '"\n')
    block = next(iter(mark_records(endless, "jsonl", "x", lambda label: END_MARK)))
    assert len(block) < 2 * records.BLOCK
