"""Dynamic evaluation: nothing is learned before it is scored, and what is learned afterwards is the published rule."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen import evaluate
from chargen.data.vocabulary import Vocabulary
from chargen.errors import DataError
from chargen.evaluation import dynamic
from chargen.evaluation.dynamic import (
    ADAPT,
    DECAYS,
    FLOOR,
    RATES,
    SEGMENT,
    TRIES,
    DynamicEvaluator,
    Rates,
    adapt_model,
    choose_rates,
    rms_gradients,
)
from chargen.evaluation.evaluation import evaluate_text
from chargen.evaluation.loss import evaluate_ids
from chargen.kernels import threads
from chargen.model import layers, one_row, thin_gradients
from chargen.model.config import ModelConfig
from chargen.model.language_model import CharModel
from chargen.storage.model_file import build_model
from tests import naive
from tests.small_models import small_model

STILL = Rates(0.0, 0.0)
WORDS = "bad cab face\nhead bead\n"


def parts(text, cell="lstm", rates=STILL, **shape):
    """A model, its vocabulary, the ids of a text, and an evaluator with these rates."""
    file = small_model(cell, **shape)
    model, vocabulary = build_model(file), file.vocabulary
    ids = vocabulary.encode(text)
    rms = rms_gradients(model, vocabulary, ids)
    return model, vocabulary, ids, DynamicEvaluator(model, vocabulary, rms, rates)


def random_text(size, seed=0, characters="abcdefgh \n"):
    return "".join(np.random.default_rng(seed).choice(list(characters), size))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("size", [2, SEGMENT, SEGMENT + 1, SEGMENT + 2, 3 * SEGMENT + 5])
def test_a_reader_that_does_not_learn_scores_as_ever(cell, size):
    model, vocabulary, ids, evaluator = parts(random_text(size), cell)
    losses = list(evaluator.losses(ids))
    expected = evaluate_ids(model, ids, vocabulary=vocabulary, rows=1)
    assert sum(loss.characters for loss in losses) == expected.characters == size - 1
    assert sum(loss.nats for loss in losses) == pytest.approx(expected.nats, rel=1e-5)
    assert [loss.characters for loss in losses[:-1]] == [SEGMENT] * (len(losses) - 1)


@pytest.mark.parametrize("rates", [Rates(0.01, 0.0), Rates(0.01, 0.05)])
def test_nothing_is_learned_from_before_it_is_scored(rates):
    text = random_text(4 * SEGMENT)
    model, vocabulary, ids, evaluator = parts(text, rates=rates)
    losses = [loss.nats for loss in evaluator.losses(ids)]
    rms = rms_gradients(model, vocabulary, ids)
    for changed in range(1, 4):
        other = ids.copy()
        at = 1 + changed * SEGMENT
        other[at:] = vocabulary.encode(random_text(len(ids) - at, seed=changed))
        changed_losses = [loss.nats for loss in DynamicEvaluator(model, vocabulary, rms, rates).losses(other)]
        assert changed_losses[:changed] == losses[:changed]
        assert changed_losses[changed] != losses[changed]


def test_the_given_model_stays_as_it_is_even_when_left_midway():
    model, _, ids, evaluator = parts(random_text(200), rates=Rates(0.1, 0.01))
    before = copy.deepcopy(model.state_dict())
    scored = evaluator.losses(ids)
    next(scored)
    next(scored)
    scored.close()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert any(not torch.equal(weight, before[name]) for name, weight in evaluator.model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_weights_follow_the_published_rule(cell):
    rates = Rates(0.02, 0.3)
    model, vocabulary, ids, evaluator = parts(random_text(3 * SEGMENT + 1), cell, rates)
    usual, slow = rms_gradients(model, vocabulary, ids), copy.deepcopy(model)
    weights, trained = list(slow.parameters()), list(model.parameters())
    for loss, (cost, gradients) in zip(evaluator.losses(ids), naive.segments(slow, ids, SEGMENT), strict=True):
        assert loss.nats == pytest.approx(SEGMENT * cost, rel=1e-5)
        naive.learn_from_segment(weights, trained, gradients, usual, rates.lr, rates.decay, FLOOR)
    for weight, expected in zip(evaluator.model.parameters(), weights, strict=True):
        torch.testing.assert_close(weight, expected, atol=1e-5, rtol=1e-4)


def learn(model, ids, direction="forward"):
    """The RMS gradients, the loss of each segment, and what became of the weights."""
    vocabulary, rates = Vocabulary("".join(sorted("abcdefgh \n"))), Rates(0.01, 0.3)
    rms = rms_gradients(model, vocabulary, ids, direction=direction)
    evaluator = DynamicEvaluator(model, vocabulary, rms, rates, direction=direction)
    nats = torch.tensor([segment.nats for segment in evaluator.losses(ids)])
    return [nats, *rms, *evaluator.model.parameters()]


@settings(max_examples=15)
@given(st.data())
def test_thin_gradients_teach_what_whole_ones_of_torch_do(data):
    sizes = st.integers(1, 70)
    tied, bidirectional = data.draw(st.booleans()), data.draw(st.booleans())
    config = ModelConfig(
        data.draw(st.sampled_from(["lstm", "gru"])), data.draw(st.integers(1, 3)), data.draw(sizes),
        None if tied else data.draw(sizes), tie_weights=tied, bidirectional=bidirectional,
    )  # fmt: skip
    direction = data.draw(st.sampled_from(config.directions))
    model = CharModel(config, 10, 0)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 2  # predictions differ from character to character
    ids = np.random.default_rng(0).integers(0, 10, data.draw(st.integers(2, 80)))
    actual = learn(model, ids, direction)
    with pytest.MonkeyPatch.context() as patch:
        for module in (dynamic, layers):
            patch.setattr(module, "available", lambda: False)
        expected = learn(model, ids, direction)
    for values, exact in zip(actual, expected, strict=True):
        torch.testing.assert_close(values, exact, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_what_is_learned_does_not_depend_on_the_number_of_threads(cell, monkeypatch):
    """Nor on which of them share a layer, which measurements choose."""
    model, ids = CharModel(ModelConfig(cell, 2, 70, 40), 10, 0), np.random.default_rng(0).integers(0, 10, 100)
    expected, members = learn(model, ids), []
    monkeypatch.setattr(thin_gradients, "MIN_PART", 100)
    monkeypatch.setattr(one_row, "TEAM_BYTES", 0)
    run_team = one_row.run_team
    monkeypatch.setattr(one_row, "run_team", lambda run, count: (members.append(count), run_team(run, count)))
    for number in (2, 3):
        with ThreadPoolExecutor(number) as pool, monkeypatch.context() as patch:
            patch.setattr(threads, "_pool", lambda pool=pool: pool)
            patch.setattr(threads, "start_time", lambda number: 0.0)
            for module in (threads, one_row):
                patch.setattr(module, "threads", lambda number=number: number)
            one_row._tuner.cache_clear()
            assert all(map(torch.equal, learn(model, ids), expected))
    assert set(members) == {1, 2, 3}


def test_usual_gradients_are_the_root_of_the_mean_square_over_segments():
    model, vocabulary, ids, _ = parts(random_text(2 * SEGMENT + 10))
    squares = [[gradient.square() for gradient in gradients] for _, gradients in naive.segments(model, ids, SEGMENT)]
    for rms, *segment_squares in zip(rms_gradients(model, vocabulary, ids), *squares, strict=True):
        torch.testing.assert_close(rms, (sum(segment_squares) / len(segment_squares)).sqrt(), atol=1e-7, rtol=1e-4)


def test_a_pull_of_one_brings_the_trained_weights_back_at_every_step():
    text = random_text(4 * SEGMENT)
    model, vocabulary, ids, _ = parts(text)
    rms = [torch.ones_like(weight) for weight in model.parameters()]
    evaluator = DynamicEvaluator(model, vocabulary, rms, Rates(0.5, 7.0))
    nats = sum(loss.nats for loss in evaluator.losses(ids))
    assert nats == pytest.approx(evaluate_ids(model, ids, vocabulary=vocabulary, rows=1).nats, rel=1e-5)
    assert all(map(torch.equal, evaluator.model.parameters(), model.parameters()))


def test_a_text_that_repeats_itself_gets_easier_to_read():
    model, vocabulary, ids, evaluator = parts(WORDS * 80, rates=Rates(0.003, 0.0), scale=1.0, hidden_size=24)
    losses = [loss.mean for loss in evaluator.losses(ids)]
    static = evaluate_ids(model, ids, vocabulary=vocabulary, rows=1).mean
    assert np.mean(losses[-5:]) < 0.5 * static


@given(st.text(alphabet="aé日😀", min_size=2, max_size=90))
def test_bytes_are_scored_but_characters_are_counted(text):
    file = small_model(unit="byte", scale=1.0)
    model, vocabulary = build_model(file), file.vocabulary
    rms = [torch.ones_like(weight) for weight in model.parameters()]
    evaluator = DynamicEvaluator(model, vocabulary, rms, STILL)
    actual = evaluate_text(vocabulary, text, evaluator.losses)
    expected = evaluate(model, vocabulary, text, rows=1)
    assert (actual.characters, actual.bytes) == (expected.characters, expected.bytes) == (len(text) - 1, actual.bytes)
    assert actual.nats == pytest.approx(expected.nats, rel=1e-5)


def test_folded_and_unseen_characters_pay_for_their_place():
    file = small_model(folded="xyz")
    model, vocabulary = build_model(file), file.vocabulary
    rms = [torch.ones_like(weight) for weight in model.parameters()]
    text = "abxcay?bad\n" * 9
    actual = evaluate_text(vocabulary, text, DynamicEvaluator(model, vocabulary, rms, STILL).losses)
    expected = evaluate(model, vocabulary, text, rows=1)
    assert (actual.folded, actual.unseen) == (expected.folded, expected.unseen) == (18, 9)
    assert actual.nats == pytest.approx(expected.nats, rel=1e-5)


def test_the_best_rates_are_chosen_and_the_model_stays():
    model, vocabulary, ids, _ = parts(WORDS * 8, "gru")
    rms = rms_gradients(model, vocabulary, ids)
    before = copy.deepcopy(model.state_dict())
    tried = {}
    chosen = choose_rates(model, vocabulary, ids, rms, report=tried.__setitem__)
    assert len(tried) == TRIES
    first = list(tried)[: len(RATES)]
    assert first == [Rates(lr, DECAYS[0]) for lr in RATES]
    best = min(first, key=tried.__getitem__)
    assert list(tried)[len(RATES) :] == [Rates(best.lr, decay) for decay in DECAYS[1:]]
    assert tried[chosen] == min(tried.values())
    for rates, loss in tried.items():
        losses = list(DynamicEvaluator(model, vocabulary, rms, rates).losses(ids))
        assert loss == pytest.approx(sum(segment.nats for segment in losses) / (len(ids) - 1))
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_rates_that_break_the_model_are_not_chosen(monkeypatch):
    model, vocabulary, ids, _ = parts(WORDS * 4)
    rms = rms_gradients(model, vocabulary, ids)
    monkeypatch.setattr(dynamic, "RATES", (math.inf, 1e-4))
    assert choose_rates(model, vocabulary, ids, rms).lr == 1e-4
    monkeypatch.setattr(dynamic, "RATES", (math.inf,))
    with pytest.raises(DataError, match="finite loss"):
        choose_rates(model, vocabulary, ids, rms)


@pytest.mark.parametrize(("direction", "other"), [("forward", "backward"), ("backward", "forward")])
def test_one_stack_of_two_learns_and_the_other_rests(direction, other):
    model, vocabulary, ids, _ = parts(random_text(100), bidirectional=True)
    rms = rms_gradients(model, vocabulary, ids, direction=direction)
    evaluator = DynamicEvaluator(model, vocabulary, rms, Rates(0.01, 0.1), direction=direction)
    assert math.isfinite(sum(loss.nats for loss in evaluator.losses(ids)))
    for (name, weight), trained in zip(evaluator.model.named_parameters(), model.parameters(), strict=True):
        rests = name.startswith((f"{other}_layers", "cloze"))
        assert torch.equal(weight, trained) == rests, name
    still = DynamicEvaluator(model, vocabulary, rms, STILL, direction=direction)
    expected = evaluate_ids(model, ids, vocabulary=vocabulary, rows=1, direction=direction)
    assert sum(loss.nats for loss in still.losses(ids)) == pytest.approx(expected.nats, rel=1e-5)
    text = "日é" * 20
    file = small_model(unit="byte", scale=1.0, bidirectional=True)
    model = build_model(file)
    rms = [torch.ones_like(weight) for weight in model.parameters()]
    evaluator = DynamicEvaluator(model, file.vocabulary, rms, STILL, direction=direction)
    evaluation = evaluate_text(file.vocabulary, text, evaluator.losses, direction=direction)
    expected = evaluate(model, file.vocabulary, text, direction=direction, rows=1)
    assert (evaluation.characters, evaluation.bytes) == (expected.characters, expected.bytes)
    assert evaluation.nats == pytest.approx(expected.nats, rel=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_stack_of_two_learns_as_it_would_alone(cell):
    """Weights that get no gradient do not count for the mean RMS gradient."""
    two_way = small_model(cell, bidirectional=True)
    one_way = small_model(cell)
    one_way.arrays.update({name: two_way.arrays[name] for name in one_way.arrays})
    text, rates = random_text(5 * SEGMENT), Rates(0.02, 0.05)
    nats = []
    for file in (one_way, two_way):
        model, ids = build_model(file), file.vocabulary.encode(text)
        rms = rms_gradients(model, file.vocabulary, ids)
        nats.append([loss.nats for loss in DynamicEvaluator(model, file.vocabulary, rms, rates).losses(ids)])
    assert nats[0] == pytest.approx(nats[1], rel=1e-6)


def test_a_text_of_one_character_has_nothing_to_learn_from():
    model, vocabulary, ids, evaluator = parts("a" * 50, characters="a", rates=Rates(0.01, 0.05))
    assert [loss.nats for loss in evaluator.losses(ids)] == pytest.approx([0, 0], abs=1e-4)
    assert all(weight.isfinite().all() for weight in evaluator.model.parameters())
    choose_rates(model, vocabulary, ids, rms_gradients(model, vocabulary, ids))


@pytest.mark.parametrize("times", [0, 1, 3])
def test_an_adapted_model_is_what_a_reader_has_become(times):
    file = small_model()
    model, vocabulary = build_model(file), file.vocabulary
    before = {name: array.copy() for name, array in file.arrays.items()}
    adapted = adapt_model(file, "z" + WORDS * 3, times)
    ids = vocabulary.encode(WORDS * 3)
    evaluator = DynamicEvaluator(model, vocabulary, rms_gradients(model, vocabulary, ids), ADAPT)
    for _ in range(times):
        list(evaluator.losses(ids))
    for name, weight in evaluator.model.state_dict().items():
        assert np.array_equal(adapted.arrays[name], weight.numpy())
        assert np.array_equal(file.arrays[name], before[name])
    assert (adapted.config, adapted.vocabulary) == (file.config, file.vocabulary)
    text_loss = [evaluate(build_model(model_file), vocabulary, WORDS * 3).nats for model_file in (file, adapted)]
    assert (text_loss[1] < text_loss[0]) == (times > 0)


@pytest.mark.parametrize(("unit", "text"), [("character", "a"), ("character", ""), ("byte", "日")])
def test_a_text_too_short_is_an_error_in_words(unit, text):
    file = small_model(unit=unit)
    model = build_model(file)
    with pytest.raises(DataError, match="at least 2 characters"):
        rms_gradients(model, file.vocabulary, file.vocabulary.encode(text))
