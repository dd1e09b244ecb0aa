"""Files, folders, patterns, standard input -> clean text: every byte read once, or named."""

import bz2
import codecs
import gzip
import io
import lzma
import os
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chargen.counting.text_facts import read_facts
from chargen.data import normal_form, reading, text_files
from chargen.data.corpus import Corpus
from chargen.data.normal_form import compose, normalize_blocks
from chargen.data.reading import clean, read_text
from chargen.data.reading_config import ReadingConfig
from chargen.data.reading_report import ReadingReport
from chargen.data.sources import RUN_FILES, Source, find_sources
from chargen.errors import DataError, SettingError
from chargen.training import run_folder

TRICKY = "ea\r\n\ufeff\ufffd漢😀\u0301\u0323\u0327\u0345\u1100\u1161\u11a8가\u0f71\u0f72\u09c7\u09be"
texts = st.text(st.one_of(st.sampled_from(TRICKY), st.characters(codec="utf-8")))
sizes = st.sampled_from([1, 2, 3, 7, 1 << 20])


def cut(content: bytes, size: int) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


def read(*contents: bytes, size: int = 1 << 20, report: ReadingReport | None = None, **config: Any) -> str:
    """The text of files that hold `contents`, read in blocks of `size` bytes."""
    held = {f"file{number}": content for number, content in enumerate(contents)}
    sources = [Source(name, Path(name)) for name in held]
    with patch.object(
        reading, "text_files", lambda source, *_: [text_files.TextFile(source.name, "", cut(held[source.name], size))]
    ):
        return "".join(read_text(sources, ReadingConfig(**config), report=report))


@given(texts, st.sampled_from(["utf-8", "utf-16", "utf-8-sig", "utf-32", "gb18030", "utf-16-be"]), sizes,
       st.sampled_from(["keep", "lf"]), st.sampled_from(["none", "NFC"]))  # fmt: skip
@example("\ufeff\ufeffa\r\n\r", "utf-8", 1, "lf", "none")
def test_the_size_of_a_block_does_not_matter(text: str, encoding: str, size: int, newline: str, normalize: str):
    marked = encoding in ("utf-16", "utf-32", "utf-8-sig")
    expected = clean(
        text if marked else text.removeprefix("\ufeff"), ReadingConfig(newline=newline, normalize=normalize)
    )
    content = text.encode(encoding)
    assert read(content, size=size, encoding=encoding, newline=newline, normalize=normalize) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_blocks_of_a_real_file_join_without_a_seam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, suffix: str
):
    monkeypatch.setattr(text_files, "BLOCK_SIZE", size)
    path = tmp_path / f"x{suffix}"
    content = "é\r\n漢e\u0301\r\r\n😀\r".encode()
    path.write_bytes(gzip.compress(content) if suffix else content)
    blocks = [block for file in text_files._read_files(Source("x", path), ReadingConfig()) for block in file.blocks]
    assert max(map(len, blocks)) <= size
    assert "".join(read_text(find_sources([path])[0], ReadingConfig(newline="lf", normalize="NFC"))) == "é\n漢é\n\n😀\n"


@given(st.lists(texts))
@example(["\u1100", "\u1161", "\u11a8\u09c7", "\u09be"])
@example(["e\u0323", "\u0301\u0327", "b"])
def test_nfc_in_blocks_is_nfc_of_the_whole(blocks: list[str]):
    assert "".join(normalize_blocks(blocks)) == unicodedata.normalize("NFC", "".join(blocks))


MARKS = "\u0301\u0323\u0316\u0344\u0f71\u0f72\u0f73\u0f75\u0f81\u3099\u0334\u0345"


@given(
    st.lists(st.one_of(st.sampled_from(["e", "\u1100\u1161", "\u0f40"]), st.text(st.sampled_from(MARKS), min_size=40)))
)
def test_runs_of_marks_are_ordered_alike(pieces: list[str]):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(normal_form, "_SAMPLED", 1)
        assert compose("".join(pieces)) == unicodedata.normalize("NFC", "".join(pieces))


@pytest.mark.parametrize("marks", ["\u0301\u0316", "\u0f73"])
def test_a_run_of_marks_takes_time_of_its_length_only(marks: str, tmp_path: Path):
    (tmp_path / "zalgo.txt").write_text("a" + marks * 50_000, "utf-8")
    start = time.process_time()
    corpus = Corpus.from_files(tmp_path / "zalgo.txt", normalize="NFC", unit="byte")
    assert corpus.valid.size
    assert read_facts(Corpus.from_files(tmp_path / "zalgo.txt"), lambda *_: None).not_nfc
    assert time.process_time() - start < 5, "of more than 20"


LEFT = ["e", "e\u0323", "\u1100", "가", "\u0f40\u0f71", "\u09c7", "\u0345"]


def lost_compositions() -> set[str]:
    """The characters before which a block border changes the result."""
    lost = set()
    for code in range(0x300, sys.maxunicode + 1):
        right = chr(code)
        if unicodedata.category(right) in ("Cn", "Co", "Cs") or 0xAC04 < code < 0xD7A4 or 0x3400 < code < 0xA000:
            continue
        for left in LEFT + ["X\u0f72"] * bool(unicodedata.decomposition(right)):
            if "".join(normalize_blocks([left, right])) != unicodedata.normalize("NFC", left + right):
                lost.add(right)
    return lost


def test_no_character_changes_with_the_border_before_it():
    assert lost_compositions() == set()


@pytest.mark.parametrize("right", "\u0f73\u0f75\u0f81")
def test_a_mark_that_decomposes_to_marks_is_joined(right: str):
    left = "\u0f40\u0f74" if right == "\u0f73" else "\u0f40\u0f80"
    assert "".join(normalize_blocks([left, right])) == unicodedata.normalize("NFC", left + right)


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF8 * 2])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("size", [1, 2, 100])
def test_a_byte_order_mark_is_removed_once_per_file(mark: bytes, encoding: str, size: int):
    kept = "\ufeff" * (len(mark) // 3 - 1)
    contents = [mark + b"a", b"b" + mark, mark + b"c"]
    assert read(*contents, size=size, encoding=encoding, between="") == f"{kept}ab\ufeff{kept}{kept}c"


def test_a_line_end_is_no_line_end_with_the_next_file():
    report = ReadingReport()
    assert read(b"a\r", b"\nb\r\nc\r", newline="lf", report=report) == "a\n\nb\nc\n"
    assert (report.files, report.bytes, report.carriage_returns, report.replaced) == (2, 8, 3, 0)


PIECES = st.one_of(
    texts.map(str.encode), st.sampled_from([b"\xff", b"\xe2\x82", b"\xf0\x9f", b"\xc0\xaf"]), st.binary()
)


@given(st.lists(PIECES, max_size=6), sizes, st.sampled_from(["utf-8", "gb18030", "shift_jis", "cp1252", "utf-16-le"]))
@example(["a\ufffd".encode(), b"\xff", "\ufffd".encode()], 2, "utf-8")
@example(["\ufffd".encode("gb18030"), b"\xff"], 1, "gb18030")
def test_replacements_are_counted_exactly(pieces: list[bytes], size: int, encoding: str):
    """A U+FFFD that stood in the file is a character like any other."""
    calls = []
    codecs.register_error("chargen-test", lambda error: (calls.append(error) or "\ufffd", error.end))
    content, report = b"".join(pieces), ReadingReport()
    expected = content.decode(encoding, "chargen-test").removeprefix("\ufeff")
    assert read(content, size=size, encoding=encoding, errors="replace", report=report) == expected
    assert (report.replaced, report.bytes) == (len(calls), len(content))


GOOD = ["a", "ñ", "\n", "漢", "b", "\r\n", "😀", "\n", "z"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("bad", [b"\xff", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80"])
def test_a_bad_byte_is_named_by_file_line_and_offset(size: int, bad: bytes):
    for at in range(len(GOOD) + 1):
        before, after = "".join(GOOD[:at]), "".join(GOOD[at:])
        content = before.encode() + bad + after.encode()
        with pytest.raises(DataError) as caught:
            read(b"fine\n", content, size=size)
        line, offset = 1 + before.count("\n"), len(before.encode())
        assert str(caught.value).startswith(f"file1: line {line}, offset {offset}: bytes {bad[:1].hex()}")
        assert "are not utf-8" in str(caught.value)
        assert str(caught.value).endswith(
            'give `encoding=NAME` (cp1252, latin-1, gb18030 …) or `errors="replace"`; '
            '`unit="byte", encoding="raw"` learns any bytes'
        )


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("Il était une fois, où l’été passe, une fée déçue. ", "cp1252"), ("Все счастливые семьи похожи. ", "cp1251"),
     ("Все счастливые семьи похожи. ", "koi8-r"), ("床前明月光", "gb18030"), ("吾輩は猫である。", "cp932")],
)  # fmt: skip
def test_another_encoding_is_suggested_and_never_taken(text: str, encoding: str) -> None:
    content = b"plain\n" * 9 + (text * 9).encode(encoding)
    with pytest.raises(DataError, match=rf'give `encoding="{encoding}"`, which it may be, or `errors=') as caught:
        read(content)
    assert "are not utf-8" in str(caught.value)
    assert read(content, encoding=encoding).endswith(text)
    with pytest.raises(DataError, match="`encoding=NAME`"):
        read((text.encode() + b"\xff") * 9)  # UTF-8 but for some bytes


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_utf_16_read_as_utf_8_is_told_its_encoding(mark: bytes):
    with pytest.raises(DataError, match=r"offset 0: bytes f.* give `encoding=\"utf-16\"` or"):
        read(mark + b"a\0")


PLACES = [
    ("漢\n漢b\n漢a".encode("gb18030") + b"\xff", "gb18030", 3, "line 3, offset 10: bytes ff"),
    ("a\nb".encode("utf-16-le") + b"b\0\x00\xdc", "utf-16-le", 3, "line 2, offset 8: bytes 00 dc"),
    (codecs.BOM_UTF8 + b"ab\xff", "utf-8-sig", 99, "line 1, offset 5: bytes ff"),
    (codecs.BOM_UTF8[:2], "utf-8-sig", 99, "line 1, offset 0: bytes ef bb"),
    (codecs.BOM_UTF16_BE + "a\nb\nc\nd\n".encode("utf-16-be") + b"\xdc\0", "utf-16", 8, "line 5, offset 18"),
]


@pytest.mark.parametrize(("content", "encoding", "size", "place"), PLACES)
def test_a_bad_byte_is_placed_in_any_encoding(content: bytes, encoding: str, size: int, place: str):
    with pytest.raises(DataError, match=place):
        read(content, size=size, encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("errors", ["strict", "replace"])
def test_a_missing_byte_order_mark_is_an_error_of_the_data(encoding: str, errors: str):
    with pytest.raises(DataError, match=r"file0.*byte order mark"):
        read("ab".encode(encoding)[len("".encode(encoding)) :], encoding=encoding, errors=errors)


def test_the_advice_is_not_what_was_done():
    with pytest.raises(DataError) as caught:
        read(codecs.BOM_UTF16_LE + b"a\0\x00\xdc", encoding="utf-16")
    assert 'encoding="utf-16"' not in str(caught.value)


PACKERS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def text_of(*names: str | Path, **config: Any) -> str:
    return "".join(read_text(find_sources(names)[0], ReadingConfig(**config)))


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files_read_as_what_they_hold(tmp_path: Path, suffix: str):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(PACKERS[suffix]("añ".encode()) + PACKERS[suffix](b"b"))
    assert text_of(path) == "añb"


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_packed_file_cut_anywhere_is_damaged(tmp_path: Path, suffix: str):
    packed, path = PACKERS[suffix](b"hello"), tmp_path / f"x{suffix}"
    for size in range(1, len(packed)):
        path.write_bytes(packed[:size])
        words = "it is cut off .*; take a fresh copy, or leave it out$" if size > 10 else ""
        with pytest.raises(DataError, match=rf"cannot read .*x\{suffix}: {words}"):
            text_of(path)


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("content", [b"just text\n", b"\x1f\x8b\x08\0not at all", b"BZh9 no", b"\xfd7zXZ\0 no"])
def test_a_file_that_only_claims_to_be_packed_is_damaged(tmp_path: Path, suffix: str, content: bytes):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"cannot read .*x\{suffix}"):
        text_of(path)


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_file_whose_name_says_another_packing_is_told_so(tmp_path: Path, suffix: str):
    other = next(name for name in PACKERS if name != suffix)
    for content, words in ((b"text\n" * 9, "not packed with"), (PACKERS[other](b"text"), "packed with [a-z0-9]*, not")):
        (tmp_path / f"x{suffix}").write_bytes(content)
        with pytest.raises(DataError, match=rf"x\{suffix}: it is {words} .*, as its name says; give it another name$"):
            text_of(tmp_path / f"x{suffix}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ["b.txt", "a/z.txt", "a/.hidden", "c/d/e.md", ".top", ".git/config", ".git/x/.y", "a.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name + "\n", "utf-8")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_is_read_recursively_in_sorted_order(folder: Path):
    assert text_of(folder) == "a.txt\na/z.txt\nb.txt\nc/d/e.md\n"
    assert text_of("b.txt", "a") == "b.txt\na/z.txt\n"


def test_a_run_in_a_folder_hides_its_own_files_only(folder: Path):
    assert set(RUN_FILES) == set(run_folder.FILES)
    assert RUN_FILES[0] == run_folder.FILES[0]
    (folder / "c/metrics.jsonl").write_text("no run\n")
    for name in RUN_FILES:
        (folder / "a" / name).write_text(name)
    assert text_of(folder) == "a.txt\na/z.txt\nb.txt\nc/d/e.md\nno run\n"
    assert find_sources(["a"])[1] == 4


def test_hidden_files_are_left_out_and_counted(folder: Path):
    assert [find_sources([name])[1] for name in ("a", "c")] == [1, 0]
    assert text_of("a/.hidden") == "a/.hidden\n"


def refuse(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let nobody look into folders of this name."""
    real = os.scandir

    def refusing(path: Any) -> Any:
        if os.path.basename(path) == name:
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)


def test_a_hidden_folder_is_counted_once_and_not_looked_into(folder: Path, monkeypatch: pytest.MonkeyPatch):
    assert find_sources([folder])[1] == len(["a/.hidden", ".top", ".git"])
    (folder / "c/.venv/.inner").mkdir(parents=True)
    assert find_sources([folder])[1] == 4
    assert find_sources([folder, "c"])[1] == 5
    refuse(monkeypatch, ".git")
    assert find_sources([folder])[1] == 4


def test_a_folder_of_hidden_entries_only_is_an_error_that_counts_them(tmp_path: Path):
    (tmp_path / ".git").mkdir()
    for name in (".top", ".git/config", ".git/index"):
        (tmp_path / name).write_text(name)
    with pytest.raises(DataError, match=r"holds no files \(2 hidden"):
        find_sources([tmp_path])


@pytest.mark.parametrize("name", ["empty", "nothing.txt", "*.pdf", "nothing/**", "a\0b"])
def test_a_name_that_leads_to_nothing_is_an_error(folder: Path, name: str):
    with pytest.raises(DataError) as caught:
        find_sources(["a.txt", name])
    assert name in str(caught.value) or repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["", "x" * 300])
def test_an_impossible_name_is_an_error_of_the_data(folder: Path, name: str):
    with pytest.raises(DataError):
        find_sources([name])


def test_a_folder_that_cannot_be_read_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch):
    refuse(monkeypatch, "a")
    with pytest.raises(DataError, match="Permission denied"):
        find_sources([folder])


def test_patterns_give_sorted_files(folder: Path):
    assert text_of("*.txt") == "a.txt\nb.txt\n"
    assert text_of("**/*.md", "**/z*") == "c/d/e.md\na/z.txt\n"


def test_an_existing_path_wins_over_a_corpus_and_over_a_pattern(folder: Path):
    assert len(find_sources(["python"])[0]) > 10
    for name in ("python", "[ab].txt"):
        Path(name).write_text("mine")
        assert text_of(name) == "mine"


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\xef\xbb\xbfh\xc3\xa9")))
    sources, _ = find_sources(["-"])
    assert sources[0].is_stream
    assert "".join(read_text(sources)) == "hé"
    assert not sys.stdin.buffer.closed


def test_standard_input_cannot_be_named_twice():
    with pytest.raises(DataError, match="standard input"):
        find_sources(["-", "-"])


def test_the_locale_does_not_matter(tmp_path: Path):
    (tmp_path / "x.txt").write_bytes("é漢".encode())
    program = (
        "import locale; from chargen.data.reading import *; from chargen.data.sources import *;"
        "sources, _ = find_sources(['x.txt']);"
        "print(locale.getpreferredencoding(), ascii(''.join(read_text(sources))))"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "utf" not in done.stdout.split()[0].lower(), done.stderr
    assert done.stdout.split()[1] == ascii("é漢")


def test_what_is_put_between_files_must_be_text() -> None:
    with pytest.raises(SettingError, match=r"between is '\\udcff', which is no text"):
        ReadingConfig(between="\udcff")
    assert ReadingConfig(between="\udcff", encoding="raw").between == "\udcff"


@pytest.mark.parametrize("name", ["", "utf-9", "rot13", "hex", "undefined", "utf-8\0", "\udcff"])
def test_what_is_no_text_encoding_is_refused(name: str):
    with pytest.raises(SettingError, match="knows no such text encoding") as caught:
        ReadingConfig(encoding=name)
    assert caught.value.setting == "encoding"


@pytest.mark.parametrize("name", ["idna", "punycode"])
def test_an_encoding_of_host_names_is_refused(name: str):
    with pytest.raises(SettingError):
        ReadingConfig(encoding=name)


def test_a_file_that_is_no_text_is_named_or_passed_over(tmp_path: Path):
    (tmp_path / "a.txt").write_text("text\n")
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.4\n...")
    (tmp_path / "c").write_bytes(b"some text, then \0" + bytes(range(256)) * 9)
    (tmp_path / "b").write_bytes(b"%PDF-1.4\n...")
    for name, documents, words in (
        ("b.pdf", False, "is a PDF document; leave out `documents=False`$"),
        ("b", None, r"is a PDF document; to read it: pip install .chargen\[documents\]., and .* end with \.pdf$"),
        ("c", False, r"is no text: \d+ % .* control characters; "),
    ):
        for encoding in ("utf-8", "latin-1"):
            with pytest.raises(DataError, match=words) as caught:
                text_of(tmp_path / name, encoding=encoding, documents=documents)
            assert caught.value.exit_code == 3
    (tmp_path / "b").unlink()
    report = ReadingReport()
    sources, _ = find_sources([tmp_path])
    assert "".join(read_text(sources, ReadingConfig(encoding="latin-1", documents=False), report=report)) == "text\n"
    assert report.passed_over == [f"{tmp_path}/b.pdf (a PDF document)", f"{tmp_path}/c (no text)"]
    assert report.files == 1
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match=r"no text among 2 files: .*b\.pdf \(a PDF document\), .*c \(no text\)"):
        text_of(tmp_path, documents=False)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-16"])
def test_utf_16_and_32_without_their_mark_are_told(tmp_path: Path, encoding: str):
    text = "Сейчас, or now, is a text\n"
    (tmp_path / "x.txt").write_bytes(text.encode(encoding))
    for read_as in ("utf-8", "latin-1", "cp1251"):
        for name in (tmp_path, tmp_path / "x.txt"):
            with pytest.raises(
                DataError, match=rf"x\.txt is text in {encoding}, not in {read_as}: give `encoding=\"{encoding}\"`$"
            ):
                text_of(name, encoding=read_as)
    assert text_of(tmp_path / "x.txt", encoding=encoding) == text


def test_raw_takes_any_file_as_it_is(tmp_path: Path):
    for content in (bytes(range(256)) * 20, b"\xff\xfea\0", codecs.BOM_UTF8 + b"a\r\n", b"PK\3\4 no zip", b"\xc3\xa9"):
        (tmp_path / "x").write_bytes(content)
        report = ReadingReport()
        (text,) = read_text(find_sources([tmp_path / "x"])[0], ReadingConfig(encoding="raw"), report=report)
        assert text.encode("ascii", "surrogateescape") == content
        assert len(text) == report.bytes == len(content)
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"\xff"))
    assert text_of(tmp_path / "x.gz", encoding="raw") == "\udcff"


def test_raw_bytes_have_no_normal_form():
    with pytest.raises(SettingError, match="raw bytes have no normal form"):
        ReadingConfig(encoding="raw", normalize="NFC")


@given(texts)
def test_a_raw_text_in_memory_is_its_utf_8_a_character_a_byte(text: str):
    cleaned = clean(text, ReadingConfig(encoding="raw"))
    assert cleaned.encode("ascii", "surrogateescape") == text.encode()
    assert clean(cleaned, ReadingConfig(encoding="raw")) == cleaned


def test_a_raw_text_cannot_hold_what_is_no_byte():
    with pytest.raises(DataError, match="lone surrogate, position 1"):
        clean("a\ud800", ReadingConfig(encoding="raw"))


BORDERS = [
    ([b"a", b"b"], {}, "a\nb"),
    ([b"a\n", b"b\r\n", b"c\r", "d\u2028".encode(), b"e"], {}, "a\nb\r\nc\rd\u2028e"),
    ([b"a", b"", b"", b"b", b""], {}, "a\nb"),
    ([b"", b"a"], {}, "a"),
    ([b"a\r", b"b"], {"newline": "lf"}, "a\nb"),
    ([b"a", b"b\n", b"c"], {"between": ""}, "ab\nc"),
    ([b"a", b"b\n", b"", b"c"], {"between": "\r\n--\r\n", "newline": "lf"}, "a\n--\nb\n\n--\nc"),
    ([b"a", "\u0301".encode()], {"between": "e", "normalize": "NFC"}, "aé"),
    ([b"\xff", b"\xfe\n", b"c"], {"encoding": "raw"}, "\udcff\n\udcfe\nc"),
    ([b"a", b"b"], {"encoding": "raw", "between": "é"}, "a\udcc3\udca9b"),
]


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize(("contents", "config", "expected"), BORDERS)
def test_what_stands_between_two_files(contents: list[bytes], config: dict[str, Any], expected: str, size: int):
    report = ReadingReport()
    assert read(*contents, size=size, report=report, **config) == expected
    assert report.joined <= len(contents) - 1
    assert bool(report.joined) == (expected != read(*contents, **{**config, "between": ""}))
