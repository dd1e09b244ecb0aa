"""`chargen inspect`: the page, a summary, and the text with the values of a hidden unit."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import chargen
from chargen.cli.value_text import ValueWriter
from chargen.storage.model_file import FILE_NAME, save_model
from tests.commands import Run
from tests.record_models import record_model
from tests.terminals import Terminal

TEXT = "abc de\n\x1bgh 漢a\u0301 abc\n"
MARKS = {2: "#", 1: "+", 0: " ", -1: "-", -2: "="}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    from tests.small_models import small_model

    save_model(tmp_path / "model" / FILE_NAME, small_model(characters="abcdefgh 漢\u0301\n\x1b", scale=6.0))
    Path("a.txt").write_text(TEXT)
    return tmp_path / "model"


def strength(value: float) -> int:
    return int(math.copysign((abs(value) >= 0.25) + (abs(value) >= 0.75), value))


def test_the_page_is_that_of_the_call(run: Run, model: Path) -> None:
    result = run("inspect", "model", "a.txt", "--out", "page.html", "--length", "9")
    assert (result.code, result.out) == (0, "")
    assert re.match(r"page.html: [\d,.]+ (bytes|MB), for a browser\n", result.err)
    assert "note: 10 more characters not read: --length is 9" in result.err
    page = Path("page.html").read_text("utf-8")
    assert page == chargen.inspect("model", Path("a.txt"), length=9).page()


def test_the_summary_tells_every_class(run: Run, model: Path) -> None:
    result = run("inspect", "model", "-", stdin=TEXT.encode())
    assert result.code == 0
    inspection = chargen.inspect("model", TEXT)
    bits = inspection.bits["forward"]
    lines = result.out.splitlines()
    assert lines[0].startswith(f"forward: {bits * math.log(2):.4f} nats, {bits:.4f} bits per character; calibration")
    table = inspection.by_class["forward"]
    names = [name for name, count in zip(table.names, table.counts, strict=True) if count]
    shown = [line for line in lines[1:] if line.startswith("hidden unit")]
    for line, neuron in zip(shown, inspection.neurons[:8], strict=True):
        assert line.startswith(f"hidden unit {neuron}: {neuron.feature}, correlation {neuron.held_out_correlation:.3f}")
    (left, right), _ = inspection.saturation["forget"].by_layer
    assert f"forget gate of layer 1: {left:.1%} nearly shut, {right:.1%} nearly open" in lines
    lines = [line for line in lines if line not in shown and " gate of " not in line]
    assert [line.partition(":")[0] for line in lines[1:]] == names == ["letters", "spaces", "line ends", "others"]
    assert f"letters: {table.counts[0] / 19:.1%} of the text, {table.nats[0] / table.nats.sum():.1%} of" in lines[1]


def test_characters_that_were_left_out_are_named(run: Run, model: Path) -> None:
    result = run("inspect", "model", "-", stdin=b"abcXdXYe\n")
    assert result.code == 0
    assert "note: 3 characters never seen in training and left out: 'X', 'Y'\n" in result.err
    assert "never seen" not in run("inspect", "model", "a.txt").err


@pytest.mark.parametrize(("text", "more"), [(b"", ()), (b"XYZ", ()), (b"abc", ("--length", "0"))])
def test_a_text_of_nothing_is_no_summary(run: Run, model: Path, text: bytes, more: tuple[str, ...]) -> None:
    result = run("inspect", "model", "-", *more, stdin=text)
    assert (result.code, result.out) == (3, "")
    assert result.one_line()
    assert "no character that the model knows" in result.err


def test_in_a_pipe_marks_stand_under_each_row(run: Run, model: Path) -> None:
    hidden = chargen.activations("model", Path("a.txt"), precision="fp32").hidden[1].astype(float)
    unit = max(range(12), key=lambda number: len({*map(strength, hidden[:, number])}))
    result = run("inspect", "model", "a.txt", "--neuron", f"2:{unit}", "--precision", "fp32")
    assert result.code == 0
    values = hidden[:, unit].tolist()
    marks = {at: MARKS[strength(value)] for at, value in enumerate(values)}
    rows, at = [], 0
    for line in TEXT.splitlines():
        shown, row = "", ""
        for character in line:
            columns = {"\x1b": 4, "漢": 2, "\u0301": 0}.get(character, 1)
            shown += "\\x1b" if character == "\x1b" else character
            row += marks[at] * columns
            at += 1
        rows += [shown, (row + marks[at]).rstrip()]
        at += 1
    assert result.out.split("\n") == [*rows, ""]
    assert len({*marks.values()}) > 2
    assert result.err.startswith(f"hidden unit 2:{unit}: # from 0.75 on, + from 0.25 on, - to -0.25, = to -0.75")


def test_a_terminal_gets_colours_or_with_no_color_marks(
    on_terminal: Callable[..., str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = on_terminal("inspect", "model", "a.txt", "--neuron", "1:0", "--precision", "fp32")
    plain = re.sub("\x1b\\[[0-9;]*m", "", shown)
    assert plain != shown
    assert plain.replace("\u2423", " ").replace(" \n", "\n") == TEXT.replace("\x1b", "\\x1b")
    values = chargen.activations("model", Path("a.txt"), precision="fp32").unit(1, 0).tolist()
    assert shown.count("\x1b[1m") == sum(strength(value) != 0 for value in values)
    monkeypatch.setenv("NO_COLOR", "1")
    result = on_terminal("inspect", "model", "a.txt", "--neuron", "1:0")
    assert "\x1b[" not in result


def test_marks_begin_at_a_quarter_and_at_three_quarters(capsys: pytest.CaptureFixture[str]) -> None:
    values = [-1.0, -0.75, -0.749, -0.25, -0.249, 0.0, 0.249, 0.25, 0.749, 0.75, 1.0]
    writer = ValueWriter()
    for value in values:
        writer.write("a", value)
    writer.close()
    assert capsys.readouterr().out == "a" * 11 + "\n==--   ++##\n"


def test_colours_have_a_legend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout", Terminal())
    assert ValueWriter().legend == "red from 0.75 on, yellow from 0.25 on, cyan to -0.25, blue to -0.75"


def test_rows_fit_a_terminal(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from chargen.cli import value_text

    monkeypatch.setattr(value_text, "terminal_width", lambda stream: 10)
    Path("long.txt").write_text("abcdefgh" * 10)
    rows = run("inspect", "model", "long.txt", "--neuron", "1:0").out.splitlines()
    assert "".join(rows[::2]) == "abcdefgh" * 10
    assert max(map(len, rows)) <= 10


def test_records_end_their_rows(run: Run, tmp_path: Path) -> None:
    file = record_model()
    save_model("records.safetensors", replace(file, reading=replace(file.reading, records="line")))
    Path("a.txt").write_text("abc\nde\n")
    rows = run("inspect", "records.safetensors", "a.txt", "--neuron", "1:0", "--length", "4").out.splitlines()
    assert rows[::2] == ["abc", "d"]
    assert len(rows) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--neuron", "1"], "--neuron is '1': it must be a layer and a hidden unit, as in 1:37"),
        (["--neuron", "1:²"], "--neuron is '1:²'"),
        (["--neuron", "3:0"], "there is no layer 3: this model has layers 1 to 2"),
        (["--neuron", "1:12"], "there is no hidden unit 12 in layer 1"),
        (["--neuron", "1:0", "--out", "a.html"], "--out does nothing with --neuron"),
        (["--neuron", "1:0", "--pattern", "a"], "--pattern does nothing with --neuron"),
        (["--pattern", "(a"], "'(a' is no regular expression"),
        (["--out", "a.txt"], "a.txt is no page that chargen wrote and is not overwritten"),
    ],
)
def test_what_is_wrong_is_one_line(run: Run, model: Path, arguments: list[Any], message: str) -> None:
    result = run("inspect", "model", "a.txt", *arguments)
    assert result.code in (2, 3)
    assert result.one_line()
    assert message in result.err
