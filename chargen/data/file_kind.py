"""What a file is, by its first bytes: packed, an archive, text in two or four bytes a character, or no text at all.

Signatures first, then shares of control characters. Text of any script holds few kinds of them (line ends, tabs,
escapes, perhaps a separator such as NUL or ^A), however often; what is no text holds most kinds.
"""

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from chargen.errors import amount

PEEK_SIZE = 1 << 16
"""How many first bytes are looked at."""
FEWEST = 32
"""Control characters below this number prove nothing."""
KINDS, SHARE_OF_KINDS, SHARE = 7, 1.0, 0.3
"""No text has a larger share of control characters than 0.3, or, with 7 kinds of them and more, than 1 / kinds; but
what is UTF-8 throughout may hold all kinds."""

_ODD = re.compile("[\0-\x06\x0e-\x19\x1c-\x1f\x7f]")
"""Control characters other than bell, backspace, tab, line ends, end of file and escape."""
_UNPRINTED = re.compile(rb"[^\t\n\f\r\x20-\xff]")
_NO_LINE_ENDS = str.maketrans("", "", "\t\n\r\f")
_PACKED = {
    "gzip": (b"\x1f\x8b\x08",),
    "bzip2": tuple(b"BZh%d" % level + mark for level in range(1, 10) for mark in (b"1AY&SY", b"\x17rE8P\x90")),
    "xz": (b"\xfd7zXZ\0",),
    "zstd": (b"\x28\xb5\x2f\xfd", *(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))),
}
_AS_TEXT, _SAVE = "turn it into text first", "save it as plain text first"
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"%PDF-", "a PDF document", f"{_AS_TEXT}, as pdftotext does"),
    (b"{\\rtf", "an RTF document", _SAVE),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", _SAVE),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself", "git lfs pull brings that"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it first"),
    (b"\x93NUMPY", "a NumPy array", _AS_TEXT),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _AS_TEXT),
    (b"Obj\x01", "an Avro file", _AS_TEXT),
    (b"SQLite format 3\0", "an SQLite database", _AS_TEXT),
    (b"\x89PNG\r\n\x1a\n", "a picture", ""),
    (b"\xff\xd8\xff", "a picture", ""),
    (b"OggS\0", "a sound or a film", ""),
    (b"fLaC\0", "a sound", ""),
    *((b"ID3" + bytes([version]), "a sound", "") for version in (2, 3, 4)),
    (b"\x1aE\xdf\xa3", "a film", ""),
    (b"\x7fELF", "a program", ""),
    (b"\xca\xfe\xba\xbe", "a program", ""),
    (b"\0asm", "a program", ""),
)
_EPUB = "an EPUB book", f"{_AS_TEXT}, as pandoc -t plain does"
_OFFICE = "an office document (.docx, .odt and the like)", _SAVE
_MEMBERS = {
    "META-INF/container.xml": _EPUB,
    "META-INF/manifest.xml": _OFFICE,
    "[Content_Types].xml": _OFFICE,
    "META-INF/MANIFEST.MF": ("a Java archive", _AS_TEXT),
}
"""What a zip archive is by a member, wherever that stands."""
_FIRST_MEMBERS = (
    ("mimetype$", _OFFICE),
    (r"\[Content_Types\]|_rels/|docProps/", _OFFICE),
    (r".*/(data\.pkl|\.format_version|byteorder)$", ("a PyTorch file (.pt)", "")),
    (r".*\.npy$", ("a NumPy archive", _AS_TEXT)),
    ("META-INF/", ("an EPUB book or a Java archive", _AS_TEXT)),
)
"""What it is by its first member."""


def detect_packing(start: bytes) -> str:
    """How a file is packed: "gzip", "bzip2", "xz", "zstd", or "" where it is not."""
    return next((name for name, marks in _PACKED.items() if start.startswith(marks)), "")


def is_tar(start: bytes) -> bool:
    """True for a tar archive: its first header carries the sum of its own bytes."""
    header = start[:512]
    if len(header) < 512 or header[257:262] not in (b"ustar", bytes(5)):
        return False
    written = re.fullmatch(rb"[ \0]*([0-7]{1,7})[ \0]*", header[148:156])
    return written is not None and int(written[1], 8) == sum(header) - sum(header[148:156]) + 8 * 0x20


def is_zip(start: bytes) -> bool:
    """True for a zip archive of files, and for no document that is stored as one."""
    return start.startswith((b"PK\x03\x04", b"PK\x05\x06")) and not _zipped(start)


def classify_zip(members: Sequence[str], content: bytes = b"") -> tuple[str, str] | None:
    """What a zip archive is instead of an archive of files, and what to do.

    Args:
        members: their names, or the first one alone where no more is known.
        content: how the first one begins.
    """
    first = members[0] if members else ""
    if first == "mimetype" and b"epub" in content:
        return _EPUB
    by_member = (kind for name, kind in _MEMBERS.items() if name in members)
    by_first = (kind for pattern, kind in _FIRST_MEMBERS if re.match(pattern, first, re.DOTALL))
    return next(by_member, None) or next(by_first, None)


def _zipped(start: bytes) -> tuple[str, str] | None:
    """What the start of a zip archive tells of it."""
    if not start.startswith(b"PK\x03\x04"):
        return None
    first = start[30 : 30 + int.from_bytes(start[26:28], "little")]
    return classify_zip([first.decode("latin-1")], start[30 + len(first) :][:100])


def describe_non_text(start: bytes, encoding: str) -> tuple[str, str] | None:
    """What a file is instead of text, and what to do; None for a text, or where too little speaks against it.

    Args:
        start: its first bytes, up to `LOOK`.
        encoding: what it would be read as.
    """
    signed = ((what, advice) for mark, what, advice in _SIGNATURES if start.startswith(mark))
    if kind := _zipped(start) or next(signed, None):
        return kind
    if start[:4] == b"RIFF" and start[8:12] in (b"WAVE", b"AVI ", b"WEBP"):
        return "a sound, a film or a picture", ""
    if start[:3] == bytes(3) and start[4:8] == b"ftyp":
        return "a film", ""
    if re.match(rb"\x80[\2-\5][\]}c\x95\x8a(]", start):
        return "a pickle", ""
    if start[8:10] == b'{"' and 2 <= int.from_bytes(start[:8], "little") < 1 << 32:
        return "a file of weights (safetensors)", ""
    if detect_packing(start):
        return f"a file packed with {detect_packing(start)}", "unpack it first"
    if is_tar(start) or is_zip(start):
        return "an archive", "unpack it first"
    try:
        text = codecs.getincrementaldecoder(encoding)("replace").decode(start)
    except UnicodeError:  # a codec that waits for its byte order mark: the reader says more
        return None
    odd = _ODD.findall(text)
    share = len(odd) / max(len(text), 1)
    kinds = len(set(odd))
    many = kinds >= KINDS and share * kinds >= SHARE_OF_KINDS and not _decodes(start, "utf-8")
    if len(odd) < FEWEST or not (share >= SHARE or many):
        return None
    return f"no text: {100 * share:.0f} % of its first {amount(len(text), 'character')} are control characters", ""


def detect_wide_encoding(start: bytes, encoding: str) -> str:
    """The encoding of a text in UTF-16 or UTF-32 that would be read as another; "" for any other text.

    Without a byte order mark it shows in this: decoded, it holds blanks, line ends or punctuation, nothing odd, and
    letters of few scripts, or of Chinese, Japanese or Korean; what is not so wide looks like rare Chinese characters.
    """
    if _width(encoding) > 1:
        return ""
    for mark, name in (
        (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
    ):  # fmt: skip
        if start.startswith(mark) and (start.count(0) or not _decodes(start, encoding)) and _decodes(start, name):
            return name
    if not _UNPRINTED.search(start) and _decodes(start, encoding):
        return ""
    return next((name for name in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be") if _reads_well(start, name)), "")


def _width(encoding: str) -> int:
    return len("a".encode(encoding)) - len("".encode(encoding))


def _decodes(start: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(start)
    except UnicodeError:
        return False
    return True


def _reads_well(start: bytes, encoding: str) -> bool:
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(start)
    except UnicodeError:
        return False
    kinds = Counter(map(unicodedata.category, text.translate(_NO_LINE_ENDS)))
    anchors = sum(map(text.count, " \t\n\r,.\u3000\u3001\u3002\uff0c"))
    strange = sum(kinds[kind] for kind in ("Cc", "Cn", "Co", "Cs"))
    if len(text) < 8 or _ODD.search(text) or strange > len(text) / 100 or anchors < len(text) / 200:
        return False
    if encoding.startswith("utf-32"):  # which nothing else decodes as
        return True
    # Two Latin letters read as one character are Chinese, with a low byte below 0x80; many real ones have it above.
    wide = [ord(character) & 0x80 for character in text if "\u2e80" <= character <= "\ud7ff" or character >= "\uf900"]
    rows = Counter(ord(character) >> 8 for character in text if character < "\u2e80")
    if len(wide) > len(text) / 5 and sum(map(bool, wide)) < len(wide) / 20:
        return False
    return sum(count for _, count in rows.most_common(3)) >= 0.9 * rows.total()
