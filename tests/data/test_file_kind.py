"""What is a text is taken for one, in any script and encoding; what is none is named by its content."""

import gzip
import io
import pickle
import random
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.data.file_kind import PEEK_SIZE, describe_non_text, detect_packing, detect_wide_encoding, is_tar, is_zip

TEXTS = {
    "english": ("It was the best of times, it was the worst of times.\r\n", ["utf-8", "cp037", "utf-7"]),
    "french": ("Longtemps, je me suis couché de bonne heure.\n", ["utf-8", "latin-1", "cp1252", "mac_roman", "cp850"]),
    "polish": ("Litwo! Ojczyzno moja! ty jesteś jak zdrowie;\n", ["utf-8", "cp1250", "iso8859_2"]),
    "russian": ("Все счастливые семьи похожи друг на друга.\n", ["utf-8", "cp1251", "koi8_r", "cp866"]),
    "greek": ("Μῆνιν ἄειδε θεὰ Πηληϊάδεω Ἀχιλῆος\n", ["utf-8"]),
    "hebrew": ("בראשית ברא אלהים את השמים ואת הארץ\n", ["utf-8", "cp1255"]),
    "arabic": ("بسم الله الرحمن الرحيم\n", ["utf-8", "cp1256"]),
    "hindi": ("सभी मनुष्यों को गौरव और अधिकारों के मामले में\n", ["utf-8"]),
    "thai": ("มนุษย์ทั้งหลายเกิดมามีอิสระ\n", ["utf-8", "cp874"]),
    "chinese": ("床前明月光，疑是地上霜。舉頭望明月，低頭思故鄉。\n", ["utf-8", "gb18030", "big5"]),
    "japanese": ("吾輩は猫である。名前はまだ無い。\n", ["utf-8", "shift_jis", "euc_jp", "iso2022_jp"]),
    "korean": ("모든 국민은 법 앞에 평등하다. 누구든지\n", ["utf-8", "euc_kr", "johab"]),
    "emoji": ("😀👩\u200d👧 ja, 🇩🇪!\n", ["utf-8"]),
}
ENCODED = [(name, encoding) for name, (_, encodings) in TEXTS.items() for encoding in encodings]
READ_AS = ["utf-8", "latin-1", "cp1251", "gb18030", "shift_jis"]
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "while", "seven", "wizards", "quietly"]


@pytest.mark.parametrize(("name", "encoding"), ENCODED)
def test_a_text_in_its_own_encoding_or_read_as_another_is_a_text(name: str, encoding: str):
    for times in (1, 3, 300):
        content = (TEXTS[name][0] * times).encode(encoding)
        for read_as in {encoding, "latin-1", "utf-8"} if encoding != "cp037" else {encoding}:
            assert describe_non_text(content, read_as) is None
            assert detect_wide_encoding(content, read_as) == ""


MARKED: dict[str, str] = {
    "form feeds": "\f\n".join(["Chapter\nand a page of it"] * 50),
    "escapes": "\x1b[32mINFO\x1b[0m a line\r\n" * 200,
    "a bell and backspaces": "b\bbo\bol\bld\bd \a\n" * 100,
    "a lone NUL": "some text, and \0 in it\n" * 3,
    "one NUL in a hundred": ("x" * 99 + "\0") * 50,
    "names that end with NUL": "\0".join(WORDS * 30),
    "a table of ^A": "\n".join("\x01".join(WORDS[:6]) for _ in range(50)),
    "records of MARC": "\x1e1 \x1faTitle of a book\x1fbmore of it\x1e\x1d" * 50,
    "colours of IRC": "<ann> \x0304red\x03 \x02bold\x0f \x1ditalic\x1d \x1fline\x1f \x16back\x16 and some words more\n"
    * 50,
    "an end of CP/M": "WordStar had this at the end of its files.\r\n" * 9 + "\x1a" * 80,
    "names of formats": "The ftyp box of MP4\nRIFF has WAVE\nPK stands for Phil Katz\nMZ, BZh, GIF89a too\n" * 30,
    "every control character": "".join(f"{chr(code)} is U+{code:04X}\n" for code in range(1, 0xA0)) * 9,
    "tabs": "1\t2\t3\n" * 100,
    "vertical tabs": "one\vtwo\x85\x1cthree\n" * 20,
}


@pytest.mark.parametrize("name", MARKED)
def test_a_text_may_hold_control_characters(name: str):
    for encoding in ("utf-8", "latin-1"):
        content = MARKED[name].encode()
        assert (describe_non_text(content, encoding), detect_wide_encoding(content, encoding)) == (None, "")


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table a (b)")
    content = connection.serialize()
    connection.close()
    return content


def zipped(*members: tuple[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return held.getvalue()


NONE: dict[str, tuple[Callable[[], bytes], str]] = {
    "noise": (lambda: noise(4000), "no text: "),
    "little noise": (lambda: noise(600), "no text: "),
    "deflated": (lambda: zlib.compress(noise(9000)), "no text: "),
    "zeros": (lambda: bytes(5000), "no text: 100 %"),
    "numbers": (lambda: b"".join(n.to_bytes(4, "little") for n in range(1000)), "no text: "),
    "gzip": (lambda: gzip.compress(b"text"), "a file packed with gzip"),
    "pdf": (lambda: b"%PDF-1.7\n%\xe2\xe3\n1 0 obj <<>>", "a PDF document"),
    "rtf": (lambda: b"{\\rtf1\\ansi Call me Ishmael.\\par\n" * 9 + b"}", "an RTF document"),
    "docx": (lambda: zipped(("[Content_Types].xml", b"<x/>"), ("word/document.xml", b"<x/>")), "an office document"),
    "odt": (lambda: zipped(("mimetype", b"application/vnd.oasis.opendocument.text")), "an office document"),
    "epub": (lambda: zipped(("mimetype", b"application/epub+zip")), "an EPUB book"),
    "pt": (lambda: zipped(("archive/data.pkl", b"\x80\2}")), "a PyTorch file"),
    "pickle": (lambda: pickle.dumps({"a": [1] * 9}), "a pickle"),
    "sqlite": (database, "an SQLite database"),
    "png": (lambda: b"\x89PNG\r\n\x1a\n" + noise(50), "a picture"),
    "jpeg": (lambda: b"\xff\xd8\xff\xe0" + noise(50), "a picture"),
    "wav": (lambda: b"RIFF\x24\0\0\0WAVEfmt ", "a sound"),
    "elf": (lambda: b"\x7fELF\2\1\1" + bytes(9), "a program"),
    "weights": (lambda: (20).to_bytes(8, "little") + b'{"a":1}' + b" " * 13, "a file of weights"),
    "lfs": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c" + noise(20), "a 7z archive"),
}  # fmt: skip


@pytest.mark.parametrize("name", NONE)
@pytest.mark.parametrize("encoding", READ_AS)
def test_what_is_no_text_is_named(name: str, encoding: str):
    content, words = NONE[name]
    described = describe_non_text(content(), encoding)
    assert described is not None
    assert described[0].startswith(words)


@given(st.integers(0, 2**32), st.integers(700, 5000))
def test_noise_is_never_a_text(seed: int, size: int):
    content = random.Random(seed).randbytes(size)
    for encoding in READ_AS:
        assert describe_non_text(content, encoding) is not None
        assert detect_wide_encoding(content, encoding) == ""


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_text_is_recognised_without_its_mark_and_with_it(name: str, encoding: str):
    for times in (1, 2, 300):
        content = (TEXTS[name][0] * times).encode(encoding)[:PEEK_SIZE]
        mark = "\ufeff".encode(encoding)
        for read_as in READ_AS:
            assert detect_wide_encoding(content, read_as) == encoding
            assert detect_wide_encoding(mark + content, read_as) == encoding[:6]
        for read_as in ("utf-16", "utf-32", encoding):
            assert detect_wide_encoding(content, read_as) == ""


def test_what_looks_a_little_like_wide_text_is_none():
    for content in (b"abc\0def\0ghi\0" * 50, b"a \0b" * 8 + b"plain text", "é \0à".encode("latin-1") * 9, b"\0 " * 3):
        assert detect_wide_encoding(content, "latin-1") == ""


def test_packing_and_archives_are_known_by_content(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(__file__, "x")
    made = (tmp_path / "a.tar").read_bytes()
    old = bytearray(made)
    old[257:265] = bytes(8)  # as before POSIX
    old[148:156] = b"%06o\0 " % (sum(old[:512]) - sum(old[148:156]) + 256)
    assert is_tar(made)
    assert is_tar(bytes(old))
    assert not is_tar(made[:511])
    assert not is_tar(bytes(1024))
    assert is_zip(zipped(("a.txt", b"text")))
    assert is_zip(zipped())
    assert not is_zip(b"PK is short for Phil Katz")
    assert detect_packing(b"BZh is no signature") == detect_packing(b"") == ""
    assert detect_packing(gzip.compress(b"")) == "gzip"
