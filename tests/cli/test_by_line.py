"""`chargen score` by lines and by records: one line or JSON object for each, the worst of them, and their labels."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chargen import score, score_records
from chargen.storage.model_file import FILE_NAME, save_model
from tests.commands import Run
from tests.judged_records import random_records, record_model
from tests.small_models import small_model
from tests.terminals import harmful, without_colors

LABELS = ("red", "blue", "a\x1b[2J\u202eb")
LINE = re.compile(r" *(-?[\d.]+) +(-?[\d.]+)  (\S+:\d+)  (.*)")


@pytest.fixture(autouse=True)
def models(run: Run) -> None:
    """Models of labelled records, of others, and of running text that reads both ways; a file of each label."""
    save_model(Path("labelled") / FILE_NAME, record_model(labels=LABELS))
    save_model(Path("records") / FILE_NAME, record_model())
    save_model(Path("plain") / FILE_NAME, small_model(scale=1.5, bidirectional=True))
    Path("logs").mkdir()
    for name, seed in (("red", 1), ("new", 2)):
        Path("logs", f"{name}.log").write_text("\n\n".join(random_records(30, seed=seed)) + "\n")


def objects(run: Run, *arguments: Any) -> list[dict[str, Any]]:
    result = run("score", *arguments, "--json")
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


@pytest.mark.parametrize(("model", "options"), [("records", []), ("records", ["--by-line"]), ("plain", ["--by-line"])])
def test_each_record_or_line_has_its_figures_and_its_place(run: Run, model: str, options: list[str]) -> None:
    scores = score_records(model, sources="logs")
    expected = list(scores)
    assert [entry.line for entry in expected] == [*range(1, 60, 2)] * 2
    figures = objects(run, model, "logs", *options)
    for entry, found in zip(expected, figures, strict=True):
        assert found.keys() == {"source", "line", "mean", "log_prob", "end_log_prob", "characters", "unknown", "text"}
        assert (found["source"], found["line"], found["text"]) == (entry.name, entry.line, entry.text)
        assert found["mean"] == pytest.approx(entry.mean, abs=1e-6)
        assert found["log_prob"] == pytest.approx(entry.log_prob, abs=1e-4)
    shown = run("score", model, "logs", *options)
    for entry, line in zip(expected, shown.out.splitlines(), strict=True):
        assert line == f"{entry.mean:9.4f} {entry.log_prob:10.2f}  {entry.name}:{entry.line}  {entry.text}"
    noun = "line" if model == "plain" else "record"
    assert shown.err.startswith(f"nats per character, nats in all, place, {noun}\n")
    mean, each = -scores.totals.mean, -scores.totals.log_prob / 60
    assert f"60 {noun}s: {mean:.4f} nats, {mean / math.log(2):.4f} bits per character; {each:.4f} nats, " in shown.err


def test_the_worst_are_the_least_likely_of_all_by_their_mean(run: Run) -> None:
    everything = objects(run, "records", "logs")
    ranked = sorted(everything, key=lambda figures: figures["mean"])
    for number in (1, 7, 1000):
        assert objects(run, "records", "logs", "--worst", number) == ranked[:number]
    shown = run("score", "plain", "logs", "--worst", 3)
    lines = [LINE.fullmatch(line) for line in shown.out.splitlines()]
    worst = sorted(score_records("plain", sources="logs"), key=lambda entry: entry.mean)[:3]
    assert [line and (float(line[1]), line[4]) for line in lines] == [(round(one.mean, 4), one.text) for one in worst]
    assert "60 lines: " in shown.err, "totals are those of all"
    Path("same.txt").write_text("ab\n" * 9)
    assert [figures["line"] for figures in objects(run, "records", "same.txt", "--worst", 3)] == [1, 2, 3]


def test_a_label_is_guessed_and_counted(run: Run) -> None:
    scores = score_records("labelled", sources="logs", guess_label=True)
    expected = list(scores)
    for entry, found in zip(expected, objects(run, "labelled", "logs", "--guess-label"), strict=True):
        assert (found["label"], found["guess"]) == (entry.label, entry.guess)
        assert found["guess_probability"] == pytest.approx(entry.label_probs[entry.guess], abs=1e-6)
    shown = run("score", "labelled", "logs", "--guess-label")
    names = {"red": "red", "blue": "blue", LABELS[2]: r"'a\x1b[2J\u202eb'"}
    for entry, line in zip(expected, shown.out.splitlines(), strict=True):
        assert f"  {names[entry.guess]} {entry.label_probs[entry.guess]:.3f}  {entry.text}" in line
    right = scores.totals.right
    assert f"{right} of 30 labels guessed ({right / 30:.1%})\n" in shown.err
    assert "note: 1 label unknown to the model, which reads their records without: new\n" in shown.err
    (totals,) = objects(run, "labelled", "logs", "--guess-label", "--prior", "uniform", "--brief")
    uniform = score_records("labelled", sources="logs", guess_label=True, prior="uniform")
    list(uniform)
    assert (totals["labelled"], totals["right"]) == (30, uniform.totals.right)


def test_labels_of_held_out_records_are_guessed(run: Run) -> None:
    trained = {"settings": {"records": "line", "valid_fraction": 0.3, "test_fraction": 0.0}}
    save_model(Path("trained") / FILE_NAME, replace(record_model(labels=LABELS), training=trained))
    scores = score_records("trained", sources="logs", part="valid", guess_label=True)
    list(scores)
    (totals,) = objects(run, "trained", "logs", "--guess-label", "--part", "valid", "--brief")
    assert (totals["records"], totals["right"]) == (scores.totals.records, scores.totals.right)
    assert 5 < totals["labelled"] < 15


def test_totals_alone_are_told_briefly(run: Run) -> None:
    scores = score_records("records", sources="logs")
    list(scores)
    shown, (totals,) = run("score", "records", "logs", "--brief"), objects(run, "records", "logs", "--brief")
    assert shown.out.startswith(f"60 records: {-scores.totals.mean:.4f} nats, ")
    end = -scores.totals.end_log_prob / 60
    ends = f"{end:.4f} nats, {end / math.log(2):.4f} bits per end of a record, which counts as a character"
    assert shown.out.splitlines()[1:] == [ends]
    assert shown.err == ""
    for name in ("records", "characters", "ends", "log_prob", "end_log_prob", "mean", "unknown"):
        assert totals[name] == getattr(scores.totals, name)
    Path("empty.txt").write_text("\n\n")
    assert run("score", "records", "empty.txt").err.endswith("no records\n")
    assert objects(run, "records", "empty.txt") == []


def test_unknown_characters_are_named_with_their_record_and_in_all(run: Run) -> None:
    Path("odd.txt").write_text("ab\na\u00e9\x1b[2J\u202eb\u00e9\n", "utf-8")
    for options, words in (([], "charged for the place among all others"), (["--unknown", "skip"], "and left out")):
        shown = run("score", "records", "odd.txt", *options)
        first, second = shown.out.splitlines()
        assert "unknown" not in first
        assert second.endswith(r"odd.txt:2  aé\x1b[2J\u202ebé  (unknown: '\x1b', '2', 'J', '[', 'é' …)")
        assert re.search(r"note: 7 characters never seen in training,? " + words, shown.err)
    (_, figures) = objects(run, "records", "odd.txt")
    assert figures["unknown"] == "\x1b2J[\u00e9\u202e"
    assert run("score", "records", "odd.txt", "--unknown", "error").code == 3


def test_nothing_in_a_record_or_a_name_steers_the_terminal(run: Run, on_terminal: Any) -> None:
    name = "a\x1b[2J\n\u202e.txt"
    Path(name).write_text("a\x1b[2J\tb\u202e\x07\n", newline="")
    shown = on_terminal("score", "labelled", name, "--guess-label")
    assert not harmful(without_colors(shown))
    for result in (run("score", "labelled", name, "--guess-label"), run("score", "labelled", name, "--json")):
        assert not harmful(result.out)
        assert result.out.count("\n") == 1, "each record is one line"
    save_model(Path("poems") / FILE_NAME, record_model(characters="ab\n", records="blank-line"))
    Path("poems.txt").write_text("a\nb\n\n\nab\n")
    assert [line.split("  ")[-2:] for line in run("score", "poems", "poems.txt").out.splitlines()] == [
        ["poems.txt:1", r"a\nb"], ["poems.txt:5", "ab"],
    ]  # fmt: skip
    (poem,) = objects(run, "poems", "--text", "a\nb", "--by-line")
    assert poem["text"] == "a\nb"


def test_words_are_records_or_lines_too(run: Run) -> None:
    (figures,) = objects(run, "labelled", "--text", "abc", "--guess-label")
    (expected,) = score_records("labelled", ["abc"], guess_label=True)
    assert (figures["text"], figures["guess"], figures["line"]) == ("abc", expected.guess, 1)
    lines = objects(run, "plain", "--text", "abc\n\ncab", "--by-line")
    assert [(found["text"], found["line"]) for found in lines] == [("abc", 1), ("cab", 2)]
    piped = run("score", "records", "-", "--json", stdin=b"ab\ncd\n")
    assert [json.loads(line)["source"] for line in piped.out.splitlines()] == ["standard input"] * 2


def test_the_characters_of_a_record_are_judged_with_its_end(run: Run) -> None:
    scores = score("labelled", "abc", label="red", threshold=1)
    shown = run("score", "labelled", "--text", "abc", "--label", "red", "--threshold", 1)
    *_, end = shown.out.splitlines()
    rather = ", ".join(f"{other!r} {share:.2g}" for other, share in scores.end.alternatives)
    assert end == f"line 1, column 4: the end {math.exp(scores.end.forward):.2g}; rather {rather}"
    total = scores.totals["log_prob_forward"]
    assert (
        f"forward: {-total / 4:.4f} nats, {-total / 4 / math.log(2):.4f} bits per character; {total:.4f} in all, "
        f"{scores.end.forward:.4f} of it for the end\n"
    ) in shown.err
    figures = json.loads(run("score", "labelled", "--text", "abc", "--label", "red", "--json", "--brief").out)
    assert figures["log_prob_forward"] == total
    assert figures["end_log_prob_forward"] == scores.end.forward
    save_model(Path("both") / FILE_NAME, record_model(bidirectional=True))
    for by, judge in (("cloze", "forward"), ("backward", "backward")):
        scores = score("both", "abc", by=by, threshold=1)
        *_, end = run("score", "both", "--text", "abc", "--by", by, "--threshold", 1).out.splitlines()
        assert end.startswith(f"line 1, column 4: the end {math.exp(getattr(scores.end, judge)):.2g}")


def test_a_label_is_given_to_all_records(run: Run) -> None:
    blue = objects(run, "labelled", "logs", "--label", "blue")
    expected = list(score_records("labelled", sources="logs", label="blue"))
    assert [found["log_prob"] for found in blue] == [round(entry.log_prob, 4) for entry in expected]
    assert {found["label"] for found in blue} == {"blue"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["records", "logs", "--threshold", "0.1"], 2, "--threshold does nothing with records: leave one out"),
        (["plain", "logs", "--by-line", "--alternatives", "2"], 2, "--alternatives does nothing with --by-line"),
        (["plain", "logs", "--worst", "3", "--threshold", "0.1"], 2, "--threshold does nothing with --worst"),
        (["records", "logs", "--worst", "3", "--brief"], 2, "--worst does nothing with --brief"),
        (["plain", "logs", "--worst", "0"], 2, "--worst is '0'"),
        (["plain", "logs", "--part", "valid"], 2, "--part does nothing with the characters of a text: leave one out"),
        (["plain", "logs", "--part", "valid", "--by-line"], 2, "does not say how its text was cut"),
        (["labelled", "logs", "--prior", "uniform"], 2, "--prior is for --guess-label: give both, or neither"),
        (
            ["labelled", "logs", "--guess-label", "--label", "red"],
            2,
            "--guess-label asks for what --label says: give one",
        ),
        (
            ["labelled", "logs", "--label", "rde"],
            2,
            "--label is 'rde': this model has no such label; did you mean red?",
        ),
        (["records", "logs", "--guess-label"], 2, "--guess-label is for a model of labelled records"),
        (["plain", "logs", "--by-line", "--by", "cloze"], 2, "--by is 'cloze': it must be one of forward, backward"),
        (["plain", "logs", "--label", "red"], 2, "no records: it was trained on running text"),
        (["records", "nothing.txt"], 3, "no file, folder or pattern 'nothing.txt'"),
    ],
)
def test_what_does_nothing_or_is_not_there_is_one_line(run: Run, arguments: list[str], code: int, words: str) -> None:
    result = run("score", *arguments)
    assert (result.code, result.one_line()) == (code, True), result.err
    assert words in result.err
