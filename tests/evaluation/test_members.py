"""Scores of a model of several networks: those of the mean of their probabilities, in every way to score."""

from dataclasses import replace

import numpy as np
import pytest

from chargen import evaluate, score, score_records
from chargen.data.code_points import END_MARK
from chargen.data.reading_config import ReadingConfig
from chargen.evaluation.dynamic import DynamicEvaluator, Rates, adapt_model, rms_gradients
from chargen.evaluation.loss import evaluate_ids
from chargen.evaluation.short_texts import ShortTexts
from chargen.storage.model_file import ModelFile, build_networks
from tests import naive
from tests.record_models import record_model
from tests.small_models import small_model, with_counts

WORDS = "bad cab face\nhead bead\n"
TEXT = "gag head\nfade cab bad\n" * 5


def several(number: int = 3, **shape) -> ModelFile:
    files = [small_model(seed=seed, **shape) for seed in range(number)]
    return files[0].with_networks(file.arrays for file in files)


def alone(file: ModelFile) -> list[ModelFile]:
    """Each network of a model as a model of its own."""
    return [file.with_networks([arrays]) for arrays in file.networks]


def naive_costs(file: ModelFile, ids, direction="forward"):
    """What each id but the first costs; network by network, then averaged."""
    shares = [np.exp(-naive.mixed_costs(each, ids, direction)) for each in alone(replace(file, mixtures={}))]
    return -np.log(np.mean(shares, 0))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_loss_is_that_of_the_mean_of_probabilities(direction):
    file = several(bidirectional=True)
    ids = file.vocabulary.encode(TEXT)[:: -1 if direction == "backward" else 1]
    found = evaluate(file, TEXT, direction=direction)
    assert found.nats == pytest.approx(naive_costs(file, ids, direction).sum(), rel=1e-5)
    assert not found.has_counts
    assert found.nats < np.mean([evaluate(each, TEXT, direction=direction).nats for each in alone(file)])


def test_counts_are_mixed_with_the_mean():
    file = with_counts(several(), WORDS)
    found, mixture, ids = evaluate(file, TEXT), file.mixtures["forward"], file.vocabulary.encode(TEXT)
    nats, logits = 0.0, []
    for network in build_networks(file):
        scores, _ = network(np_tensor(ids))
        logits.append(scores[0].detach().double().log_softmax(1).numpy())
    averaged = np.logaddexp.reduce(logits) - np.log(3)
    for at in range(1, len(ids)):
        nats -= np.log(mixture.probabilities(ids[:at].astype(np.int64), averaged[at - 1])[ids[at]])
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.network_nats == pytest.approx(naive_costs(file, ids).sum(), rel=1e-5)


def np_tensor(ids):
    import torch

    return torch.from_numpy(ids.astype(np.int64))[None]


def test_a_follower_that_does_not_learn_scores_as_ever():
    file = with_counts(several(), WORDS)
    still, vocabulary = Rates(0.0, 0.0), file.vocabulary
    ids = vocabulary.encode(TEXT)
    first, *others = [
        DynamicEvaluator(network, vocabulary, rms_gradients(network, vocabulary, ids), still)
        for network in build_networks(file)
    ]
    first.members = others
    nats = sum(loss.nats for loss in first.losses(ids))
    assert nats == pytest.approx(evaluate(replace(file, mixtures={}), TEXT).nats, rel=1e-5)


def test_all_networks_follow_a_text():
    file = with_counts(several(), WORDS)
    plain = evaluate(file, TEXT)
    found = evaluate(file, TEXT, dynamic=True, tune=WORDS * 3)
    assert found.network_nats < plain.network_nats
    assert found.static_nats_per_character == plain.nats_per_character
    adapted = adapt_model(file, TEXT, 2)
    assert len(adapted.networks) == 3
    for before, after in zip(alone(file), alone(adapted), strict=True):
        assert evaluate(after, TEXT).nats < evaluate(before, TEXT).nats


@pytest.mark.parametrize("counted", [False, True])
def test_short_and_long_texts_are_scored_alike(counted, monkeypatch):
    file = with_counts(several(), WORDS) if counted else several()
    short = score(file, TEXT)
    monkeypatch.setattr(ShortTexts, "max_ids", 0)
    long = score(file, TEXT)
    assert [each.forward for each in short] == pytest.approx([each.forward for each in long], abs=1e-5)
    each = [[character.forward for character in score(replace(one, mixtures={}), TEXT)] for one in alone(file)]
    if not counted:
        assert [one.forward for one in long] == pytest.approx(np.log(np.exp(each).mean(0)), abs=1e-5)


def test_cloze_scores_are_means_of_probabilities():
    file = several(2, bidirectional=True, cloze=0.5)
    found = score(file, "bad cab", by="cloze")
    each = [[character.cloze for character in score(one, "bad cab", by="cloze")] for one in alone(file)]
    assert [one.cloze for one in found] == pytest.approx(np.log(np.exp(each).mean(0)), abs=1e-5)


def test_records_are_scored_by_all_networks():
    files = [record_model(scale=scale, labels=()) for scale in (1.0, 2.0)]
    file = with_counts(files[0].with_networks(each.arrays for each in files), f"{END_MARK}abc{END_MARK}cab")
    file = replace(file, reading=ReadingConfig(records="line"))
    text = "cab\nface\nbad\n"
    total = sum(record.log_prob for record in score_records(file, ["cab", "face", "bad"]))
    assert evaluate(file, text).nats == pytest.approx(-total, rel=1e-5)


def test_several_networks_may_be_scored_by_their_torch_models():
    file = several()
    ids = file.vocabulary.encode(TEXT)
    loss = evaluate_ids(build_networks(file), ids)
    assert loss.nats == pytest.approx(naive_costs(file, ids).sum(), rel=1e-5)
