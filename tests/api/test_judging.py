"""Judging by one call, by a command, and of many texts at once: the figures are the same."""

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chargen
from chargen import evaluate, score
from chargen.errors import SettingError
from chargen.evaluation import short_texts
from chargen.evaluation.layout import CONTEXT, MAX_ROWS, SPAN, cut_text
from chargen.storage.model_file import ModelFile, build_model, save_model
from tests.commands import Run, flags, parse
from tests.pairs import all_pairs
from tests.small_models import count_ids_read, small_model

LETTERS = "abcdefgh \n"
PARTS = {"settings": {"valid_fraction": 0.25, "test_fraction": 0.25}}


def text_of(length: int, seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list(LETTERS), length))


def model(**shape: Any) -> ModelFile:
    return replace(small_model(scale=1.5, **shape), training=PARTS)


@pytest.fixture
def printed_by(run: Run) -> Callable[..., str]:
    """Run a command that succeeds, beside a model and three texts; returns what it printed."""
    save_model("m.safetensors", model(folded="xyz", bidirectional=True))
    Path("text.txt").write_text(text_of(900) + "xé", "utf-8")
    Path("more.txt").write_text("abc deh\n" * 40, "utf-8")
    Path("bad.txt").write_bytes(b"abc\xe9 deh fad\n" * 9)

    def run_command(*arguments: Any) -> str:
        result = run(*arguments)
        assert result.code == 0, result.err
        return result.out

    return run_command


EVAL = [
    ("text.txt", {}),
    ("text.txt", {"part": "valid"}),
    ("text.txt", {"direction": "backward"}),
    ("text.txt", {"part": "test", "dynamic": True}),
    ("text.txt", {"dynamic": True, "tune": ["more.txt"]}),
    ("text.txt", {"dynamic_counts": True}),
    ("text.txt", {"unknown": "skip"}),
    ("bad.txt", {"encoding": "latin-1"}),
    ("bad.txt", {"errors": "replace"}),
    ("text.txt", {"precision": "bf16"}),
    ("text.txt", {"device": "cpu"}),
]
SCORE = [
    ("text.txt", {}),
    ("text.txt", {"by": "backward"}),
    ("text.txt", {"threshold": 0.2, "alternatives": 1}),
    ("text.txt", {"unknown": "skip"}),
    ("bad.txt", {"encoding": "latin-1"}),
    ("bad.txt", {"errors": "replace"}),
    ("text.txt", {"precision": "bf16"}),
    ("text.txt", {"device": "cpu"}),
]
OF_RECORDS = {"by_label", "label"}
"""Options of models of records, which `tests/cli/test_record_commands.py` and `test_by_line.py` give."""
BY_LINE = {"by_line", "worst", "part", "guess_label", "prior"}
"""Options of `score` by lines and records, which are those of `score_records`."""


@pytest.mark.parametrize("command", ["eval", "score"])
def test_every_option_is_an_argument_of_the_call_and_is_walked_below(command: str) -> None:
    parsed = parse(command, ["m.safetensors", "text.txt"]).params
    others = {"model", "sources", "text", "as_json", "brief"} | (BY_LINE if command == "score" else set())
    options = {name: parsed[name] for name in parsed.keys() - others}
    function, cases = (evaluate, EVAL) if command == "eval" else (score, SCORE)
    defaults = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
    defaults["alternatives"] = defaults.get("num_alternatives")
    assert {name: value or None for name, value in options.items()} == {
        name: defaults[name] or None for name in options
    }
    assert options.keys() - OF_RECORDS == {name for _, settings in cases for name in settings}


@pytest.mark.parametrize(("source", "options"), EVAL)
def test_eval_and_evaluate_give_equal_figures(
    printed_by: Callable[..., str], source: str, options: dict[str, Any]
) -> None:
    figures = json.loads(printed_by("eval", "m.safetensors", source, "--json", *flags(**options)))
    result = evaluate("m.safetensors", sources=source, **options)
    for name, value in figures.items():
        if name == "dynamic":
            assert value == {"lr": result.dynamic.lr, "decay": result.dynamic.decay, "tail": result.tail}
        else:
            assert value == getattr(result, name), name
    if source == "text.txt":
        tune = {"tune": Path("more.txt")} if "tune" in options else {}
        assert evaluate(Path("m.safetensors"), Path(source), **options | tune) == result
        assert evaluate("m.safetensors", Path(source).read_text("utf-8"), **options | tune) == result


@pytest.mark.parametrize(("source", "options"), SCORE)
def test_score_by_command_and_by_call_give_equal_figures(
    printed_by: Callable[..., str], source: str, options: dict[str, Any]
) -> None:
    figures = json.loads(printed_by("score", "m.safetensors", source, "--json", *flags(**options)))
    settings = {"num_alternatives" if name == "alternatives" else name: value for name, value in options.items()}
    scores = score("m.safetensors", sources=source, **settings)
    assert {**scores.totals, "replaced": scores.replaced}.items() <= figures.items()
    assert figures["text"] == "".join(entry.character for entry in scores)
    assert figures["alternatives"].keys() == {str(at) for at, entry in enumerate(scores) if entry.unlikely}
    if source == "text.txt":
        assert score("m.safetensors", Path(source), **settings) == scores


def test_two_texts_are_one_too_many_and_none_is_too_few(printed_by: Callable[..., str]) -> None:
    for function in (evaluate, score):
        with pytest.raises(SettingError, match="two texts: give one"):
            function("m.safetensors", text="abc", sources="text.txt")
        with pytest.raises(SettingError, match="text is of type NoneType"):
            function("m.safetensors")
    for name, value in (("part", "tests"), ("precision", "fp8"), ("direction", "up")):
        with pytest.raises(SettingError, match=f"{name} is '{value}': it must be one of"):
            evaluate("m.safetensors", "abc", **{name: value})


# Many texts.


@pytest.mark.parametrize(
    ("bidirectional", "cell", "unit"), all_pairs((False, True), ("lstm", "gru"), ("character", "byte"))
)
def test_many_texts_are_scored_as_each_alone(cell: str, unit: str, bidirectional: bool) -> None:
    file = model(cell=cell, unit=unit, bidirectional=bidirectional)
    lengths = [0, 1, 2, 5, 127, 128, 129, 400, 3, 0, *range(20, 70, 3)]
    texts = [text_of(length, length) for length in lengths]
    together = score(file, texts, threshold=0.1)
    assert len(together) == len(texts)
    for text, scores in zip(texts, together, strict=True):
        alone = score(file, text, threshold=0.1)
        for ours, theirs in zip(scores, alone, strict=True):
            assert ours.character == theirs.character
            for judge in ("forward", "backward", "cloze"):
                value, expected = getattr(ours, judge), getattr(theirs, judge)
                assert value is expected is None or value == pytest.approx(expected, abs=1e-5)
    assert score(file, []) == []


def test_a_model_is_built_once_for_many_texts_and_never_where_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    file = model()
    network = build_model(file)
    monkeypatch.setattr(chargen.api.judge, "build_networks", lambda *arguments: built.append(1) or [network])
    texts = ["abc" * short_texts.MAX_IDS, "de"]
    assert score(file, texts) == score(network, texts, vocabulary=file.vocabulary, counts=file.counts)
    evaluate(network, file.vocabulary, "abc")
    assert built == [1]


def test_ids_read_grow_with_the_text_not_with_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short texts are read with others of their length, and nothing is read for what they lack of the longest."""
    file = model()
    network = build_model(file)
    sizes = count_ids_read(network, monkeypatch)
    score(network, ["a" * 18], vocabulary=file.vocabulary)
    assert sum(sizes) <= 18
    sizes.clear()
    texts = [text_of(length, length) for length in np.random.default_rng(1).integers(1, 120, 1000)]
    score(network, texts, vocabulary=file.vocabulary)
    assert sum(sizes) < 1.1 * sum(map(len, texts))
    sizes.clear()
    score(network, [text_of(1000), *(["abc deh"] * 31)], vocabulary=file.vocabulary)
    assert sum(sizes) < 32 * 128 + 1000


@pytest.mark.parametrize("size", [0, 1, SPAN, 2 * SPAN, 10 * SPAN + 3, 100 * SPAN])
@pytest.mark.parametrize("both", [False, True])
def test_a_long_text_is_cut_into_rows_that_cover_it_once(size: int, both: bool) -> None:
    rows = list(cut_text(size, both))
    assert [begin for _, _, begin, _ in rows] == [0, *(end for *_, end in rows[:-1])]
    assert rows[-1][3] == size
    for first, stop, begin, end in rows:
        assert first == max(0, begin - CONTEXT)
        assert stop == (min(size, end + CONTEXT) if both else end)
    assert len(rows) == 1 or (len(rows) <= MAX_ROWS or both)
    assert all(end - begin >= SPAN for _, _, begin, end in rows) or len(rows) == 1


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_long_text_costs_what_it_costs_in_one_row(bidirectional: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    file, text = model(bidirectional=bidirectional), text_of(9 * SPAN)
    cut = score(file, text)
    monkeypatch.setattr("chargen.evaluation.layout.SPAN", 10**9)
    whole = score(file, text)
    for judge in ("forward", "backward", "cloze") if bidirectional else ("forward",):
        difference = sum(getattr(entry, judge) for entry in cut) - sum(getattr(entry, judge) for entry in whole)
        assert abs(difference) < 1e-5 * len(text)


# What is printed.


def test_json_takes_few_bytes_and_brief_tells_totals_only(printed_by: Callable[..., str]) -> None:
    save_model("one.safetensors", small_model(scale=0.3))
    Path("long.txt").write_text(text_of(4000))
    save_model("two.safetensors", small_model(scale=0.3, bidirectional=True))
    for name in ("one", "two"):
        shown = printed_by("score", f"{name}.safetensors", "long.txt", "--json")
        assert len(shown) < 20 * 4000
        figures = json.loads(shown)
        digits = 3 if name == "one" else 2
        exact = [entry.forward for entry in score(f"{name}.safetensors", Path("long.txt"))]
        assert figures["forward"] == [round(value, digits) for value in exact]
        brief = printed_by("score", f"{name}.safetensors", "long.txt", "--brief")
        assert "abc" not in brief
        mean = -math.fsum(exact) / len(exact)
        assert f"forward: {mean:.4f} nats, {mean / math.log(2):.4f} bits per character" in brief
        totals = json.loads(printed_by("score", f"{name}.safetensors", "long.txt", "--json", "--brief"))
        assert totals.items() <= figures.items()
        assert not {"text", "forward", "alternatives"} & totals.keys()


def test_characters_that_are_certain_have_scores_in_json(printed_by: Callable[..., str]) -> None:
    save_model("one.safetensors", small_model(characters="a"))
    scores = json.loads(printed_by("score", "one.safetensors", "--text", "aaaa", "--json"))
    assert scores["forward"] == [0.0] * 4
