"""`chargen write` on a pseudo-terminal whose screen an emulator draws: keys, words, colours, kills."""

import json
import os
import random
import signal
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from chargen import Writer
from chargen.storage.model_file import FILE_NAME, ModelFile, save_model
from tests.cli.screens import LEAVE, OwnProcess, Screen, on_screen
from tests.commands import Run, is_one_line
from tests.record_models import record_model
from tests.small_models import small_model

LETTERS = "abcde. \n"
TAB, ESCAPE, STOP, UNDO, REDO = "\t", "\x1b", "\x03", "\x1a", "\x19"
SENTENCE, PARAGRAPH, RETRY, THREE, WARMER, COOLER, LABEL = "\x0e", "\x10", "\x12", "\x14", "\x15", "\x04", "\x0c"
UP, DOWN = "\x1b[A", "\x1b[B"


@cache
def model() -> ModelFile:
    return small_model("gru", characters=LETTERS, scale=1.5)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, where the command runs."""
    save_model(tmp_path / "model" / FILE_NAME, model())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pieces(number: int, text: str, until: str, num: int = 1, temperature: float = 0.8) -> list[str]:
    """What the model writes by itself."""
    writer, written = Writer(model(), seed=7, pieces=number, temperature=temperature), [""] * num
    for added in writer.write(text, until, num):
        written = [piece + more for piece, more in zip(written, added, strict=True)]
    return written


@pytest.fixture(autouse=True)
def a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def on_disk(path: Path, text: str) -> Any:
    return lambda: path.exists() and path.read_text() == text


@pytest.mark.parametrize("columns", [40, 80])
def test_a_chapter_is_written_together(folder: Path, columns: int) -> None:
    path, begun = folder / "chapter.txt", "abc de. cab\nab "
    texts = [begun]
    for number, until in enumerate(("word", "sentence", "paragraph")):
        texts.append(texts[-1] + pieces(number, texts[-1], until)[0])
    again = texts[2] + pieces(3, texts[2], "paragraph")[0]
    offered = pieces(4, again, "paragraph", 3)
    chosen = again + offered[2]
    warm = chosen + pieces(7, chosen, "sentence", temperature=1.0)[0]

    def today(screen: Screen) -> None:
        screen.wait("a new draft: chapter.txt")
        assert "^X leave" in screen.text
        screen.type(begun.replace("\n", "\r"))
        screen.wait(on_disk(path, begun))
        screen.wait("abc de. cab\nab")
        for key, text in zip((TAB, SENTENCE, PARAGRAPH, RETRY), (*texts[1:], again), strict=True):
            screen.type(key)
            screen.wait(on_disk(path, text))
        screen.type(THREE)
        screen.wait("choose   temperature")
        assert "1 2 3 choose" in screen.text
        for number, piece in enumerate(offered, start=1):
            first = " / ".join(piece.strip().split("\n"))[: columns // 2].rpartition(" ")[0]
            assert f"{number} {first}" in screen.text
        screen.type("3")
        screen.wait(on_disk(path, chosen))
        for undone in (again, texts[3], texts[2], texts[1]):
            screen.type(UNDO)
            screen.wait(on_disk(path, undone))
        screen.type(REDO * 4)
        screen.wait(on_disk(path, chosen))
        screen.type(WARMER * 3 + COOLER)
        screen.wait("temperature 1 ")
        screen.type(SENTENCE)
        screen.wait(on_disk(path, warm))

    code, screen = on_screen(today, "write", "model", "chapter.txt", "--seed", 7, columns=columns)
    assert code == 0
    shown = " ".join(screen.text.split())
    assert f"chapter.txt: {len(warm):,} characters; to go on: chargen write model chapter.txt" in shown
    said = json.loads((folder / "chapter.txt.chargen.json").read_text())
    assert (said["seed"], said["pieces"], said["temperature"], said["cursor"]) == (7, 8, 1.0, len(warm))

    def tomorrow(screen: Screen) -> None:
        screen.wait("temperature 1 ")
        screen.type(TAB)
        screen.wait(on_disk(path, warm + pieces(8, warm, "word", temperature=1.0)[0]))

    assert on_screen(tomorrow, "write", "model", "chapter.txt", columns=columns)[0] == 0
    assert {*os.listdir()} == {"model", "chapter.txt", "chapter.txt.chargen.json"}


def test_however_long_pieces_and_draft_are_the_keys_are_seen(folder: Path) -> None:
    Path("draft.txt").write_text("abc de\n" * 40)

    def look(screen: Screen) -> None:
        screen.wait("^X leave")
        screen.type(PARAGRAPH + THREE)
        screen.wait("1 2 3 choose  Esc none")
        screen.wait("choose   temperature 0")
        screen.resize(40, 5)
        screen.wait("choose   temperature 0")

    assert on_screen(look, "write", "model", "draft.txt", "--temperature", 0)[0] == 0


HOSTILE = (
    "evil \x1b[2J\x07 \u202egnp \u2066\r\ttab e\u0301 床前明月光，床前明月光，床前明月光，床前明月光 שלום עולם abc ж"
)


def test_any_script_is_shown_and_nothing_steers_the_terminal(folder: Path) -> None:
    path = folder / "draft.txt"
    path.write_bytes(HOSTILE.encode())

    def look(screen: Screen) -> None:
        screen.wait(" saved ")
        assert r"evil \x1b[2J\x07 \u202egnp \u2066\r tab" in screen.text
        for words in ("月光，床前", "שלום עולם", "é", "ж"):
            assert words in screen.text
        assert "unknown to the model, which reads past" in screen.text
        assert {under for _, under, _ in screen.attributes("ж")} == {True}
        assert False in {under for _, under, _ in screen.attributes("a")}
        for character in ("\x07", "\u202e", "\u2066"):
            assert character.encode() not in screen.got
        screen.resize(100, 30)
        screen.wait("前明月光 שלום עולם abc")
        screen.resize(30, 8)
        screen.wait(lambda: "^X" not in screen.text)
        screen.resize(40, 24)
        screen.wait("^X leave")
        screen.type("漢字")
        screen.wait("漢字")
        screen.wait(lambda: screen.cursor == (len("前明月光 שלום עולם abc ж漢字") + 6, 2))
        for key, row in ((UP, 1), (UP, 0), (UP, 0), (DOWN, 1)):
            screen.type(key)
            screen.wait(lambda row=row: screen.cursor[1] == row)
            assert abs(screen.cursor[0] - len("前明月光 שלום עולם abc ж漢字") - 6) <= 1, "of two columns of a character"
        screen.type("+")
        screen.wait(lambda: "+" in screen.rows[1])
        screen.type(UNDO)
        screen.wait(lambda: "+" not in screen.text)
        screen.type(UNDO)
        screen.wait(lambda: "漢字" not in screen.text)

    assert on_screen(look, "write", "model", "draft.txt", columns=40)[0] == 0
    assert path.read_bytes() == HOSTILE.encode()


def test_keys_of_shells_do_no_harm_and_a_paste_is_one_change(folder: Path) -> None:
    path, piece = folder / "draft.txt", pieces(0, "ab\ncd", "paragraph")[0]

    def use(screen: Screen) -> None:
        screen.wait(" saved ")
        screen.type("\x1b[200~ab\rcd\x1b[201~")
        screen.wait(on_disk(path, "ab\ncd"))
        assert {colour for colour, _, _ in screen.attributes("d")} == {"default"}
        screen.type(PARAGRAPH)
        screen.wait(on_disk(path, "ab\ncd" + piece))
        screen.wait(lambda: "green" in {colour for colour, _, _ in screen.attributes(piece.strip()[-1])})
        screen.type(UNDO * 2)
        screen.wait(on_disk(path, ""))
        screen.type("a\x0fb")  # ^O ends the input of a shell
        screen.wait(on_disk(path, "ab"))
        screen.type(STOP)
        screen.wait("nothing is being written; ^X leaves")
        screen.type("\x11\tc")  # a tab itself
        screen.wait(on_disk(path, "ab\tc"))
        screen.type(UNDO * 9)
        screen.wait("there is nothing to undo")

    assert on_screen(use, "write", "model", "draft.txt", "--seed", 7)[0] == 0


def test_a_key_stops_a_model_that_takes_its_time(folder: Path) -> None:
    """It has no line ends, so that a paragraph has 5,000 characters."""
    save_model("slow", small_model("gru", characters="abcdefgh", num_layers=1, hidden_size=1200, scale=1.0))

    def use(screen: Screen) -> None:
        screen.wait(" saved ")
        for count, key in enumerate((ESCAPE, STOP, "x"), start=1):
            screen.type(PARAGRAPH)
            screen.wait("Esc stop")
            screen.resize(50 + count, 14)
            screen.type(key)
            screen.wait("^X leave")
            screen.wait(" saved ")
            assert len((folder / "draft.txt").read_text()) < 4000 * count
        screen.wait(lambda: (folder / "draft.txt").read_text().endswith("x"))

    assert on_screen(use, "write", "slow", "draft.txt", rows=12)[0] == 0


def test_records_with_labels(folder: Path) -> None:
    save_model("records", record_model(end=1.0))

    def today(screen: Screen) -> None:
        screen.wait("label no label")
        screen.type(LABEL)
        screen.wait("label sea")
        screen.type(LABEL)
        screen.wait("label sun")
        screen.type("ab")
        screen.wait(on_disk(folder / "draft.txt", "ab"))

    assert on_screen(today, "write", "records", "draft.txt", columns=70)[0] == 0
    on_screen(lambda screen: screen.wait("label sun"), "write", "records", "draft.txt", columns=70)
    on_screen(lambda screen: screen.wait("label sea"), "write", "records", "draft.txt", "--label", "sea", columns=70)
    on_screen(lambda screen: screen.wait("the model is another one"), "write", "model", "draft.txt", columns=70)


@pytest.mark.parametrize("times", [1, pytest.param(25, marks=pytest.mark.slow)])
def test_a_kill_at_any_instant_loses_nothing(folder: Path, times: int) -> None:
    """The draft is whole: what was on the disk at some instant, with what was typed and written since."""
    chance, path, before = random.Random(times), folder / "draft.txt", ""
    for _ in range(times):
        with OwnProcess("write", "model", "draft.txt", columns=60, rows=14) as screen:
            screen.wait(" saved ")
            typed = "".join(chance.choice("abcde ") for _ in range(30))
            screen.type(typed)
            if chance.random() < 0.5:
                screen.wait(on_disk(path, before + typed))
                before += typed
                screen.type(chance.choice([SENTENCE, PARAGRAPH, THREE, UNDO]))
            time.sleep(chance.random() * 0.2)
            screen.process.kill()
            screen.ended()
        after = path.read_text() if path.exists() else ""
        assert before.startswith(after) or after.startswith(before), (before, after)
        assert {*after} <= {*LETTERS}
        if (folder / "draft.txt.chargen.json").exists():
            assert json.loads((folder / "draft.txt.chargen.json").read_text())["kind"] == "chargen draft"
        before = after
    on_screen(lambda screen: screen.wait(" saved "), "write", "model", "draft.txt")
    assert path.read_text() == before
    assert not [name for name in os.listdir() if name.endswith((".tmp", ".lock"))]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        (None, 129),
    ],
    ids=["TERM", "HUP", "INT", "terminal gone"],
)
def test_a_signal_ends_it_and_all_is_saved(folder: Path, number: int | None, code: int) -> None:
    with OwnProcess("write", "model", "draft.txt") as screen:
        screen.wait(" saved ")
        screen.type("abcde " * 20)
        screen.wait(lambda: screen.text.count("abcde") == 20)
        if number is None:
            screen.hang_up()
        else:
            screen.process.send_signal(number)
        assert screen.ended() == code
        assert "Traceback" not in screen.text
    assert (folder / "draft.txt").read_text() == "abcde " * 20


def test_what_cannot_be_opened_is_refused_in_one_line(folder: Path) -> None:
    (folder / "link.txt").symlink_to("draft.txt")
    (folder / "latin.txt").write_bytes(b"\xe9t\xe9")
    for name, words in (
        ("link.txt", "cannot open link.txt as a draft: it is a link"),
        ("model", "cannot open model as a draft: it is a folder"),
        ("latin.txt", "latin.txt is not utf-8: offset 0, bytes e9 74 e9; give its --encoding NAME"),
    ):
        code, screen = on_screen(None, "write", "model", name, columns=300)
        assert code == 3
        (line,) = filter(None, screen.rows)
        assert line.startswith(f"chargen: {words}")

    def open_again(screen: Screen) -> None:
        screen.wait(" saved ")
        with OwnProcess("write", "model", "draft.txt", columns=300) as other:
            assert other.ended() == 1
            assert other.text.strip().startswith("chargen: draft.txt is open in another chargen: close it there")
            assert "\n" not in other.text.strip()

    assert on_screen(open_again, "write", "model", "draft.txt")[0] == 0


def test_a_draft_without_a_name_is_a_new_one(folder: Path) -> None:
    for name in ("draft.txt", "draft-2.txt"):

        def use(screen: Screen, name: str = name) -> None:
            screen.wait(f"a new draft: {name}")
            screen.type("ab")
            screen.wait(on_disk(folder / name, "ab"))

        assert on_screen(use, "write", "model", "--quiet")[0] == 0


def test_a_disk_that_refuses_lets_nobody_leave_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def use(screen: Screen) -> None:
        screen.wait(" saved ")
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            screen.type("ab")
            screen.wait("No space left on device")
            assert "unsaved" in screen.text
            screen.type(LEAVE)
            screen.wait("^X once more leaves nevertheless")
        screen.wait(" saved ")

    assert on_screen(use, "write", "model", "draft.txt")[0] == 0
    assert (folder / "draft.txt").read_text() == "ab"


def test_without_a_terminal_it_says_what_else_there_is(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "use chargen sample, or --json-lines for programs"
    refused = run("write", "model", stdin=b"")
    assert refused.code == 2
    assert is_one_line(refused.err)
    assert words in refused.err
    monkeypatch.setenv("TERM", "dumb")
    code, screen = on_screen(None, "write", "model", columns=300)
    assert code == 2
    assert words in screen.text


def test_lines_of_json_are_answered_instead(folder: Path, run: Run) -> None:
    answered = run("write", "model", "--json-lines", stdin=b'{"id": 1, "type": "score", "text": "ab"}\n')
    lines = [json.loads(line) for line in answered.out.splitlines()]
    assert answered.code == 0
    assert lines[0]["ready"]
    assert lines[-1]["id"] == 1
    for options, words in (
        (["draft.txt"], "a draft does nothing with --json-lines, whose requests hold texts: leave one out"),
        (["--seed", "1"], "--seed does nothing with --json-lines: leave one out"),
        (["--top-k", "3"], "--top-k does nothing with --json-lines: leave one out"),
    ):
        refused = run("write", "model", "--json-lines", *options, stdin=b"")
        assert refused.code == 2
        assert is_one_line(refused.err)
        assert words in refused.err
