"""No prediction sees what it may not, and every one looks at what it may; models that cheat or sleep are caught."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from chargen import check, check_causality
from chargen.data.corpus import Corpus
from chargen.decoding.cloze import NumpyCloze
from chargen.errors import SettingError, amount
from chargen.evaluation.causality import LENGTH
from chargen.model.config import ModelConfig
from chargen.storage.model_file import FILE_NAME, ModelFile, build_model, save_model
from chargen.training.config import TrainConfig
from chargen.training.trainer import Trainer
from tests import naive
from tests.commands import Run, is_one_line
from tests.pairs import all_pairs
from tests.small_models import small_model

SIZE = 10
HIDDEN = 12
Predict = Callable[[np.ndarray], np.ndarray]

cells = st.sampled_from(["lstm", "gru"])
seeds = st.integers(0, 2**32)
places = st.integers(0, LENGTH - 1)


def two_way(cell: str = "lstm", num_layers: int = 2, **settings: Any) -> ModelFile:
    return small_model(cell, num_layers=num_layers, bidirectional=True, cloze=1.0, **settings)


class Trap(nn.Module):
    """The trap: a two-way LSTM in one piece, whose outputs at each place predict the next character."""

    def __init__(self, size: int, num_layers: int, hidden_size: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, 16)
        self.layers = nn.LSTM(16, hidden_size, num_layers, bidirectional=True, batch_first=True)
        self.output = nn.Linear(2 * hidden_size, size)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (B, T) -> logits (B, T, V) for what follows each."""
        logits: Tensor = self.output(self.layers(self.embedding(ids))[0])
        return logits


def trap(num_layers: int, half: str = "both", size: int = SIZE) -> Predict:
    """The trap's next-character predictions; with one half, the weights of the other half's outputs are zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Trap(size, num_layers, HIDDEN)
    with torch.no_grad():
        model.output.weight[:, {"forward": slice(HIDDEN, None), "backward": slice(HIDDEN), "both": slice(0)}[half]] = 0

    def predict(ids: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits = model(torch.from_numpy(ids)[None])[0].numpy()
        return np.concatenate([np.zeros_like(logits[:1]), logits[:-1]])

    return predict


def moved(rows: np.ndarray, by: int) -> np.ndarray:
    """Shift rows by a number of places, and fill up with zeros."""
    empty = np.zeros_like(rows[: abs(by)])
    return np.concatenate([empty, rows[: len(rows) - by]]) if by >= 0 else np.concatenate([rows[-by:], empty])


def by_hand(file: ModelFile, sees: str, left: int = 1, right: int = 1) -> Predict:
    """Predictions from the state `left` characters before and `right` characters behind: honest where both are 1."""
    cloze = NumpyCloze(file.arrays)

    def predict(ids: np.ndarray) -> np.ndarray:
        values, logits = (moved(rows, left) for rows in naive.read_all(file, ids, "forward"))
        if sees == "before":
            return logits
        others, behind = (moved(rows, -right) for rows in naive.read_all(file, ids, "backward"))
        if sees == "after":
            return behind
        contexts = ((array[t : t + 1] for array in (values, others, logits, behind)) for t in range(len(ids)))
        return np.array([cloze.logits(*context)[0, 0] for context in contexts])

    return predict


# What chargen makes is honest.


@pytest.mark.parametrize(
    ("num_layers", "cell", "kind"), all_pairs((1, 2), ("lstm", "gru"), ({}, {"folded": "xyz"}, {"unit": "byte"}))
)
def test_every_configuration_passes(cell: str, num_layers: int, kind: dict[str, str]) -> None:
    one_way = [small_model(cell, num_layers=num_layers, **kind)] * (num_layers == 1)
    for file in (two_way(cell, num_layers, **kind), *one_way):
        results = check(file)
        assert [result for result in results if result.violations] == []
        ways = {(result.prediction, result.path) for result in results}
        everywhere = {"whole sequence", "in windows", "step by step", "compiled"}
        expected = {("forward", path) for path in everywhere}
        if file.config.bidirectional:
            expected |= {("backward", path) for path in everywhere} | {("cloze", path) for path in everywhere}
            expected -= {("cloze", "compiled")}
        assert ways == expected
        assert len(results) == len(expected)


def test_a_model_of_two_characters_passes() -> None:
    assert not any(result.violations for result in check(two_way(num_layers=1, characters="ab")))


def test_a_cloze_layer_that_has_learnt_nothing_yet_passes() -> None:
    file = small_model(num_layers=1, bidirectional=True)
    assert not file.arrays["cloze.output.weight"].any()
    assert not any(result.violations for result in check(file))


@settings(max_examples=10)
@given(cells, seeds, st.integers(3, 24), st.sampled_from(["before", "after", "both"]))
def test_an_honest_predictor_is_never_accused(cell: str, seed: int, length: int, sees: str) -> None:
    assert check_causality(by_hand(two_way(cell), sees), SIZE, sees, length=length, seed=seed) == []


def test_the_same_seed_looks_at_the_same_texts() -> None:
    def seen(seed: int) -> list[list[int]]:
        texts: list[list[int]] = []

        def predict(ids: np.ndarray) -> np.ndarray:
            texts.append(ids.tolist())
            return np.zeros((len(ids), SIZE))

        check_causality(predict, SIZE, "both", seed=seed)
        return texts

    assert seen(1) == seen(1) != seen(2)
    assert {len(text) for text in seen(1)} == {LENGTH}


@given(st.integers(2, 300), st.sampled_from(["before", "after", "both"]), seeds)
def test_each_text_differs_from_the_first_wherever_it_should(size: int, sees: str, seed: int) -> None:
    """If a hidden character were replaced by itself, a leak could pass."""
    texts: list[np.ndarray] = []

    def predict(ids: np.ndarray) -> np.ndarray:
        texts.append(ids.copy())
        return np.zeros((len(ids), size))

    check_causality(predict, size, sees, seed=seed)
    first, changed = texts[0], {tuple(np.flatnonzero(text != texts[0])) for text in texts[1:]}
    assert all(0 <= text.min() <= text.max() < size for text in texts)
    for at in range(len(first)):
        hidden = {"before": range(at, LENGTH), "after": range(at + 1), "both": range(at, at + 1)}[sees]
        assert tuple(hidden) in changed
        neighbours = {"before": [at - 1], "after": [at + 1], "both": [at - 1, at + 1]}[sees]
        assert all((near,) in changed for near in neighbours if 0 <= near < LENGTH)


# What cheats is caught.


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_naive_two_way_lstm_is_caught(num_layers: int) -> None:
    violations = check_causality(trap(num_layers), SIZE, "before")
    assert any("moves with what it may not see: it sees the characters before it only" in line for line in violations)
    assert len(violations) == LENGTH - 1  # everywhere but at the first character, of which it says nothing


def test_half_a_two_way_lstm_is_honest_with_one_layer_only() -> None:
    assert check_causality(trap(1, "forward"), SIZE, "before") == []
    leaks = check_causality(trap(2, "forward"), SIZE, "before")
    assert len(leaks) == LENGTH - 1
    assert all("moves with what it may not see" in line for line in leaks)
    assert len(check_causality(trap(1, "backward"), SIZE, "before")) >= LENGTH - 1


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(
    ("sees", "left", "right"),
    [("before", 0, 1), ("after", 1, 0), ("both", 1, 0), ("both", 0, 1), ("both", 0, 0), ("before", -1, 1)],
)
def test_an_off_by_one_prediction_reads_its_own_answer_and_is_caught(
    cell: str, sees: str, left: int, right: int
) -> None:
    lines = check_causality(by_hand(two_way(cell, 1), sees, left, right), SIZE, sees)
    caught = {
        at for at in range(LENGTH) if any(f"of character {at} moves with what it may not" in line for line in lines)
    }
    assert caught >= set(range(1, LENGTH - 1))


@pytest.mark.parametrize("sees", ["before", "after", "both"])
def test_a_prediction_that_reads_the_other_side_is_caught(sees: str) -> None:
    others = {"before": ["after", "both"], "after": ["before", "both"], "both": []}[sees]
    for other in others:
        assert check_causality(by_hand(two_way(), other), SIZE, sees)


@pytest.mark.parametrize(
    ("sees", "left", "right", "unseen"),
    [("before", 2, 1, [-1]), ("after", 1, 2, [1]), ("both", 2, 1, [-1]), ("both", 1, 2, [1]), ("both", 2, 2, [-1, 1])],
)
def test_a_prediction_that_overlooks_its_neighbour_is_caught(
    sees: str, left: int, right: int, unseen: list[int]
) -> None:
    violations = check_causality(by_hand(two_way(), sees, left, right), SIZE, sees)
    expected = [(at, at + step) for at in range(LENGTH) for step in unseen if 0 <= at + step < LENGTH]
    assert violations == [
        f"the prediction of character {at} does not move with character {near}, beside it" for at, near in expected
    ]


@pytest.mark.parametrize("sees", ["before", "after"])
def test_a_cloze_prediction_from_one_side_only_is_caught(sees: str) -> None:
    violations = check_causality(by_hand(two_way(), sees), SIZE, "both")
    assert len(violations) == LENGTH - 1
    assert all("does not move" in line for line in violations)


@pytest.mark.parametrize(("sees", "lines"), [("before", 15), ("after", 15), ("both", 30)])
def test_a_constant_prediction_is_caught_as_blind(sees: str, lines: int) -> None:
    violations = check_causality(lambda ids: np.ones((len(ids), SIZE)), SIZE, sees)
    assert len(violations) == lines
    assert all("does not move" in line for line in violations)


@settings(max_examples=15)
@given(places, st.integers(0, LENGTH - 1), st.sampled_from(["before", "after", "both"]), seeds)
def test_a_leak_at_one_place_is_found_there_and_nowhere_else(at: int, source: int, sees: str, seed: int) -> None:
    honest = by_hand(LEAKING, sees)
    may = {"before": source < at, "after": source > at, "both": source != at}[sees]

    def leaking(ids: np.ndarray) -> np.ndarray:
        logits = honest(ids).copy()
        logits[at, 3] += 1e-3 * (1 + ids[source])
        return logits

    violations = check_causality(leaking, SIZE, sees, seed=seed)
    line = f"the prediction of character {at} moves with what it may not see"
    assert len(violations) == (not may)
    assert all(violation.startswith(line) for violation in violations)


LEAKING = two_way("gru", 1)


@settings(max_examples=10)
@given(places, st.sampled_from(["before", "after", "both"]))
def test_a_leak_of_a_single_bit_is_found(at: int, sees: str) -> None:
    honest = by_hand(LEAKING, sees)

    def leaking(ids: np.ndarray) -> np.ndarray:
        logits = honest(ids).copy()
        if ids[at] == texts[0][at]:
            logits[at, 0] = np.nextafter(logits[at, 0], np.float32(9))
        return logits

    texts: list[np.ndarray] = []

    def watching(ids: np.ndarray) -> np.ndarray:
        texts.append(ids.copy())
        return leaking(ids)

    assert len(check_causality(watching, SIZE, sees)) == 1


def test_a_prediction_may_reuse_its_array() -> None:
    """The first prediction must be copied: predictors may overwrite the array that they return."""
    room = np.zeros((LENGTH, SIZE))

    def predict(ids: np.ndarray) -> np.ndarray:
        room[:] = ids.sum()
        return room

    assert sum("may not see" in line for line in check_causality(predict, SIZE, "before")) >= LENGTH - 1


# On random characters nothing can be learnt, and what says otherwise cheats.


def random_text(length: int) -> str:
    return "".join("abcdefghijklmnop"[index] for index in np.random.default_rng(5).integers(0, 16, length))


def test_on_random_characters_only_the_naive_loss_is_too_good(tmp_path: Path) -> None:
    best = math.log(16)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 16, (100, 16, 33)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Trap(16, 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for batch in ids:
        loss = functional.cross_entropy(model(batch)[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1, "the trap did not snap"

    corpus = Corpus.from_text(random_text(60_000), valid_fraction=0.1, test_fraction=0)
    shape = ModelConfig(num_layers=1, hidden_size=32, embedding_size=16, dropout=0.0, bidirectional=True)
    how = {"batch_size": 16, "seq_length": 32, "lr": 0.02, "warmup": 2, "precision": "fp32", "device": "cpu"}
    trainer = Trainer(corpus, shape, TrainConfig(steps=100, eval_every=50, **how), tmp_path / "run")
    for _ in trainer.run():
        pass
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    for name in ("train_loss", "valid_loss"):
        for key in (name, f"{name}_forward", f"{name}_backward", name.replace("loss", "cloze")):
            losses = [line[key] for line in lines if line[key] is not None]
            assert losses, key
            assert all(2.7 < loss < 3.0 for loss in losses), key
    for key in ("valid_loss_forward", "valid_loss_backward", "valid_cloze"):
        assert trainer.summary[key] > best - 0.01, key


# What is asked wrongly, and what fails.


@pytest.mark.parametrize("sees", ["left", "", "Before", "forward"])
def test_another_side_is_refused(sees: str) -> None:
    with pytest.raises(SettingError, match=rf"sees is '{sees}': it must be one of before, after, both"):
        check_causality(lambda ids: np.zeros((len(ids), 2)), 2, sees)


@pytest.mark.parametrize("size", [0, 1])
def test_a_single_character_leaves_nothing_to_check(size: int) -> None:
    with pytest.raises(SettingError, match="nothing to check"):
        check_causality(lambda ids: np.zeros((len(ids), 1)), size, "before")
    assert check(two_way(characters="a")) == []


def zeroed(file: ModelFile, *names: str) -> ModelFile:
    """The model with all weights zero, or those with a prefix."""
    for name, array in file.arrays.items():
        if name.startswith(names or ""):
            file.arrays[name] = np.zeros_like(array)
    return file


def test_a_model_that_is_all_zero_is_blind_everywhere() -> None:
    results = check(zeroed(small_model(num_layers=1, bidirectional=True)))
    assert len(results) == 11
    assert all(result.violations for result in results)
    assert all("does not move" in line for result in results for line in result.violations)


@pytest.mark.parametrize(
    ("name", "blind"),
    [("forward_layers", {"forward", "cloze"}), ("backward_layers", {"backward", "cloze"}), ("cloze", set())],
)
def test_only_what_a_dead_part_makes_is_blind(name: str, blind: set[str]) -> None:
    """Without its correction the cloze prediction is still the product of the two others."""
    results = check(zeroed(two_way(num_layers=1), name))
    assert {result.prediction for result in results if result.violations} == blind


def test_a_model_is_a_path_or_a_model_file_or_a_charmodel(tmp_path: Path) -> None:
    file = small_model(num_layers=1)
    save_model(tmp_path / "model.safetensors", file)
    expected = check(file)
    for model in (tmp_path, str(tmp_path), tmp_path / "model.safetensors", build_model(file)):
        assert check(model) == expected
    with pytest.raises(SettingError, match="model is 5: it must be the path of a model file or a run folder"):
        check(5)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_command_refuses_a_blind_model_in_one_line(bidirectional: bool, run: Run) -> None:
    save_model(Path("model") / FILE_NAME, zeroed(small_model(num_layers=1, bidirectional=bidirectional)))
    for arguments in ([], ["--json"]):
        code, out, err = run("check", "model", *arguments)
        assert code == 4
        assert is_one_line(err)
        number = 11 if bidirectional else 4
        assert f"of {amount(number, 'way')} to predict, leaking or blind: {number};" in err
        if arguments:
            assert all(result["violations"] for result in json.loads(out)["checks"])
        else:
            assert out.count("FAILED") == number
            assert "and 10 more" in out
            assert " ok" not in out
