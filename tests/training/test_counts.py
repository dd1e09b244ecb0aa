"""What counts are worth is told on text on which their weights are not fitted."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chargen.counting.grow_tree import grow_tree
from chargen.counting.mixture import Mixture, fit_weights
from chargen.counting.recorder import Recorder
from chargen.data.corpus import Corpus
from chargen.evaluation.loss import evaluate_ids, loss_windows, sum_losses
from chargen.model.config import ModelConfig
from chargen.storage.model_file import build_model
from chargen.training import validator
from chargen.training.config import TrainConfig
from chargen.training.counts import (
    BLOCK,
    FITTED_LOGITS,
    MAX_FITTED,
    MIN_GAIN,
    MIN_VALID,
    CrossFitted,
    fit_mixture,
    fitted_ids,
    halve,
)
from chargen.training.trainer import Trainer
from tests.groups import run_together
from tests.small_models import small_model, with_counts

TEXT = "bad cab face\nhead bead gag\n"


def recorded(size, seed=0, skipped=1):
    """Ids of a text, counts of another one like it, and what a network that knows little says."""
    random = np.random.default_rng(seed)
    words = [random.integers(0, 6, random.integers(2, 5)) for _ in range(12)]
    text = np.concatenate([words[number] for number in random.integers(0, 12, 2000 + size)])
    ids, tree = text[-size:], grow_tree(text[:-size], 6, 5, 1e9)
    recorder, places = Recorder(whole=True), random.permutation(np.arange(skipped, size))
    for part in np.array_split(places, 7):
        recorder.nats(ids, part, guesses(len(part), random))
    return tree, recorder


def guesses(number, random):
    """What a network predicts that knows nothing."""
    return torch.from_numpy(random.normal(size=(number, 6))).log_softmax(1).float().numpy()


def saved_by(fitted, recorder):
    """The nats that a mixture saves on what was recorded."""
    places, log_probs = recorder.in_order()
    alone = -log_probs[np.arange(len(places)), recorder.ids[places]].astype(float)
    return (alone - fitted.nats(recorder.ids, places, log_probs)).sum()


def test_a_recorder_puts_what_was_read_side_by_side_in_order():
    file = small_model()
    model, ids = build_model(file), file.vocabulary.encode(TEXT * 100)
    alone, beside = Recorder(), Recorder()
    evaluate_ids(model, ids, rows=1, mixture=alone)
    loss = evaluate_ids(model, ids, rows=4, mixture=beside)
    places, nats, _, entropies = beside.in_order()
    assert places.tolist() == list(range(1, len(ids)))
    assert nats.sum() == pytest.approx(loss.nats)
    np.testing.assert_allclose(nats, alone.in_order()[1], atol=1e-4)
    np.testing.assert_allclose(entropies, alone.in_order()[3], atol=1e-4)
    assert loss.nats == pytest.approx(evaluate_ids(model, ids, rows=4).nats)


def test_a_recorder_scores_as_the_mixture_whose_place_it_takes():
    file = with_counts(small_model(), TEXT)
    model, ids, mixture = build_model(file), file.vocabulary.encode(TEXT * 20), file.mixtures["forward"]
    assert evaluate_ids(model, ids, mixture=Recorder(mixture)) == evaluate_ids(model, ids, mixture=mixture)


def test_both_halves_of_any_text_are_scored():
    for size in (3, 12, 500, 4_000, 50_000):
        assert set(halve(np.arange(1, size), size).tolist()) == {0, 1}
    assert (np.diff(halve(np.arange(20_000), 20_000)) != 0).sum() == 20_000 // BLOCK - 1


@pytest.mark.parametrize("limit", [1_000, 8_000, 20_000, 33_000])
def test_both_halves_of_stretches_of_a_text_are_scored(limit):
    ids, recorder = np.zeros(64_000, np.int64), Recorder()
    evaluate_ids(build_model(small_model(num_layers=1)), ids, limit=limit, mixture=recorder)
    share = halve(recorder.in_order()[0], len(ids)).mean()
    assert 0.3 < share < 0.7


@given(st.integers(2, 40), st.integers(0, 9))
def test_weights_are_fitted_on_any_few_ids(size, seed):
    tree, recorder = recorded(size, seed)
    mixture, cross_fitted = fit_mixture(tree, recorder)
    assert np.isfinite(saved_by(cross_fitted, recorder))
    assert np.isfinite(mixture.cells).all()


def test_where_nothing_was_scored_the_network_stays_alone():
    tree, _ = recorded(10)
    mixture, _ = fit_mixture(tree, Recorder(whole=True))
    np.testing.assert_array_equal(mixture.cells, Mixture.of(tree).cells)


def test_counts_that_know_the_text_save_nearly_what_their_mixture_does():
    tree, recorder = recorded(4000)
    mixture, cross_fitted = fit_mixture(tree, recorder)
    fitted, saved = saved_by(mixture, recorder), saved_by(cross_fitted, recorder)
    assert 0.3 * 4000 * np.log(6) < saved < fitted
    assert saved == pytest.approx(fitted, rel=0.02)


def test_what_is_saved_is_told_of_text_that_weights_do_not_know():
    # A network and counts that guess: whatever weights are fitted to chance help nowhere else.
    random = np.random.default_rng(0)
    ids, recorder = random.integers(0, 6, 4000), Recorder(whole=True)
    tree = grow_tree(random.integers(0, 6, 4000), 6, 5, 1e9)
    recorder.nats(ids, np.arange(1, 4000), np.full((3999, 6), -np.log(6), np.float32))
    mixture, cross_fitted = fit_mixture(tree, recorder)
    assert saved_by(cross_fitted, recorder) < saved_by(mixture, recorder)
    assert saved_by(cross_fitted, recorder) < MIN_GAIN * 4000


def test_each_half_is_scored_by_weights_of_the_other():
    tree, recorder = recorded(3000)
    places, log_probs = recorder.in_order()
    _, cross_fitted = fit_mixture(tree, recorder)
    halves = halve(places, len(recorder.ids))
    for half, mixture in enumerate(cross_fitted.mixtures):
        others = halves != half
        own = fit_weights(tree, recorder.ids, places[others], log_probs[others])
        np.testing.assert_array_equal(mixture.cells, own.cells)
        expected = mixture.nats(recorder.ids, places[~others], log_probs[~others])
        np.testing.assert_array_equal(cross_fitted.nats(recorder.ids, places, log_probs)[~others], expected)


@pytest.mark.parametrize("size", [1, 2, 65, 256, 8753, 10**6])
def test_what_is_kept_to_fit_weights_is_bounded(size):
    assert MIN_VALID <= fitted_ids(size) <= MAX_FITTED
    assert fitted_ids(size) * size <= max(FITTED_LOGITS, MIN_VALID * size)


def test_processes_that_share_the_scoring_fit_the_same_weights():
    tree, recorder = recorded(600)
    (places, log_probs), whole = recorder.in_order(), fit_mixture(tree, recorder)

    def fit(group):
        mine = Recorder(whole=True)
        share = np.arange(len(places)) % 3 == group.rank
        if group.rank < 2:  # the third has nothing to do
            share |= (group.rank == 1) & (np.arange(len(places)) % 3 == 2)
            mine.nats(recorder.ids, places[share], log_probs[share])
        else:
            mine.ids = recorder.ids
        return fit_mixture(tree, mine, group)

    for mixture, cross_fitted in run_together(3, fit):
        np.testing.assert_allclose(mixture.cells, whole[0].cells, atol=1e-6)
        assert saved_by(cross_fitted, recorder) == pytest.approx(saved_by(whole[1], recorder))


def test_a_text_is_scored_the_same_in_parts():
    file = with_counts(small_model(), TEXT)
    mixture, ids = file.mixtures["forward"], file.vocabulary.encode(TEXT * 50)[::-1]
    places, size = np.arange(1, len(ids)), len(file.vocabulary)
    logits = torch.randn(len(places), size, generator=torch.Generator().manual_seed(0)).numpy()
    whole = mixture.nats(ids, places, logits)
    parts = [mixture.nats(ids, places[at : at + 7], logits[at : at + 7]) for at in range(0, 700, 7)]
    np.testing.assert_array_equal(whole[:700], np.concatenate(parts))


def test_all_windows_are_scored_with_the_context_before_them():
    file = with_counts(small_model(), TEXT)
    model, ids, mixture = build_model(file), file.vocabulary.encode(TEXT * 200), file.mixtures["forward"]
    loss = sum_losses(loss_windows(model, ids, mixture=mixture, rows=5))
    recorder = Recorder(whole=True)
    evaluate_ids(model, ids, mixture=recorder, rows=5)
    assert loss.nats == pytest.approx(mixture.nats(ids, *recorder.in_order()).sum())
    assert isinstance(mixture, Mixture)


def test_weights_are_fitted_on_stretches_from_all_over_the_text(monkeypatch):
    seen = []
    monkeypatch.setattr(validator, "fitted_ids", lambda size: 640)
    monkeypatch.setattr(validator, "fit_mixture", lambda tree, recorder, group: seen.append(recorder) or fit(tree))
    corpus = Corpus.from_text(TEXT * 1000, valid_fraction=0.5)
    list(Trainer(corpus, ModelConfig(hidden_size=8), TrainConfig(steps=1, counts=4)).run())
    places = seen[0].in_order()[0]
    assert len(places) <= 640
    assert len(np.unique(places // (len(corpus.valid) // 16))) == 16


def fit(tree):
    """Weights that nothing was fitted on."""
    return Mixture.of(tree), CrossFitted((Mixture.of(tree), Mixture.of(tree)))
