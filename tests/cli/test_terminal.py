"""Nothing that a text holds may steer the terminal or hide on it."""

import io
import re
import sys
import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from chargen.cli import main
from chargen.cli.terminal import STDERR, TextWriter, escape_control
from chargen.storage.model_file import save_model
from tests.pairs import some
from tests.small_models import small_model
from tests.terminals import Terminal, harmful

CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"]
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
anything = st.text(st.characters() | st.sampled_from("\r\n\t\x1b\u202e\u200d\ud800"))


def typed(*pieces: str) -> str:
    """What a terminal gets when these pieces are written one after the other, before the end."""
    stream = Terminal()
    writer = TextWriter(stream)
    for piece in pieces:
        writer.write(piece)
    return stream.getvalue()


def closed(*pieces: str) -> str:
    stream = Terminal()
    writer = TextWriter(stream)
    for piece in pieces:
        writer.write(piece)
    writer.close()
    return stream.getvalue()


@given(anything)
def test_what_is_shown_holds_no_control_character(text: str) -> None:
    assert not harmful(escape_control(text))
    assert not harmful(escape_control(text, newlines=True))
    assert not set("\n\t") & set(escape_control(text, newlines=True))


@given(st.lists(anything))
def test_a_terminal_gets_no_control_character_however_the_text_is_cut(pieces: list[str]) -> None:
    assert not harmful(closed(*pieces))


@given(st.text("ab\r\n\x1b", max_size=12), st.data())
def test_the_cut_changes_nothing(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    borders = [0, *cuts, len(text)]
    pieces = [text[first:last] for first, last in pairwise(borders)]
    assert typed(*pieces, ".") == typed(text, ".") == escape_control(text + ".")


def test_every_control_bidi_and_format_character_becomes_its_escape() -> None:
    formats = [char for char in map(chr, range(0x110000)) if unicodedata.category(char) == "Cf"]
    hidden = {*CONTROLS, *BIDI, *formats, "\u2028", "\u2029", "\ufeff", "\U000e0041"} - set("\u200c\u200d")
    assert len(CONTROLS) == 63
    for character in hidden:
        shown = escape_control(f"a{character}b")
        assert shown == f"a{character.encode('unicode_escape').decode()}b"
        assert shown.isascii()
        assert shown.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("abc\u202efed", r"abc\u202efed"),
        ("\x9b31m", r"\x9b31m"),
        ("\x07\x08\x7f", r"\x07\x08\x7f"),
        ("\u2028", r"\u2028"),
        ("\U000e0001", r"\U000e0001"),
        ("\udcff", r"\udcff"),
    ],
)
def test_worked_examples(text: str, shown: str) -> None:
    assert escape_control(text) == shown


@pytest.mark.parametrize("text", ["a\nb\tc\n", "می\u200cخواهم", "👩\u200d👩\u200d👧", "naïve 漢字 ~", "a\\x1b", ""])
def test_line_ends_tabs_joiners_and_letters_stay(text: str) -> None:
    assert escape_control(text) == text
    assert typed(text) == text


@given(st.text(st.characters(categories=["L", "M", "N", "P", "S"]) | st.sampled_from(" \n\t")))
def test_what_is_visible_is_shown_as_it_is(text: str) -> None:
    assert escape_control(text) == text


def test_newlines_and_tabs_are_escaped_where_asked() -> None:
    assert escape_control("a\r\nb\tc\u2028", newlines=True) == r"a\r\nb\tc\u2028"


def test_a_carriage_return_passes_before_a_line_feed_only() -> None:
    assert escape_control("a\r\nb") == "a\nb"
    assert escape_control("a\rb\r\r\n\r") == "a\\rb\\r\n\\r"
    assert typed("a\r", "\nb") == "a\nb"
    assert typed("a\r", "b") == "a\\rb"
    assert typed("a\r", "", "\r", "\n") == "a\\r\n"
    assert closed("a\r") == "a\\r\n"


@pytest.mark.parametrize(
    ("pieces", "shown"), [(["a"], "a\n"), (["a\n"], "a\n"), (["a", "\n", ""], "a\n"), ([], ""), (["\n", "b"], "\nb\n")]
)
def test_the_prompt_stands_on_a_line_of_its_own(pieces: list[str], shown: str) -> None:
    assert closed(*pieces) == shown


@pytest.mark.parametrize("pieces", [["a\n\r"], ["a\n", "\r"], ["\r"]])
def test_the_prompt_stands_alone_after_a_last_carriage_return(pieces: list[str]) -> None:
    assert closed(*pieces).endswith("\\r\n")


def test_a_terminal_sees_each_piece_at_once() -> None:
    stream = Terminal()
    writer = TextWriter(stream)
    for end in range(1, 6):
        writer.write("hello"[end - 1])
        assert stream.getvalue() == "hello"[:end]


@given(st.lists(st.text()))
def test_a_pipe_gets_the_raw_text_as_utf8(pieces: list[str]) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", newline="\r\n")
    writer = TextWriter(stream)
    for piece in pieces:
        writer.write(piece)
    writer.close()
    assert raw.getvalue() == "".join(pieces).encode()


def test_a_terminal_that_cannot_show_a_letter_gets_its_escape() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    stream.isatty = lambda: True
    writer = TextWriter(stream)
    writer.write("naïve")
    writer.close()
    assert raw.getvalue() == b"na\\xefve\n"


def test_standard_output_is_the_stream_where_none_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    writer = TextWriter()
    assert writer.stream is sys.stdout
    writer.write("text")
    writer.close()
    assert capsys.readouterr().out == "text"


LETTERS = "床前明月光 é’\n"
SMALL_RUN = ["--hidden-size", "8", "--embedding-size", "4", "--batch-size", "4", "--seq-length", "8", "--dropout", "0"]
COMMANDS = {
    "train": [["光.txt", "--bidirectional", "--steps", "4", "--eval-every", "2", "--out", "明", *SMALL_RUN]],
    "compare": [["月.safetensors"], ["月.safetensors", "--json"]],
    "sample": [["月.safetensors", "--length", "20", "--prime", "光"]],
    "write": [["月.safetensors", "--json-lines"]],
    "fill": [["月.safetensors", "--before", "光", "--length", "2", "--num", "2"]],
    "eval": [["月.safetensors", "光.txt"], ["月.safetensors", "new.txt"], ["月.safetensors", "光.txt", "--json"]],
    "score": [["月.safetensors", "光.txt", "--threshold", "1"], ["月.safetensors", "--text", "光ж", "--json"]],
    "check": [["月.safetensors"]],
    "corpus info": [["光.txt"], ["光.txt", "--json"]],
    "novelty": [["月.safetensors", "光.txt", "--length", "40"], ["光.txt", "光.txt"], ["光.txt", "new.txt", "--json"]],
    "corpus cache": [[], ["--json"]],
    "inspect": [["月.safetensors", "光.txt", "--neuron", "1:0"], ["月.safetensors", "光.txt", "--out", "頁.html"]],
    "info": [["月.safetensors"], ["月.safetensors", "--json"]],
    "export": [["月.safetensors", "前.safetensors", "--quantize", "int8"], ["月.safetensors", "前/"]],
    "corpus list": [[], ["--json"]],
    "corpus get": [["python"]],
    "corpus make": [["counter", "--num", "3", "--out", "明.txt"], ["brackets", "--num", "3", "--labelled"]],
}


def test_all_commands_are_tried() -> None:
    assert set(COMMANDS) == {*main.NAMES}


@pytest.mark.parametrize("encoding", some(["cp1252", "utf-8", "ascii"], 9))
@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_of_any_encoding_takes_all_that_a_command_says(
    name: str, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it cannot write is an escape; generated and judged text is UTF-8 in a pipe whatever the encoding."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("chargen.cli.bars.PREVIEW_SECONDS", 0.0)
    file = small_model("gru", num_layers=1, characters=LETTERS, bidirectional=True)
    save_model("月.safetensors", file)
    Path("光.txt").write_text(LETTERS * 60, "utf-8")
    Path("new.txt").write_text("光жж’", "utf-8")
    wrong = [["床"], ["月.safetensors", "床.txt", "--床"]]
    for arguments in [*COMMANDS[name], ["--help"], *wrong]:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
            for stream, role in zip(streams, ("stdout", "stderr"), strict=True):
                patched.setattr(sys, role, stream)
            with pytest.raises(SystemExit) as ended:
                main.main([*name.split(), *arguments])
        assert (ended.value.code == 0) == (arguments not in wrong)
        said = ""
        for stream, role in zip(streams, ("stdout", "stderr"), strict=True):
            stream.flush()
            text = role == "stdout" and name in ("sample", "fill", "score", "inspect")
            # Click takes ASCII for a system that does not know its own encoding, and writes UTF-8.
            written = "utf-8" if text or encoding == "ascii" else encoding
            said += stream.buffer.getvalue().decode(written)
        assert "Traceback" not in said
        if arguments == COMMANDS["info"][0] and name == "info":
            common = re.search("^most common (.*)", said, re.MULTILINE)
            expected = [{"\n": "\\n", " ": "space"}.get(letter, letter) for letter in LETTERS]
            shown = " ".join(expected).encode(written, "backslashreplace").decode(written)
            assert sorted(common[1].split()) == sorted(shown.split())


def test_a_bar_is_drawn_with_what_the_terminal_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, blocks in (("ascii", False), ("cp1252", False), ("utf-8", True)):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding, errors="backslashreplace", write_through=True)
        stream.isatty = lambda: True
        monkeypatch.setattr(sys, "stderr", stream)
        with tqdm(total=3, file=STDERR, ncols=60) as bar:
            bar.update(1)
        assert ("█" in raw.getvalue().decode(encoding)) == blocks
        assert "\\u" not in raw.getvalue().decode(encoding)
