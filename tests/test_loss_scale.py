"""Scaled gradients: the scale finds itself, and steps that it was too large for never happened."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_resume import assert_same_runs, config, corpus, model, run_until, two_ways
from torch import nn
from torch.nn import functional

from chargen.errors import Diverged, ModelFileError, SettingError
from chargen.model.device import pick_precision
from chargen.model.loss import cross_entropy
from chargen.storage.run_state import read_run_state
from chargen.training import loss_scale, run
from chargen.training.counters import FIRST_SCALE, LARGEST_SCALE, Counters
from chargen.training.loss_scale import LossScale
from chargen.training.trainer import Trainer

CPU = torch.device("cpu")


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5))
def test_the_scale_follows_the_rule(steps, patience):
    """As a plain loop over Python's numbers has it."""
    found, scale, streak = LossScale(CPU, 8.0), 8.0, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_scale, "PATIENCE", patience)
        for finite in steps:
            found.update(torch.tensor(finite))
            if not finite:
                scale, streak = max(scale / 2, 1.0), 0
            elif streak + 1 == patience:
                scale, streak = min(2 * scale, LARGEST_SCALE), 0
            else:
                streak += 1
            assert (found.scale.item(), found.streak.item()) == (scale, streak)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_a_loss_is_not_scaled_and_its_gradients_are(kind):
    torch.manual_seed(0)
    values, output, targets = torch.randn(40, 7), nn.Linear(7, 11), torch.randint(0, 11, (40,))
    values.requires_grad_()
    functional.cross_entropy(output(values), targets).backward()
    expected = [values.grad, output.weight.grad, output.bias.grad]
    values.grad = output.weight.grad = output.bias.grad = None
    loss = cross_entropy(values.to(kind), output, targets, scale=torch.tensor(1024.0))
    loss.backward()
    assert abs(loss.item() - functional.cross_entropy(output(values), targets).item()) < 1e-2
    for before, after in zip(expected, [values.grad, output.weight.grad, output.bias.grad], strict=True):
        assert torch.allclose(after / 1024, before, atol=1e-5 if kind == torch.float32 else 1e-3)


def test_small_gradients_are_right_in_float16_only_where_they_are_scaled():
    torch.manual_seed(0)
    output, targets, found = nn.Linear(4, 3), torch.zeros(1_000_000, dtype=torch.long), []
    for kind, scale in ((torch.float32, 1.0), (torch.float16, 1.0), (torch.float16, FIRST_SCALE)):
        leaf = torch.zeros(1_000_000, 4, dtype=kind, requires_grad=True)
        cross_entropy(leaf, output, targets, scale=torch.tensor(scale)).backward()
        found.append(leaf.grad[0].float() / scale)
    right, plain, scaled = found
    assert (scaled - right).norm() < 0.002 * right.norm()
    assert (plain - right).norm() > 0.02 * right.norm()


@pytest.fixture
def fp16(monkeypatch):
    """Scaled gradients on a CPU, in the products that it has."""
    monkeypatch.setattr(run, "pick_precision", lambda name, device: "fp16")


def overflow_at(trainer, steps):
    """Let a gradient be infinite at some steps, as one that was scaled too much."""
    weight = trainer.model.get_parameter("output.bias")
    weight.register_hook(lambda gradient: gradient * (math.inf if trainer.counters.step in steps else 1))


@pytest.mark.usefixtures("fp16")
@pytest.mark.parametrize("ahead", [1, 16])
@pytest.mark.parametrize("shape", [model("gru", 1), two_ways("gru", 1)], ids=["one way", "two ways"])
def test_a_step_that_the_scale_was_too_large_for_never_happened(shape, ahead):
    trainer = Trainer(corpus(), shape, config(steps=9))
    trainer.ahead = ahead
    overflow_at(trainer, range(2, 7))  # more in a row than a run bears of other bad steps
    before = None
    for progress in trainer.run():
        if progress.doing == "training" and progress.step in (2, 7):
            weights = [weight.clone() for weight in trainer.model.parameters()]
            assert before is None or all(map(torch.equal, before, weights))
            before = weights
    assert trainer.loss_scale.scale.item() == FIRST_SCALE / 2**5
    assert (trainer.counters.applied, trainer.counters.bad_steps) == (4, 0)
    assert math.isfinite(trainer.summary["valid_loss"])


@pytest.mark.usefixtures("fp16")
def test_an_overflow_without_a_scale_is_a_divergence():
    trainer = Trainer(corpus(), model("gru", 1), config(steps=9))
    trainer.loss_scale.scale.fill_(1)
    overflow_at(trainer, range(2, 9))
    with pytest.raises(Diverged):
        list(trainer.run())
    assert trainer.counters.step == 5


@pytest.mark.usefixtures("fp16")
@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_a_resumed_run_has_the_scale_that_it_was_left_with(stop, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(loss_scale, "PATIENCE", 3)
    folders = tmp_path / "whole", tmp_path / "resumed"
    for folder in folders:
        trainer = Trainer(corpus(), model("gru", 1), config(steps=9), folder)
        overflow_at(trainer, (2, 3))
        if folder == folders[1]:
            run_until(trainer, stop)
            trainer.save()
            trainer = Trainer.resume(folder, corpus())
            overflow_at(trainer, (2, 3))
        list(trainer.run())
    assert_same_runs(*folders)
    stored = read_run_state(folders[1]).progress
    assert (stored["loss_scale"], stored["scale_streak"]) == (FIRST_SCALE / 2, 2)  # halved twice, doubled once


@pytest.mark.parametrize("scale", [0.0, -1.0, 0.5, 2 * LARGEST_SCALE, math.inf, math.nan])
def test_a_scale_that_no_run_has_is_refused(scale):
    with pytest.raises(ModelFileError, match="loss_scale"):
        Counters.from_stored({**vars(Counters()), "loss_scale": scale})


@pytest.mark.parametrize("name", ["tf32", "fp16"])
def test_a_cpu_has_no_precision_of_a_gpu(name):
    with pytest.raises(SettingError, match="only a CUDA device"):
        pick_precision(name, CPU)
