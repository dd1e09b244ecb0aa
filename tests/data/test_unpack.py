"""Packed files and archives are read as what they hold; a hostile one costs little and writes nothing."""

import bz2
import contextlib
import gzip
import io
import lzma
import random
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chargen.data import unpack
from chargen.data.corpus import Corpus
from chargen.data.reading import read_text
from chargen.data.reading_config import ReadingConfig
from chargen.data.reading_report import ReadingReport
from chargen.data.sources import find_sources
from chargen.errors import ChargenError, DataError

FOLDER = {
    "b.txt": "béta\r\n".encode(),
    "a/z.txt": b"last of a",
    "a/y.md": "\ufeffmarked\n".encode(),
    "c.txt": b"",
    "d.txt": b"no line end",
    "e.txt": b"end\n",
    "a.txt": b"between a and a/\n",
}
NO_TEXT = {"cover.png": b"\x89PNG\r\n\x1a\n" + bytes(50), "noise": random.Random(0).randbytes(3000)}
Members = dict[str, bytes]


def shuffled(members: Members) -> list[tuple[str, bytes]]:
    return random.Random(1).sample(sorted(members.items()), len(members))


def tar(members: Members, packing: str = "", prefix: str = "") -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode=f"w:{packing}") as archive:
        for name, content in shuffled(members):
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return held.getvalue()


def zipped(members: Members) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in shuffled(members):
            archive.writestr(name, content)
    return held.getvalue()


ARCHIVERS: dict[str, Callable[[Members], bytes]] = {
    ".tar": tar,
    ".tar.gz": lambda members: tar(members, "gz", "./"),
    ".tgz": lambda members: tar(members, "gz"),
    ".tar.bz2": lambda members: tar(members, "bz2"),
    ".tar.xz": lambda members: tar(members, "xz"),
    ".zip": zipped,
    "": zipped,
}


def write_folder(folder: Path, members: Members) -> Path:
    for name, content in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def text_of(*names: str | Path, report: ReadingReport | None = None, **config: Any) -> str:
    return "".join(read_text(find_sources(names)[0], ReadingConfig(**config), report=report))


@pytest.mark.parametrize("suffix", ARCHIVERS)
def test_an_archive_is_read_as_its_folder(tmp_path: Path, suffix: str):
    members = FOLDER | NO_TEXT | {".hidden": b"no", "a/.git/d": b"no"}
    folder, path = write_folder(tmp_path / "x", members), tmp_path / f"y{suffix}"
    path.write_bytes(ARCHIVERS[suffix](members | {"__MACOSX/b": b"no"}))
    whole, packed = Corpus.from_files(folder), Corpus.from_files(path)
    assert packed.key == whole.key
    assert packed.vocabulary.decode(packed.train) == whole.vocabulary.decode(whole.train)
    assert whole.report.files == packed.report.files == len(FOLDER)
    assert [name.split("/")[-1] for name in whole.report.passed_over] == ["cover.png (a picture)", "noise (no text)"]
    assert sorted(name.removeprefix(f"{path}: ").removeprefix("./") for name in packed.report.passed_over) == [
        ".hidden (hidden)",
        "__MACOSX/b (hidden)",
        "a/.git/d (hidden)",
        "cover.png (a picture)",
        "noise (no text)",
    ]


@pytest.mark.parametrize("suffix", ARCHIVERS)
@pytest.mark.parametrize("pipe", [False, True])
def test_an_archive_on_standard_input_is_read_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, pipe: bool
):
    content = ARCHIVERS[suffix](FOLDER)

    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return not pipe

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Stream(content)))
    expected = text_of(write_folder(tmp_path / "x", FOLDER))
    assert text_of("-") == expected
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Stream(content)))
    corpus = Corpus.from_files("-", valid_fraction=0)
    assert corpus.vocabulary.decode(corpus.train) == expected


def test_a_packed_text_needs_no_suffix(tmp_path: Path):
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        (tmp_path / "x").write_bytes(pack(b"text") + pack(b" and more"))
        assert text_of(tmp_path / "x") == "text and more"


def test_the_last_member_of_a_name_counts(tmp_path: Path):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for content in (b"old", b"new"):
            info = tarfile.TarInfo("a.txt")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    (tmp_path / "x.tar").write_bytes(held.getvalue())
    assert text_of(tmp_path / "x.tar") == "new"


SNEAKY = ["../../etc/passwd", "/etc/passwd", "a/../../b", "C:\\x", "~/x", "\udcff", "x" * 300, "a\nb\x1b[31m"]


def hostile_tar() -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"kind{kind.decode()}")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for name in SNEAKY:
            info = tarfile.TarInfo(name)
            info.size, info.mode = 5, 0o6777
            archive.addfile(info, io.BytesIO(b"text\n"))
    return held.getvalue()


def hostile_zip() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in SNEAKY:
            archive.writestr(name.replace("\udcff", "ÿ"), b"text\n")
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return held.getvalue()


@pytest.mark.parametrize("archive", [hostile_tar, hostile_zip])
def test_names_links_and_devices_lead_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: Callable[[], bytes]
):
    (tmp_path / "deep/in/here").mkdir(parents=True)
    (tmp_path / "deep/in/here/x").write_bytes(archive())
    monkeypatch.chdir(tmp_path / "deep/in/here")
    before, report = sorted(tmp_path.rglob("*")), ReadingReport()
    assert text_of("x", report=report) == "text\n" * len(SNEAKY)
    assert all(entry.endswith(("(a link or a device)", "(a link)")) for entry in report.passed_over)
    assert len(report.passed_over) == (5 if archive is hostile_tar else 1)
    assert sorted(tmp_path.rglob("*")) == before


LONG = b"a" * 300_000
BOMBS: dict[str, Callable[[], bytes]] = {
    "gz": lambda: gzip.compress(LONG),
    "bz2": lambda: bz2.compress(LONG),
    "xz": lambda: lzma.compress(LONG),
    "tar.gz": lambda: tar({"a": LONG, "b": LONG}, "gz"),
    "zip": lambda: zipped({f"{n}": LONG for n in range(3)}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_unpacks_to_too_much_is_refused_before_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    (tmp_path / "x").write_bytes(BOMBS[name]())
    assert text_of(tmp_path / "x").count("a") % len(LONG) == 0
    monkeypatch.setattr(unpack, "ALLOWED_SIZE", 100_000)
    monkeypatch.setattr(unpack, "ALLOWED_RATIO", 50)
    with pytest.raises(DataError, match=r"x unpacks to more than 50 times its size"):
        text_of(tmp_path / "x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("size", [1, 100_000])
def test_no_room_to_unpack_says_where_to_make_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int):
    (tmp_path / "x.tgz").write_bytes(tar({"a": b"a" * size}, "gz"))
    monkeypatch.setattr("tempfile.TemporaryFile", partial(open, "/dev/full", "r+b"))
    with pytest.raises(ChargenError, match=r"cannot unpack .*x.tgz in .*: No space left .*; set TMPDIR to") as caught:
        text_of(tmp_path / "x.tgz")
    assert not isinstance(caught.value, DataError)


def test_a_small_file_may_unpack_to_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "x").write_bytes(gzip.compress(LONG))
    monkeypatch.setattr(unpack, "ALLOWED_RATIO", 1)
    assert len(text_of(tmp_path / "x")) == len(LONG)


def test_members_are_limited_in_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for make in (tar, zipped):
        (tmp_path / "x").write_bytes(make({f"{n}": b"text" for n in range(9)}))
        monkeypatch.setattr(unpack, "MAX_MEMBERS", 9)
        assert text_of(tmp_path / "x").count("text") == 9
        monkeypatch.setattr(unpack, "MAX_MEMBERS", 7)
        with pytest.raises(DataError, match="more than 7 members"):
            text_of(tmp_path / "x")


@pytest.mark.parametrize("number", [9, 1])
def test_a_zip_of_too_many_members_is_refused_before_they_are_looked_at(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    content = bytearray(zipped({f"{n}": b"text" for n in range(9)}))
    content[-14:-10] = 2 * number.to_bytes(2, "little")  # what its end says of their number
    (tmp_path / "x").write_bytes(content)
    monkeypatch.setattr(unpack, "MAX_MEMBERS", 8)
    monkeypatch.setattr(zipfile, "ZipInfo", lambda *_: pytest.fail("a member was looked at"))
    with pytest.raises(DataError, match="more than 8 members"):
        text_of(tmp_path / "x")


def test_a_header_of_a_tar_may_not_be_huge(tmp_path: Path):
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, 1 << 30
        (tmp_path / "x").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(4096))
        with pytest.raises(DataError, match=r"cannot read .*x: .*header"):
            text_of(tmp_path / "x")


SMALL = {"a.txt": b"first text\n", "b.txt": b"second text\n", "c.txt": b"third and last\n"}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_an_archive_cut_anywhere_is_damaged_or_whole(tmp_path: Path, suffix: str):
    content, path = ARCHIVERS[suffix](SMALL), tmp_path / f"x{suffix}"
    path.write_bytes(content)
    whole, refused = text_of(path), 0
    step = 97 if suffix == ".tar" else 1
    for size in range(0, len(content), step):
        path.write_bytes(content[:size])
        try:
            assert text_of(path) in ("", whole) or size < 512, size
        except DataError:
            refused += 1
    assert refused >= 10


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_an_archive_with_any_byte_changed_is_read_or_refused(tmp_path: Path, suffix: str):
    content, path = ARCHIVERS[suffix](SMALL), tmp_path / f"x{suffix}"
    chance = random.Random(5)
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(chance.choice([1, 1, 3])):
            changed[chance.randrange(min(len(changed), 4000))] = chance.choice([0, 0xFF, chance.randrange(256)])
        path.write_bytes(changed)
        with contextlib.suppress(DataError):
            text_of(path, errors="replace")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"a.png": NO_TEXT["cover.png"]}, "a picture"),
        ({"inner.gz": gzip.compress(b"text")}, "packed with gzip"),
        ({"inner.tar": tar(SMALL)}, "an archive"),
    ],
)
def test_an_archive_without_text_says_what_it_holds(tmp_path: Path, members: Members, words: str):
    (tmp_path / "x.zip").write_bytes(zipped(members))
    with pytest.raises(DataError, match=rf"x\.zip holds no text: .*{words}"):
        text_of(tmp_path / "x.zip")
    (tmp_path / "x.txt").write_bytes(b"text")
    assert text_of(tmp_path) == "text"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"A/a.xml": b"<a/>", "[Content_Types].xml": b"<x/>", "word/b.xml": b"<c/>"}, "an office document"),
        ({"a.xhtml": b"<a/>", "META-INF/container.xml": b"<x/>"}, "an EPUB book"),
        ({"a.xml": b"<a/>", "META-INF/manifest.xml": b"<x/>"}, "an office document"),
        ({"a.txt": b"text", "META-INF/MANIFEST.MF": b"x"}, "a Java archive"),
    ],
)
def test_a_document_is_named_whatever_the_order_of_its_members(tmp_path: Path, members: Members, words: str):
    (tmp_path / "x.zip").write_bytes(zipped(members))
    with pytest.raises(DataError, match=rf"x\.zip is {words}.*; (to read it: pip install|turn it)"):
        text_of(tmp_path / "x.zip")
    (tmp_path / "x.txt").write_bytes(b"text")
    report = ReadingReport()
    assert text_of(tmp_path, report=report) == "text"
    assert words in report.passed_over[0]


def test_a_member_under_a_password_is_passed_over(tmp_path: Path):
    content = bytearray(zipped({"a.txt": b"text", "b.txt": b"more"}))
    content[content.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    report = ReadingReport()
    assert text_of(tmp_path / "x.zip", report=report) in ("text", "more")
    assert report.passed_over[0].endswith("(under a password)")


@pytest.fixture
def zstd() -> Any:
    return pytest.importorskip("zstandard")


def test_zstd_is_read_frame_after_frame(tmp_path: Path, zstd: Any):
    pack = zstd.ZstdCompressor().compress
    long = "".join(map(str, range(100_000))).encode()
    for content in (pack(b"text"), pack(b"te") + pack(b"xt"), pack(b"") + pack(b"text")):
        (tmp_path / "x.zst").write_bytes(content)
        assert text_of(tmp_path / "x.zst") == "text"
    (tmp_path / "x").write_bytes(pack(long))
    assert text_of(tmp_path / "x") == long.decode()
    (tmp_path / "x").write_bytes(pack(tar(FOLDER)))
    assert text_of(tmp_path / "x") == text_of(write_folder(tmp_path / "y", FOLDER))


def test_zstd_cut_anywhere_is_damaged(tmp_path: Path, zstd: Any):
    packed = zstd.ZstdCompressor(write_checksum=True).compress(b"hello, hello and goodbye")
    for size in range(1, len(packed)):
        (tmp_path / "x.zst").write_bytes(packed[:size])
        with pytest.raises(DataError, match=r"cannot read .*x\.zst"):
            text_of(tmp_path / "x.zst")
    (tmp_path / "x.zst").write_bytes(packed[:-1] + b"?")
    with pytest.raises(DataError, match=r"cannot read .*x\.zst"):
        text_of(tmp_path / "x.zst")


def test_zstd_is_counted_whatever_size_it_declares(tmp_path: Path, zstd: Any, monkeypatch: pytest.MonkeyPatch):
    for options in ({}, {"write_content_size": False}):
        (tmp_path / "x").write_bytes(zstd.ZstdCompressor(**options).compress(b"a" * 5_000_000))
        monkeypatch.setattr(unpack, "ALLOWED_SIZE", 1_000_000)
        with pytest.raises(DataError, match="unpacks to more than 1,000 times"):
            text_of(tmp_path / "x")


def test_zstd_without_its_package_says_which_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "x.zst").write_bytes(b"\x28\xb5\x2f\xfd\x04\0")
    with pytest.raises(DataError, match=r"x\.zst is packed with zstd.*: pip install zstandard$"):
        text_of(tmp_path / "x.zst")


def test_blocks_are_small_whatever_a_file_holds(tmp_path: Path) -> None:
    def sizes(stream: Any, suffix: str) -> Iterator[int]:
        for file in unpack.unpack_files("x", stream, suffix, 1000):
            yield from map(len, file.blocks)

    for content in (LONG, gzip.compress(LONG), tar({"a": LONG}, "gz"), zipped({"a": LONG})):
        assert max(sizes(io.BytesIO(content), "")) <= 1000
