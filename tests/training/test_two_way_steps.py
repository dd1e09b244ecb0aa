"""Steps of a run in two ways: the gradients of both losses, each clipped alone."""

import copy
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from chargen.model.config import DIRECTIONS
from chargen.model.dropout import DropoutKey
from chargen.model.language_model import CharModel
from chargen.model.layers import start_fresh
from chargen.rng import Purpose, uniform
from chargen.training.trainer import Trainer
from tests import naive
from tests.two_ways import SMALL, config, corpus, finish, weights_of


@pytest.mark.parametrize("clip_norm", [0.02, 0.0, 100.0])
@pytest.mark.parametrize("batching", ["consecutive", "random"])
def test_a_step_follows_the_gradients_of_both_losses_each_clipped_alone(batching, clip_norm):
    trainer = Trainer(corpus(), SMALL, config(batching=batching, clip_norm=clip_norm, state_reset=0.3))
    real, expected, steps = trainer.state.optimizer.step, {}, []

    def watched():
        for name, weight in trainer.model.named_parameters():
            if name in expected:
                assert (weight.grad - expected[name]).abs().max() < 1e-6 * max(1, clip_norm), name
            else:
                assert weight.grad is None, name
        steps.append(trainer.counters.step)
        real()

    trainer.state.optimizer.step = watched
    run = iter(trainer.run())
    for step in range(8):
        model, expected, lengths = copy.deepcopy(trainer.model), {}, []
        for direction in DIRECTIONS:
            batch = trainer.batches[direction].batch(step)
            state = carried(trainer, direction, step)
            logits, _ = model(torch.from_numpy(batch.inputs), state, DropoutKey(0, step), direction)
            loss = cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.targets).flatten())
            moved = ("embedding.", "output.", f"{direction}_layers.")
            named = {name: weight for name, weight in model.named_parameters() if name.startswith(moved)}
            gradients, length = naive.clipped(loss, named, clip_norm)
            lengths.append(length)
            for name, gradient in gradients.items():
                expected[name] = expected.get(name, 0) + gradient
        if trainer.train_step.cloze.due(step):
            loss, _ = trainer.train_step.cloze.loss(model, step)
            named = {name: weight for name, weight in model.named_parameters() if name.startswith("cloze.")}
            expected |= naive.clipped(loss, named, clip_norm)[0]
        next(progress for progress in run if progress.doing == "training")
        assert trainer.counters.grad_norm == pytest.approx(math.hypot(*lengths), rel=1e-4)
    assert steps == list(range(8))
    assert trainer.counters.cloze_applied == 2


def test_the_losses_of_a_step_are_those_of_its_two_batches():
    trainer = Trainer(corpus(), SMALL, config(steps=1))
    expected = {}
    for direction in DIRECTIONS:
        batch = trainer.batches[direction].batch(0)
        logits, _ = trainer.model(torch.from_numpy(batch.inputs), None, DropoutKey(0, 0), direction)
        p = torch.log_softmax(logits.double(), -1)
        targets = [(i, j, batch.targets[i, j]) for i in range(4) for j in range(32)]
        expected[direction] = -np.mean([p[i, j, id_].item() for i, j, id_ in targets])
    expected["cloze"] = trainer.train_step.cloze.loss(trainer.model, 0)[0].item()
    progress = next(progress for progress in trainer.run() if progress.doing == "training")
    assert dict(progress.train_losses) == pytest.approx(expected, abs=1e-6)
    assert progress.train_loss == pytest.approx((expected["forward"] + expected["backward"]) / 2, abs=1e-6)


def test_each_direction_carries_a_state_of_its_own():
    trainer = Trainer(corpus(), SMALL, config(batch_size=64, seq_length=4, state_reset=0.25))
    next(iter(trainer.run()))
    assert list(trainer.state.hidden) == ["forward", "backward"]
    for direction, first in (("forward", 0), ("backward", 1_000_000)):
        state = carried(trainer, direction, 1)
        kept = uniform(0, np.arange(first, first + 64), 1, Purpose.RESET) >= 0.25
        assert 0 < kept.sum() < 64
        for layer, before in zip(state, trainer.state.hidden[direction], strict=True):
            assert not layer.requires_grad
            assert torch.equal(layer, before * torch.from_numpy(kept)[:, None])
        inputs = torch.from_numpy(trainer.batches[direction].batch(0).inputs)
        fresh = CharModel(SMALL, len(trainer.corpus.vocabulary))
        _, expected = fresh(inputs, None, DropoutKey(0, 0), direction)
        for layer, wanted in zip(trainer.state.hidden[direction], expected, strict=True):
            assert (layer - wanted).abs().max() < 1e-6


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_states_are_fresh_where_a_line_end_is_read_in_either_direction(line_end):
    """At the line end's first character in the order of reading."""
    learned = corpus("one line\n".replace("\n", line_end) * 300)
    trainer = Trainer(learned, SMALL, config(batch_size=8, seq_length=12, state_reset=0.5))
    for direction, first in (("forward", line_end[0]), ("backward", line_end[-1])):
        windows = [trainer.batches[direction].batch(step) for step in range(1, 30)]
        inputs, fresh = (np.stack([getattr(batch, name) for batch in windows]) for name in ("inputs", "fresh"))
        assert set(inputs[fresh].tolist()) == set(learned.vocabulary.encode(first).tolist())
        assert fresh.sum() / (29 * 8) == pytest.approx(0.5, abs=0.15)


def carried(trainer, direction, step):
    """The state that a direction's rows start from at a step."""
    batches = {direction: trainer.batches[direction].batch(step)}
    _, _, fresh, _ = trainer.train_step.minibatches(trainer.state, batches)[direction]
    return start_fresh(trainer.state.hidden[direction], fresh)[0] if trainer.state.hidden else None


def test_both_directions_and_the_cloze_layer_learn(tmp_path):
    trainer = Trainer(corpus(), SMALL, config(steps=70, lr=0.03), tmp_path)
    first = next(progress for progress in trainer.run() if progress.doing == "training")
    finish(trainer)
    assert set(first.train_losses) == {"forward", "backward", "cloze"}
    for loss in first.train_losses.values():
        assert loss == pytest.approx(math.log(len(trainer.corpus.vocabulary)), abs=0.4)
    assert trainer.summary["valid_loss_forward"] < 1.3
    assert trainer.summary["valid_loss_backward"] < 1.3
    assert trainer.summary["valid_cloze"] < min(
        trainer.summary["valid_loss_forward"], trainer.summary["valid_loss_backward"]
    )


def until_cloze_is_due(trainer):
    """Train until the next step is one at which the cloze layer learns, not for the first time."""
    run: Iterator = iter(trainer.run())
    while not (trainer.counters.step and trainer.train_step.cloze.due(trainer.counters.step)):
        next(run)
    return run


def spoil(where, logits):
    """Logits whose loss, or whose gradient, is not finite."""
    if not torch.is_grad_enabled():
        return logits
    if where == "loss":
        return logits * math.nan
    logits.register_hook(lambda gradient: gradient * math.inf)
    return logits


@pytest.mark.parametrize("part", DIRECTIONS)
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_with_one_direction_not_finite_is_not_applied(part, where, monkeypatch):
    trainer = Trainer(corpus(), SMALL, config(steps=12, eval_every=100))
    run = until_cloze_is_due(trainer)
    before, counters = weights_of(trainer.model), copy.deepcopy(trainer.counters)
    moments = copy.deepcopy(trainer.state.optimizer.state_dict()["state"])
    hidden = {direction: [layer.clone() for layer in state] for direction, state in trainer.state.hidden.items()}
    read = CharModel.read

    def broken(self, ids, state=None, masks=None, direction="forward", fresh=None):
        values, after = read(self, ids, state, masks, direction, fresh)
        return (spoil(where, values) if direction == part and torch.is_grad_enabled() else values), after

    with monkeypatch.context() as patch:
        patch.setattr(CharModel, "read", broken)
        progress = next(run)
    assert progress.step == counters.step + 1
    assert math.isnan(progress.train_loss)
    assert dict(progress.train_losses) == {}
    assert all(torch.equal(before[name], weight) for name, weight in trainer.model.state_dict().items())
    assert all(weight.grad is None for weight in trainer.model.parameters())
    for number, moment in trainer.state.optimizer.state_dict()["state"].items():
        assert all(torch.equal(moment[key], moments[number][key]) for key in moment)
    assert list(trainer.state.hidden) == list(hidden)
    for direction, state in hidden.items():
        assert all(torch.equal(one, other) for one, other in zip(state, trainer.state.hidden[direction], strict=True))
    assert trainer.counters.bad_steps == 1
    for name in vars(counters):
        if name not in ("step", "bad_steps", "since_seconds", "logged_step") and not name.startswith("since_"):
            assert getattr(trainer.counters, name) == getattr(counters, name), name
    assert all(math.isfinite(progress.train_loss) for progress in run)
    assert trainer.counters.applied == 11


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_cloze_loss_not_finite_harms_the_cloze_layer_only(where, monkeypatch):
    found = []
    for breaks in (False, True):
        trainer = Trainer(corpus(), SMALL, config(steps=12, eval_every=100))
        run = until_cloze_is_due(trainer)
        before, applied = weights_of(trainer.model), trainer.counters.cloze_applied
        with monkeypatch.context() as patch:
            if breaks:
                kind = type(trainer.model.cloze)
                sound = kind.hidden
                patch.setattr(kind, "hidden", lambda self, *args, sound=sound: spoil(where, sound(self, *args)))
            progress = next(run)
        assert math.isfinite(progress.train_loss)
        assert ("cloze" in progress.train_losses) is not breaks
        assert trainer.counters.cloze_applied == applied + (not breaks)
        assert trainer.counters.bad_steps == 0
        for name, weight in trainer.model.named_parameters():
            still = breaks and name.startswith("cloze.")
            assert torch.equal(weight, before[name]) is still, name
        one_way = [(progress.train_losses["forward"], progress.train_losses["backward"]) for progress in run]
        ends = {name: weight for name, weight in weights_of(trainer.model).items() if "cloze" not in name}
        found.append((one_way, ends))
    (losses, weights), (other_losses, other_weights) = found
    assert losses == other_losses
    assert all(torch.equal(weight, other_weights[name]) for name, weight in weights.items())
