"""Parts of one result that are written apart: put behind one another they are what would have been written at once."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import generate
from chargen.data.reading_config import ReadingConfig
from chargen.errors import SettingError
from chargen.sampling.records import write_records
from chargen.sampling.sampler import MAX_FIRST, Sampler
from chargen.sampling.selection import Selection
from chargen.storage.model_file import FILE_NAME, ModelFile, save_model
from tests.record_models import LABELS, record_model
from tests.sampling.strategies import seeds
from tests.small_models import small_model
from tests.terminals import Terminal


@cache
def model(cell: str, unit: str, records: bool) -> ModelFile:
    return record_model(cell, unit) if records else small_model(cell, unit=unit, bidirectional=True)


kinds = st.sampled_from([("gru", "character"), ("lstm", "byte")])
choices = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.5, 1.7]),
        "no_repeat": st.integers(4, 5),
        "stop": st.sampled_from([("a",), ("bc", "d")]),
        "direction": st.just("backward"),
        "label": st.sampled_from(LABELS),
    },
)


@given(kinds, st.booleans(), choices, seeds, st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 5, 12]))
def test_samplers_of_parts_write_what_is_written_at_once(
    tmp_path: Path, kind: Any, records: bool, config: Any, seed: int, left: int, right: int, length: int
) -> None:
    file = model(*kind, records)
    config = config if records else {name: value for name, value in config.items() if name != "label"}

    def new(num: int, first: int) -> Sampler:
        return Sampler(file, num=num, first=first, seed=seed, **config)

    whole = new(left + right, 1)
    parts = new(left, 1), new(right, left + 1)
    for sampler in (whole, *parts):
        sampler.feed("ab")
    if records:
        alone = new(1, left + 1)
        alone.feed("ab")
        written = list(write_records(alone, right, length=length))
    at_once = whole.generate_all(length)
    assert [sample for part in parts for sample in part.generate_all(length)] == at_once
    assert not records or written == at_once[left:]
    expected, going_on = whole.generate_all(7), []
    for number, part in enumerate(parts):
        part.save_state(tmp_path / str(number))
        tomorrow = new(part.num, 1)
        tomorrow.load_state(tmp_path / str(number))
        going_on += tomorrow.generate_all(7)
    assert going_on == expected
    parts[1].reset()
    parts[1].feed("ab")
    assert parts[1].generate_all(length) == at_once[left:]


@given(kinds, seeds, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_the_best_of_some_records_are_the_same_in_parts(
    kind: Any, seed: int, left: int, right: int, best_of: int, labelled: bool
) -> None:
    def texts(num: int, first: int) -> list[str]:
        label = "sun" if labelled else None
        return generate(
            model(*kind, True), num=num, first=first, seed=seed, length=20, best_of=best_of, label=label, prime="a"
        )

    assert texts(left, 1) + texts(right, left + 1) == texts(left + right, 1)


def test_a_text_alone_is_that_of_its_number() -> None:
    for records in (False, True):
        file = model("gru", "character", records)
        texts = generate(file, num=3, seed=4, length=9)
        assert [generate(file, first=number, seed=4, length=9) for number in (1, 2, 3)] == texts
        assert len({*texts}) == 3


def test_a_first_sample_may_be_very_far() -> None:
    file = model("gru", "character", True)
    far = Sampler(file, first=MAX_FIRST, seed=1)
    records = list(write_records(far, 1, length=9))
    assert far.generate_all(9) == records != Sampler(file, seed=1).generate_all(9)


def test_filters_of_a_sampler_go_on_from_its_sample() -> None:
    file = model("gru", "character", True)
    every = list(write_records(Sampler(file, seed=1), 40))
    kept = list(write_records(Sampler(file, seed=1, first=11), 5, selection=Selection(accept=lambda texts: [
        len(text) > 3 for text in texts
    ])))  # fmt: skip
    assert kept == [sample for sample in every[10:] if len(sample.text) > 3][:5]


@pytest.mark.parametrize("name", ["unique", "novel", "accept"])
def test_what_depends_on_all_records_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "known.txt").write_text("a\n")
    value: Any = {"unique": True, "novel": tmp_path / "known.txt", "accept": bool}[name]
    with pytest.raises(SettingError, match=rf"^first is 3: which records `{name}` keeps depends on all .* its own$"):
        generate(model("gru", "character", True), num=2, first=3, seed=1, best_of=2, **{name: value})


def test_a_number_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    file = small_model()
    Sampler(file, seed=1).save_state(tmp_path / "state")
    with pytest.raises(SettingError, match=r"^first is 0: it must be 1 to 2,147,483,648"):
        Sampler(file, first=0, seed=1)
    with pytest.raises(SettingError, match=r"^first is 3: parts of one result have one seed; give `seed`$"):
        generate(file, first=3)
    with pytest.raises(SettingError, match=r"^first is 3: samples of a saved .*; leave out `first` or `state_in`$"):
        generate(file, first=3, state_in=tmp_path / "state")


CASES: dict[str, tuple[str | None, list[Any]]] = {
    "text": (None, ["--length", 9]),
    "rounded": (None, ["--stop", "\n", "--prime", "ab"]),
    "separator": (None, ["--length", 9, "--separator", ";\n"]),
    "nothing between": (None, ["--length", 9, "--separator", ""]),
    "reverse": (None, ["--length", 9, "--reverse", "--prime", "ab"]),
    "lines": ("line", ["--best-of", 2]),
    "labelled": ("line", ["--label", "sun", "--prime", "a", "--reverse", "--temperature", 2]),
    "blank lines": ("blank-line", []),
    "marks": ("\n%\n", []),
    "files": ("file", ["--no-echo", "--prime", "a"]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", ["text", "jsonl"])
def test_outputs_of_parts_stand_behind_one_another(run: Any, tmp_path: Path, case: str, form: str) -> None:
    records, words = CASES[case]
    if "--separator" in words and form == "jsonl":
        return
    if records is None:
        save_model(tmp_path / "model" / FILE_NAME, model("gru", "character", False))
    else:
        letters = "ab" if records == "line" else "ab\n"
        file = record_model(letters=letters)
        save_model(tmp_path / "model" / FILE_NAME, replace(file, reading=ReadingConfig(records=records)))

    def output(num: int, first: int | None = None) -> str:
        number = [] if first is None else ["--first", first]
        result = run("sample", "model", "--seed", 7, "--num", num, "--format", form, *number, *words)
        assert result.code == 0, result.err
        return str(result.out)

    whole = output(5)
    assert output(2) + output(1, 3) + output(2, 4) == whole == output(5, 1)
    if form == "jsonl":
        assert [json.loads(line)["sample"] for line in whole.splitlines()] == [0, 1, 2, 3, 4]


def test_states_of_parts_go_on_with_their_numbers(run: Any, model_folder: Path) -> None:
    words = ["sample", model_folder, "--length", 9, "--format", "jsonl"]
    for num, first, name in ((5, 1, "whole"), (2, 1, "left"), (3, 3, "right")):
        run(*words, "--seed", 7, "--num", num, "--first", first, "--state-out", name)
    lines = {name: run(*words, "--num", num, "--state-in", name).out
             for num, name in ((5, "whole"), (2, "left"), (3, "right"))}  # fmt: skip
    assert lines["left"] + lines["right"] == lines["whole"]
    assert run(*words, "--state-in", "right", "--pick", 2).out == lines["whole"].splitlines(keepends=True)[3]


def test_a_terminal_tells_the_numbers_of_a_part(run: Any, model_folder: Path) -> None:
    terminal = Terminal()
    result = run("sample", model_folder, "--length", 9, "--seed", 7, "--num", 2, "--first", 4, stdout=terminal)
    assert "--- 4 of 5 ---" in result.err
    assert "--- 5 of 5 ---" in result.err
    assert terminal.getvalue().startswith(generate(model_folder, length=9, seed=7, first=4))


def test_the_command_refuses_in_one_line(run: Any, model_folder: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "names" / FILE_NAME, model("gru", "character", True))
    for words, said in (
        ([model_folder], "chargen: --first is 3: parts of one result have one seed; give --seed\n"),
        ([model_folder, "--state-in", "x"], "chargen: --first is 3: samples of a saved state have numbers"),
        (["names", "--seed", 1, "--unique"], "chargen: --first is 3: which records --unique keeps depends on all that"),
        ([model_folder, "--seed", 1, "--first", 0], "chargen: --first is '0': it must be a whole number, 1 to"),
    ):
        refused = run("sample", *words[:1], "--first", 3, *words[1:])
        assert refused.one_line(), refused
        assert refused.code == 2
        assert refused.err.startswith(said), refused.err


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "model" / FILE_NAME, small_model())
    return tmp_path / "model"
