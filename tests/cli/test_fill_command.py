"""`chargen fill`: gaps on the command line and in files, their scores, and what cannot be filled."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chargen import Filler
from chargen.storage.model_file import read_model
from tests.commands import Run
from tests.terminals import Terminal, harmful, without_colors

pytestmark = pytest.mark.usefixtures("three_models")

HOSTILE = "ab\x1b[2Jc\u202ed\x07\x9be"


def test_text_goes_to_one_stream_and_scores_to_the_other(run: Run) -> None:
    arguments = ["fill", "two", "--before", "ab ", "--after", " cd", "--length", 2]
    alone = run(*arguments, "--seed", 1)
    assert alone.code == 0
    assert re.fullmatch(r"ab [a-h \n]{2} cd", alone.out)
    assert alone.err == "exact: 100 possible gaps, all scored\n"
    several = run(*arguments, "--seed", 1, "--num", 3)
    texts = several.out.split("\0")
    assert texts[0] == alone.out
    assert len(set(texts)) == 3
    number = r"-?\d+\.\d\d"
    scores = rf"score {number} \({number} for the gap, {number} for what follows\), probability \S+"
    assert re.findall(rf"^([123]) of 3: {scores}$", several.err, re.MULTILINE) == ["1", "2", "3"]
    assert "score" not in several.out
    assert run(*arguments, "--seed", 1, "--no-echo").out == alone.out[3:5]
    assert run(*arguments, "--seed", 1, "--num", 3, "--separator", " | ").out == " | ".join(texts)
    assert run(*arguments, "--num", 3, "--separator", "|", "--format", "jsonl").code == 2


def test_several_texts_on_a_terminal_stand_apart(on_terminal: Callable[..., str], run: Run) -> None:
    for arguments in (
        ["sample", "two", "--length", 9, "--seed", 1, "--prime", "abc"],
        ["sample", "two", "--length", 9, "--seed", 1, "--prime", "abc", "--reverse"],
        ["fill", "two", "--before", "ab ", "--after", " cd", "--length", 2, "--seed", 1],
    ):
        texts = run(*arguments, "--num", 3).out.split("\0")
        assert len(texts) == 3
        shown = "".join(text + "\n" * (not text.endswith("\n")) for text in texts)
        assert without_colors(on_terminal(*arguments, "--num", 3)) == shown
        shown = "|".join(texts)
        uncolored = without_colors(on_terminal(*arguments, "--num", 3, "--separator", "|"))
        assert uncolored == shown + "\n" * (not shown.endswith("\n"))


@pytest.mark.parametrize("before", ["", "abc"])
def test_headings_go_to_standard_error_where_the_text_goes_to_a_terminal(run: Run, before: str) -> None:
    arguments = ["--length", 2, "--seed", 1, "--num", 3]
    sampled = run("sample", "two", "--prime", before, *arguments)
    reverse = run("sample", "two", "--reverse", "--prime", before, *arguments)
    filled = run("fill", "two", "--before", before, *arguments)
    assert sampled.err == reverse.err == "", "in a pipe they would stand without their texts"
    assert re.findall(r"^(\d) of 3: score", filled.err, re.MULTILINE) == ["1", "2", "3"], "but scores are news"
    for words in (["sample", "two"], ["sample", "two", "--reverse"], ["fill", "two"]):
        option = ["--before" if words[0] == "fill" else "--prime", before]
        log = run(*words, *option, *arguments, stdout=Terminal()).err
        assert re.findall(r"^--- (\d) of 3(?:: score.*)? ---$", log, re.MULTILINE) == ["1", "2", "3"]


def test_particles_say_how_good_the_search_was(run: Run) -> None:
    result = run("fill", "two", "--before", "ab", "--after", "cd", "--length", 9, "--seed", 1, "--particles", 16)
    assert re.search(r"^\d+ different gaps found, effective sample size [\d.]+ of 16", result.err)
    assert len(result.out) == 13


def test_gaps_in_json_lines_carry_their_scores(run: Run) -> None:
    arguments = ["fill", "two", "--before", "ab ", "--after", " cd", "--max-length", 2, "--seed", 5, "--num", 4]
    lines = [json.loads(line) for line in run(*arguments, "--format", "jsonl").out.splitlines()]
    assert [line["alternative"] for line in lines] == [0, 1, 2, 3]
    expected = Filler(read_model("two"), seed=5).fill("ab ", " cd", 0, 2, num=4)
    for line, alternative in zip(lines, expected.alternatives, strict=True):
        assert line.keys() == {"alternative", "seed", "text", "gaps"}
        assert (line["seed"], line["text"]) == (5, f"ab {alternative.text} cd")
        (gap,) = line["gaps"]
        assert gap == {
            "text": alternative.text,
            "log_prob": alternative.log_prob,
            "log_prob_after": alternative.log_prob_after,
            "probability": alternative.probability,
            "score": alternative.log_prob + alternative.log_prob_after,
            "exact": True,
            "found": 111,
            "effective_sample_size": expected.effective_sample_size,
            "particles": 0,
        }


def test_a_seed_that_was_drawn_is_told_and_fills_alike(run: Run) -> None:
    arguments = ["fill", "two", "--before", "ab", "--after", "cd", "--length", 7, "--particles", 16]
    drawn = run(*arguments)
    seed = re.search(r"^seed (\d+)$", drawn.err, re.MULTILINE)[1]
    assert run(*arguments, "--seed", seed).out == drawn.out
    again = [run(*arguments, "--seed", 3) for _ in range(2)]
    assert again[0].out == again[1].out
    assert "seed" not in again[0].err


def test_a_file_is_filled_where_it_is_marked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "gaps.txt").write_text("ab ___{2} cd\n___ef")
    filled = run("fill", "two", "gaps.txt", "--length", 3, "--seed", 1)
    match = re.fullmatch(r"ab ([a-h \n]{2}) cd\n([a-h \n]{3})ef", filled.out)
    assert match
    assert [line.split(":")[0] for line in filled.err.splitlines()] == ["gap 1", "gap 2"]
    assert run("fill", "two", "gaps.txt", "--length", 3, "--seed", 1, "--no-echo").out == f"{match[1]}\n{match[2]}"
    from_pipe = run("fill", "two", "-", "--length", 3, "--seed", 1, stdin=b"ab ___{2} cd\n___ef")
    assert from_pipe.out == filled.out
    (tmp_path / "stars.txt").write_text("ab **{2} cd\n**ef")
    assert run("fill", "two", "stars.txt", "--marker", "**", "--length", 3, "--seed", 1).out == filled.out
    lines = run("fill", "two", "gaps.txt", "--length", 3, "--seed", 1, "--num", 2, "--format", "jsonl").out.splitlines()
    assert [len(json.loads(line)["gaps"]) for line in lines] == [2, 2]
    assert json.loads(lines[0])["text"] == filled.out
    (tmp_path / "own.txt").write_text("ab ___{2} cd")
    assert run("fill", "two", "own.txt", "--seed", 1).code == 0


@pytest.mark.parametrize(
    ("around", "pattern"),
    [
        (["--before", ""], "GAP"),
        (["--after", ""], "GAP"),
        (["--before", "", "--after", ""], "GAP"),
        (["--before", "ab"], "abGAP"),
        (["--after", "ab"], "GAPab"),
        (["--before", "", "--after", "ab"], "GAPab"),
        (["--before", "ab", "--after", ""], "abGAP"),
    ],
)
def test_an_empty_side_is_unknown_context(run: Run, around: list[str], pattern: str) -> None:
    result = run("fill", "two", *around, "--length", 2, "--seed", 1)
    assert result.code == 0
    assert re.fullmatch(pattern.replace("GAP", "[a-h \n]{2}"), result.out)


def test_fewer_gaps_than_asked_for_are_told(run: Run) -> None:
    result = run("fill", "two", "--before", "a", "--after", "b", "--length", 1, "--num", 20, "--seed", 1)
    assert result.code == 0
    assert len(result.out.split("\0")) >= 10
    assert "note: 10 different gaps found, not 20" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["text.txt", "--before", "a", "--length", "2"], 2, "SOURCE and --before or --after contradict"),
        (["text.txt", "--after", "", "--length", "2"], 2, "SOURCE and --before or --after contradict"),
        (
            ["--before", "a", "--length", "2", "--max-length", "3"],
            2,
            "--length contradicts --min-length and --max-length",
        ),
        (["gaps.txt", "--length", "2", "--min-length", "1"], 2, "--length contradicts --min-length and --max-length"),
        (["--length", "2"], 2, "nothing to fill"),
        ([], 2, "nothing to fill"),
        (["--before", "a", "--after", "b"], 2, "how long is the gap?"),
        (["--before", "a", "--min-length", "2"], 2, "how long is the gap?"),
        (["--before", "a", "--min-length", "4", "--max-length", "3"], 2, "a gap of 4 to 3 characters"),
        (["gaps.txt"], 2, "how long is gap 1?"),
        (["gaps.txt", "--marker", "", "--length", "2"], 2, "--marker is ''"),
        (["none.txt", "--length", "2"], 3, "no gap in the text: mark it with ___"),
        (["nowhere.txt", "--length", "2"], 3, "nowhere.txt"),
        (["--before", "aX", "--length", "2"], 3, "unknown to the model: 'X'"),
        (["--before", "a", "--length", "2", "--ban", "abcdefgh \n"], 1, "forbid"),
        (["--before", "a", "--length", "-2"], 2, "--length"),
        (["--before", "a", "--length", "2", "--num", "0"], 2, "--num"),
        (["--before", "a", "--length", "2", "--temperature", "-1"], 2, "--temperature is -1.0"),
    ],
)
def test_what_cannot_be_filled_is_one_line(
    run: Run, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "gaps.txt").write_text("ab ___ cd")
    (tmp_path / "none.txt").write_text("ab cd")
    result = run("fill", "two", *arguments, "--seed", 1)
    assert result.code == code, result.err
    assert result.one_line(), result.err
    assert words in result.err


def test_nothing_in_a_filled_text_steers_the_terminal(on_terminal: Any) -> None:
    arguments = ["fill", "hostile", "--before", HOSTILE, "--after", HOSTILE, "--length", 40, "--seed", 1]
    shown = on_terminal(*arguments, "--particles", 8)
    assert not harmful(without_colors(shown))
    assert without_colors(shown).startswith("ab\\x1b[2Jc\\u202ed\\x07\\x9be")
    assert "\x1b[32m" in shown
