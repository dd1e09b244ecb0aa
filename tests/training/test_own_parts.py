"""A network, an optimizer and a loss of one's own in ten lines each, by public names; and what of it is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from chargen import CharModel, Corpus, ModelConfig, TrainConfig, Trainer
from chargen.errors import ModelFileError, SettingError
from chargen.storage.run_state import read_run_state, save_run_state
from chargen.training.train_step import adamw

CORPUS = Corpus.from_text("It was the best of times, it was the worst of times. " * 30)
SHAPE = ModelConfig(num_layers=1, hidden_size=16, embedding_size=8, dropout=0.0)
CONFIG = TrainConfig(steps=30, batch_size=4, seq_length=8, lr=0.02, warmup=2, precision="fp32", eval_every=10)
SIZE = len(CORPUS.vocabulary)


def sgd(model: CharModel, config: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=config.lr, momentum=0.9)


def smoothed(values: torch.Tensor, output: torch.nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(output(values).flatten(0, 1), targets.flatten(), label_smoothing=0.1)


class Noisy(CharModel):
    def read(self, ids, state=None, masks=None, direction="forward", fresh=None):
        values, after = super().read(ids, state, masks, direction, fresh)
        return (values if masks is None else values + 0.01), after


def losses(**own: Any) -> list[float]:
    trainer = Trainer(CORPUS, SHAPE, CONFIG, **own)
    return [progress.train_loss for progress in trainer.run() if progress.doing == "training"]


@pytest.mark.parametrize(
    "own", [{"optimizer": sgd}, {"loss": smoothed}, {"model": Noisy(SHAPE, SIZE)}], ids=lambda own: next(iter(own))
)
def test_what_is_given_is_what_learns(own: dict[str, Any]) -> None:
    plain, changed = losses(), losses(**own)
    assert len(changed) == len(plain) == 30
    assert changed != plain
    assert changed[-1] < changed[0] - 0.2


def test_a_network_of_chargens_own_is_trained_from_where_it_stands() -> None:
    model = CharModel(SHAPE, SIZE)
    assert losses(model=model, optimizer=adamw) == losses()
    assert losses(model=model)[0] < losses()[10]


@pytest.mark.parametrize(
    "own", [{"optimizer": sgd}, {"loss": smoothed}, {"model": Noisy(SHAPE, SIZE)}], ids=lambda own: next(iter(own))
)
def test_a_run_with_parts_of_its_own_is_saved_but_not_resumed_as_another(own: dict[str, Any], tmp_path: Path) -> None:
    run = Trainer(CORPUS, SHAPE, CONFIG, tmp_path, **own)
    next(progress for progress in run.run() if progress.step == 5)
    run.save()
    with pytest.raises(SettingError, match=f"had its own {next(iter(own))}: such a run is not resumed"):
        Trainer.resume(tmp_path, CORPUS)


@pytest.mark.parametrize("own", [5, [1], {"optimizer": 1}, "loss", None])
def test_a_state_that_names_its_own_parts_wrongly_is_refused_in_one_line(own: Any, tmp_path: Path) -> None:
    run = Trainer(CORPUS, SHAPE, CONFIG, tmp_path)
    list(run.run())
    state = read_run_state(tmp_path)
    save_run_state(tmp_path, replace(state, settings={**state.settings, "own_parts": own}))
    with pytest.raises(ModelFileError) as caught:
        Trainer.resume(tmp_path, CORPUS)
    assert "\n" not in str(caught.value)


def other(**settings: Any) -> CharModel:
    return CharModel(
        ModelConfig(**{"num_layers": 1, "hidden_size": 16, "embedding_size": 8, "dropout": 0.0} | settings), SIZE
    )


def with_more() -> CharModel:
    model = CharModel(SHAPE, SIZE)
    model.more = torch.nn.Linear(2, 2)
    return model


def frozen() -> CharModel:
    return CharModel(SHAPE, SIZE).requires_grad_(False)


@pytest.mark.parametrize(("own", "complaint"), [
    ({"model": CharModel(SHAPE, SIZE + 5)}, "model is .* needed is"), ({"model": other(cell="lstm")}, "needed is"),
    ({"model": other(bidirectional=True)}, "needed is"), ({"model": other(dropout=0.5)}, "needed is"),
    ({"model": CharModel(SHAPE, SIZE).double()}, "not float32"),
    ({"model": CharModel(SHAPE, SIZE).to("meta")}, "not float32"),
    ({"model": frozen()}, "no weight that learns"), ({"model": with_more()}, "other weights than a model file holds"),
    ({"optimizer": 5}, "optimizer is 5: it must be a function"), ({"optimizer": torch.optim.SGD}, "must be a function"),
    ({"optimizer": lambda model, config: None}, "optimizer makes a NoneType"), ({"loss": "mse"}, "loss is 'mse'"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_made(
    own: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=complaint) as caught:
        Trainer(CORPUS, SHAPE, CONFIG, tmp_path / "run", **own)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("own", [lambda *_: 1.5, lambda values, *_: values.sum(2), lambda *_: None])
def test_a_loss_that_is_no_number_is_refused(own: Any) -> None:
    with pytest.raises(SettingError, match=r"loss returned .*: it must return a tensor of one number$") as caught:
        list(Trainer(CORPUS, SHAPE, CONFIG, loss=own).run())
    assert "\n" not in str(caught.value)
