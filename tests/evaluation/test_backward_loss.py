"""A text scored from its end: every character once, as forward from its beginning."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import evaluate
from chargen.data.code_points import CODE_POINTS
from chargen.data.vocabulary import Vocabulary
from chargen.errors import DataError
from chargen.evaluation.loss import evaluate_ids
from chargen.model.config import DIRECTIONS
from chargen.storage.model_file import build_model
from tests import naive
from tests.small_models import small_model


@given(st.integers(2, 120), st.integers(1, 30), st.sampled_from(["lstm", "gru"]))
def test_scoring_backward_agrees_with_one_character_at_a_time(length, rows, cell):
    """Shorter than the warm-up, so every row has read all that stands behind it."""
    model = build_model(small_model(cell, bidirectional=True))
    ids = np.random.default_rng(length).integers(0, 10, length).astype(np.uint8)
    expected = math.fsum(naive.costs(model, ids, "backward"))
    for used in (1, rows):
        loss = evaluate_ids(model, ids, direction="backward", rows=used)
        assert loss.characters == length - 1
        assert loss.nats == pytest.approx(expected, abs=1e-4 * length)


def test_scoring_backward_carries_its_state_over_many_windows():
    model = build_model(small_model(bidirectional=True))
    ids = np.random.default_rng(0).integers(0, 10, 900).astype(np.uint8)
    one, other = (evaluate_ids(model, ids, rows=1, direction=direction) for direction in ("backward", "forward"))
    assert one.mean == pytest.approx(np.mean(naive.costs(model, ids, "backward")), abs=1e-4)
    assert other.mean == pytest.approx(np.mean(naive.costs(model, ids)), abs=1e-4)
    assert abs(one.mean - other.mean) > 0.01


def test_more_rows_cost_little():
    model = build_model(small_model(bidirectional=True, scale=1.5))
    ids = np.random.default_rng(0).integers(0, 10, 4000).astype(np.uint8)
    whole = evaluate_ids(model, ids, rows=1, direction="backward")
    for rows in (None, 3, 8):
        cut = evaluate_ids(model, ids, rows=rows, direction="backward")
        assert cut.characters == whole.characters == 3999
        assert cut.mean == pytest.approx(whole.mean, abs=1e-4)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=2, max_size=30), st.none() | st.integers(1, 9))
def test_bytes_are_scored_backward_but_characters_are_counted(text, rows):
    model = build_model(small_model(unit="byte", bidirectional=True))
    found = evaluate(model, Vocabulary(unit="byte"), text, rows=rows, direction="backward")
    counted = text[:-1].encode()
    assert (found.characters, found.bytes) == (len(text) - 1, len(counted))
    expected = naive.costs(model, text.encode(), "backward")[-len(counted) :]
    assert found.nats == pytest.approx(math.fsum(expected), rel=1e-5, abs=1e-4)


@pytest.mark.parametrize(("text", "uncounted"), [("éa字", 3), ("字éa", 1), ("é字é", 2), ("a😀", 4)])
def test_the_last_character_of_a_text_is_read_but_not_counted(text, uncounted):
    model = build_model(small_model(unit="byte", bidirectional=True))
    found = evaluate(model, Vocabulary(unit="byte"), text, direction="backward")
    costs = naive.costs(model, text.encode(), "backward")
    assert (found.characters, found.bytes) == (len(text) - 1, len(text.encode()) - uncounted)
    assert found.nats == pytest.approx(math.fsum(costs[uncounted - 1 :]), rel=1e-5)


def test_one_character_of_many_bytes_is_too_short_either_way():
    model = build_model(small_model(unit="byte", bidirectional=True))
    for direction in DIRECTIONS:
        with pytest.raises(DataError, match="at least 2 characters"):
            evaluate(model, Vocabulary(unit="byte"), "字", direction=direction)


@given(st.text("abcxyzé字", min_size=2, max_size=30))
def test_folded_and_unseen_characters_pay_for_their_place_backward(text):
    file = small_model(characters="abc", folded="xyz", bidirectional=True)
    model = build_model(file)
    found = evaluate(model, file.vocabulary, text, direction="backward")
    folded = sum(character in "xyz" for character in text[:-1])
    unseen = sum(character in "é字" for character in text[:-1])
    nats = math.fsum(naive.costs(model, ["abc".find(character) % 4 for character in text], "backward"))
    nats += folded * math.log(4) + unseen * (math.log(4) + math.log(CODE_POINTS - 6))
    assert (found.folded, found.unseen, found.characters) == (folded, unseen, len(text) - 1)
    assert found.bytes == len(text[:-1].encode())
    assert found.nats == pytest.approx(nats, rel=1e-5, abs=1e-4)


def test_unknown_characters_are_left_out_of_a_backward_score():
    file = small_model(characters="abc", bidirectional=True)
    model = build_model(file)
    skipped, plain = (
        evaluate(model, file.vocabulary, text, unknown="skip", direction="backward") for text in ("éaébcé字", "abc")
    )
    assert (skipped.skipped, plain.skipped) == (4, 0)
    assert (skipped.characters, skipped.bytes, skipped.nats) == (plain.characters, plain.bytes, plain.nats)
