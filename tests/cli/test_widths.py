"""Rows fit the terminal: through a pseudo-terminal of every usual width, and while its window is resized."""

import contextlib
import os
import re
import shlex
import struct
import threading
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.cli import bars, corpus_info, corpus_list
from chargen.cli import terminal as terminal_module
from chargen.cli.bars import Bar, TrainingBar
from chargen.cli.help import break_command
from chargen.cli.main import GROUPS, NAMES, main
from chargen.cli.terminal import cut_into_rows, display_width, log, log_above_bar, terminal_width, wrap
from chargen.storage.model_file import save_model
from tests.commands import Run
from tests.small_models import small_model
from tests.texts import story

fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

QUICK = ["--hidden-size", "12", "--embedding-size", "6", "--num-layers", "1", "--batch-size", "4", "--seq-length", "8"]
QUICK += ["--dropout", "0.1", "--precision", "fp32", "--eval-every", "3", "--preview", "150"]
RESIZED = "\x1b]{}\x07"
"""What the test itself writes where the window gets another width."""


class Screen:
    """What a terminal makes of what it gets: rows, and how often one was too long.

    Args:
        width: its columns.
    """

    def __init__(self, width: int) -> None:
        self.width, self.wraps, self.column = width, 0, 0
        self.rows = [""]

    def feed(self, text: str) -> None:
        for piece in re.findall(r"\x1b\[[0-9;]*m|\x1b\]\d+\x07|.", text, re.S):
            if piece.startswith("\x1b["):
                continue
            if piece.startswith("\x1b]"):
                self.width = int(piece[2:-1])
                while display_width(self.rows[-1]) > self.width:
                    self.rows[-1] = self.rows[-1][:-1]
                self.column = min(self.column, self.width - 1)
            elif piece == "\r":
                self.column = 0
            elif piece == "\n":
                self.rows.append("")
                self.column = 0
            else:
                assert piece.isprintable(), f"{piece!r} steers the terminal"
                wide = 0 if unicodedata.combining(piece) else 1 + (unicodedata.east_asian_width(piece) in "WF")
                if self.column + wide > self.width:
                    self.wraps += 1
                    self.rows.append("")
                    self.column = 0
                row = self.rows[-1].ljust(self.column)
                self.rows[-1] = row[: self.column] + piece + row[self.column + len(piece) :]
                self.column += wide


class PseudoTerminal:
    """Standard error of this process, read by a screen."""

    def __init__(self, width: int) -> None:
        self.master, self.slave = os.openpty()
        modes = termios.tcgetattr(self.slave)
        modes[1] &= ~termios.OPOST
        termios.tcsetattr(self.slave, termios.TCSANOW, modes)
        self.stream = open(self.slave, "w", encoding="utf-8")  # noqa: SIM115
        self.screen = Screen(width)
        self.got = b""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def __enter__(self) -> "PseudoTerminal":
        self.instead = contextlib.redirect_stderr(self.stream)
        self.instead.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.instead.__exit__(None, None, None)
        self.stream.close()
        self.reader.join()
        os.close(self.master)
        self.screen.feed(self.got.decode())

    def resize(self, width: int) -> None:
        self.stream.write(RESIZED.format(width))
        self.stream.flush()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(self.master, 1 << 16):
                self.got += data


def train(folder: Path, *more: str) -> None:
    text = "It was the best of times, it was the worst of times; 時代は最良であり、最悪であった。\n" * 30
    (folder / "novel.txt").write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["train", "novel.txt", *QUICK, *more])
    assert ended.value.code == 0


@pytest.mark.parametrize("more", [[], ["--bidirectional"]], ids=["one way", "two ways"])
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_row_of_training_is_longer_than_the_terminal_is_wide(
    width: int, more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bars, "PREVIEW_SECONDS", 0.0)
    with PseudoTerminal(width) as terminal:
        train(tmp_path, "--steps", "9", *more)
    screen = terminal.screen
    assert screen.wraps == 0, screen.rows
    shown = "\n".join(screen.rows)
    assert "step 3 writes:" in shown
    assert "warning: " in shown
    assert "chargen sample checkpoints/novel" in shown, "a command is there to be copied"
    assert "%" in terminal.got.decode(), "there was no bar"
    for figure in re.findall(r"loss \d[^)]*\)", terminal.got.decode()):
        assert re.fullmatch(r"loss \d+\.\d+ \(\d+\.\d+ bits/char\)", figure)


def test_no_row_is_too_long_while_the_window_is_resized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    widths = iter([120, 40, 97, 60, 41, 40, 80] * 9)
    show, terminal = TrainingBar.show, PseudoTerminal(80)

    def resized(self: TrainingBar, *arguments: Any) -> None:
        terminal.resize(next(widths))
        show(self, *arguments)

    monkeypatch.setattr(TrainingBar, "show", resized)
    with terminal:
        train(tmp_path, "--steps", "12")
    assert terminal.screen.wraps == 0, terminal.screen.rows


@pytest.mark.parametrize("total", [None, 3_000_000], ids=["of unknown length", "of known length"])
@pytest.mark.parametrize("desc", ["reading", "choosing rates", "読み込み中" * 5, ""])
def test_every_bar_fits_and_leaves_nothing(desc: str, total: int | None) -> None:
    with PseudoTerminal(80) as terminal, Bar(desc=desc, total=total, unit="char", mininterval=0) as bar:
        for number, width in enumerate([200, 100, 60, 40, 30, 80, 40]):
            terminal.resize(width)
            bar.update(12_345)
            if number % 2:
                log_above_bar("compiling inner loops for this machine; it takes some seconds")
    assert terminal.screen.wraps == 0, terminal.screen.rows
    # Of a row that was cut when the window shrank, the last column may stay.
    assert len(terminal.screen.rows[-1].strip()) <= 1


@pytest.mark.parametrize("row", ["read: 12345 characters [00:01, 12345 characters/s]", "読み込み中" * 9, "x" * 100])
def test_a_row_that_tqdm_makes_too_long_is_cut(row: str) -> None:
    with PseudoTerminal(40) as terminal:
        Bar.status_printer(bars.STDERR)(row)
    assert terminal.screen.wraps == 0, terminal.screen.rows
    shown = terminal.screen.rows[0].replace(" ", "")
    assert len(shown) >= min(len(row), 12)
    assert row.replace(" ", "").startswith(shown)


@pytest.mark.parametrize("more", [["--worst", "2"], ["--by-line", "--brief"], ["--by-line"]], ids=" ".join)
def test_nothing_is_printed_behind_a_bar(more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path / "model.safetensors", small_model())
    (tmp_path / "text.txt").write_text("ab\nba\naa\n")
    monkeypatch.setattr(bars, "DELAY", 0)
    with PseudoTerminal(80) as terminal, contextlib.redirect_stdout(terminal.stream), pytest.raises(SystemExit):
        main(["score", str(tmp_path / "model.safetensors"), str(tmp_path / "text.txt"), *more])
    rows = [row for row in terminal.screen.rows if row.strip()]
    assert len(rows) > 1
    assert not any("scoring" in row for row in rows), rows


def test_a_bar_that_is_not_shown_clears_nothing() -> None:
    with PseudoTerminal(40) as terminal, Bar(total=3, delay=1_000) as bar:
        terminal.stream.write("a text without a line end")
        bar.update()
        bar.clear()
        log_above_bar("\nmore")
    assert terminal.screen.rows[:2] == ["a text without a line end", "more"]


def test_a_terminal_that_does_not_know_its_width_has_the_usual_one() -> None:
    with PseudoTerminal(80) as terminal:
        assert terminal_width() == 79
        terminal.resize(0)
        assert terminal_width() == 79
        terminal.resize(40)
        assert terminal_width() == 39
        log("warning: " + "so many words " * 9)
    assert terminal.screen.wraps == 0
    assert [len(row) > 25 for row in terminal.screen.rows] == [True] * 4 + [False] * 2


words = st.text(st.sampled_from("abc,.時代é"), min_size=1, max_size=12)


@given(st.lists(words, min_size=1), st.integers(20, 130), st.sampled_from(["", "valid    ", "warning: ", "         "]))
def test_a_wrapped_line_has_the_same_words_and_rows_that_fit(text: list[str], width: int, label: str) -> None:
    line = label + " ".join(text)
    rows = wrap(line, width).split("\n")
    assert " ".join(rows).split() == line.split()
    assert all(display_width(row) <= width or len(row.split()) <= 1 + bool(label.strip()) for row in rows)
    assert rows[0].startswith(label)
    assert all(row.startswith("  ") for row in rows[1:])
    assert rows == [line] or display_width(line) > width


@given(st.text(st.sampled_from("ab  時代é,")), st.integers(2, 60))
def test_a_folded_line_fits_and_loses_nothing_but_spaces(line: str, width: int) -> None:
    rows = cut_into_rows(line, width)
    assert all(display_width(row) <= width for row in rows)
    assert "".join(rows).replace(" ", "") == line.replace(" ", "")
    assert rows == [line] or display_width(line) > width


def test_a_command_stays_whole_where_a_row_holds_it() -> None:
    line = "saved    checkpoints/novel/model.safetensors (step 2,126); now: chargen sample checkpoints/novel"
    assert wrap(line, 79).split("\n") == [
        "saved    checkpoints/novel/model.safetensors (step 2,126); now:",
        "         chargen sample checkpoints/novel",
    ]
    assert wrap(line, 39).split("\n")[-2:] == ["  (step 2,126); now:", "  chargen sample checkpoints/novel"]
    assert wrap(line, 30).split("\n")[-1] == "  sample checkpoints/novel"
    assert display_width("時代") == 4
    assert display_width("e\u0301") == 1


def test_a_label_of_two_words_stands_before_all_rows() -> None:
    rows = wrap("trained on   214,222 characters of drafts, 9 files", 39).split("\n")
    assert rows == ["trained on   214,222 characters of", "             drafts, 9 files"]


@pytest.mark.parametrize("name", ["", *GROUPS, *NAMES])
def test_help_fits_the_terminal_and_cuts_no_word(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def help_of(width: int) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        return run(*name.split(), "--help").out

    words = help_of(100).split()
    for width in (40, 60, 80, 100):
        shown = help_of(width)
        assert max(map(len, shown.splitlines())) <= width
        assert [word for word in shown.split() if word != "\\"] == [word for word in words if word != "\\"]
        below_usage = " ".join(shown.partition("\n\n")[2].split())
        assert not re.search(r"\][.,;]|\] \[|x[<>]=", below_usage), "one pair of brackets, ranges in words"
        assert not re.search(r"\S  +\[", shown), "one blank before them"


@pytest.mark.parametrize("width", range(20, 80, 7))
def test_an_example_is_the_same_command_at_any_width(width: int) -> None:
    command = 'chargen fill checkpoints/novel --before "It was - a --dark " --after x --overwrite -n 3 a.txt'
    rows = break_command(command, width)
    assert all(len(row) <= max(width, 35) for row in rows)
    assert shlex.split("\n".join(rows).replace("\\\n", "")) == shlex.split(command)
    assert any('--before "It was - a --dark "' in row for row in rows)


def test_what_is_told_of_texts_fits_a_narrow_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("it.txt").write_text(story(1))
    wide = run("corpus", "list").out.splitlines()
    for module in (terminal_module, corpus_info, corpus_list):
        monkeypatch.setattr(module, "terminal_width", lambda stream=None: 39)
    shown = run("corpus", "info", "it.txt", "--sample", 0).out.splitlines()
    listed = run("corpus", "list").out.splitlines()
    assert max(map(len, [*shown, *listed])) <= 39
    for figures in (
        r"  +count  share distinct",
        r"Latin +[\d,]+ +[\d.]+% +\d+",
        r"  +nats    bits  per character",
        r"name +size here licence",
    ):
        assert any(re.fullmatch(figures, row) for row in (*shown, *listed)), figures
    assert not any(row.endswith(" e") for row in shown), "a character stands beside its share"
    assert len(listed) == 2 * len(wide), "two rows each"


@pytest.mark.parametrize("name", ["info", "check"])
def test_tables_fit_a_narrow_terminal(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model("model.safetensors", small_model())
    monkeypatch.setattr(terminal_module, "terminal_width", lambda stream=None: 39)
    rows = run(name, "model.safetensors").out.splitlines()
    assert any(row.startswith("  ") for row in rows)
    assert [row for row in rows if len(row) > 39 and " " in row.strip()] == []
