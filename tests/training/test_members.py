"""Several networks in one run: each is a run of its own, one after the other, and the file has them all."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from chargen import ModelConfig, TrainConfig, Trainer
from chargen.errors import SettingError
from chargen.evaluation.loss import evaluate_ids
from chargen.model.language_model import CharModel
from chargen.model.weights import weights_of
from chargen.storage.model_file import build_networks, read_model
from chargen.storage.run_state import RunState, read_run_state, save_run_state
from chargen.training.autosize import MAX_EPOCHS, MOST_MEMBERS, Speed, choose_sizes
from tests.several_networks import TEXT, corpus, finish, have_same_weights
from tests.small_models import small_model

SHAPE = ModelConfig(num_layers=1, hidden_size=8)
CONFIG = TrainConfig(steps=12, members=3, batch_size=4, seq_length=16, eval_every=3, log_every=2)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_run_leaves_all_networks_in_one_file(tmp_path, bidirectional):
    shape = replace(SHAPE, bidirectional=bidirectional)
    trainer = finish(Trainer(corpus(), shape, replace(CONFIG, counts=4), tmp_path / "run"))
    file = read_model(tmp_path / "run")
    assert len(file.networks) == 3
    assert have_same_weights(file, trainer.best_model)
    assert trainer.counters.network == 2
    assert trainer.counters.step == 12
    ids, networks = trainer.corpus.valid, build_networks(file)
    options = {"vocabulary": file.vocabulary, "precision": trainer.precision}
    losses = [evaluate_ids(networks, ids, direction=direction, **options).mean for direction in shape.directions]
    alone = file.training["valid_loss_network" if file.mixtures else "valid_loss"]
    assert alone == pytest.approx(np.mean(losses), abs=1e-6)
    for own, other in ((0, 1), (1, 2), (0, 2)):
        assert (file.networks[own]["embedding.weight"] != file.networks[other]["embedding.weight"]).any()


def test_the_first_network_is_that_of_a_run_of_its_own():
    """With the seed of the run, and the next with the next seed; each is trained with a whole schedule."""
    several = finish(Trainer(corpus(), SHAPE, CONFIG))
    alone = finish(Trainer(corpus(), SHAPE, replace(CONFIG, steps=4, members=1)))
    for name, array in alone.best_model.arrays.items():
        np.testing.assert_array_equal(several.best_model.arrays[name], array)


def test_each_network_begins_with_weights_of_a_seed_of_its_own():
    trainer = Trainer(corpus(), SHAPE, replace(CONFIG, lr=1e-9, weight_decay=0.0))
    for _ in trainer.run():
        if trainer.counters.network == 1:
            break
    expected = weights_of(CharModel(trainer.model_config, len(trainer.corpus.vocabulary), CONFIG.seed + 1))
    np.testing.assert_allclose(weights_of(trainer.model)["embedding.weight"], expected["embedding.weight"], atol=1e-6)


def test_each_network_has_a_schedule_of_its_own(tmp_path):
    finish(Trainer(corpus(), SHAPE, replace(CONFIG, steps=30, warmup=0, log_every=1), tmp_path / "run"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = {line["step"]: line["lr"] for line in lines if "final" not in line}
    assert [line["network"] for line in lines] == [1] * 10 + [2] * 10 + [3] * 11
    for first in (1, 11, 21):
        assert rates[first] == pytest.approx(CONFIG.lr)
        assert rates[first] > rates[first + 4] > rates[first + 9] > 0


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 8, 9, 11])
def test_a_run_that_is_stopped_anywhere_goes_on_as_if_it_had_not(tmp_path, stop):
    whole = finish(Trainer(corpus(), SHAPE, replace(CONFIG, counts=3), tmp_path / "whole"))
    trainer = Trainer(corpus(), SHAPE, replace(CONFIG, counts=3), tmp_path / "run")
    for _ in trainer.run():
        if trainer.counters.step == stop:
            break
    trainer.save()
    resumed = finish(Trainer.resume(tmp_path / "run", corpus()))
    assert have_same_weights(resumed.best_model, whole.best_model)
    assert resumed.best_model.all_arrays.keys() == whole.best_model.all_arrays.keys()
    figures = ("valid_loss", "step", "epoch")
    assert [resumed.summary[name] for name in figures] == [whole.summary[name] for name in figures]


@pytest.mark.parametrize("what", ["network_step", "network0", "network1"])
def test_leaving_out_what_is_stored_of_networks_is_noticed(tmp_path, what):
    whole = finish(Trainer(corpus(), SHAPE, CONFIG, tmp_path / "whole"))
    trainer = Trainer(corpus(), SHAPE, CONFIG, tmp_path / "run")
    for _ in trainer.run():
        if trainer.counters.step == 10:
            break
    trainer.save()
    state = read_run_state(tmp_path / "run")
    arrays = {name: array * (not name.startswith(what + ".")) for name, array in state.arrays.items()}
    progress = state.progress | ({what: 0} if what in state.progress else {})
    save_run_state(tmp_path / "run", RunState(arrays, progress, state.settings))
    assert not have_same_weights(finish(Trainer.resume(tmp_path / "run", corpus())).best_model, whole.best_model)


def test_the_file_has_only_networks_whose_training_is_over(tmp_path):
    trainer = Trainer(corpus(), SHAPE, CONFIG, tmp_path / "run")
    found = {}
    for _ in trainer.run():
        if trainer.counters.step not in found and not trainer.counters.complete:
            trainer.save()
            found[trainer.counters.step] = len(read_model(tmp_path / "run").networks)
    assert [found[step] for step in (1, 4, 6, 8, 10, 12)] == [1, 1, 1, 1, 2, 2]


def test_a_longer_budget_goes_on_with_the_last_network(tmp_path):
    first = finish(Trainer(corpus(), SHAPE, CONFIG, tmp_path / "run"))
    more = finish(Trainer.resume(tmp_path / "run", corpus(), changes={"steps": 20}))
    assert len(more.best_model.networks) == 3
    for own, other in zip(first.best_model.networks[:2], more.best_model.networks[:2], strict=True):
        np.testing.assert_array_equal(own["output.bias"], other["output.bias"])
    assert (first.best_model.networks[2]["output.bias"] != more.best_model.networks[2]["output.bias"]).any()
    assert more.counters.step == 20


def test_patience_ends_a_network_and_leaves_the_rest_to_the_others():
    config = replace(CONFIG, steps=60, patience=2, eval_every=1, lr=1e-9, members=2)
    trainer = finish(Trainer(corpus(), SHAPE, config))
    assert len(trainer.best_model.networks) == 2
    assert trainer.counters.network_step < 30
    assert trainer.counters.step < 60


def test_several_networks_are_not_made_from_one():
    file = small_model(characters="".join(sorted(set(TEXT))))
    with pytest.raises(SettingError, match="makes one network"):
        Trainer(corpus(), None, CONFIG, init=file)


@pytest.mark.parametrize("options", [{"unit": "byte"}, {"records": "line"}])
def test_records_and_bytes_are_learned_by_several_networks(options):
    trainer = finish(Trainer(corpus(**options), SHAPE, CONFIG))
    assert len(trainer.best_model.networks) == 3


def test_a_budget_that_one_network_cannot_use_makes_more():
    speed = Speed(2e-5)
    found = [choose_sizes(100_000, 60, {}, {"minutes": minutes, "teachers": 0}, speed=speed) for minutes in (1, 1e3)]
    assert found[0].training.members == 1
    assert found[1].training.members == MOST_MEMBERS
    assert found[1].training.epochs / MOST_MEMBERS >= MAX_EPOCHS
    assert "times by each: more" in " ".join(found[1].reasons)
    for fixed in ({"members": 1}, {"steps": 10**6}, {"epochs": 500.0}):
        assert choose_sizes(100_000, 60, {}, {"minutes": 1e3} | fixed, speed=speed).training.networks == 1
    several = choose_sizes(10**7, 60, {}, {"minutes": 30, "members": 10}, speed=speed)
    alone = [choose_sizes(10**7, 60, {}, {"minutes": minutes}, speed=speed).model for minutes in (3, 30)]
    assert several.model == alone[0] != alone[1]


def test_a_budget_that_is_used_before_the_first_step_makes_one_network():
    """The clock of a run begins before it; what stands still at the start is no network that was trained."""
    config = replace(CONFIG, steps=None, minutes=0.001, members=1)
    trainer = finish(Trainer(corpus(), SHAPE, config, started=time.monotonic() - 60))
    assert trainer.counters.step == 1
    assert len(trainer.best_model.networks) == 1
