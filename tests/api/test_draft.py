"""Drafts: every change is undone and redone, files are kept byte for byte, and what lies beside them is checked."""

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import Draft
from chargen.api import draft_file
from chargen.api.draft_file import Bookmark
from chargen.errors import ChargenError, DataError, SettingError

texts = st.text("ab \n漢\u0301", max_size=12)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("type"), texts, st.integers(0, 99), st.integers(0, 3)),
        st.tuples(st.just("piece"), st.lists(texts, max_size=3), st.booleans()),
        st.tuples(st.sampled_from(["undo", "redo"])),
    ),
    max_size=20,
)


def make(draft: Draft, change: Any) -> None:
    kind, *values = change
    if kind == "type":
        inserted, place, size = values
        place %= len(draft.text) + 1
        draft.change(draft.text[:place] + inserted + draft.text[place + size :], place + len(inserted))
    elif kind == "piece":
        draft.begin_piece(again=values[1])
        for text in values[0]:
            draft.extend_piece(text)
        draft.end_piece()
    else:
        getattr(draft, kind)()


@given(changes)
def test_undo_and_redo_are_each_others_inverse(made: Any) -> None:
    draft = Draft()
    for change in made:
        make(draft, change)
        assert 0 <= draft.cursor <= len(draft.text)
    texts, count = [draft.text], 0
    while draft.undo():
        count += 1
        texts.append(draft.text)
    assert draft.text == ""
    for text in texts[-2::-1]:
        assert draft.redo()
        assert draft.text == text
    assert count == len(texts) - 1


@given(st.text("ab", max_size=9), st.text("ab", max_size=4), st.integers(0, 9), st.integers(0, 9))
def test_any_change_is_taken_over_and_taken_back(text: str, inserted: str, place: int, size: int) -> None:
    draft, place = Draft(), min(place, len(text))
    draft.change(text, len(text))
    draft.begin_piece()
    draft.extend_piece("|")
    draft.end_piece()
    before = draft.text
    make(draft, ("type", inserted, place, size))
    assert draft.text == before[:place] + inserted + before[place + size :]
    assert draft.cursor == place + len(inserted)
    if draft.text != before:
        draft.undo()
        assert draft.text == before


def typed(draft: Draft, text: str) -> None:
    for character in text:
        draft.change(draft.text[: draft.cursor] + character + draft.text[draft.cursor :], draft.cursor + len(character))


def states(draft: Draft) -> list[str]:
    shown = []
    while draft.undo():
        shown.append(draft.text)
    return shown


def test_the_letters_of_a_word_are_undone_together() -> None:
    draft = Draft()
    typed(draft, "The quick  fox\njumps")
    assert states(draft) == ["The quick  fox\n", "The quick  ", "The ", ""]
    for _ in range(4):
        draft.redo()
    for _ in range(3):
        draft.change(draft.text[:-1], len(draft.text) - 1)
    assert draft.text == "The quick  fox\nju"
    draft.undo()
    assert draft.text == "The quick  fox\njumps"
    draft.change(draft.text.replace("quick", ""), 4)
    draft.change(draft.text.replace("The", "All"), 3)
    assert states(draft)[:2] == ["The   fox\njumps", "The quick  fox\njumps"]
    draft = Draft()
    typed(draft, "heel")
    draft.cursor = 2
    typed(draft, "el")  # equal letters beside it
    assert draft.text == "heelel"
    draft.undo()
    assert draft.text == "heel"


def test_a_piece_is_undone_as_a_whole_and_comes_back_after_another_one() -> None:
    draft = Draft()
    typed(draft, "He ")
    for again, text in ((False, "went "), (True, "slept "), (True, "ate ")):
        draft.begin_piece(again=again)
        for character in text:
            draft.extend_piece(character)
        draft.end_piece()
    assert draft.text == "He ate "
    assert draft.last_piece.inserted == "ate "
    assert states(draft) == ["He slept ", "He went ", "He ", ""]
    assert draft.last_piece is None
    draft.redo()
    draft.redo()
    typed(draft, "on")
    assert draft.last_piece is None
    assert draft.text == "He went on"
    assert not draft.redo()


def test_a_piece_stands_at_the_cursor_and_an_empty_one_changes_nothing() -> None:
    draft = Draft()
    typed(draft, "ab")
    draft.cursor = 1
    for piece in ("-\r", "", "\nx\r"):
        draft.begin_piece()
        draft.extend_piece(piece)
        draft.end_piece()
    assert draft.text == "a-\r\nx\rb"
    draft.begin_piece(again=True)
    draft.extend_piece("y\r")
    draft.extend_piece("\nz")
    assert draft.text == "a-\ry\nzb", "CR LF is a line end, wherever it is cut"
    draft.end_piece()
    draft.begin_piece(again=True)
    assert draft.text == "a-\rb"
    draft.end_piece()
    assert draft.text == "a-\ry\nzb"
    assert draft.cursor == 6


FILES = {
    "plain": b"One\ntwo\n",
    "windows": b"\xef\xbb\xbfOne\r\ntwo\r\n",
    "mixed": b"One\r\ntwo\nthree\rfour",
    "old mac": b"One\rtwo",
    "lone": b"One\r\r\n",
    "utf-16": b"\xff\xfe" + "Öne\r\n漢".encode("utf-16-le"),
    "utf-16-be": b"\xfe\xff" + "Öne\n".encode("utf-16-be"),
    "utf-32": b"\xff\xfe\0\0" + "Öne".encode("utf-32-le"),
    "odd": "\0\x1b[2J\u202e\ufeff\u2028".encode(),
    "mark alone": b"\xef\xbb\xbf",
    "empty": b"",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_kept_byte_for_byte(tmp_path: Path, name: str) -> None:
    path = tmp_path / "draft.txt"
    path.write_bytes(FILES[name])
    stamp = os.stat(path).st_mtime_ns, os.stat(path).st_ino
    draft = Draft(path)
    draft.save()
    assert (os.stat(path).st_mtime_ns, os.stat(path).st_ino) == stamp, "nothing is written where nothing has changed"
    typed(draft, "\nX")
    draft.save()
    line_end = b"\r\n" if name in ("windows", "utf-16") else b"\n"
    added = line_end + b"X"
    if name.startswith("utf"):
        codec = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(name, name)
        added = added.decode().encode(codec)
    assert path.read_bytes() == FILES[name] + added
    assert Draft(path).text == draft.text
    draft.undo()
    draft.undo()
    draft.save()
    assert path.read_bytes() == FILES[name]


@given(st.binary(max_size=30) | st.text("a\r\né漢\ufeff").map(str.encode))
def test_any_bytes_are_kept_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "draft.txt"
    path.write_bytes(data)
    try:
        draft = Draft(path)
    except DataError:
        return
    typed(draft, "x")
    draft.save()
    draft.undo()
    draft.save()
    assert path.read_bytes() == data


def test_an_encoding_may_be_given(tmp_path: Path) -> None:
    path = tmp_path / "draft.txt"
    path.write_bytes("Öl".encode("latin-1"))
    with pytest.raises(DataError, match=r"draft.txt is not utf-8: offset 0, bytes d6 6c; give its `encoding=NAME`$"):
        Draft(path)
    with pytest.raises(SettingError, match="encoding is 'klingon'"):
        Draft(path, "klingon")
    draft = Draft(path, "latin-1")
    typed(draft, "é漢")
    assert draft.left_out == "漢"
    draft.begin_piece()
    draft.extend_piece("ü→“a")
    assert draft.left_out == "“→"
    draft.end_piece()
    draft.save()
    assert path.read_bytes() == "Öléüa".encode("latin-1")
    path.write_bytes(b"\xff\xfea\0")
    assert Draft(path, "utf-16").text == "a"
    path.write_bytes("a".encode("utf-7") + b"+AGE-")
    with pytest.raises(DataError, match="utf-7 would not give the same bytes again"):
        Draft(path, "utf-7")
    path.write_bytes(b"abc")
    draft = Draft(path, "utf-8-sig")
    typed(draft, "d")
    draft.save()
    assert path.read_bytes() == b"abcd"


def test_a_lone_surrogate_is_left_out(tmp_path: Path) -> None:
    for draft in (Draft(tmp_path / "a"), Draft()):
        draft.change("a\udce9b", 3)
        assert (draft.text, draft.left_out) == ("ab", "\udce9")


def test_what_is_no_draft_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("real.txt").write_text("a")
    Path("link.txt").symlink_to("real.txt")
    Path("nowhere.txt").symlink_to("missing")
    Path("locked.txt").write_text("a")
    Path("locked.txt").chmod(0o444)
    getattr(os, "mkfifo", Path.mkdir)("pipe")
    Path("large.txt").write_bytes(b"x" * 30)
    monkeypatch.setattr(draft_file, "MAX_DRAFT", 20)
    for name, words in (
        ("link.txt", r"it is a link; give the path of the file that it leads to, .*real.txt"),
        ("nowhere.txt", "it is a link"),
        (".", "it is a folder; give the path of a file in it"),
        ("pipe", "it is something else than a file|it is a folder"),
        (os.devnull, "it is something else than a file"),
        ("locked.txt", "it is read-only; copy it first"),
        ("no/where.txt", "there is no folder no; make it first"),
        ("x" * 300, "its name is too long"),
        ("large.txt", "more than 20 bytes: write in a part of it"),
    ):
        with pytest.raises(DataError, match=words) as refused:
            Draft(name)
        assert "\n" not in str(refused.value)


def test_permissions_stay(tmp_path: Path) -> None:
    path = tmp_path / "draft.txt"
    path.write_text("a")
    path.chmod(0o600)
    draft = Draft(path)
    typed(draft, "b")
    draft.save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == "ab"


def test_what_another_program_wrote_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "draft.txt"
    path.write_text("a")
    draft = Draft(path)
    os.utime(path, (0, 0))  # touched, but the same
    typed(draft, "b")
    draft.save()
    assert path.read_text() == "ab"
    (tmp_path / "draft-2.txt").write_text("another")
    path.write_text("theirs")
    typed(draft, "c")
    draft.save()
    assert path.read_text() == "theirs"
    assert draft.file.path == tmp_path / "draft-3.txt"
    typed(draft, "d")
    draft.save()
    assert draft.file.path.read_text() == "abcd"
    draft.file.path.unlink()
    typed(draft, "e")
    draft.save()
    assert draft.file.path.read_text() == "abcde"


def test_a_new_draft_is_no_file_until_there_is_text(tmp_path: Path) -> None:
    draft = Draft(tmp_path / "draft.txt")
    draft.save()
    draft.save_bookmark(Bookmark(1))
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "draft.txt").write_text("somebody else was faster")
    typed(draft, "a")
    draft.save()
    assert (tmp_path / "draft-2.txt").read_text() == "a"


def test_a_draft_is_open_once(tmp_path: Path) -> None:
    first, second = Draft(tmp_path / "draft.txt"), Draft(tmp_path / "draft.txt")
    leftover = tmp_path / ".draft.txt.0123456789abcdef.tmp"
    others = [tmp_path / ".other.txt.0123456789abcdef.tmp", tmp_path / ".draft.txt.tmp"]
    for path in (leftover, *others):
        path.write_text("half")
    with first.lock():
        assert not leftover.exists()
        assert all(path.exists() for path in others)
        with pytest.raises(ChargenError, match=r"draft.txt is open in another chargen: close it there"):
            with second.lock():
                pytest.fail("it is open already")
        with Draft(tmp_path / "other").lock(), Draft().lock():
            pass
    with second.lock():
        pass
    assert {*tmp_path.iterdir()} == {*others}


BOOKMARK = Bookmark(seed=2**64 - 1, pieces=7, temperature=0.5, label="sea", model="ab" * 32)


def test_tomorrow_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "draft.txt"
    draft = Draft(path)
    typed(draft, "one two")
    draft.cursor = 3
    draft.save()
    draft.save_bookmark(BOOKMARK)
    again = Draft(path)
    assert again.cursor == again.file.bookmark.cursor == 3
    assert again.file.bookmark == Bookmark(2**64 - 1, 7, 0.5, "sea", "ab" * 32, 3)
    assert (tmp_path / "draft.txt.chargen.json").stat().st_size < 1000
    path.write_text("one two and three")  # by another program
    changed = Draft(path)
    assert (changed.text, changed.cursor) == ("one two and three", 17)
    assert changed.file.bookmark.pieces == 7
    draft.save_bookmark(Bookmark(1, label="x" * 20_000))
    assert Draft(path).file.bookmark.seed == 2**64 - 1, "what would not be read is not written"


@pytest.mark.parametrize(
    "change",
    [
        *({"seed": value} for value in (-1, 2**64, 1.5, True, None, "1")),
        *({"pieces": value} for value in (-1, 2**70, 1.0, None)),
        *({"temperature": value} for value in (-1, "1", None, True, 1e999)),
        *({"label": value} for value in (1, [], True)),
        *({"cursor": value} for value in (-1, 1.0, None)),
        {"model": None},
        {"kind": "other"},
        {"format": 2},
        {"more": 1},
    ],
    ids=str,
)
def test_what_lies_beside_is_checked(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "draft.txt"
    path.write_text("one")
    Draft(path).save_bookmark(BOOKMARK)
    beside = tmp_path / "draft.txt.chargen.json"
    said = json.loads(beside.read_text())
    beside.write_text(json.dumps(said | change))
    with pytest.raises(DataError, match=r"draft.txt.chargen.json is not what chargen writes beside a draft \(.*move"):
        Draft(path)
    for name in said:
        beside.write_text(json.dumps({key: value for key, value in said.items() if key != name}))
        if name in ("kind", "format", "draft", "seed"):
            with pytest.raises(DataError):
                Draft(path)
    assert path.read_text() == "one"


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"1", b"null", b"\xff", b"[" * 9000, b"x" * 20_000, b'{"seed": 1}'])
def test_anything_may_lie_beside(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "draft.txt.chargen.json").write_bytes(data)
    with pytest.raises(DataError, match="is not what chargen writes beside a draft"):
        Draft(tmp_path / "draft.txt")


def test_no_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    beside = tmp_path / "draft.txt.chargen.json"
    beside.symlink_to("precious")
    with pytest.raises(DataError, match="it is no file"):
        Draft(tmp_path / "draft.txt")
    beside.unlink()
    draft = Draft(tmp_path / "draft.txt")
    typed(draft, "a")
    draft.save()
    beside.symlink_to("precious")
    draft.save_bookmark(BOOKMARK)
    assert (tmp_path / "precious").read_text() == "mine"
    (tmp_path / ".new.txt.lock").symlink_to("precious")
    with pytest.raises(ChargenError, match="cannot write beside"), Draft(tmp_path / "new.txt").lock():
        pytest.fail("a link is no lock")


def test_a_disk_that_refuses_leaves_the_draft_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = Draft(tmp_path / "draft.txt")
    typed(draft, "a")
    draft.save()
    typed(draft, "b")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(ChargenError, match="No space left"):
            draft.save()
    assert (tmp_path / "draft.txt").read_text() == "a"
    draft.save()
    assert (tmp_path / "draft.txt").read_text() == "ab"
    with contextlib.suppress(FileNotFoundError):
        (tmp_path / "draft.txt").unlink()


def test_what_is_no_change_is_refused() -> None:
    draft = Draft()
    typed(draft, "ab")
    for work, words in (
        (lambda: draft.change(b"ab", 0), "text is of type bytes"),
        (lambda: draft.change("abc", 4), "cursor is 4: it must be 0 to 3"),
        (lambda: draft.change("abc", -1), "cursor is -1"),
        (lambda: draft.extend_piece("x"), "no piece has begun: call `begin_piece` first"),
        (draft.end_piece, "no piece has begun"),
    ):
        with pytest.raises(ChargenError, match=words):
            work()
    assert draft.text == "ab"
    draft.begin_piece()
    with pytest.raises(SettingError, match="text is of type NoneType"):
        draft.extend_piece(None)


def test_a_model_goes_on_with_the_line_ends_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "draft.txt"
    path.write_bytes(b"a\r\nb\r\nc")
    draft = Draft(path)
    assert draft.text == "a\nb\nc"
    draft.cursor = 4
    assert draft.text_before() == "a\r\nb\r\n"
