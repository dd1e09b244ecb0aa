"""Logits processors: a caller's own filters, and everything else as it is without them."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chargen import ArgumentError, ChargenError, Sampler, generate
from chargen.decoding.torch_engine import TorchEngine
from chargen.storage.model_file import build_model
from tests import naive
from tests.small_models import small_model


def cut_off(ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Epsilon sampling (Hewitt et al., 2022): what is less likely than epsilon is not written."""
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    logits[probabilities < min(0.05, probabilities.max())] = -np.inf
    return logits


def less_of_the_same(ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """A penalty for every time that an id has been written or read."""
    return logits - np.bincount(ids, minlength=len(logits))


def identity(ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
    return logits


@pytest.mark.parametrize("processor", [cut_off, less_of_the_same])
def test_a_filter_of_ten_lines_draws_from_its_distribution(processor: Any) -> None:
    file = replace(small_model(scale=2.0), begin="\n")
    sampler = Sampler(file, seed=3, ban="g", logits_processors=[processor])
    sample = sampler.generate_all(300)[0]
    expected, log_probs = naive.processed_sample(file, processor, 300, 3, "g")
    assert sample.text == expected
    assert sample.log_probs == pytest.approx(log_probs, abs=1e-4)
    assert sample.text != Sampler(file, seed=3, ban="g").generate(300)


def test_generate_takes_processors_too() -> None:
    file = small_model(scale=2.0)
    sampler = Sampler(file, seed=3, temperature=0.8, logits_processors=[cut_off])
    assert generate(file, seed=3, length=200, logits_processors=[cut_off]) == sampler.generate(200)


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "filters": {"temperature": 0.7, "top_k": 6, "top_p": 0.9, "min_p": 0.05},
    "greedy": {"temperature": 0.0},
    "rules": {"no_repeat": 3, "ban": "c", "stop": ("ab", "g")},
    "three": {"num": 3},
    "backward": {"direction": "backward", "stop": ("h",)},
}


@pytest.mark.parametrize("unit", ["character", "byte"])
@pytest.mark.parametrize("case", CASES)
def test_a_processor_that_changes_nothing_changes_nothing(tmp_path: Path, case: str, unit: str) -> None:
    file = replace(small_model(unit=unit, bidirectional=True), begin="\n")

    def use(sampler: Sampler) -> list[Any]:
        sampler.feed("abc")
        results: list[Any] = [sampler.generate_all(30), next(sampler.write()), sampler.generate_all(5)]
        sampler.save_state(tmp_path / "state")
        results.append((tmp_path / "state").read_bytes())
        sampler.reset()
        sampler.load_state(tmp_path / "state")
        return [*results, sampler.generate_all(20), *(part.tobytes() for part in sampler.hidden_and_logits())]

    settings = {"seed": 5, **CASES[case]}
    assert use(Sampler(file, logits_processors=[identity], **settings)) == use(Sampler(file, **settings))


@pytest.mark.parametrize("case", CASES)
def test_on_a_torch_device_the_text_is_the_same(case: str) -> None:
    file, settings = small_model(bidirectional=True), {"seed": 5, **CASES[case]}
    settings["engine"] = TorchEngine(build_model(file), settings.get("direction", "forward"))
    plain, processed = (Sampler(file, logits_processors=given, **settings) for given in ([], [identity]))
    assert [sample.text for sample in processed.generate_all(40)] == [sample.text for sample in plain.generate_all(40)]


def watch(sampler_settings: dict[str, Any]) -> tuple[Sampler, list[np.ndarray]]:
    calls = []

    def note(ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
        assert ids.dtype == np.int64
        assert logits.dtype == np.float32
        calls.append(ids.copy())
        ids[:], logits[:] = 0, logits + 1  # these are copies
        return logits

    file = replace(small_model(bidirectional=True), begin="\n")
    return Sampler(file, seed=1, logits_processors=[note], **sampler_settings), calls


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_ids_are_what_each_sample_has_read_and_written(tmp_path: Path, direction: str) -> None:
    sampler, calls = watch({"num": 2, "direction": direction})
    order = -1 if direction == "backward" else 1

    def ids(text: str) -> list[int]:
        return sampler.vocabulary.encode(text[::order]).tolist()

    sampler.feed("abc")
    first = [sample.text[::order] for sample in sampler.generate_all(4)]
    sampler.feed("de")
    sampler.generate_all(1)
    assert len(calls) == 2 * 5
    read = "\n" + "abc"[::order]
    for row in range(2):
        for n in range(4):
            assert calls[2 * n + row].tolist() == ids((read + first[row][:n])[::order])
        assert calls[8 + row].tolist() == ids((read + first[row] + "de"[::order])[::order])
    calls.clear()
    sampler.save_state(tmp_path / "state")
    sampler.load_state(tmp_path / "state")
    sampler.feed("a")
    sampler.generate_all(1)
    assert [call.tolist() for call in calls] == [ids("a")] * 2
    calls.clear()
    sampler.reset()
    sampler.generate_all(1)
    assert [call.tolist() for call in calls] == [ids("\n")] * 2


def test_an_iteration_left_and_taken_up_again_is_one_text() -> None:
    sampler, calls = watch({})
    text = next(sampler.stream()) + sampler.generate(3) + "".join(sampler.stream(4))
    twin, twin_calls = watch({})
    assert twin.generate(8) == text
    assert [call.tolist() for call in calls] == [call.tolist() for call in twin_calls]


WRONG: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "shape": (lambda logits: logits[:-1], "shape"),
    "type": (lambda logits: None, "numbers"),
    "nan": (lambda logits: np.where(logits < 0, np.nan, logits), "nan"),
    "infinity": (lambda logits: logits.astype(float) * np.inf, "inf"),
    "nothing": (lambda logits: np.full_like(logits, -np.inf), "leaves no id"),
    "what is banned": (lambda logits: np.where(np.arange(10) == 4, 0, -np.inf), "leaves no id"),  # c
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_logits_is_refused_in_one_line_and_nothing_is_written(what: str) -> None:
    wrong, words = WRONG[what]
    broken = False

    def sometimes(ids: np.ndarray, logits: np.ndarray) -> Any:
        return wrong(logits) if broken and len(ids) % 2 else logits

    sampler = Sampler(small_model(), seed=1, num=2, ban="c", logits_processors=[sometimes])
    twin = copy.deepcopy(sampler)
    sampler.generate_all(5)
    broken = True
    with pytest.raises(ArgumentError, match="logits processor sometimes returned.*" + words) as raised:
        sampler.generate_all(5)
    assert "\n" not in str(raised.value)
    broken = False
    twin.generate_all(5)
    assert sampler.generate_all(20) == twin.generate_all(20)


@pytest.mark.parametrize("wrong", [identity, [identity, 3], "ab", None])
def test_what_is_no_list_of_functions_is_refused(wrong: Any) -> None:
    with pytest.raises(ArgumentError, match="needed is a list of functions"):
        Sampler(small_model(), logits_processors=wrong)


def test_errors_of_bans_and_models_stay_what_they_are() -> None:
    characters = "abcdefgh \n"
    with pytest.raises(ChargenError, match="`ban` and `no_repeat`"):
        Sampler(small_model(), ban=characters, logits_processors=[identity]).generate(2)
    file = small_model()
    file.arrays["output.bias"][0] = np.inf
    with pytest.raises(ChargenError, match="not finite"):
        Sampler(file, logits_processors=[identity]).generate(2)
