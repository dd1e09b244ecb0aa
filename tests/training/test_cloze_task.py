"""What the cloze layer learns, and that the stacks learn nothing from it."""

import numpy as np
import pytest
import torch

from chargen.model import loss as loss_module
from chargen.model.language_model import CharModel
from chargen.training.cloze_task import MARGIN, ClozeTask, cloze_loss
from chargen.training.trainer import Trainer
from tests import naive
from tests.new_models import V, every_kind, new_two_way_model, some_ids
from tests.two_ways import SMALL, config, corpus, weights_of


@pytest.mark.parametrize("width", [33, 34, 45])
@every_kind
def test_the_cloze_loss_is_that_of_every_position_away_from_the_edges(cell, layers, width):
    model, windows = new_two_way_model(cell, layers, dropout=0.5), some_ids(2, width).numpy()
    loss, count = cloze_loss(model, windows)
    costs = [cost for window in windows for cost in naive.cloze_costs(model, window, MARGIN)]
    assert MARGIN == 16
    assert count == len(costs) == 2 * (width - 32)
    assert loss.item() == pytest.approx(np.mean(costs), abs=1e-5)


@every_kind
def test_a_cloze_prediction_sees_all_but_the_character_itself(cell, layers, monkeypatch):
    model, windows = new_two_way_model(cell, layers), some_ids(2, 39).numpy()
    seen, blocks = [], loss_module._blocks

    def watched(*arguments):
        for part, logits in blocks(*arguments):
            seen.append(logits.reshape(2, -1, V).clone())
            yield part, logits

    monkeypatch.setattr(loss_module, "_blocks", watched)
    cloze_loss(model, windows)
    for t in range(39):
        changed = windows.copy()
        changed[:, t] = (changed[:, t] + 3) % V
        cloze_loss(model, changed)
        moved = (seen[-1] - seen[0]).abs().amax(2)
        assert moved.shape == (2, 39 - 2 * MARGIN)
        for at in range(MARGIN, 39 - MARGIN):
            if at == t:
                assert (moved[:, at - MARGIN] == 0).all()
            elif abs(at - t) < 4:
                assert (moved[:, at - MARGIN] > 1e-6).all()


@every_kind
def test_the_gradient_of_the_cloze_loss_reaches_the_cloze_layer_only(cell, layers):
    model = new_two_way_model(cell, layers)
    loss, _ = cloze_loss(model, some_ids(2, 40).numpy())
    loss.backward()
    for name, weight in model.named_parameters():
        if name.startswith("cloze."):
            assert weight.grad is not None, name
            assert weight.grad.any(), name
        else:
            assert weight.grad is None, name


@pytest.mark.parametrize("clip_norm", [0.05, 0.0])
def test_the_stacks_learn_the_same_whether_the_cloze_layer_learns_or_not(clip_norm, monkeypatch):
    due = [step for step in range(10) if ClozeTask(corpus().train, config()).due(step)]
    assert len(due) == 2
    found = []
    for learns in (True, False):
        if not learns:
            monkeypatch.setattr(ClozeTask, "due", lambda self, step: False)
        trainer = Trainer(corpus(), SMALL, config(steps=10, clip_norm=clip_norm))
        losses = [dict(progress.train_losses) for progress in trainer.run() if progress.doing == "training"]
        assert trainer.counters.cloze_applied == (2 if learns else 0)
        assert [step for step, loss in enumerate(losses) if "cloze" in loss] == (due if learns else [])
        found.append(([(loss["forward"], loss["backward"]) for loss in losses], weights_of(trainer.model)))
    (one_losses, one), (other_losses, other) = found
    assert one_losses == other_losses
    for name, weight in one.items():
        assert torch.equal(weight, other[name]) is not name.startswith("cloze."), name
    fresh = CharModel(SMALL, len(corpus().vocabulary)).state_dict()
    assert all(torch.equal(other[name], fresh[name]) for name in fresh if name.startswith("cloze."))
