"""The commands for models that read both ways: train, info, sample --reverse, fill, score, check, eval --direction."""

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from chargen import Filler, evaluate, score
from chargen.data.reading import ReadingConfig
from chargen.storage.model_file import FILE_NAME, ModelFile, build_model, read_model, save_model
from tests.commands import SMALL, Run
from tests.small_models import small_model
from tests.terminals import Terminal, harmful, without_colors

QUICK = ["--steps", "3", *SMALL, "--device", "cpu", "--preview", "0"]
ADVICE = "train one with --bidirectional"
HOSTILE = "ab\x1b[2Jc\u202ed\x07\x9be"


@cache
def small(letters: str, ways: str) -> ModelFile:
    both = ways == "two"
    return small_model(characters=letters, scale=1.5, bidirectional=both, cloze=1.0 * both)


@pytest.fixture
def run(run: Run, tmp_path: Path) -> Run:
    """Run commands where text.txt is, and three models: two, one, and hostile (two ways)."""
    for name, letters in (
        ("two", "abcdefgh \n"),
        ("one", "abcdefgh \n"),
        ("hostile", "abcde[2J \n\x1b\x07\x9b\u202eé"),
    ):
        save_model(tmp_path / name / FILE_NAME, small(letters, "one" if name == "one" else "two"))
    return run


@pytest.fixture
def on_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command whose standard output is a terminal, and return what that gets."""
    monkeypatch.delenv("NO_COLOR", raising=False)

    def run_command(*arguments: object) -> str:
        screen = Terminal()
        assert run(*arguments, stdout=screen).code == 0
        return screen.getvalue()

    return run_command


# Train, and look at what came of it.


def test_a_two_way_run_tells_the_losses_of_both_directions(run: Run, tmp_path: Path) -> None:
    trained = run("train", "text.txt", "--bidirectional", *QUICK, "--out", "run")
    assert trained.code == 0
    assert trained.out == ""
    assert ", both ways:" in trained.err
    losses = re.search(
        r"that is the mean of ([\d.]+) forward and ([\d.]+) backward; cloze on random windows ([\d.]+) nats",
        trained.err,
    )
    valid = re.search(r"valid +([\d.]+) nats", trained.err)
    assert float(valid[1]) == pytest.approx((float(losses[1]) + float(losses[2])) / 2, abs=1e-4)

    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    parts = {f"{split}_{part}" for split in ("train", "valid") for part in ("loss_forward", "loss_backward", "cloze")}
    for line in lines:
        usual = {"step", "epoch", "seconds", "train_loss", "valid_loss", "lr", "grad_norm", "chars_per_second"}
        assert usual | parts <= line.keys()
    assert lines[-1]["valid_loss_forward"] == pytest.approx(float(losses[1]), abs=1e-4)
    assert lines[-1]["valid_cloze"] == pytest.approx(float(losses[3]), abs=1e-4)

    info = run("info", "run")
    assert "reads both ways" in info.out
    assert re.search(r"the mean of forward [\d.]+ and backward [\d.]+\)", info.out)
    assert json.loads(run("info", "run", "--json").out)["config"]["bidirectional"] is True
    for direction in ("forward", "backward"):
        figures = json.loads(run("eval", "run", "text.txt", "--part", "valid", "--direction", direction, "--json").out)
        assert figures["direction"] == direction
        assert figures["nats_per_character"] == pytest.approx(lines[-1][f"valid_loss_{direction}"], abs=1e-4)
    assert len(run("sample", "run", "--length", 30, "--seed", 1).out) == 30
    assert len(run("sample", "run", "--length", 30, "--seed", 1, "--reverse").out) == 30
    assert run("fill", "run", "--before", "Call ", "--after", " Ishmael", "--length", 2, "--seed", 1).code == 0
    assert run("score", "run", "--text", "Call me Ishmael.").code == 0
    assert run("check", "run").code == 0


def test_a_one_way_run_tells_of_one(run: Run, tmp_path: Path) -> None:
    trained = run("train", "text.txt", *QUICK, "--out", "run")
    assert "both ways" not in trained.err
    assert "backward" not in trained.err + (tmp_path / "run/metrics.jsonl").read_text()
    assert "reads forward" in run("info", "run").out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["fill", "one", "--before", "ab", "--after", "cd", "--length", "3"], "filling a gap"),
        (["fill", "one", "text.txt", "--length", "3"], "filling a gap"),
        (["sample", "one", "--reverse", "--prime", "ab"], "--reverse"),
        (["score", "one", "--text", "abc def", "--by", "cloze"], "cloze scoring"),
        (["score", "one", "--text", "abc", "--by", "backward"], "backward scoring"),
        (["score", "one", "nothing.txt", "--by", "cloze"], "cloze scoring"),
        (["eval", "one", "text.txt", "--direction", "backward"], "reading backward"),
    ],
)
def test_a_one_way_model_is_refused_in_one_line_that_says_how_to_get_another(
    run: Run, arguments: list[str], what: str
) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert result.one_line(), result.err
    assert ADVICE in result.err
    assert what in result.err


# Sample: forward from a two-way file, and backward.


def test_a_two_way_model_writes_forward_with_its_forward_stack_alone(run: Run, tmp_path: Path) -> None:
    two = small("abcdefgh \n", "two")
    arrays = {name: two.arrays[name] for name in small("abcdefgh \n", "one").arrays}
    save_model(
        tmp_path / "half" / FILE_NAME, ModelFile(small("abcdefgh \n", "one").config, two.vocabulary, arrays, two.counts)
    )
    arguments = ["--length", 60, "--seed", 4, "--prime", "abc"]
    assert run("sample", "two", *arguments).out == run("sample", "half", *arguments).out
    several = run("sample", "two", *arguments, "--num", 2).out
    assert several == run("sample", "half", *arguments, "--num", 2).out
    assert len(several) == 2 * 63 + 1
    assert several[64:67] == "abc"


def test_written_backward_the_prime_stands_last(run: Run) -> None:
    arguments = ["sample", "two", "--reverse", "--length", 20, "--seed", 1]
    plain = run(*arguments, "--prime", "abc")
    assert (plain.code, plain.err) == (0, "")
    assert plain.out.endswith("abc")
    assert len(plain.out) == 23
    assert run(*arguments, "--prime", "abc", "--no-echo").out == plain.out[:-3]
    assert len(run(*arguments).out) == 20
    forward = run("sample", "two", "--length", 20, "--seed", 1, "--prime", "abc")
    assert forward.out[3:] not in (plain.out[:-3], plain.out[-4::-1])


def test_several_samples_written_backward_each_end_with_the_prime(run: Run) -> None:
    arguments = ["sample", "two", "--reverse", "--length", 20, "--seed", 1, "--prime", "abc"]
    several = run(*arguments, "--num", 2)
    lines = [json.loads(line) for line in run(*arguments, "--num", 2, "--format", "jsonl").out.splitlines()]
    assert several.out == "\0".join(f"{line['text']}abc" for line in lines)
    assert run(*arguments).out == lines[0]["text"] + "abc"
    assert [line["sample"] for line in lines] == [0, 1]
    for line in lines:
        assert line["reverse"] is True
        assert line["prime"] == "abc"
        assert len(line["text"]) == len(line["log_probs"]) == 20
        judged = score(small("abcdefgh \n", "two"), line["text"] + "abc", by="backward")
        assert line["log_probs"] == pytest.approx([score.backward for score in judged[:-3]], abs=1e-4)
    forward = run("sample", "two", "--length", 5, "--seed", 1, "--format", "jsonl")
    assert "reverse" not in json.loads(forward.out)


def test_a_text_goes_on_backward_tomorrow(run: Run) -> None:
    arguments = ["sample", "two", "--reverse"]
    whole = run(*arguments, "--length", 60, "--seed", 3, "--prime", "ab").out
    last = run(*arguments, "--length", 25, "--seed", 3, "--prime", "ab", "--state-out", "state").out
    first = run(*arguments, "--length", 35, "--state-in", "state").out
    assert first + last == whole
    refused = run("sample", "two", "--length", 5, "--state-in", "state")
    assert refused.code == 4
    assert refused.one_line()
    assert "other direction" in refused.err


def test_written_backward_a_text_begins_with_what_stops_it(run: Run) -> None:
    arguments = ["sample", "two", "--reverse", "--length", 300, "--seed", 1, "--prime", "abc"]
    text = run(*arguments, "--no-echo").out
    stop = text[150:153]
    assert stop != stop[::-1]
    stopped = run(*arguments, "--stop", stop)
    assert stopped.out == text[text.rindex(stop) :] + "abc"
    line = json.loads(run(*arguments, "--stop", stop, "--format", "jsonl").out)
    assert line["stopped"] is True
    assert line["text"].startswith(stop)


# Fill.


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
    expected = Filler(small("abcdefgh \n", "two"), seed=5).fill("ab ", " cd", 0, 2, num=4)
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


# Score.


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
    file = small("abcdefgh \n", "two")
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
    expected = score(small("abcdefgh \n", "two"), text, by=by, threshold=0.2, num_alternatives=2)
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
        mean = -sum(getattr(char, name) for char in score(small("abcdefgh \n", "two"), text)) / len(text)
        assert f"{name}: {mean:.4f} nats, {mean / math.log(2):.4f} bits per character" in shown.err


def test_the_text_comes_first_then_a_line_for_each_unlikely_character(run: Run) -> None:
    text = "abc\ndeh fad\n"
    expected = score(small("abcdefgh \n", "two"), text, threshold=0.1, num_alternatives=2)
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
    expected = [char for char in score(small("abcdefgh \n", "two"), text, threshold=0.2) if char.unlikely]
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


def test_nothing_in_a_filled_text_steers_the_terminal(on_terminal: Any) -> None:
    arguments = ["fill", "hostile", "--before", HOSTILE, "--after", HOSTILE, "--length", 40, "--seed", 1]
    shown = on_terminal(*arguments, "--particles", 8)
    assert not harmful(without_colors(shown))
    assert without_colors(shown).startswith("ab\\x1b[2Jc\\u202ed\\x07\\x9be")
    assert "\x1b[32m" in shown


def test_in_a_pipe_a_judged_text_is_raw_but_the_lines_below_are_not(run: Run) -> None:
    shown = run("score", "hostile", "--text", HOSTILE, "--threshold", 1, "--alternatives", 20)
    assert shown.out.startswith(HOSTILE + "\n")
    assert not harmful(shown.out[len(HOSTILE) :])


def test_the_real_command_on_a_real_terminal(run: Run, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    (tmp_path / "hostile.txt").write_text(HOSTILE + "\n", newline="")
    ours, theirs = pty.openpty()
    words = [sys.executable, "-W", "error", "-m", "chargen", "score", "hostile", "hostile.txt", "--threshold", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    # Standard error goes elsewhere: on a slow machine a progress bar would move the cursor there.
    process = subprocess.Popen(words, stdout=theirs, stderr=subprocess.DEVNULL, cwd=tmp_path, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 4096):
            shown += block
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    text = shown.decode().replace("\r\n", "\n")
    assert "\x1b[31m" in text or "\x1b[33m" in text
    assert not harmful(without_colors(text))
    assert "\\x1b[2J" in without_colors(text)


# Check and eval.


def test_check_says_ok_of_every_way_to_predict(run: Run) -> None:
    checked = run("check", "two")
    assert (checked.code, checked.err) == (0, "")
    lines = checked.out.splitlines()
    assert len(lines) == 11
    assert all(line.endswith(": ok") for line in lines)
    assert {line.split()[0] for line in lines} == {"forward", "backward", "cloze"}
    assert len(run("check", "one").out.splitlines()) == 4
    figures = json.loads(run("check", "two", "--json").out)
    assert figures["path"] == str(Path("two") / FILE_NAME)
    assert [check.keys() for check in figures["checks"]] == [{"prediction", "path", "violations"}] * 11
    assert {tuple(one["violations"]) for one in figures["checks"]} == {()}
    assert run("check", "nowhere").code == 4


def test_check_is_coloured_on_a_terminal_and_not_with_no_color(on_terminal: Any, monkeypatch: Any) -> None:
    assert "\x1b[32m\x1b[1mok\x1b[0m" in on_terminal("check", "one")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in on_terminal("check", "one")


def test_eval_reads_backward(run: Run, tmp_path: Path) -> None:
    text = "abc deh\nfad " * 30
    (tmp_path / "letters.txt").write_text(text)
    file = read_model(tmp_path / "two")
    found = {}
    for direction in ("forward", "backward"):
        shown = run("eval", "two", "letters.txt", "--direction", direction, "--device", "cpu", "--json")
        found[direction] = json.loads(shown.out)
        expected = evaluate(build_model(file), file.vocabulary, text, direction=direction)
        assert found[direction]["nats"] == pytest.approx(expected.nats)
        assert found[direction]["direction"] == direction
        edge = "last" if direction == "backward" else "first"
        assert (
            f"the {edge} character is context; {direction}, fp32"
            in run("eval", "two", "letters.txt", "--direction", direction).err
        )
    assert found["forward"]["nats"] != found["backward"]["nats"]
    assert json.loads(run("eval", "two", "letters.txt", "--device", "cpu", "--json").out) == found["forward"]


def test_help_names_what_two_ways_need(run: Run) -> None:
    assert "--reverse" in run("sample", "--help").out
    assert "--direction" in run("eval", "--help").out
    shown = run("--help").out
    assert all(re.search(rf"^  {name} ", shown, re.MULTILINE) for name in ("fill", "score", "check"))
    titles = [line for line in shown.split("\n") if line in ("Learn:", "Write:", "Judge:", "Files:")]
    assert all(shown.index(first) < shown.index(second) for first, second in pairwise(titles))
