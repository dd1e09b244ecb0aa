"""Commands for models that read both ways: train, info, sample --reverse, check, eval --direction."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from chargen import evaluate, score
from chargen.storage.model_file import FILE_NAME, ModelFile, build_model, read_model, save_model
from tests.commands import SMALL, Run

pytestmark = pytest.mark.usefixtures("three_models")

QUICK = ["--steps", "3", *SMALL, "--device", "cpu", "--preview", "0"]
ADVICE = "train one with --bidirectional"


# Train, and look at what came of it.


def test_a_two_way_run_tells_the_losses_of_both_directions(run: Run, tmp_path: Path) -> None:
    trained = run("train", "text.txt", "--bidirectional", "--counts", "off", *QUICK, "--out", "run")
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
def test_a_one_way_model_is_refused_with_how_to_get_another(run: Run, arguments: list[str], what: str) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert result.one_line(), result.err
    assert ADVICE in result.err
    assert what in result.err


# Sample: forward from a two-way file, and backward.


def test_a_two_way_model_writes_forward_with_its_forward_stack_alone(run: Run, tmp_path: Path) -> None:
    two = read_model("two")
    arrays = {name: two.arrays[name] for name in read_model("one").arrays}
    save_model(tmp_path / "half" / FILE_NAME, ModelFile(read_model("one").config, two.vocabulary, arrays, two.counts))
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
        judged = score(read_model("two"), line["text"] + "abc", by="backward")
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
