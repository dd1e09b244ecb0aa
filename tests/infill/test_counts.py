"""Gaps filled by network and counts: their probabilities are the mixture's, and so are the weights of particles."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen import score_records
from chargen.decoding.choose import SampleConfig
from chargen.decoding.pick_engine import new_engine
from chargen.infill import enumeration, particles
from chargen.infill.fill import Filler, fill
from chargen.infill.lookahead import GUESSES, Lookahead
from chargen.storage.model_file import ModelFile
from tests import naive
from tests.infill.gaps import ALL, LETTERS, model, table
from tests.infill.test_particles import averages_to_one, compare, evidences
from tests.record_models import record_model
from tests.small_models import with_counts

TEXT = "bad cab dad add a cad bad dab cab "


@cache
def counted(cell: str = "lstm", unit: str = "character", begin: str = "", order: int = 4) -> ModelFile:
    file = with_counts(model(cell, unit), TEXT * 2 if unit == "character" else "A√A©A漢" * 9, order)
    return replace(file, begin=begin)


def limited(file: ModelFile, longest: int) -> ModelFile:
    mixtures = {direction: mixture.limited(longest) for direction, mixture in file.mixtures.items()}
    return replace(file, mixtures=mixtures)


texts = st.text(LETTERS, max_size=6)


@settings(max_examples=12)
@given(st.sampled_from(["lstm", "gru"]), texts, texts, st.integers(0, 2), st.integers(0, 2), st.integers(0, 4),
       st.sampled_from([{}, {"temperature": 0.5}, {"top_k": 3}, {"ban": "b"}, {"no_repeat": 2}]))  # fmt: skip
def test_all_gaps_have_the_probabilities_of_the_mixture(
    cell: str, before: str, after: str, shortest: int, more: int, longest: int, config: dict[str, Any]
) -> None:
    file, lengths = counted(cell), range(shortest, shortest + more + 1)
    filled = fill(file, before, after, min_length=shortest, max_length=shortest + more, seed=0, num=ALL,
                  counts_max_copy=longest, **config)  # fmt: skip
    expected, log_evidence = naive.gaps(limited(file, longest), before, after, lengths, SampleConfig(**config))
    assert filled.exact
    ours = table(filled)
    assert set(ours) == set(expected)
    assert filled.log_evidence == pytest.approx(log_evidence, abs=1e-4)
    for gap, (log_prob, log_prob_after, probability) in expected.items():
        assert ours[gap].log_prob == pytest.approx(log_prob, abs=1e-4)
        assert ours[gap].log_prob_after == pytest.approx(log_prob_after, abs=1e-4)
        assert ours[gap].probability == pytest.approx(probability, rel=1e-3)


def test_counts_change_what_is_likely() -> None:
    file = with_counts(model(), TEXT * 2, 4, weight=0.99)
    alone = fill(replace(file, mixtures={}), "bad ", " dad", length=3, seed=0, temperature=0)
    assert (
        fill(file, "bad ", " dad", length=3, seed=0, temperature=0).most_likely.text == "cab" != alone.most_likely.text
    )
    nothing = fill(file, "bad ", " dad", length=3, seed=0, temperature=0, counts_max_copy=0)
    assert nothing.most_likely.text == alone.most_likely.text
    assert nothing.log_evidence == pytest.approx(alone.log_evidence, abs=1e-4)


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_gaps_of_records_are_as_likely_as_whole_records(unit: str) -> None:
    """The end of the record is a part of what follows, and contexts begin with the record."""
    file = record_model("gru", unit, labels=(), letters="abc")
    file = with_counts(file, "".join(f"\udfff{text}" for text in ["abc", "cab", "abca", "b", "abc"] * 3), 4)
    before, after, longest = "ab", "a", 2
    settings = {"ban": "".join(map(chr, {*range(128)} - {*b"abc"})), "top_k": 3} if unit == "byte" else {}
    filled = fill(file, before, after, min_length=0, max_length=longest, seed=0, num=ALL, particles=200, **settings)
    gaps = table(filled)
    assert {"", "c"} <= set(gaps)
    scores = score_records(file, [before + gap + after for gap in gaps])
    (start,) = score_records(file, [before])
    known = start.log_prob - start.end_log_prob
    for (gap, alternative), record in zip(gaps.items(), scores, strict=True):
        assert alternative.score == pytest.approx(record.log_prob - known, abs=1e-4), gap


@pytest.mark.parametrize(
    ("cell", "before", "after", "config"),
    [
        ("lstm", "ba d", "cab ", {}),
        ("gru", "", "d", {"counts_max_copy": 1}),
        ("lstm", "a", "bad", {"temperature": 0.6, "ban": "b"}),
        ("gru", "bad ", "", {"temperature": 1.5, "top_k": 4}),
    ],
)
def test_the_evidence_of_particles_is_unbiased(
    cell: str, before: str, after: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, arguments = counted(cell), (before, after, 3, 4)
    exact = Filler(file, seed=0, **config).fill(*arguments, num=ALL)
    monkeypatch.setattr(enumeration, "MAX_GAPS", 0)
    ratios = evidences(file, exact, 50, *arguments, particles=100, **config)
    averages_to_one(ratios, 0.15)
    assert ratios.std() > 0.001  # or nothing has been estimated
    compare(Filler(file, seed=5, particles=1000, **config).fill(*arguments, num=ALL), exact)


@settings(max_examples=10)
@given(st.integers(0, 2**30), st.integers(1, 3), st.integers(0, 3), st.sampled_from([1.0, 0.6]))
def test_a_particle_weighs_what_its_gap_does_over_how_it_was_proposed(
    seed: int, length: int, longest: int, temperature: float
) -> None:
    """Without new draws among them: of each particle's draws the probabilities are noted, and multiplied."""
    file, before, after = counted("gru"), "ba", "cad"
    config = {"temperature": temperature, "counts_max_copy": longest}
    expected, _ = naive.gaps(limited(file, longest), before, after, range(length, length + 1), SampleConfig(**config))
    proposed: dict[str, float] = {"": 0.0}
    propose = particles._propose

    def note(grower: Any, prefixes: Any, forward: Any, pairs: Any, *rest: Any) -> Any:
        log_q, match = propose(grower, prefixes, forward, pairs, *rest)
        np.testing.assert_allclose(np.exp(log_q).sum(1), 1)
        for (prefix, _), row in zip(pairs.T, log_q, strict=True):
            text = prefixes.texts[prefix]
            proposed.update({text + letter: proposed[text] + row[id_] for id_, letter in enumerate(LETTERS)})
        return log_q, match

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(particles, "_propose", note)
        patch.setattr(particles, "effective_sample_size", lambda weights: np.inf)
        filler, results = Filler(file, seed=seed, particles=20, **config), []
        patch.setattr(enumeration, "MAX_GAPS", 0)
        patch.setattr(
            "chargen.infill.fill.run_smc", lambda *given: results.append(particles.run_smc(*given)) or results[0]
        )
        filler.fill(before, after, length)
    (result,) = results
    for gap, log_weight in zip(result.gap, result.log_weights, strict=True):
        text = result.gaps.texts[gap]
        log_target = sum(expected[text][:2]) / temperature
        assert log_weight == pytest.approx(log_target - proposed[text], abs=1e-3)


def test_guesses_are_judged_with_counts() -> None:
    file = counted()
    engine = new_engine(file, "cpu", "backward")
    ahead = Lookahead(file, file.vocabulary.encode("cab"), 3, 7, engine)
    naive_engine, logits, state = naive.start(file, "backward")
    for id_ in file.vocabulary.encode("cab")[::-1]:
        logits, state = naive_engine.step(np.array([id_]), state)
    np.testing.assert_allclose(ahead.logits[0], np.repeat(logits, GUESSES, 0), atol=1e-4)


def test_gaps_in_bytes_are_weighed_by_the_mixture() -> None:
    file = counted(unit="byte")
    walked = dict(naive.byte_gaps(file, "A√", range(1, 3), 3))
    filled = fill(file, "A√", "", min_length=1, max_length=2, top_k=3, seed=1, particles=4000, num=ALL)
    assert not filled.exact
    ours = table(filled)
    assert set(ours) <= set(walked)
    assert sum(alternative.probability for alternative in ours.values()) == pytest.approx(1, abs=0.1)
    for text, alternative in ours.items():
        assert alternative.log_prob == pytest.approx(walked[text], abs=1e-4)
