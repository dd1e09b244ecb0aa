"""`chargen score`: texts judged from files, from a pipe and as they stand, and shown on a terminal."""

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chargen import score
from chargen.data.reading_config import ReadingConfig
from chargen.storage.model_file import FILE_NAME, read_model, save_model
from tests.commands import Run
from tests.small_models import small_model
from tests.terminals import harmful, run_on_terminal, without_colors

pytestmark = pytest.mark.usefixtures("three_models")

HOSTILE = "ab\x1b[2Jc\u202ed\x07\x9be"


def test_a_text_is_judged_from_files_from_a_pipe_and_as_it_stands(run: Run, tmp_path: Path) -> None:
    text = "abc deh\nfad"
    (tmp_path / "file.txt").write_text(text)
    expected = json.loads(run("score", "two", "--text", text, "--json").out)
    assert json.loads(run("score", "two", "file.txt", "--json").out) == expected
    assert json.loads(run("score", "two", "-", "--json", stdin=text.encode()).out) == expected
    for name, part in (("1.txt", text[:8]), ("2.txt", text[8:])):
        (tmp_path / "folder" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "folder" / name).write_text(part)
    for sources in (["folder"], ["folder/*.txt"], ["folder/1.txt", "folder/2.txt"]):
        assert json.loads(run("score", "two", *sources, "--json").out) == expected
    assert json.loads(run("score", "two", "--text", "folder", "--unknown", "skip", "--json").out)["length"] == 6


def test_a_text_of_other_line_ends_is_cleaned_as_in_training(run: Run, tmp_path: Path) -> None:
    file = read_model("two")
    save_model(tmp_path / "lf" / FILE_NAME, replace(file, reading=ReadingConfig(newline="lf", normalize="NFC")))
    (tmp_path / "crlf.txt").write_bytes(b"abc deh\r\nfad")
    expected = json.loads(run("score", "lf", "--text", "abc deh\nfad", "--json").out)
    assert json.loads(run("score", "lf", "crlf.txt", "--json").out) == expected
    assert json.loads(run("score", "lf", "--text", "abc deh\r\nfad", "--json").out) == expected


@pytest.mark.parametrize("ways", ["one", "two"])
def test_the_example_of_the_help_works_with_any_model(run: Run, ways: str) -> None:
    shown = run("score", "--help").out
    (example,) = re.findall(r"chargen score checkpoints/novel --text \"(.*)\"", shown)
    assert not re.search(r"chargen score checkpoints/novel \"", shown)
    judged = run("score", ways, "--text", example)
    assert judged.code == 0
    assert f"below 0.01 by {'cloze' if ways == 'two' else 'forward'}, or unknown" in judged.err


@pytest.mark.parametrize("by", ["cloze", "forward", "backward"])
def test_figures_are_those_of_the_function(run: Run, by: str) -> None:
    text = "abc deh fad"
    arguments = ["--by", by, "--threshold", 0.2, "--alternatives", 2, "--json"]
    figures = json.loads(run("score", "two", "--text", text, *arguments).out)
    expected = score(read_model("two"), text, by=by, threshold=0.2, num_alternatives=2)
    assert (figures["by"], figures["threshold"], figures["length"]) == (by, 0.2, 11)
    assert figures["unlikely"] == sum(score.unlikely for score in expected) > 0
    for key, judge in (
        ("log_prob_forward", "forward"),
        ("log_prob_backward", "backward"),
        ("pseudo_log_likelihood", "cloze"),
    ):
        assert figures[key] == pytest.approx(sum(getattr(score, judge) for score in expected))
    assert figures["text"] == text
    for judge in ("forward", "backward", "cloze"):
        assert figures[judge] == [round(getattr(char, judge), 2) for char in expected]
    assert figures["alternatives"] == {
        str(at): {other: float(f"{share:.2g}") for other, share in char.alternatives}
        for at, char in enumerate(expected)
        if char.unlikely
    }


def test_a_pseudo_likelihood_is_never_sold_as_bits_or_perplexity(run: Run) -> None:
    text = "abc deh fad"
    shown = run("score", "two", "--text", text)
    (line,) = (line for line in shown.err.splitlines() if line.startswith("cloze"))
    assert "pseudo-log-likelihood" in line
    assert "not to be compared" in line
    assert not re.search(r"bits|perplexity|per character", line)
    assert "perplexity" not in shown.out + shown.err
    keys = json.loads(run("score", "two", "--text", text, "--json", "--brief").out).keys()
    assert keys == {
        "by", "threshold", "length", "scored", "unknown", "replaced", "unlikely",
        "log_prob_forward", "log_prob_backward", "pseudo_log_likelihood",
    }  # fmt: skip
    for name in ("forward", "backward"):
        mean = -sum(getattr(char, name) for char in score(read_model("two"), text)) / len(text)
        assert f"{name}: {mean:.4f} nats, {mean / math.log(2):.4f} bits per character" in shown.err


def test_the_text_comes_first_then_a_line_for_each_unlikely_character(run: Run) -> None:
    text = "abc\ndeh fad\n"
    expected = score(read_model("two"), text, threshold=0.1, num_alternatives=2)
    shown = run("score", "two", "--text", text, "--threshold", 0.1, "--alternatives", 2)
    assert shown.out.startswith(text)
    lines = shown.out[len(text) :].splitlines()
    places = [(1 + text[:at].count("\n"), at - text[:at].rfind("\n")) for at in range(len(text))]
    unlikely = [(place, char) for place, char in zip(places, expected, strict=True) if char.unlikely]
    assert len(unlikely) == len(lines) > 1
    for line, ((row, column), char) in zip(lines, unlikely, strict=True):
        rather = ", ".join(f"{name!r} {share:.2g}" for name, share in char.alternatives)
        assert line == f"line {row}, column {column}: {char.character!r} {math.exp(char.cloze):.2g}; rather {rather}"
    assert f"{len(lines)} of {len(text)} characters unlikely: below 0.1 by cloze, or unknown" in shown.err
    assert run("score", "two", "--text", "abc", "--threshold", 0).out == "abc\n"


def test_a_one_way_model_judges_forward(run: Run) -> None:
    figures = json.loads(run("score", "one", "--text", "abc", "--by", "forward", "--json").out)
    assert figures["log_prob_backward"] is figures["pseudo_log_likelihood"] is None
    shown = run("score", "one", "--text", "abc", "--by", "forward")
    assert shown.code == 0
    assert "backward" not in shown.err
    assert "cloze" not in shown.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["two", "nothing.txt"], 3, "; to judge the words themselves, give them with --text"),
        (["two", "nowhere/abc"], 3, "no file, folder or pattern 'nowhere/abc'"),
        (["two", "abc deh"], 3, "no file, folder or pattern 'abc deh'"),
        (["two", "abc"], 3, "; to judge the words themselves, give them with --text"),
        (["two", "empty"], 3, "folder empty holds no files"),
        (["two", "--text", "aXb", "--unknown", "error"], 3, "unknown to the model: 'X'"),
        (["two", "--text", "aXb", "--unknown", "replace"], 3, "no unknown symbol"),
        (["two", "bad.txt"], 3, "bad.txt"),
        (["two"], 2, "what to judge?"),
        (["two", "abc", "--text", "abc"], 2, "two texts to judge: give one"),
        (["two", "--text", "abc", "--errors", "replace"], 2, "--errors does nothing with --text"),
        (["two", "--text", "abc", "--by", "left"], 2, "left"),
        (["two", "--text", "abc", "--threshold", "2"], 2, "--threshold"),
        (["two", "--text", "abc", "--alternatives", "-1"], 2, "--alternatives"),
        (["two", "--text", "abc", "--device", "tpu"], 2, "tpu"),
        (["nowhere", "--text", "abc"], 4, "nowhere"),
    ],
)
def test_what_cannot_be_judged_is_one_line(
    run: Run, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "bad.txt").write_bytes(b"ab\xe9cd")
    (tmp_path / "empty").mkdir()
    result = run("score", *arguments)
    assert result.code == code, result.err
    assert result.one_line(), result.err
    assert words in result.err


@pytest.mark.parametrize("arguments", [["--text", ""], ["empty.txt"]])
def test_an_empty_text_is_no_error(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "empty.txt").write_text("")
    shown = run("score", "two", *arguments)
    assert (shown.code, shown.out) == (0, "")
    figures = json.loads(run("score", "two", *arguments, "--json").out)
    keys = "length", "unlikely", "log_prob_forward", "text"
    assert [figures[key] for key in keys] == [0, 0, None, ""]


def test_unknown_characters_are_flagged_and_counted(run: Run, tmp_path: Path) -> None:
    for options in ([], ["--unknown", "skip"]):
        shown = run("score", "two", "--text", "aXbéX", "--threshold", 0, *options)
        assert shown.out.splitlines()[1:] == [
            "line 1, column 2: 'X' unknown to the model",
            "line 1, column 4: 'é' unknown to the model",
            "line 1, column 5: 'X' unknown to the model",
        ]
        assert "note: 3 characters never seen in training and left out: 'X', 'é'\n" in shown.err
        figures = json.loads(run("score", "two", "--text", "aXbéX", "--json", *options).out)
        assert figures["cloze"][1] is None
        assert (figures["unknown"], figures["scored"], figures["length"]) == (3, 2, 5)
        alone = json.loads(run("score", "two", "--text", "ab", "--json").out)
        assert figures["log_prob_forward"] == alone["log_prob_forward"]
        assert alone["unknown"] == 0
    folded = small_model(characters="abcdefgh \n", folded="xyz", scale=1.5)
    save_model(tmp_path / "folded" / FILE_NAME, folded)
    shown = run("score", "folded", "--text", "axbé", "--threshold", 0)
    (unseen,) = (char.probability("forward") for char in score(folded, "axbé")[3:])
    assert shown.out == f"axbé\nline 1, column 4: 'é' {unseen:.2g}, never seen in training\n"
    assert "note: 1 character never seen in training, charged for the place among all others: 'é'\n" in shown.err
    assert json.loads(run("score", "folded", "--text", "axbé", "--json").out)["unknown"] == 1


def test_what_did_not_fit_the_encoding_is_counted(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"ab\xe9cd")
    shown = run("score", "two", "bad.txt", "--errors", "replace")
    assert "note: 1 byte did not fit the encoding and became U+FFFD" in shown.err
    assert json.loads(run("score", "two", "bad.txt", "--errors", "replace", "--json").out)["replaced"] == 1


def test_a_character_of_several_bytes_is_not_called_unknown(run: Run, on_terminal: Any, tmp_path: Path) -> None:
    """There is no cloze score of it: it is judged from either side."""
    file = small_model(unit="byte", bidirectional=True)
    save_model(tmp_path / "bytes" / FILE_NAME, file)
    shown = run("score", "bytes", "--text", "a字b", "--threshold", 1, "--alternatives", 0)
    (_, middle, _) = score(file, "a字b", threshold=1)
    assert middle.forward is not None
    assert middle.backward is not None
    assert f"column 2: '字' {math.exp(max(middle.forward, middle.backward)):.2g}\n" in shown.out
    assert "unknown" not in shown.out
    likely = on_terminal(
        "score", "bytes", "--text", "a字b", "--threshold", 5 * math.exp(max(middle.forward, middle.backward))
    )
    assert "\x1b[33m\x1b[1m字" in likely


def test_a_mean_per_character_is_over_what_was_judged(run: Run) -> None:
    skipped, alone = (run("score", "two", "--text", text, "--unknown", "skip") for text in ("aXXXXb", "ab"))
    for direction in ("forward", "backward"):
        lines = [re.search(rf"^{direction}: .*$", result.err, re.MULTILINE)[0] for result in (skipped, alone)]
        assert lines[0] == lines[1]


def test_a_long_literal_is_judged_too(run: Run) -> None:
    result = run("score", "two", "--text", "abc deh " * 100)
    assert result.code == 0
    assert result.out.startswith("abc deh ")


def test_a_named_pipe_is_a_file_to_be_judged(run: Run) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"abc deh")
    os.close(theirs)
    try:
        result = run("score", "two", f"/dev/fd/{ours}", "--json")
    finally:
        os.close(ours)
    assert result.code == 0
    assert json.loads(result.out)["length"] == 7


# On a terminal.


def test_unlikely_characters_are_coloured_on_a_terminal_only(run: Run, on_terminal: Any, monkeypatch: Any) -> None:
    arguments = ["score", "two", "--text", "abc deh\nfad", "--threshold", 0.2]
    colored = on_terminal(*arguments)
    assert {"\x1b[33m\x1b[1m", "\x1b[0m"} <= set(re.findall(r"(?:\x1b\[\d+m)+", colored))
    assert "\x1b" not in run(*arguments).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert on_terminal(*arguments) == run(*arguments).out


def test_what_is_coloured_is_what_is_unlikely(on_terminal: Any) -> None:
    text = "abc deh\nfad"
    shown = on_terminal("score", "two", "--text", text, "--threshold", 0.2)
    body = shown[: shown.index("line ")]
    marked = re.findall(r"\x1b\[3([13])m\x1b\[1m(.)\x1b\[0m", body)
    expected = [char for char in score(read_model("two"), text, threshold=0.2) if char.unlikely]
    assert [sign for _, sign in marked] == [
        char.character if char.character not in " \n" else "\u2423" for char in expected
    ]
    assert [color == "1" for color, _ in marked] == [math.exp(char.cloze) <= 0.02 for char in expected]
    assert without_colors(body).replace("\u2423\n", "\n").replace("\u2423", " ") == text + "\n"


def test_a_blank_that_is_unlikely_can_be_seen_and_the_line_still_ends(on_terminal: Any) -> None:
    shown = without_colors(on_terminal("score", "two", "--text", "a b\nc", "--threshold", 1))
    assert shown.startswith("a\u2423b\u2423\nc\n")


@pytest.mark.parametrize("colors", [True, False])
@pytest.mark.parametrize("threshold", [0, 1])
def test_nothing_in_a_judged_text_steers_the_terminal(
    on_terminal: Any, monkeypatch: Any, colors: bool, threshold: float
) -> None:
    if not colors:
        monkeypatch.setenv("NO_COLOR", "1")
    arguments = ["score", "hostile", "--text", HOSTILE, "--threshold", threshold, "--alternatives", 20]
    shown = on_terminal(*arguments)
    assert not harmful(without_colors(shown))
    assert without_colors(shown).startswith("ab\\x1b[2Jc\\u202ed\\x07\\x9be")
    if not (colors and threshold):
        assert "\x1b" not in shown
    assert not harmful(on_terminal(*arguments, "--json"))


def test_in_a_pipe_a_judged_text_is_raw_but_the_lines_below_are_not(run: Run) -> None:
    shown = run("score", "hostile", "--text", HOSTILE, "--threshold", 1, "--alternatives", 20)
    assert shown.out.startswith(HOSTILE + "\n")
    assert not harmful(shown.out[len(HOSTILE) :])


def test_the_real_command_on_a_real_terminal(run: Run, tmp_path: Path) -> None:
    (tmp_path / "hostile.txt").write_text(HOSTILE + "\n", newline="")
    words = [sys.executable, "-W", "error", "-m", "chargen", "score", "hostile", "hostile.txt", "--threshold", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    # Standard error goes elsewhere: on a slow machine a progress bar would move the cursor there.
    shown = run_on_terminal(words, stderr=subprocess.DEVNULL, cwd=tmp_path, env=environment)
    text = shown.replace("\r\n", "\n")
    assert "\x1b[31m" in text or "\x1b[33m" in text
    assert not harmful(without_colors(text))
    assert "\\x1b[2J" in without_colors(text)
