"""Gaps of records: a record stands between two end symbols, and none is written in a gap."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chargen.data.code_points import END_MARK
from chargen.data.utf8 import SURROGATE
from chargen.decoding.choose import SampleConfig
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.decoding.pick_engine import new_engine
from chargen.errors import DataError
from chargen.infill import enumeration
from chargen.infill.fill import Filler, fill
from chargen.infill.lookahead import GUESSES, Lookahead
from chargen.infill.template import Template, fill_gaps
from tests import naive
from tests.infill.gaps import ALL, table
from tests.infill.test_particles import averages_to_one, evidences
from tests.record_models import record_model


@pytest.mark.parametrize(
    ("before", "after", "ends"), [("", "", True), ("ab", "cd", True), ("", "ab" * 30, False), ("f", "", False)]
)
@pytest.mark.parametrize("config", [{}, {"top_k": 4}, {"stop": ("a",), "ban": "b"}], ids=str)
def test_what_follows_a_gap_is_the_rest_of_its_record_and_its_end(
    before: str, after: str, ends: bool, config: dict[str, Any]
) -> None:
    file = record_model(end=1.5)
    last = ends or len(after) > 40
    filled = Filler(file, seed=0, **config).fill(before, after, 1, 3, num=ALL, last=last)
    behind = after + END_MARK * ends
    expected, log_evidence = naive.gaps(file, END_MARK + before, behind, range(1, 4), SampleConfig(**config))
    assert filled.exact
    assert set(table(filled)) == set(expected)
    assert filled.log_evidence == pytest.approx(log_evidence, abs=1e-4)
    for text, alternative in table(filled).items():
        assert (alternative.log_prob, alternative.log_prob_after) == pytest.approx(expected[text][:2], abs=1e-4)
        assert alternative.probability == pytest.approx(expected[text][2], rel=1e-3, abs=1e-12)


def test_particles_look_for_gaps_that_end_well(monkeypatch: pytest.MonkeyPatch) -> None:
    file = record_model(end=1.5)
    for arguments in (("ba", "cd", 3), ("ba", "", 3)):
        exact = Filler(file, seed=0).fill(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr(enumeration, "MAX_GAPS", 0)
            averages_to_one(evidences(file, exact, 40, *arguments, particles=100), 0.15)


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_no_gap_holds_a_symbol_however_likely(unit: str) -> None:
    file = record_model("gru", unit, end=20.0)
    for filled in fill(file, "ab", "cd", min_length=0, max_length=9, num=20, seed=1, particles=50).alternatives:
        assert not SURROGATE.search(filled.text)
        assert len(filled.text) <= 9


def test_only_the_last_of_several_gaps_is_followed_by_the_end() -> None:
    filler = Filler(record_model(), seed=1)
    template = Template(("a", "b", "c"), ((2, 2), (2, 2)))
    for filled in fill_gaps(filler, template, 3):
        first = filler.fill("a", "b", 2, num=3, last=False)
        assert filled.fills[0] == first
        before = "a" + filled.gaps[0].text + "b"
        expected, _ = naive.gaps(filler.model, END_MARK + before, "c" + END_MARK, range(2, 3))
        assert filled.gaps[1].log_prob_after == pytest.approx(expected[filled.gaps[1].text][1], abs=1e-4)


@pytest.mark.parametrize("unit", ["character", "byte"])
@pytest.mark.parametrize("ends", [True, False])
def test_guesses_begin_at_the_end_of_a_record_or_anywhere(unit: str, ends: bool) -> None:
    file = record_model("gru", unit, end=20.0)
    encode, engine = file.vocabulary.encode, NumpyEngine(file.config, file.arrays, "backward")
    after = encode("cab" + END_MARK * ends)
    ahead = Lookahead(file, after, 3, 7, new_engine(file, "cpu", "backward"))
    logits, state = None, engine.start(1)
    for read_id in after[::-1]:
        logits, state = engine.step(np.array([read_id]), state)
    for guess in range(GUESSES):
        assert ahead.logits[0, guess] == pytest.approx(logits[0], abs=1e-4)
        assert ahead.hidden[0, guess] == pytest.approx(state[-1][0, :12], abs=1e-5)
    written = ahead.hidden[1] - ahead.hidden[0]
    assert np.abs(written).max(axis=1).min() > 0


def test_a_mark_of_a_symbol_stands_around_no_gap() -> None:
    filler = Filler(record_model(), seed=1, unknown="skip")
    for before, after in ((END_MARK, ""), ("a", "b\ud800"), ("", "ab" * 300 + END_MARK)):
        with pytest.raises(DataError, match="a lone surrogate"):
            filler.fill(before, after, 1)
    parts, filled = ("a", "b", END_MARK), []
    with pytest.raises(DataError, match="a lone surrogate"):
        list(fill_gaps(filler, Template(parts, ((1, 1), (1, 1))), progress=lambda: filled.append(1)))
    assert not filled  # before any work


def test_in_bytes_the_end_symbol_is_no_lead_byte() -> None:
    """However often it occurs, it does not make characters of several bytes less likely beside others."""
    file, odds = record_model("gru", "byte"), []
    for count in (1, 100_000):
        counts = np.where(np.arange(len(file.vocabulary)) == file.vocabulary.end_id, count, file.counts)
        often = replace(file, counts=counts)
        backward = new_engine(file, "cpu", "backward")
        ahead = Lookahead(often, often.vocabulary.encode("ab"), 2, 7, backward)
        guessed, _ = ahead.propose(Filler(often).read_before("ab"), 0)
        odds.append(guessed[0, 0xC3] - guessed[0, ord("a")])
    assert odds[0] == pytest.approx(odds[1], abs=1e-9)
