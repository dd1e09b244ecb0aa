"""`chargen sample` with a model of records: how many come, how they are told apart, and which are kept."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chargen
from chargen.cli.print_samples import SamplePrinter
from chargen.data.reading_config import ReadingConfig
from chargen.sampling import selection
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import FILE_NAME, ModelFile, save_model
from tests.commands import is_one_line
from tests.record_models import LETTERS, record_model
from tests.terminals import Terminal


def save(folder: Path, records: str | None = "line", **settings: Any) -> ModelFile:
    file = record_model(**settings)
    file = replace(file, reading=ReadingConfig(records=records))
    save_model(folder / "names" / FILE_NAME, file)
    return file


@pytest.fixture
def names(tmp_path: Path) -> ModelFile:
    return save(tmp_path)


def texts(file: ModelFile, num: int, prime: str = "", **arguments: Any) -> list[str]:
    sampler = Sampler(file, **{"seed": 5, "num": num, "temperature": 0.8, **arguments})
    sampler.feed(prime)
    return [sample.text for sample in sampler.generate_all(10_000)]


SAMPLE = ("sample", "names", "--seed", 5)


def test_many_records_are_a_line_each(run, names) -> None:
    expected = texts(names, 50)
    result = run(*SAMPLE, "--num", 50)
    assert result.out == "".join(text + "\n" for text in expected)
    assert result.err == ""
    assert run(*SAMPLE).out == expected[0] + "\n"
    assert chargen.generate("names", num=50, seed=5) == expected
    assert chargen.generate("names", seed=5) == expected[0]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_prime_begins_or_ends_every_record(run, names, reverse) -> None:
    direction = {"direction": "backward"} if reverse else {}
    expected = texts(names, 5, "ab", **direction)
    words = [*SAMPLE, "--prime", "ab", "--num", 5, *["--reverse"] * reverse]
    assert run(*words).out.splitlines() == [text + "ab" if reverse else "ab" + text for text in expected]
    assert run(*words, "--no-echo").out.splitlines() == expected
    Path("prime.txt").write_bytes(b"ab\r\n")
    words[4:6] = ["--prime-file", "prime.txt"]
    assert run(*words, "--no-echo").out.splitlines() == expected
    single = run(*SAMPLE, "--prime", "ab", *["--reverse"] * reverse).out
    assert single == (expected[0] + "ab\n" if reverse else "ab" + expected[0] + "\n")


def test_json_lines_tell_the_end_and_the_label(run, names) -> None:
    samples = Sampler(names, seed=5, num=4, label="sun", temperature=0.8).generate_all(4)
    assert {sample.stopped for sample in samples} == {True, False}
    for words in ([], ["--state-out", "state"]):  # records, and samples of a sampler
        arguments = (*SAMPLE, "--num", 4, "--length", 4, "--label", "sun", "--format", "jsonl", *words)
        lines = [json.loads(line) for line in run(*arguments).out.splitlines()]
        for number, (line, sample) in enumerate(zip(lines, samples, strict=True)):
            assert [line[name] for name in ("sample", "text", "label", "stopped", "seed")] == [
                number, sample.text, "sun", sample.stopped, 5,
            ]  # fmt: skip
            assert line["log_probs"] == pytest.approx(sample.log_probs, abs=1e-5)
            assert line.get("end_log_prob") == (sample.end_log_prob and pytest.approx(sample.end_log_prob, abs=1e-5))
    alone = json.loads(run(*SAMPLE, "--format", "jsonl").out)
    assert alone["text"] == texts(names, 1)[0]
    assert "label" not in alone


@pytest.mark.parametrize(
    ("records", "between", "end"),
    [("blank-line", "\n\n", "\n"), ("\n%\n", "\n%\n", ""), ("file", "\0", ""), ("jsonl", "\0", ""), (None, "\0", "")],
)
def test_records_of_several_lines_stand_as_in_training(run, tmp_path, records, between, end) -> None:
    file = save(tmp_path, records, letters="ab\n")
    expected = texts(file, 4)
    assert run(*SAMPLE, "--num", 4).out == between.join(expected) + end
    assert run(*SAMPLE, "--num", 4, "--separator", ";").out == ";".join(expected)
    assert run(*SAMPLE).out == expected[0] + end


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_records_that_never_had_a_line_end_are_lines(run, tmp_path, unit) -> None:
    file = record_model(unit=unit, letters="ab\n")
    counts = np.where(np.arange(len(file.counts)) == file.vocabulary.encode("\n")[0], 0, file.counts)
    file = replace(file, counts=counts, reading=ReadingConfig(records="csv"))
    save_model(tmp_path / "names" / FILE_NAME, file)
    assert run(*SAMPLE, "--num", 3, "--ban", "\n").out == "".join(text + "\n" for text in texts(file, 3, ban="\n"))


def test_a_terminal_shows_lines_without_headings(run, tmp_path, on_terminal) -> None:
    file = save(tmp_path, letters="ab\x1b")
    expected = [text.replace("\x1b", "\\x1b") for text in texts(file, 9)]
    assert "\\x1b" in "".join(expected)
    assert on_terminal(*SAMPLE, "--num", 9) == "".join(text + "\n" for text in expected)
    assert on_terminal(*SAMPLE) == expected[0] + "\n"
    assert run(*SAMPLE, "--num", 9, stdout=Terminal()).err == ""


def test_a_single_record_is_printed_as_it_comes(run, names, monkeypatch) -> None:
    printed: list[str] = []
    monkeypatch.setattr(SamplePrinter, "add", lambda self, character: printed.append(character.character))
    run(*SAMPLE)
    assert printed == [*texts(names, 1)[0], ""]


def test_records_are_chosen_and_what_was_thrown_away_is_told(run, names) -> None:
    every = texts(names, 3000)
    known = every[0], every[1], every[5]
    Path("known.txt").write_text("\n".join(known))
    Path("more.txt").write_text(every[2])
    seen: set[str] = {*known, every[2]}
    expected = [text for text in every if not (text in seen or seen.add(text))][:100]
    words = (*SAMPLE, "--num", 100, "--unique", "--novel", "known.txt", "--novel", "more.txt")
    result = run(*words)
    assert result.out.splitlines() == expected
    assert result.err.startswith("note: thrown away: ")
    assert " known, " in result.err
    assert result.err.endswith(" repeated\n")
    assert run(*words, "--quiet").err == ""
    chosen = {"novel": ["known.txt", Path("more.txt")], "unique": True}
    assert chargen.generate("names", num=100, seed=5, **chosen) == expected
    assert chargen.generate("names", seed=5, **chosen) == expected[0]
    assert run(*SAMPLE, "--unique", "--novel", "known.txt").out != expected[0]
    Path("wide.txt").write_text(every[0], "utf-16")
    assert run(*SAMPLE, "--novel", "wide.txt", "--encoding", "utf-16").out.splitlines() == [every[1]]
    samples = Sampler(names, seed=5, num=12, temperature=0.8).generate_all(10_000)
    best = [
        max(samples[first : first + 4], key=lambda s: (sum(s.log_probs) + s.end_log_prob) / (len(s.text) + 1)).text
        for first in (0, 4, 8)
    ]
    assert run(*SAMPLE, "--num", 3, "--best-of", 4).out.splitlines() == best
    assert run(*SAMPLE, "--best-of", 4).out == best[0] + "\n"


def test_records_that_are_never_kept_end_in_one_line(run, names, monkeypatch) -> None:
    monkeypatch.setattr(selection, "MAX_TRIES", 300)
    result = run(*SAMPLE, "--num", 99, "--unique", "--length", 1, "--ban", LETTERS[1:])
    assert result.code == 1
    assert result.out == "a\n\n" or result.out == "\na\n"
    *_, last = result.err.splitlines(keepends=True)
    assert last.startswith("chargen: 2 records of 99 kept, and none of the last 3")
    assert last.endswith("ask for fewer, or for a higher --temperature\n")
    monkeypatch.setattr(selection.Selection, "select", lambda self, samples: [])
    assert run(*SAMPLE, "--num", 2).out == ""


def test_a_record_that_does_not_end_is_cut_and_told(run, tmp_path) -> None:
    save(tmp_path, end=-100.0)
    for words in ([], ["--num", 2]):
        result = run(*SAMPLE, *words)
        assert [len(line) for line in result.out.splitlines()] == [10_000] * (1 + bool(words))
        number = "2 records" if words else "1 record"
        assert result.err == f"note: {number} cut at 10,000 characters: no end came\n"
        asked = run(*SAMPLE, *words, "--length", 30)
        assert [len(line) for line in asked.out.splitlines()] == [30] * (1 + bool(words))
        assert asked.err == ""


def test_a_record_goes_on_tomorrow_up_to_its_end(run, names) -> None:
    seed, expected = next((seed, text) for seed in range(5, 50) if len(text := texts(names, 1, seed=seed)[0]) > 6)
    first = run("sample", "names", "--seed", seed, "--length", 4, "--state-out", "state").out
    second = run("sample", "names", "--state-in", "state", "--state-out", "state").out
    assert first + second == expected
    assert run("sample", "names", "--state-in", "state").out == ""
    refused = run("sample", "names", "--state-in", "state", "--prime", "a")
    assert refused.code == 1
    assert "a record has ended" in refused.err


def test_several_records_go_on_tomorrow_each_up_to_its_end(run, names) -> None:
    first = run(*SAMPLE, "--num", 5, "--length", 4, "--state-out", "state").out.split("\0")
    second = run("sample", "names", "--num", 5, "--state-in", "state").out.split("\0")
    assert [begin + end for begin, end in zip(first, second, strict=True)] == texts(names, 5)
    done = run("sample", "names", "--num", 5, "--state-in", "state", "--state-out", "state")
    assert done.err == run("sample", "names", "--num", 5, "--state-in", "state").err == ""


def test_a_label_is_named_or_refused(run, names) -> None:
    expected = texts(names, 3, label="sea")
    assert run(*SAMPLE, "--num", 3, "--label", "sea").out.splitlines() == expected != texts(names, 3)
    result = run(*SAMPLE, "--label", "sae")
    assert (result.code, result.err) == (
        2,
        "chargen: --label is 'sae': this model has no such label; did you mean sea?\n",
    )


@pytest.mark.parametrize("words", [["--unique"], ["--best-of", 2], ["--novel", "text.txt"], ["--label", "sea"]])
def test_what_is_for_records_is_refused_in_one_line(run, model, words) -> None:
    refused = run("sample", model, *words)
    assert (refused.code, refused.out) == (2, "")
    assert is_one_line(refused.err)
    assert refused.err.endswith(" was trained on running text\n")
    assert words[0] in refused.err or words[0] == "--label"


@pytest.mark.parametrize("words", [["--state-in", "x"], ["--state-out", "x"]])
def test_a_saved_state_and_filters_contradict_each_other(run, names, words) -> None:
    refused = run(*SAMPLE, "--unique", *words)
    assert refused.one_line()
    assert "--unique chooses among whole records: leave out --state-in and --state-out" in refused.err


def test_an_interruption_ends_writing_though_nothing_is_kept(run, names, monkeypatch) -> None:
    select = selection.Selection.select

    def interrupted(self: Any, samples: Any) -> Any:
        calls.append(len(samples))
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return select(self, samples)[:1] if len(calls) < 5 else samples

    calls: list[int] = []
    monkeypatch.setattr(selection.Selection, "select", interrupted)
    result = run(*SAMPLE, "--num", 999, "--unique")
    assert result.code == 130
    assert len(calls) == 3
    assert len(result.out.splitlines()) == 2
    assert result.out.endswith("\n")
