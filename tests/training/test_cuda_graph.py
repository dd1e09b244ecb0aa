"""What is around a captured step, with a stand-in for the graph: a replay is the same step on the same places."""

from types import SimpleNamespace

import pytest
import torch

from chargen.data.corpus import Corpus
from chargen.model import dropout
from chargen.storage.run_state import read_run_state
from chargen.training.cuda_graph import CapturedStep
from chargen.training.trainer import Trainer
from tests.runs import assert_same_runs, config, corpus, long_rows, model, run_until, two_ways


class Replayed(CapturedStep):
    """Each replay takes the step once more, on what lies in the places then."""

    def _record(self, state, counts):
        self.step.gradients(state, self.minibatches, self.masks, counts)  # as a graph is warmed
        state.optimizer.zero_grad(set_to_none=True)
        return SimpleNamespace(replay=lambda: self._learn(state, counts))


@pytest.fixture
def plain_dropout(monkeypatch):
    """Masks as a GPU draws them."""
    monkeypatch.setattr(dropout, "available", lambda: False)


def run_of(shape, settings, folder, captured, stop=None, text=None):
    """A run that gives its device sixteen steps at a time, resumed where `stop` says so."""

    def prepared(trainer):
        trainer.max_pending = 16
        trainer.train_step.on_device = True
        if captured:
            trainer.train_step = Replayed(trainer.train_step, trainer.device)
            trainer.train_step.lr = trainer.train_step.lr.double()  # as exact as the rate that is not in a tensor
        return trainer

    learned = corpus() if text is None else Corpus.from_text(text)
    trainer = prepared(Trainer(learned, shape, settings, folder))
    if stop is not None:
        run_until(trainer, stop)
        trainer = prepared(Trainer.resume(folder, learned))
    list(trainer.run())
    return trainer


@pytest.mark.usefixtures("plain_dropout")
@pytest.mark.parametrize("shape", [model("lstm", 2), model("gru", 1, input_dropout=0.1), two_ways("gru", 1)])
@pytest.mark.parametrize("batching", ["consecutive", "random"])
def test_a_replayed_run_is_the_run(shape, batching, tmp_path):
    settings = config(batching=batching, steps=20, state_reset=0.3)
    trainer = run_of(shape, settings, tmp_path / "replayed", captured=True)
    run_of(shape, settings, tmp_path / "plain", captured=False)
    run_of(shape, settings, tmp_path / "resumed", captured=True, stop=9)
    assert_same_runs(tmp_path / "plain", tmp_path / "replayed")
    assert_same_runs(tmp_path / "plain", tmp_path / "resumed")
    assert trainer.train_step.graph is not None


@pytest.mark.usefixtures("plain_dropout")
def test_steps_that_reset_states_inside_a_window_are_taken_beside_the_graph(tmp_path):
    """Which a graph cannot do; the others replay it."""
    settings, text = config(steps=20, state_reset=0.1), "a line that ends here\n" * 60
    trainer = run_of(model("gru", 1), settings, tmp_path / "replayed", captured=True, text=text)
    run_of(model("gru", 1), settings, tmp_path / "plain", captured=False, text=text)
    assert_same_runs(tmp_path / "plain", tmp_path / "replayed")
    inside = [trainer.batches["forward"].batch(step).fresh[:, 1:].any() for step in range(20)]
    assert 0 < sum(inside) < 20
    assert trainer.train_step.graph is not None


@pytest.mark.usefixtures("plain_dropout")
def test_steps_of_the_cloze_layer_are_taken_beside_the_graph(tmp_path):
    shape, settings = two_ways("gru", 1), long_rows(steps=20)
    trainer = run_of(shape, settings, tmp_path / "replayed", captured=True)
    run_of(shape, settings, tmp_path / "plain", captured=False)
    assert_same_runs(tmp_path / "plain", tmp_path / "replayed")
    assert 0 < trainer.counters.cloze_applied < 20


@pytest.mark.usefixtures("plain_dropout")
def test_what_a_graph_reads_and_writes_stays_where_it_is():
    trainer = Trainer(corpus(), model("lstm", 2), config(steps=12))
    trainer.max_pending, trainer.train_step.on_device = 16, True
    captured = trainer.train_step = Replayed(trainer.train_step, trainer.device)

    def places():
        moments = [moment for moments in trainer.state.optimizer.state.values() for moment in moments.values()]
        carried = [layer for state in trainer.state.hidden.values() for layer in state]
        given = [each for places in captured.minibatches.values() for each in places[:2]]
        masks = [mask for mask, _ in captured.masks.masks.values()]
        rates = [group["lr"] for group in trainer.state.optimizer.param_groups]
        return [each.data_ptr() for each in (*trainer.model.parameters(), *moments, *carried, *given, *masks, *rates)]

    found = [places() for progress in trainer.run() if progress.doing == "training"]
    assert all(each == found[0] for each in found)
    assert torch.is_tensor(trainer.state.optimizer.param_groups[0]["lr"])


@pytest.mark.usefixtures("plain_dropout")
@pytest.mark.parametrize("captured", [True, False])
def test_a_step_that_is_not_finite_resets_no_state(captured):
    trainer = Trainer(corpus(), model("gru", 1), config(steps=9, state_reset=0.5))
    trainer.max_pending, trainer.train_step.on_device = 16, True
    if captured:
        trainer.train_step = Replayed(trainer.train_step, trainer.device)
    weight, carried = trainer.model.get_parameter("output.bias"), {}
    for progress in trainer.run():
        if progress.doing == "training":
            carried[progress.step] = trainer.state.hidden["forward"][0].clone()
            weight.data[2] = float("nan") if progress.step in (3, 4) else 0.0
    assert all(trainer.batches["forward"].batch(step).fresh[:, 0].any() for step in (3, 4, 5))
    assert torch.equal(carried[3], carried[4])
    assert torch.equal(carried[3], carried[5])
    assert not torch.equal(carried[5], carried[6])


def test_steps_under_way_are_counted_before_a_save(tmp_path):
    trainer = Trainer(corpus(), model("gru", 1), config(steps=20, save_minutes=1e-9), tmp_path)
    trainer.max_pending, trainer.train_step.on_device = 16, True
    next(progress for progress in trainer.run() if progress.step == 5)
    counted = read_run_state(tmp_path).progress
    assert counted["step"] == counted["applied"] == 5
