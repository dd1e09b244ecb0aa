"""The methods that the ablation compares do what they say, and the trainer goes on as it does without them."""

import pytest
import torch

from benchmarks.methods import METHODS, Changed, Plain, _Scan, make_trainer, summary
from chargen import CharModel, Corpus, TrainConfig, Trainer
from tests import naive

TEXT = "the quick brown fox jumps over the lazy dog and the cat sat on the mat. " * 40
SAME = {"averages"}
"""What changes nothing while training."""


def trained(kind: type[Plain], steps: int = 8, **settings: float) -> Trainer:
    corpus = Corpus.from_text(TEXT, valid_fraction=0.1)
    small = {"batch_size": 8, "seq_length": 16, "warmup": 0, "state_reset": 0.5, "precision": "fp32"}
    config = TrainConfig(steps=steps, eval_every=10**9, **small, **settings)
    trainer = make_trainer(kind, corpus, {"hidden_size": 16, "dropout": 0.2}, config)
    for _ in trainer.run():
        pass
    return trainer


@pytest.fixture(scope="module")
def plain() -> dict[str, float]:
    trainer = trained(Plain)
    return summary(trainer, trainer.corpus.train)


def test_pieces_that_nothing_replaces_make_the_same_model(plain):
    trainer = trained(Changed)
    for name, loss in summary(trainer, trainer.corpus.train).items():
        assert loss == pytest.approx(plain[name], abs=1e-5)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "nothing"])
def test_a_method_changes_something_and_carries_its_state(name, plain):
    trainer = trained(METHODS[name])
    found = summary(trainer, trainer.corpus.train)
    assert all(0.5 < loss < 4 for loss in found.values())
    assert (abs(found["valid"] - plain["valid"]) < 3e-7) == (name in SAME)
    assert len({round(loss, 6) for key, loss in found.items() if key.startswith("valid")}) == 1 + 3 * (name in SAME)
    assert summary(trainer, trainer.corpus.train) == found, "to measure changes nothing"
    model, ids = trainer.model, torch.arange(24)[None] % 20
    with torch.no_grad():
        whole, state = model.read(ids)
        first, between = model.read(ids[:, :11])
        second, after = model.read(ids[:, 11:], between)
    assert torch.allclose(torch.cat([first, second], 1), whole, atol=1e-5)
    assert all(torch.allclose(*pair, atol=1e-5) for pair in zip(state, after, strict=True))
    in_steps = {id(weight) for group in trainer.state.optimizer.param_groups for weight in group["params"]}
    assert in_steps == {id(weight) for weight in model.parameters()}
    assert {id(weight) for weight in trainer.state.weights["forward"]} == in_steps


def test_new_weights_learn():
    parts = {
        "layer norm": "norms", "2 % unknown symbols": "unknown", "learned first state": "start",
        "Mogrifier, four rounds": "scalings",
    }  # fmt: skip
    for name, part in parts.items():
        few, more = trained(METHODS[name], 1).model, trained(METHODS[name], 8).model
        for key, weight in more.named_parameters():
            if key.split(".")[0] == part:
                assert not torch.equal(weight, few.get_parameter(key)), key


def test_dropped_connections_are_back_after_the_step():
    trainer = trained(METHODS["DropConnect 0.1"], 1, lr=1e-9)
    fresh = CharModel(trainer.model_config, trainer.model.vocabulary_size, trainer.config.seed)
    for name, weight in trainer.model.named_parameters():
        assert torch.allclose(weight, fresh.get_parameter(name), atol=1e-6), name


def test_the_scan_is_the_formula_and_its_gradient():
    generator = torch.Generator().manual_seed(0)
    kept, added = (torch.rand(5, 2, 3, generator=generator) for _ in range(2))
    state = torch.rand(2, 3, generator=generator)
    arguments = [value.requires_grad_() for value in (kept, added, state)]
    found = _Scan.apply(*arguments)
    expected = naive.scan(*arguments)
    assert torch.allclose(found, expected)
    outer = torch.rand(5, 2, 3, generator=generator)
    pairs = zip(
        torch.autograd.grad(found, arguments, outer),
        torch.autograd.grad(expected, arguments, outer),
        strict=True,
    )
    assert all(torch.allclose(*pair) for pair in pairs)


def test_a_mogrifier_that_scales_by_one_is_a_gru():
    trainer = trained(METHODS["Mogrifier, four rounds"], 1)
    with torch.no_grad():
        for weight in trainer.model.scalings.parameters():
            weight.zero_()
        ids, model = torch.arange(24)[None] % 20, CharModel(trainer.model_config, trainer.model.vocabulary_size, 0)
        for name, weight in model.named_parameters():
            weight.copy_(trainer.model.get_parameter(name))
        assert torch.allclose(trainer.model.read(ids)[0], model.read(ids)[0], atol=1e-5)
