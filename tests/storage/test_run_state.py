"""The state of a run comes back whole from its file, and only with the parts that it says it has."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from chargen.errors import ModelFileError, SettingError
from chargen.storage import tensor_file
from chargen.storage.run_state import FILE_NAME, KIND, can_be_resumed, read_run_state, save_run_state
from tests.runs import (
    bare_state,
    model,
)


@pytest.mark.parametrize(
    ("cell", "both", "best", "hidden"), list(product(("lstm", "gru"), (False, True), (False, True), (False, True)))
)
def test_a_state_comes_back_and_only_with_the_arrays_that_it_says_it_has(
    cell: str, both: bool, best: bool, hidden: bool, tmp_path: Path
) -> None:
    state = bare_state(model(cell, bidirectional=both), best, hidden)
    save_run_state(str(tmp_path), state)
    found = read_run_state(str(tmp_path))
    assert (found.progress, found.settings) == (state.progress, state.settings)
    assert found.arrays.keys() == state.arrays.keys()
    assert all(np.array_equal(found.arrays[name], array) for name, array in state.arrays.items())
    changes = {"hidden": not hidden, "best_step": None if best else 7}
    for name, words in (("hidden", r"\(hidden"), ("best_step", r"\(best\.")):
        save_run_state(tmp_path, replace(state, progress={**state.progress, name: changes[name]}))
        with pytest.raises(ModelFileError, match=f"do not fit its settings {words}"):
            read_run_state(tmp_path)


@pytest.mark.parametrize("what", ["weights.output.bias", "best.output.bias", "second.embedding.weight", "hidden.1"])
@pytest.mark.parametrize("bad", ["<f8", "not finite", "shape", "missing"])
def test_a_state_with_an_array_that_is_none_is_refused(what: str, bad: str, tmp_path: Path) -> None:
    state = bare_state(model())
    array = state.arrays[what]
    if bad == "<f8":
        state.arrays[what] = array.astype(bad)
    elif bad == "not finite":
        array.flat[-1] = np.inf
    elif bad == "shape":
        state.arrays[what] = array[:-1]
    else:
        del state.arrays[what]
    save_run_state(tmp_path, state)
    words = {
        "shape": f"{tmp_path / FILE_NAME} is not a good run file: array {what} has another shape",
        "missing": f"{tmp_path / FILE_NAME} is not a good run file: its arrays do not fit its settings ({what}, 1",
    }
    with pytest.raises(ModelFileError) as caught:
        read_run_state(tmp_path)
    expected = words.get(bad, f"{tmp_path / FILE_NAME}: array {what} is not finite float32")
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("what", ["corpus", "training", "machine", "model", "vocabulary_size"])
def test_a_state_without_a_part_of_its_settings_is_refused(what: str, tmp_path: Path) -> None:
    state = bare_state(model("gru", 1), hidden=False)
    for settings in (
        {name: value for name, value in state.settings.items() if name != what},
        {**state.settings, what: [1]},
    ):
        save_run_state(tmp_path, replace(state, settings=settings))
        with pytest.raises(ModelFileError, match=r"description is incomplete|no setting 1 here|vocabulary_size is"):
            read_run_state(tmp_path)


def test_a_folder_without_a_state_is_told_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError) as caught:
        read_run_state(tmp_path)
    assert str(caught.value) == (
        f"no {FILE_NAME} in {tmp_path}: there is nothing to resume; start a new run there with `out`"
    )


@pytest.mark.parametrize("place", [".", ".replaced", ".replacing"])
def test_a_state_can_be_resumed_from_where_older_runs_keep_it(place: str, tmp_path: Path) -> None:
    assert not can_be_resumed(tmp_path)
    save_run_state(tmp_path / place, bare_state(model("gru", 1)))
    assert (tmp_path / place / "state.safetensors").is_file()
    assert can_be_resumed(tmp_path)


@pytest.mark.parametrize("parts", [[], ["model"], ["optimizer"], ["loss"], ["model", "optimizer", "loss"]])
def test_a_state_says_which_parts_are_not_those_of_chargen(parts: list[str], tmp_path: Path) -> None:
    state = bare_state(model("gru", 1))
    save_run_state(tmp_path, replace(state, settings={**state.settings, "own_parts": parts}))
    assert read_run_state(tmp_path).settings["own_parts"] == parts


@pytest.mark.parametrize("parts", [["schedule"], ["model", "schedule"], "model", {"model": 1}, None, 1])
def test_a_state_with_parts_that_a_run_has_not_is_refused(parts: object, tmp_path: Path) -> None:
    state = bare_state(model("gru", 1))
    save_run_state(tmp_path, replace(state, settings={**state.settings, "own_parts": parts}))
    with pytest.raises(ModelFileError) as caught:
        read_run_state(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / FILE_NAME} is not a good run file: own_parts is {parts!r}: such parts a run has not"
    )


@pytest.mark.parametrize("number", [0, -1, 1.0, "1", None])
def test_a_number_of_rows_or_characters_that_is_none_is_refused(number: object, tmp_path: Path) -> None:
    state = bare_state(model("gru", 1))
    training = {**state.settings["training"], "batch_size": number}
    for settings in ({**state.settings, "training": training}, {**state.settings, "vocabulary_size": number}):
        save_run_state(tmp_path, replace(state, settings=settings))
        with pytest.raises(ModelFileError, match=rf"(batch|vocabulary)_size is {number!r}: it must be "):
            read_run_state(tmp_path)


def test_one_row_and_one_character_are_enough(tmp_path: Path) -> None:
    state = bare_state(model("gru", 1))
    arrays = {name: array[:1] if len(array) in (3, 5) else array for name, array in state.arrays.items()}
    settings = {**state.settings, "vocabulary_size": 1, "training": {"batch_size": 1}}
    save_run_state(tmp_path, replace(state, arrays=arrays, settings=settings))
    assert read_run_state(tmp_path).arrays["hidden.0"].shape == (1, 12)


@pytest.mark.parametrize("number", [2, 4])
def test_a_state_of_another_format_is_refused(number: int, tmp_path: Path) -> None:
    state = bare_state(model("gru", 1))
    description = {"kind": KIND, "format": number, "progress": state.progress, "settings": state.settings}
    tensor_file.save(tmp_path / FILE_NAME, state.arrays, description)
    words = f"format {number} is not known to this version .*, and a run resumes only with the version that wrote it$"
    with pytest.raises(ModelFileError, match=words):
        read_run_state(tmp_path)


def test_settings_too_large_for_a_file_leave_the_state_as_it_was(tmp_path: Path) -> None:
    state = bare_state(model("gru", 1))
    save_run_state(tmp_path, state)
    sources = {"train": [f"{number}.txt" for number in range(100_000)]}
    with pytest.raises(SettingError, match=r"more than 1,000,000; give a folder instead of its files$"):
        save_run_state(tmp_path, replace(state, settings={**state.settings, "corpus": {"sources": sources}}))
    assert read_run_state(tmp_path).settings == state.settings
