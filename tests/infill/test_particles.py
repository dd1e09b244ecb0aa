"""Many gaps: particles against enumeration, and in bytes against a walk by hand."""

from typing import Any

import numpy as np
import pytest

from chargen.decoding.choose import SampleConfig, log_sum_exp
from chargen.decoding.pick_engine import new_engine
from chargen.infill import enumeration
from chargen.infill import lookahead as looking
from chargen.infill.fill import Fill, Filler, fill
from chargen.infill.lookahead import Lookahead
from chargen.infill.particles import Particles, _systematic, run_smc
from chargen.infill.prefixes import Grower
from chargen.storage.model_file import ModelFile
from tests import naive
from tests.infill.gaps import ALL, CONFIGS, LETTERS, model, root_of, table
from tests.pairs import some


@pytest.fixture
def particles_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enumeration, "MAX_GAPS", 0)


# Many gaps: particles, against enumeration.


def evidences(file: ModelFile, exact: Fill, seeds: int, *arguments: Any, **settings: Any) -> np.ndarray:
    """For many draws, the estimated evidence over the exact one."""
    filler = Filler(file, seed=0, **settings)
    fills = [filler.fill(*arguments, number=number) for number in range(seeds)]
    assert not any(filled.exact for filled in fills)
    return np.exp([filled.log_evidence - exact.log_evidence for filled in fills])


def averages_to_one(ratios: np.ndarray, most: float) -> None:
    error = ratios.std() / np.sqrt(len(ratios))
    assert error < most / 4, "too noisy a test to mean anything"
    assert abs(ratios.mean() - 1) < 4 * error


def test_the_evidence_of_particles_is_unbiased(monkeypatch: pytest.MonkeyPatch) -> None:
    file, arguments = model(), ("ba d", "cab ", 5)
    exact = Filler(file, seed=0).fill(*arguments)
    monkeypatch.setattr(enumeration, "MAX_GAPS", 0)
    ratios = evidences(file, exact, 120, *arguments, particles=40)
    assert ratios.std() > 0.05  # or nothing has been estimated
    averages_to_one(ratios, 0.1)


@pytest.mark.parametrize("config", some(CONFIGS, 3), ids=str)
def test_particles_agree_with_enumeration(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    file, arguments = model("gru"), ("ba", "cd", 2, 4)
    exact = Filler(file, seed=0, **config).fill(*arguments, num=ALL)
    monkeypatch.setattr(enumeration, "MAX_GAPS", 0)
    averages_to_one(evidences(file, exact, 25, *arguments, particles=400, **config), 0.15)
    filled = Filler(file, seed=5, particles=1500, **config).fill(*arguments, num=ALL)
    compare(filled, exact)
    close(weighted(file, *arguments, 1500, 5, **config), exact)


def compare(filled: Fill, exact: Fill) -> None:
    """Particles against all gaps: the same scores, and probabilities but for the estimated evidence."""
    expected, ours = table(exact), table(filled)
    assert filled.found == len(ours) <= exact.found
    assert filled.log_evidence == pytest.approx(exact.log_evidence, abs=0.2)
    for text, alternative in ours.items():
        assert alternative.log_prob == pytest.approx(expected[text].log_prob, abs=1e-5)
        assert alternative.log_prob_after == pytest.approx(expected[text].log_prob_after, abs=1e-5)
        share = expected[text].probability * np.exp(exact.log_evidence - filled.log_evidence)
        assert alternative.probability == pytest.approx(min(share, 1), rel=1e-3)


def weighted(
    file: ModelFile, before: str, after: str, low: int, high: int, particles: int, seed: int, **config: Any
) -> tuple[dict[str, float], float]:
    """By particles: the share of their weight that each gap has, and their effective sample size."""
    result = particles_for(file, before, after, low, high, particles, seed, True, **config)
    weights = np.exp(result.log_weights - log_sum_exp(result.log_weights))
    shares = np.bincount(result.gap, weights, len(result.gaps.texts)).tolist()
    assert len(set(result.gaps.texts)) == len(result.gaps.texts)
    return dict(zip(result.gaps.texts, shares, strict=True)), float(1 / (weights**2).sum())


def particles_for(
    file: ModelFile,
    before: str,
    after: str,
    low: int,
    high: int,
    particles: int,
    seed: int,
    steered: bool,
    **settings: Any,
) -> Particles:
    """Particles for a gap, with guesses to steer them or without."""
    config, after_ids = SampleConfig(**settings), file.vocabulary.encode(after[:40])
    ahead = None
    if steered and after:
        backward = new_engine(file, "cpu", "backward")
        ahead = Lookahead(file, file.vocabulary.encode(after), high, seed, backward, config.ban)
    grower, power = Grower(file, new_engine(file, "cpu"), config, before), 1 / config.temperature
    return run_smc(grower, root_of(file, before), ahead, after_ids, range(low, high + 1), particles, seed, power)


def close(particle_shares: tuple[dict[str, float], float], exact: Fill) -> None:
    """The shares of particles are probabilities, to within what so many of them can tell."""
    shares, size = particle_shares
    expected = {alternative.text: alternative.probability for alternative in exact.alternatives}
    assert size > 100
    assert set(shares) <= set(expected)
    for text, probability in expected.items():
        error = np.sqrt(probability * (1 - probability) / size)
        assert abs(shares.get(text, 0) - probability) < 5 * error + 8 / size, text
    marginals = [np.zeros((5, len(LETTERS))) for _ in range(2)]
    for texts, marginal in zip((shares, expected), marginals, strict=True):
        for text, share in texts.items():
            for at, letter in enumerate(text):
                marginal[at, LETTERS.index(letter)] += share
    assert np.abs(marginals[0] - marginals[1]).sum(axis=1).max() / 2 < 2 / np.sqrt(size)


@pytest.mark.parametrize(
    ("cell", "before", "after"), [("lstm", "ab c", "dab"), ("gru", "", "c" * 45), ("lstm", "d", "")]
)
def test_many_particles_have_the_marginals_of_the_target(
    cell: str, before: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = model(cell)
    exact = fill(file, before, after, length=5, seed=0, num=ALL)
    monkeypatch.setattr(enumeration, "MAX_GAPS", 0)
    filled = fill(file, before, after, length=5, seed=1, particles=2000, num=ALL)
    assert not filled.exact
    assert filled.particles == 2000
    assert filled.effective_sample_size > 500
    compare(filled, exact)
    close(weighted(file, before, after, 5, 5, 2000, 1), exact)
    assert filled.log_evidence == pytest.approx(exact.log_evidence, abs=0.1)
    likely = max(filled.alternatives, key=lambda alternative: alternative.score)
    assert filled.most_likely == likely
    assert likely.score == pytest.approx(exact.most_likely.score, abs=1e-4)


@pytest.mark.parametrize("lookahead_of", ["some distances", "none"])
def test_a_gap_beyond_the_reach_of_guesses_is_unbiased_too(lookahead_of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file, arguments = model(), ("b", "da", 3, 5)
    exact = Filler(file, seed=0).fill(*arguments)
    monkeypatch.setattr(enumeration, "MAX_GAPS", 0)
    monkeypatch.setattr(looking, "HORIZON", 2)
    if lookahead_of == "none":
        ratios = np.exp([blind(file, *arguments, 300, seed) - exact.log_evidence for seed in range(40)])
    else:
        ratios = evidences(file, exact, 60, *arguments, particles=64)
    averages_to_one(ratios, 0.15)


@pytest.mark.parametrize("high", [1, 3])
@pytest.mark.usefixtures("particles_only")
def test_lengths_weigh_alike_whatever_number_of_particles_each_has(high: int) -> None:
    """One letter is left, so that each length has one gap."""
    expected, log_evidence = naive.gaps(model(), "b", "cd", range(high + 1), SampleConfig(ban=" bcd"))
    assert len(expected) == high + 1
    for particles in (high + 1, high + 2, 7):
        filler = Filler(model(), seed=1, particles=particles, ban=" bcd")
        evidences = [filler.fill("b", "cd", 0, high, number=number).log_evidence for number in range(50)]
        ratios = np.exp(np.array(evidences) - log_evidence)
        assert abs(ratios.mean() - 1) < 4 * ratios.std() / np.sqrt(50) + 1e-5


def test_resampling_keeps_each_particle_as_often_as_its_weight_says() -> None:
    weights = np.array([0.3, 0.0, 1.7, 0.02, 2.0, 0.98, 0.0])
    with np.errstate(divide="ignore"):
        log_weights = np.log(weights) - 800
    expected = weights * len(weights) / weights.sum()
    counts = []
    for start in (np.arange(1000) + 0.5) / 1000:
        counts.append(np.bincount(_systematic(log_weights, float(start)), minlength=7))
        assert (np.abs(counts[-1] - expected) < 1).all()
    assert np.mean(counts, axis=0) == pytest.approx(expected, abs=0.01)


def blind(file: ModelFile, before: str, after: str, low: int, high: int, particles: int, seed: int) -> float:
    """The log evidence of particles that nothing steers."""
    return particles_for(file, before, after, low, high, particles, seed, False).log_evidence


@pytest.mark.usefixtures("particles_only")
def test_where_nothing_follows_all_particles_weigh_the_same() -> None:
    filled = fill(model(), "ab", "", length=6, seed=1)
    assert filled.effective_sample_size == pytest.approx(128)
    assert filled.log_evidence == pytest.approx(0, abs=1e-9)
    assert all(alternative.log_prob_after == 0 for alternative in filled.alternatives)
    assert fill(model(), "ab", "", min_length=3, max_length=6, seed=1).effective_sample_size == pytest.approx(128)
    warm = fill(model(), "ab", "", length=6, seed=1, temperature=2)
    assert 1 <= warm.effective_sample_size < 128 - 1e-6


@pytest.mark.usefixtures("particles_only")
def test_a_gap_that_meets_a_rare_text_is_found_by_looking_ahead() -> None:
    """The text behind all but asks for one letter in the gap; all guesses write it."""
    sizes = []
    for seed in range(5):
        filled = fill(model(), "ab", "cab ", length=7, seed=seed, particles=64)
        sizes.append(filled.effective_sample_size)
        assert 1 <= filled.effective_sample_size <= 64
        assert filled.found <= 64
    assert len(set(sizes)) == 5


@pytest.mark.usefixtures("particles_only")
def test_a_single_particle_is_enough() -> None:
    filled = fill(model(), "ab", "cd", length=4, seed=1, particles=1, num=5)
    assert filled.effective_sample_size == pytest.approx(1)
    assert filled.alternatives == (filled.most_likely,)
    few = Filler(model(), seed=1, particles=2, temperature=0.05)
    shares = [few.fill("ab", "cd", 2, number=number).most_likely.probability for number in range(60)]
    assert 0 < min(shares) < max(shares) <= 1


# Long gaps.


def test_a_gap_longer_than_the_guesses_reach() -> None:
    filled = fill(model(), "ab", "cd", length=70, seed=1, num=2, particles=16)
    assert not filled.exact
    assert [len(alternative.text) for alternative in filled.alternatives] == [70] * len(filled.alternatives)
    for alternative in filled.alternatives:
        assert (alternative.log_prob, alternative.log_prob_after) == pytest.approx(
            naive.gap_scores(model(), "ab", alternative.text, "cd"), abs=1e-3
        )
    mixed = fill(model(), "ab", "cd", min_length=62, max_length=67, seed=1, particles=12, no_repeat=4)
    assert 62 <= len(mixed.most_likely.text) <= 67


# Bytes.


BEFORE, AFTER = "a\u20ac", "\u00e9\U0001f600z"


def whole_characters(text: str, length: int) -> bool:
    return len(text) == length and text.encode().decode() == text


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_in_bytes_a_gap_is_whole_characters(cell: str) -> None:
    file, sizes = model(cell, "byte", scale=1.0), set()
    for before, after, length in ((BEFORE, AFTER, 3), ("", AFTER, 1), (BEFORE, "", 2), (BEFORE, "\u20ac" * 45, 2)):
        filled = fill(file, before, after, length=length, seed=1, num=ALL, particles=40, no_repeat=2)
        assert not filled.exact
        assert 1 <= filled.effective_sample_size <= 40
        assert len(table(filled)) == filled.found
        for alternative in filled.alternatives:
            assert whole_characters(alternative.text, length)
            sizes |= {len(character.encode()) for character in alternative.text}
        for alternative in filled.alternatives[:2]:
            expected = naive.gap_scores(file, before, alternative.text, after)
            assert (alternative.log_prob, alternative.log_prob_after) == pytest.approx(expected, abs=1e-4)
    assert sizes == {1, 2, 3, 4}
    assert fill(file, BEFORE, AFTER, length=0, seed=1).alternatives[0].text == ""
    banned = fill(file, BEFORE, AFTER, length=2, seed=1, num=ALL, particles=40, ban=filled.alternatives[0].text)
    assert not set("".join(alternative.text for alternative in banned.alternatives)) & set(filled.alternatives[0].text)


@pytest.mark.parametrize(("lengths", "top_k"), [(range(1, 2), 4), (range(3), 2)])
def test_in_bytes_the_evidence_is_that_of_a_walk_by_hand(lengths: range, top_k: int) -> None:
    file, config = model("lstm", "byte"), {"top_k": top_k, "temperature": 4}  # which evens gaps out
    arguments = BEFORE, AFTER, lengths.start, lengths.stop - 1
    gaps = dict(naive.byte_gaps(file, BEFORE, lengths, top_k))
    assert max(len(character.encode()) for gap in gaps for character in gap) > 2
    assert len({len(gap.encode()) for gap in gaps}) > 2
    logs = {gap: log_prob + naive.gap_scores(file, BEFORE, gap, AFTER)[1] for gap, log_prob in gaps.items()}
    log_evidence = float(log_sum_exp(np.array(list(logs.values())) / 4 - np.log(len(lengths))))
    filler = Filler(file, seed=1, particles=120, **config)
    fills = [filler.fill(*arguments, number=number) for number in range(25)]
    ratios = np.exp([filled.log_evidence - log_evidence for filled in fills])
    assert ratios.std() > 0.001
    averages_to_one(ratios, 0.2)
    for gap, alternative in table(Filler(file, seed=1, particles=600, **config).fill(*arguments, num=ALL)).items():
        assert alternative.score == pytest.approx(logs[gap], abs=1e-4)
    shares, size = weighted(file, *arguments, 600, 1, **config)
    for gap, log in logs.items():
        share = np.exp(log / 4 - log_evidence) / len(lengths)
        assert abs(shares.get(gap, 0) - share) < 5 * np.sqrt(share / size) + 8 / size


def test_in_bytes_guesses_change_the_evidence_by_chance_only() -> None:
    file = model("gru", "byte", scale=1.0)
    filler = Filler(file, seed=1, particles=100)
    steered = np.array([filler.fill(BEFORE, AFTER, 1, 2, number=number).log_evidence for number in range(20)])
    unsteered = np.array([blind(file, BEFORE, AFTER, 1, 2, 600, seed) for seed in range(20)])
    top = unsteered.max()
    with_guesses, without = np.exp(steered - top), np.exp(unsteered - top)
    error = np.sqrt(with_guesses.var() / len(with_guesses) + without.var() / len(without))
    assert error < 0.1 * without.mean()
    assert abs(with_guesses.mean() - without.mean()) < 4 * error
