"""Numbers that are not finite, in loss, gradients or weights, at any step: never applied, never saved."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chargen.errors import Diverged
from chargen.evaluation.loss import Loss
from chargen.storage.model_file import read_model
from chargen.storage.run_state import read_run_state
from chargen.training import validator as module
from chargen.training.train_step import MAX_BAD_STEPS
from chargen.training.trainer import Trainer
from tests.pairs import all_pairs
from tests.runs import assert_same_runs, config, corpus, model, run_until, two_ways

BAD = (math.nan, math.inf, -math.inf)
STEPS = 12


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def poison(monkeypatch: pytest.MonkeyPatch, trainer: Trainer, what: str, steps: range, value: float) -> None:
    """Let the loss, or a gradient, hold a value that is not finite at some steps."""
    cross_entropy = trainer.train_step.loss

    def entropy(*arguments: Any, **named: Any) -> torch.Tensor:
        loss = cross_entropy(*arguments, **named)
        if trainer.counters.step in steps and torch.is_grad_enabled():
            if what == "loss":
                return loss * value
            loss.register_hook(lambda gradient: gradient * value)
        return loss

    def one_number(gradient: torch.Tensor) -> torch.Tensor:
        if trainer.counters.step not in steps:
            return gradient
        gradient = gradient.clone()
        gradient.view(-1)[3] = value
        return gradient

    if what == "one number":
        trainer.model.get_parameter("output.bias").register_hook(one_number)
    else:
        monkeypatch.setattr(trainer.train_step, "loss", entropy)


@pytest.mark.parametrize(
    ("shape", "what", "step"),
    all_pairs(
        (model("gru", 1), model("lstm", 1), two_ways("gru", 1)),
        ("loss", "gradient", "one number"),
        (0, 1, 5, STEPS - 1),
    ),
)
def test_a_bad_step_is_not_applied_and_the_run_goes_on(
    shape: Any, what: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(corpus(), shape, config(steps=STEPS), tmp_path)
    poison(monkeypatch, trainer, what, range(step, step + 1), BAD[step % 3])
    before = {0: (weights(trainer), {})}
    for progress in trainer.run():
        before[progress.step] = weights(trainer), dict(trainer.state.hidden)
    assert same(before[step][0], before[step + 1][0]), "the step has moved a weight"
    assert before[step][1].keys() == before[step + 1][1].keys()
    for direction, state in before[step][1].items():
        assert all(torch.equal(*pair) for pair in zip(state, before[step + 1][1][direction], strict=True))
    moved = [number for number in range(STEPS) if not same(before[number][0], before[number + 1][0])]
    assert moved == [number for number in range(STEPS) if number != step]
    assert trainer.counters.applied == STEPS - 1
    assert all(np.isfinite(array).all() for array in read_run_state(tmp_path).arrays.values())


@pytest.mark.parametrize("what", ["loss", "gradient", "one number"])
@pytest.mark.parametrize("first", range(0, STEPS, 2))
def test_three_bad_steps_stop_the_run_with_what_was_good(
    what: str, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(corpus(), model("gru", 1), config(steps=24, save_minutes=1e-9), tmp_path)
    poison(monkeypatch, trainer, what, range(first, first + MAX_BAD_STEPS), math.nan)
    before = {0: weights(trainer)}
    with pytest.raises(
        Diverged, match=f"training diverged at step {first + 3}: .*; the last good state is in"
    ) as caught:
        before.update((progress.step, weights(trainer)) for progress in trainer.run())
    assert caught.value.exit_code == 5
    assert same(weights(trainer), before[first])
    state = read_run_state(tmp_path)
    assert state.progress["step"] == first + 2, "bad steps in between were saved, without being applied"
    for name, weight in before[first].items():
        assert np.array_equal(state.arrays[f"weights.{name}"], weight.numpy())
    read_model(tmp_path)


def test_bad_steps_that_are_not_three_in_a_row_stop_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(corpus(), model("gru", 1), config(steps=STEPS), tmp_path)
    bad = [1, 2, 4, 5, 7, 9, 10]
    poison(monkeypatch, trainer, "loss", bad, math.nan)
    for _ in trainer.run():
        pass
    assert trainer.counters.applied == STEPS - len(bad)
    assert trainer.counters.complete


def test_predictions_not_finite_at_the_end_are_told_and_make_no_model(tmp_path: Path) -> None:
    trainer = Trainer(corpus(), model("gru", 1), config(steps=STEPS, eval_every=1000), tmp_path)
    steps = trainer.run()
    next(progress for progress in steps if progress.step == STEPS)
    before = read_model(tmp_path).training["step"]
    with torch.no_grad():
        trainer.model.get_parameter("output.weight").fill_(3e38)
    with pytest.raises(Diverged, match="the model's predictions are not finite"):
        list(steps)
    assert not trainer.counters.complete
    assert read_model(tmp_path).training["step"] in (before, STEPS)
    assert "valid_loss" not in read_model(tmp_path).training


@pytest.mark.parametrize("step", [1, 4, 9])
def test_a_weight_that_is_not_finite_is_never_saved(step: int, tmp_path: Path) -> None:
    trainer = Trainer(corpus(), model("gru", 1), config(steps=STEPS), tmp_path / "run")
    run_until(trainer, step)
    saved = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.suffix == ".safetensors"}
    with torch.no_grad():
        trainer.model.get_parameter("output.weight").view(-1)[7] = math.nan
    with pytest.raises(Diverged):
        trainer.save()
    with pytest.raises(Diverged):
        list(trainer.run())
    for name, content in saved.items():
        assert (tmp_path / "run" / name).read_bytes() == content
    for folder in (tmp_path / "run", tmp_path / "unbroken"):
        unbroken = folder.name == "unbroken"
        going = Trainer(corpus(), model("gru", 1), config(steps=STEPS), folder) if unbroken else None
        for _ in (going or Trainer.resume(folder, corpus())).run():
            pass
    assert_same_runs(tmp_path / "unbroken", tmp_path / "run")


@pytest.mark.parametrize("direction", ["forward", "backward", "cloze"])
@pytest.mark.parametrize("value", BAD)
def test_a_validation_that_is_not_finite_is_no_figure_and_no_best(
    direction: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = model("gru", 1) if direction == "forward" else two_ways("gru", 1)
    settings = config(steps=STEPS, eval_every=2, save_minutes=1e-9)
    real_windows, real_cloze = module.loss_windows, module.cloze_loss
    trainer = Trainer(corpus(), shape, settings, tmp_path / "run")

    def windows(*arguments: Any, **named: Any) -> Any:
        for loss in real_windows(*arguments, **named):
            bad = named["direction"] == direction and trainer.counters.step == 4
            yield Loss(value, loss.characters) if bad else loss

    def cloze(*arguments: Any) -> Any:
        loss, count = real_cloze(*arguments)
        return (loss * value if direction == "cloze" and trainer.counters.step in (4, STEPS) else loss), count

    monkeypatch.setattr(module, "loss_windows", windows)
    monkeypatch.setattr(module, "cloze_loss", cloze)
    for progress in trainer.run():
        if progress.step == 4 and progress.doing == "training":
            break
    state = read_run_state(tmp_path / "run")
    assert state.progress["step"] == 4
    assert "cloze" not in progress.valid_losses
    assert (progress.valid_loss is None) == (direction != "cloze")
    assert (state.progress["best_step"] == 4) == (direction == "cloze")
    for _ in trainer.run():
        pass
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(number) for line in lines for number in line.values() if number is not None)
    assert [line["step"] for line in lines if line["valid_loss"] is None and line["step"] % 2 == 0] == (
        [] if direction == "cloze" else [4]
    )
    assert math.isfinite(read_model(tmp_path / "run").training["valid_loss"])
    assert ("valid_cloze" in read_model(tmp_path / "run").training) == (direction == "backward")
