"""What a report tells of each character, against the scores of `score` and against loops."""

import math

import numpy as np
import pytest

from chargen.api.score import score
from chargen.data.code_points import END_MARK
from chargen.evaluation.per_character import name_id
from chargen.insight.predictions import PIECE, loss_from_fresh_states, name_character, predict_texts
from chargen.storage.model_file import build_model
from tests.evaluation.judges import model, text_of
from tests.record_models import record_model


@pytest.mark.parametrize("unit", ["character", "folded", "byte"])
@pytest.mark.parametrize("ways", ["one", "two"])
def test_each_character_costs_what_it_scores(unit: str, ways: str) -> None:
    file, text = model("gru", unit, ways), text_of(unit, 150)
    expected = predict_texts(build_model(file), file, [text], unknown="replace" if unit == "folded" else "skip")
    by = "cloze" if ways == "two" else "forward"
    scores = score(file, text, by=by, threshold=1, num_alternatives=5)
    assert expected.text == text
    assert expected.distances.tolist() == list(range(150))
    for judge, log_probs in expected.log_probs.items():
        values = [getattr(each, judge) for each in scores]
        assert log_probs == pytest.approx([math.nan if v is None else v for v in values], rel=1e-6, nan_ok=True)
    for at, each in enumerate(scores):  # those that `score` names are likelier than what stands there
        ids, shares = expected.likeliest[by][at], expected.probabilities[by][at]
        likelier = [(name_id(file.vocabulary, number), p) for number, p in zip(ids, shares, strict=True)]
        names = [(name_character(other), pytest.approx(p, rel=1e-4)) for other, p in each.alternatives]
        if unit == "character":
            assert likelier[: len(names)] == names
            assert expected.ids[at] == file.vocabulary.encode(text[at])[0]
        whole = unit != "byte" or text[at].isascii()
        assert (shares[0] > 0) == whole == (expected.ids[at] >= 0)
        assert list(shares) == sorted(shares, reverse=True)


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_records_have_their_ends(unit: str) -> None:
    file, texts, labels = record_model(unit=unit), ["abc", "d", "fade a"], ["sun", None, "sea"]
    expected = predict_texts(build_model(file), file, texts, unknown="skip", labels=labels)
    assert expected.text == "".join(text + END_MARK for text in texts)
    assert expected.distances.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4, 5, 6]
    first = 0
    for text, label in zip(texts, labels, strict=True):
        scores = score(file, text, label=label)
        for judge, log_probs in expected.log_probs.items():
            values = [getattr(each, judge) for each in [*scores, scores.end]]
            own = log_probs[first : first + len(text) + 1]
            assert own == pytest.approx([math.nan if v is None else v for v in values], rel=1e-5, nan_ok=True)
        first += len(text) + 1
        assert expected.ids[first - 1] == file.vocabulary.end_id


def test_a_character_that_is_left_out_has_no_prediction() -> None:
    file = model("gru", "character", "one")
    expected = predict_texts(build_model(file), file, ["abzcd"], unknown="skip")
    assert np.isnan(expected.log_probs["forward"]).tolist() == [False, False, True, False, False]
    assert expected.ids[2] == -1
    assert expected.probabilities["forward"][2].max() == 0


def test_no_text_has_no_predictions() -> None:
    file = model("gru", "character", "one")
    for texts in ([], [""]):
        expected = predict_texts(build_model(file), file, texts, unknown="skip")
        assert (expected.text, expected.ids.shape, expected.likeliest["forward"].shape) == ("", (0,), (0, 5))
        assert expected.calibration("forward").counts.sum() == 0


def test_calibration_is_of_what_is_likeliest() -> None:
    file, text = model("lstm", "character", "two"), text_of("character", 400)
    expected = predict_texts(build_model(file), file, [text], unknown="skip")
    for judge in expected.log_probs:
        curve, right = expected.calibration(judge), 0
        for each in score(file, text, by=judge, threshold=1, num_alternatives=1):
            right += not each.alternatives
        assert curve.counts.sum() == 400
        assert np.nansum(curve.observed * curve.counts) == pytest.approx(right)


def test_fresh_states_cost_what_pieces_cost_alone() -> None:
    file, text = model("gru", "character", "one"), text_of("character", 4 * PIECE + 7)
    network = build_model(file)
    carried = predict_texts(network, file, [text], unknown="skip").log_probs["forward"]
    fresh, same = loss_from_fresh_states(network, file, text, carried, unknown="skip", precision="fp32")
    starts = [PIECE, PIECE + (len(text) - 2 * PIECE) // 2, len(text) - PIECE]
    alone = [[each.forward for each in score(file, text[start : start + PIECE])] for start in starts]
    assert fresh.counts[:4].tolist() == same.counts[:4].tolist() == [3, 3, 6, 12]
    assert fresh.nats[0] == pytest.approx(-sum(costs[0] for costs in alone), rel=1e-4)
    assert fresh.nats.sum() == pytest.approx(-sum(map(sum, alone)), rel=1e-4)
    assert same.nats[0] == pytest.approx(-sum(carried[start] for start in starts), rel=1e-4)
    assert same.nats[0] != pytest.approx(fresh.nats[0], rel=1e-2)
    assert same.nats.sum() == pytest.approx(-sum(carried[start : start + PIECE].sum() for start in starts), rel=1e-4)
    assert loss_from_fresh_states(network, file, text[:1999], carried, unknown="skip")[0].counts.sum() == 0
