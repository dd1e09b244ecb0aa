"""What a file is, by its first bytes: packed, an archive, text in UTF-16 or UTF-32, other text, or no text.

Signatures are checked first, then control characters are counted. Text of any script holds few kinds of them (line
ends, tabs, escapes, perhaps a separator such as NUL or ^A), however often; other files hold most kinds.
"""

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from chargen.errors import amount

PEEK_SIZE = 1 << 16
"""How many bytes at the start of a file are enough."""
MIN_CONTROLS = 32
"""With fewer control characters a file counts as text."""
MIN_KINDS, MAX_SHARE_TIMES_KINDS, MAX_SHARE = 7, 1.0, 0.3
"""No text has a larger share of control characters than 0.3 or, with 7 or more kinds of them, than 1 / kinds; except
that UTF-8 may hold all kinds."""

_CONTROL = re.compile("[\0-\x06\x0e-\x19\x1c-\x1f\x7f]")
"""Control characters other than bell, backspace, tab, line ends, end of file and escape."""
_UNPRINTABLE = re.compile(rb"[^\t\n\f\r\x20-\xff]")
_WITHOUT_TABS_AND_LINE_ENDS = str.maketrans("", "", "\t\n\r\f")
_PACKING_SIGNATURES = {
    "gzip": (b"\x1f\x8b\x08",),
    "bzip2": tuple(b"BZh%d" % level + mark for level in range(1, 10) for mark in (b"1AY&SY", b"\x17rE8P\x90")),
    "xz": (b"\xfd7zXZ\0",),
    "zstd": (b"\x28\xb5\x2f\xfd", *(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))),
}
_CONVERT, _SAVE = "turn it into text first", "save it as plain text first"
_READ = "to read it: pip install 'chargen[documents]', and let its name end with {}"
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (rb"%PDF-", "a PDF document", _READ.format(".pdf")),
    (rb"\{\\rtf", "an RTF document", _READ.format(".rtf")),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", _SAVE),
    (
        rb"version https://git-lfs.github.com/spec",
        "a Git LFS pointer, not the file itself",
        "git lfs pull brings that",
    ),
    (rb"7z\xbc\xaf'\x1c", "a 7z archive", "unpack it first"),
    (rb"Rar!\x1a\x07", "a RAR archive", "unpack it first"),
    (rb"\x93NUMPY", "a NumPy array", _CONVERT),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file", _CONVERT),
    (rb"Obj\x01", "an Avro file", _CONVERT),
    (rb"SQLite format 3\0", "an SQLite database", _CONVERT),
    (rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff", "a picture", ""),
    (rb"OggS\0", "a sound or a film", ""),
    (rb"fLaC\0|ID3[\2-\4]", "a sound", ""),
    (rb"RIFF.{4}(WAVE|AVI |WEBP)", "a sound, a film or a picture", ""),
    (rb"\x1aE\xdf\xa3|\0{3}.ftyp", "a film", ""),
    (rb"\x7fELF|\xca\xfe\xba\xbe|\0asm", "a program", ""),
    (rb"\x80[\2-\5][\]}c\x95\x8a(]", "a pickle", ""),
)
"""What a file is whose first bytes match, and what to do."""
_EPUB = "an EPUB book", _READ.format(".epub")
_OFFICE = "an office document (.docx, .odt and the like)", _READ.format(".docx or .odt")
_MEMBERS = {
    "META-INF/container.xml": _EPUB,
    "META-INF/manifest.xml": _OFFICE,
    "[Content_Types].xml": _OFFICE,
    "META-INF/MANIFEST.MF": ("a Java archive", _CONVERT),
}
"""What a zip archive is if it has a member of this name."""
_FIRST_MEMBERS = (
    ("mimetype$", _OFFICE),
    (r"\[Content_Types\]|_rels/|docProps/", _OFFICE),
    (r".*/(data\.pkl|\.format_version|byteorder)$", ("a PyTorch file (.pt)", "")),
    (r".*\.npy$", ("a NumPy archive", _CONVERT)),
    ("META-INF/", ("an EPUB book or a Java archive", _CONVERT)),
)
"""What a zip archive is if the name of its first member matches."""


def detect_packing(start: bytes) -> str:
    """Detect how a file is packed.

    Args:
        start: its first bytes.

    Returns:
        "gzip", "bzip2", "xz", "zstd", or "" where it is not packed.
    """
    return next((name for name, signatures in _PACKING_SIGNATURES.items() if start.startswith(signatures)), "")


def is_tar(start: bytes) -> bool:
    """Whether a file is a tar archive: its first header holds the sum of its own bytes.

    Args:
        start: its first bytes.
    """
    header = start[:512]
    if len(header) < 512 or header[257:262] not in (b"ustar", bytes(5)):
        return False
    checksum = re.fullmatch(rb"[ \0]*([0-7]{1,7})[ \0]*", header[148:156])
    return checksum is not None and int(checksum[1], 8) == sum(header) - sum(header[148:156]) + 8 * 0x20


def is_zip(start: bytes) -> bool:
    """Whether a file is a zip archive of files; a document that is stored as a zip archive is none.

    Args:
        start: its first bytes.
    """
    return start.startswith((b"PK\x03\x04", b"PK\x05\x06")) and not _classify_zip_start(start)


def classify_zip(members: Sequence[str], content: bytes = b"") -> tuple[str, str] | None:
    """Detect documents and other files that are stored as a zip archive.

    Args:
        members: their names, or only the first one where no more are known.
        content: the start of the first member.

    Returns:
        What the archive is, and what to do; None for an archive of files.
    """
    first = members[0] if members else ""
    if first == "mimetype" and b"epub" in content:
        return _EPUB
    by_member = (kind for name, kind in _MEMBERS.items() if name in members)
    by_first = (kind for pattern, kind in _FIRST_MEMBERS if re.match(pattern, first, re.DOTALL))
    return next(by_member, None) or next(by_first, None)


def _classify_zip_start(start: bytes) -> tuple[str, str] | None:
    """The result of `classify_zip` as far as the start of an archive shows it."""
    if not start.startswith(b"PK\x03\x04"):
        return None
    first = start[30 : 30 + int.from_bytes(start[26:28], "little")]
    return classify_zip([first.decode("latin-1")], start[30 + len(first) :][:100])


def describe_non_text(start: bytes, encoding: str) -> tuple[str, str] | None:
    """Say what a file is where it is no text.

    Args:
        start: its first bytes, up to `PEEK_SIZE`.
        encoding: of the text that it would be read as.

    Returns:
        What the file is, and what to do, for a message; None for a text, and where there is too little evidence.
    """
    by_signature = ((what, advice) for signature, what, advice in _SIGNATURES if re.match(signature, start, re.DOTALL))
    if described := _classify_zip_start(start) or next(by_signature, None):
        return described
    if start[8:10] == b'{"' and 2 <= int.from_bytes(start[:8], "little") < 1 << 32:
        return "a file of weights (safetensors)", ""
    if packing := detect_packing(start):
        return f"a file packed with {packing}", "unpack it first"
    if is_tar(start) or is_zip(start):
        return "an archive", "unpack it first"
    try:
        text = codecs.getincrementaldecoder(encoding)("replace").decode(start)
    except UnicodeError:  # a codec that needs a byte order mark: the reader's message says more
        return None
    controls = _CONTROL.findall(text)
    share = len(controls) / max(len(text), 1)
    num_kinds = len(set(controls))
    many_kinds = num_kinds >= MIN_KINDS and share * num_kinds >= MAX_SHARE_TIMES_KINDS and not _decodes(start, "utf-8")
    if len(controls) < MIN_CONTROLS or not (share >= MAX_SHARE or many_kinds):
        return None
    return f"no text: {100 * share:.0f} % of its first {amount(len(text), 'character')} are control characters", ""


def detect_wide_encoding(start: bytes, encoding: str) -> str:
    """Detect a text in UTF-16 or UTF-32 that would be read in another encoding.

    Without a byte order mark it is recognised so: decoded, it holds blanks, line ends or punctuation, no rare control
    characters, and letters of few scripts, or of Chinese, Japanese or Korean. Other texts, decoded so, look like rare
    Chinese characters.

    Args:
        start: the first bytes of a file.
        encoding: of the text that it would be read as.

    Returns:
        The encoding; "" for any other text.
    """
    if len("a".encode(encoding)) - len("".encode(encoding)) > 1:  # bytes of a letter, without a byte order mark
        return ""
    for mark, wide in (
        (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
    ):  # fmt: skip
        if start.startswith(mark) and (start.count(0) or not _decodes(start, encoding)) and _decodes(start, wide):
            return wide
    if not _UNPRINTABLE.search(start) and _decodes(start, encoding):
        return ""
    return next((wide for wide in ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be") if _is_likely(start, wide)), "")


def _decodes(start: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(start)
    except UnicodeError:
        return False
    return True


def _is_likely(start: bytes, encoding: str) -> bool:
    """Whether bytes, decoded from UTF-16 or UTF-32, look like text."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(start)
    except UnicodeError:
        return False
    categories = Counter(map(unicodedata.category, text.translate(_WITHOUT_TABS_AND_LINE_ENDS)))
    separators = sum(map(text.count, " \t\n\r,.\u3000\u3001\u3002\uff0c"))
    strange = sum(categories[category] for category in ("Cc", "Cn", "Co", "Cs"))
    if len(text) < 8 or _CONTROL.search(text) or strange > len(text) / 100 or separators < len(text) / 200:
        return False
    if encoding.startswith("utf-32"):  # other texts do not decode as UTF-32
        return True
    # Two Latin letters read as one character look Chinese, with a low byte below 0x80; many real ones have it above.
    bits = [ord(character) & 0x80 for character in text if "\u2e80" <= character <= "\ud7ff" or character >= "\uf900"]
    high_bytes = Counter(ord(character) >> 8 for character in text if character < "\u2e80")
    if len(bits) > len(text) / 5 and sum(map(bool, bits)) < len(bits) / 20:
        return False
    return sum(count for _, count in high_bytes.most_common(3)) >= 0.9 * high_bytes.total()
