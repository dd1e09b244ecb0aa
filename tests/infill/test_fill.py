"""Filling a gap: enumeration against brute force, particles against enumeration, and what the guesses are made of."""

from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chargen.decoding.choose import SampleConfig, log_softmax, log_sum_exp
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.decoding.pick_engine import new_engine
from chargen.errors import ChargenError, DataError, SettingError
from chargen.infill import enumeration
from chargen.infill import lookahead as looking
from chargen.infill.fill import Alternative, Fill, Filler, fill, gap_lengths
from chargen.infill.lookahead import GUESSES, Lookahead
from chargen.infill.particles import Particles, _systematic, run_smc
from chargen.infill.prefixes import Grower, Prefixes
from chargen.sampling.constraints import Constraints
from chargen.sampling.sampler import Sampler
from chargen.sampling.stream import Stream
from chargen.storage.model_file import ModelFile, build_model, save_model
from tests import naive
from tests.small_models import as_bf16, small_model

ALL = 1_000_000
"""As many alternatives as there are."""
LETTERS = " abcd"


@cache
def model(cell: str = "lstm", unit: str = "character", *, num_layers: int = 1, scale: float = 1.5) -> ModelFile:
    """A small two-way model whose cloze layer has random weights, so that its proposals are wrong."""
    file = small_model(
        cell,
        num_layers=num_layers,
        hidden_size=8,
        characters=LETTERS,
        unit=unit,
        scale=scale,
        seed=3,
        bidirectional=True,
        cloze=0.4,
    )
    if unit == "byte":
        file.arrays["output.bias"][list(b"A\xc3\xe2\xf0\x82\x98\xa9\xac")] += 3  # characters of one to four bytes
    return file


@pytest.fixture
def particles_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enumeration, "MAX_GAPS", 0)


def table(filled: Fill) -> dict[str, Alternative]:
    assert len({alternative.text for alternative in filled.alternatives}) == len(filled.alternatives)
    return {alternative.text: alternative for alternative in filled.alternatives}


def in_one_line(error: pytest.ExceptionInfo[Exception]) -> bool:
    return "\n" not in str(error.value) and len(str(error.value)) < 250


# Few gaps: all are scored.


@pytest.mark.parametrize(
    ("cell", "before", "after", "length"), [("lstm", "ab c", "dab", 5), ("gru", "", "c", 4), ("lstm", "d", "", 4)]
)
def test_enumeration_is_brute_force_with_the_plain_engine(cell: str, before: str, after: str, length: int) -> None:
    file = model(cell)
    filled = fill(file, before, after, length=length, seed=0, num=ALL)
    expected, log_evidence = naive.gaps(file, before, after, range(length, length + 1))
    assert filled.exact
    assert filled.found == len(filled.alternatives) == len(expected) == 5**length
    assert filled.particles == 0
    assert filled.log_evidence == pytest.approx(log_evidence, abs=1e-4)
    assert filled.steps == sum(5**grown for grown in range(1, length + 1)) + max(0, len(after) - 1) * 5**length
    for text, alternative in table(filled).items():
        log_prob, log_after, share = expected[text]
        assert alternative.log_prob == pytest.approx(log_prob, abs=1e-4)
        assert alternative.log_prob_after == pytest.approx(log_after, abs=1e-4)
        assert alternative.probability == pytest.approx(share, rel=1e-3, abs=1e-12)
        assert alternative.score == alternative.log_prob + alternative.log_prob_after
    assert filled.most_likely.text == max(expected, key=lambda gap: sum(expected[gap][:2]))
    assert sum(alternative.probability for alternative in filled.alternatives) == pytest.approx(1)
    assert filled.effective_sample_size == pytest.approx(1 / sum(share**2 for *_, share in expected.values()), rel=1e-3)


CONFIGS: list[dict[str, Any]] = [
    {},
    {"ban": "bd"},
    {"top_k": 3},
    {"top_p": 0.8, "min_p": 0.02},
    {"stop": ("a", "cd")},
    {"no_repeat": 2},
    {"no_repeat": 1, "ban": "z", "top_k": 4},
    {"temperature": 0.5},
    {"temperature": 2.0, "top_k": 4},
    {"temperature": 0.5, "top_p": 0.7},
    {"temperature": 0.7, "stop": ("b",), "ban": "c", "no_repeat": 3},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_filters_are_those_of_a_loop_by_hand(config: dict[str, Any]) -> None:
    file = model()
    filled = fill(file, "ba", "cd", min_length=2, max_length=4, seed=0, num=ALL, **config)
    expected, log_evidence = naive.gaps(file, "ba", "cd", range(2, 5), SampleConfig(**config))
    assert filled.exact
    assert set(table(filled)) == set(expected)
    assert filled.log_evidence == pytest.approx(log_evidence, abs=1e-4)
    for text, alternative in table(filled).items():
        assert alternative.probability == pytest.approx(expected[text][2], rel=1e-3, abs=1e-12)


@pytest.mark.parametrize(("before", "unknown"), [("", "error"), ("a", "error"), ("ab", "error"), ("abca", "error"),
                                                 ("aXb", "skip")])  # fmt: skip
@pytest.mark.parametrize("run", [1, 2, 3, 4, 5, 6])
def test_no_repeat_is_that_of_a_sampler_that_was_fed_the_text_before(before: str, unknown: str, run: int) -> None:
    """A gap is allowed where a sampler may write it, character by character."""
    file = small_model(num_layers=1, hidden_size=4, characters="\n abc", bidirectional=True)
    filled = Filler(file, seed=0, no_repeat=run, unknown=unknown).fill(before, "", 5, num=ALL)
    allowed = set()
    for letters in product("\n abc", repeat=5):
        stream = Stream(Constraints(file.vocabulary, no_repeat=run), 0)
        stream.constraints.note_read(before.replace("X", ""))
        for letter in letters:
            letter_id = file.vocabulary.characters.index(letter)
            if not stream.constraints.mask()[letter_id]:
                break
            stream.add_id(letter_id, file.vocabulary)
        else:
            allowed.add("".join(letters))
    assert set(table(filled)) == allowed
    assert (before, run) != ("ab", 4) or len(allowed) == 3103


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
    ratios = evidences(file, exact, 200, *arguments, particles=40)
    assert ratios.std() > 0.05  # or nothing has been estimated
    averages_to_one(ratios, 0.1)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
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
        backward = new_engine(file.config, file.arrays, "cpu", "backward")
        ahead = Lookahead(file, file.vocabulary.encode(after), high, seed, backward, config.ban)
    grower, power = Grower(file, new_engine(file.config, file.arrays, "cpu"), config, before), 1 / config.temperature
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
    filled = fill(file, before, after, length=5, seed=1, particles=4000, num=ALL)
    assert not filled.exact
    assert filled.particles == 4000
    assert filled.effective_sample_size > 1000
    compare(filled, exact)
    close(weighted(file, before, after, 5, 5, 4000, 1), exact)
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


def root_of(file: ModelFile, before: str) -> Prefixes:
    """The empty prefix behind a text, by hand."""
    engine = NumpyEngine(file.config, file.arrays)
    logits, state = np.log(file.counts)[None], engine.start(1)
    for read_id in file.vocabulary.encode(before):
        logits, state = engine.step(np.array([read_id]), state)
    return Prefixes([""], [b""], np.zeros(1), logits, state)


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


# What holds for both.


@pytest.fixture(params=["exact", "particles"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "particles":
        monkeypatch.setattr(enumeration, "MAX_GAPS", 0)
    return request.param


def test_texts_of_any_length_may_stand_around_the_gap(either_way: str) -> None:
    for before in ("", "ab" * 30):
        for after in ("", "d", "dc" * 19 + "b", "dc" * 20, "dc" * 20 + "b", "dcb" * 300):
            filled = fill(model(), before, after, min_length=1, max_length=3, seed=1, num=3, particles=24)
            assert filled.exact == (either_way == "exact")
            assert {len(alternative.text) for alternative in filled.alternatives} <= {1, 2, 3}
            alternative = filled.alternatives[0]
            expected = naive.gap_scores(model(), before, alternative.text, after)
            assert (alternative.log_prob, alternative.log_prob_after) == pytest.approx(expected, abs=1e-4)
    # 40 characters behind the gap count, and no more.
    after = "dc" * 20
    nearer, further = (fill(model(), "a", after + rest, length=2, seed=1, num=9) for rest in ("", "bbb"))
    if either_way == "exact":
        assert nearer.alternatives == further.alternatives


def test_a_gap_of_no_characters(either_way: str) -> None:
    for before, after in (("ab", "cd"), ("", "cd"), ("ab", ""), ("", "")):
        filled = fill(model(), before, after, length=0, seed=1, num=5)
        (alternative,) = filled.alternatives
        assert (alternative.text, alternative.log_prob, alternative.probability, filled.found) == ("", 0, 1, 1)
        assert alternative.log_prob_after == pytest.approx(naive.gap_scores(model(), before, "", after)[1], abs=1e-4)
        assert filled.log_evidence == pytest.approx(alternative.log_prob_after)
        assert filled.exact
        mixed = fill(model(), before, after, max_length=2, seed=1, num=ALL, particles=300)
        assert mixed.exact == (either_way == "exact")
        assert "" in table(mixed)


def test_alternatives_are_distinct_and_the_first_ones_do_not_depend_on_their_number(either_way: str) -> None:
    runs = [fill(model(), "ab", "cd", length=3, seed=2, num=num) for num in (1, 2, 10, ALL)]
    for run, num in zip(runs[:3], (1, 2, 10), strict=True):
        assert run.alternatives == runs[3].alternatives[:num]
        assert run.most_likely == runs[3].most_likely
    assert len(table(runs[3])) == len(runs[3].alternatives) == runs[3].found
    best = max(runs[3].alternatives, key=lambda alternative: alternative.score)
    assert runs[3].most_likely == best


def test_the_first_alternatives_of_many_gaps_are_draws_from_the_target(either_way: str) -> None:
    file, shares = model(scale=1.0), {}
    misled = {name: array * (20 if "cloze.output" in name else 1) for name, array in file.arrays.items()}
    file = replace(file, arrays=misled)  # so that particles are drawn from something else
    expected, _ = naive.gaps(file, "ab", "d", range(1, 2))
    filler = Filler(file, seed=1, particles=1000)
    pairs = [filler.fill("ab", "d", 1, num=2, number=number).alternatives for number in range(400)]
    for letter in LETTERS:
        shares[letter] = sum(pair[0].text == letter for pair in pairs) / 400
        share = expected[letter][2]
        assert abs(shares[letter] - share) < 4 * np.sqrt(share * (1 - share) / 400)
        # The second draw is one from what the first has left.
        second = sum(other[2] * share / (1 - other[2]) for text, other in expected.items() if text != letter)
        assert abs(sum(pair[1].text == letter for pair in pairs) / 400 - second) < 4 * np.sqrt(second / 400)
    assert len(set(shares.values())) > 3


def test_temperature_0_takes_the_most_likely_gaps(either_way: str) -> None:
    file, differ = model(scale=4.0), 0
    for before, after in (("ab", "cd"), ("", "a" * 9), ("dd", " b c")):
        expected, _ = naive.gaps(file, before, after, range(3, 4))
        ranked = sorted(expected, key=lambda gap: -sum(expected[gap][:2]))
        differ += ranked[:3] != sorted(expected, key=lambda gap: -expected[gap][0])[:3]
        filled = fill(file, before, after, length=3, seed=1, num=3, temperature=0, particles=1000)
        assert [alternative.text for alternative in filled.alternatives] == ranked[:3]
        assert filled.alternatives[0] == filled.most_likely
        assert filled.exact == (either_way == "exact")
    assert differ


def test_the_same_seed_gives_the_same_gaps_and_another_number_others(either_way: str) -> None:
    fills = [fill(model(), "ab", "cd", length=5, seed=seed, num=9) for seed in (1, 1, 2)]
    assert fills[0] == fills[1] != fills[2]
    filler = Filler(model(), seed=1)
    assert filler.fill("ab", "cd", 5, num=9) == filler.fill("ab", "cd", 5, 5, num=9, number=0) == fills[0]
    texts = [filler.fill("ab", "cd", 5, number=number).alternatives[0].text for number in range(8)]
    assert len(set(texts)) > 4
    drawn = Filler(model()), Filler(model())
    assert drawn[0].seed != drawn[1].seed
    again = Filler(model(), seed=drawn[0].seed)
    assert again.fill("a", "b", 5, num=3) == drawn[0].fill("a", "b", 5, num=3)


def test_no_gap_allowed_is_explained_in_one_line(either_way: str) -> None:
    for config, length in (
        ({"no_repeat": 1}, 6),
        ({"stop": tuple(LETTERS)}, 2),
        ({"stop": ("a", "b"), "ban": " cd"}, 3),
    ):
        with pytest.raises(ChargenError, match=r"no gap is allowed.*forbid less") as error:
            fill(model(), "ab", "cd", length=length, seed=1, **config)
        assert in_one_line(error)
    # Where some length is allowed, it is the one that is found.
    filled = fill(model(), "ab", "cd", min_length=3, max_length=5, seed=1, num=ALL, no_repeat=1, ban="d")
    assert {len(alternative.text) for alternative in filled.alternatives} == {3, 4}
    assert filled.exact == (either_way == "exact")


def test_a_ban_of_all_characters_leaves_the_empty_gap() -> None:
    with pytest.raises(ChargenError, match=r"no gap is allowed.*forbid less"):
        fill(model(), "ab", "cd", length=500, seed=1, ban=LETTERS)
    assert fill(model(), "ab", "cd", max_length=500, seed=1, ban=LETTERS, num=9).found == 1


def test_a_folded_character_is_never_written_but_may_stand_around_the_gap(either_way: str) -> None:
    file = small_model(characters=LETTERS, folded="xyz", bidirectional=True)
    file.arrays["output.bias"][-1] += 5
    filled = fill(file, "axb", "yzc", length=3, seed=1, num=ALL)
    assert filled.exact == (either_way == "exact")
    assert filled.found > 3
    assert set("".join(alternative.text for alternative in filled.alternatives)) <= set(LETTERS)


def test_a_gap_from_a_file_from_bits_and_with_a_config_is_the_same(either_way: str, tmp_path: Path) -> None:
    file = model()
    bits = as_bf16(file).arrays
    plain = {name: (array.astype(np.uint32) << 16).view(np.float32) for name, array in bits.items()}
    save_model(tmp_path / "m", replace(file, arrays=bits))
    doors = [
        fill(tmp_path / "m", "ab", "cd", length=4, seed=1, num=3, top_k=4),
        fill(replace(file, arrays=plain), "ab", "cd", min_length=4, max_length=4, seed=1, num=3, top_k=4),
        fill(str(tmp_path / "m"), "ab", "cd", length=4, seed=1, num=3, config=SampleConfig(top_k=4)),
    ]
    assert doors[0] == doors[1] == doors[2]
    assert doors[0] != fill(file, "ab", "cd", length=4, seed=1, num=3, top_k=4)


def test_a_filler_may_fill_many_gaps_and_none_changes_another(either_way: str) -> None:
    filler = Filler(model(), seed=1, particles=20)
    texts = ["ab", "abc", "", "abcd", "b", "ab", *("abcd"[at % 4] * 3 for at in range(9)), "abc", "d" * 50, "ab"]
    for number, before in enumerate(texts):
        filled = filler.fill(before, "cd", 3, num=2, number=number)
        assert filled == Filler(model(), seed=1, particles=20).fill(before, "cd", 3, num=2, number=number)
        assert filled.exact == (either_way == "exact")


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


# The guesses.


def look(file: ModelFile, before: str, gaps: list[str], after: str, length: int) -> tuple[Lookahead, Prefixes]:
    """A lookahead, and prefixes to propose ids for."""
    prefixes = [root_of(file, before + gap) for gap in gaps]
    joined = prefixes[0]
    for prefix in prefixes[1:]:
        joined = joined.join(prefix)
    ids = file.vocabulary.encode(after)
    ahead = Lookahead(file, ids, length, 7, new_engine(file.config, file.arrays, "cpu", "backward"))
    return ahead, joined


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_a_proposal_is_a_distribution_and_a_mean_match(unit: str) -> None:
    file = model("gru", unit, num_layers=2)
    ahead, prefixes = look(file, "ab", ["a", "b", "cd"], "cab", 6)
    assert ahead.horizon == 6
    for distance in range(6):
        guessed, match = ahead.propose(prefixes, distance)
        assert guessed.shape == (3, len(file.vocabulary))
        assert match.shape == (3,)
        assert np.exp(guessed).sum(axis=1) == pytest.approx(np.ones(3))
        assert np.isfinite(match).all()
        for row in range(3 if unit == "character" else 0):
            left = np.exp(log_softmax(prefixes.logits[row]))
            right = np.exp(log_softmax(ahead.logits[distance]))
            prior = file.counts / file.counts.sum()
            used = right if distance else right[:1]
            assert match[row] == pytest.approx(np.log((left * used / prior).sum(axis=1).mean()), abs=1e-5)


def test_next_to_the_text_behind_a_guess_is_the_cloze_prediction() -> None:
    file = model("lstm", num_layers=2)
    torch_model, encode = build_model(file), file.vocabulary.encode
    ahead, prefixes = look(file, "ab", ["", "c", "da"], "c ab", 4)
    guessed, _ = ahead.propose(prefixes, 0)
    with torch.inference_mode():
        behind = torch.from_numpy(encode("c ab")[::-1].astype(np.int64))[None]
        right = torch_model.read(behind, direction="backward")[0][:, -1]
        for row, gap in enumerate(["", "c", "da"]):
            left = torch_model.read(torch.from_numpy(encode("ab" + gap).astype(np.int64))[None])[0][:, -1]
            expected = torch.log_softmax(torch_model.cloze_logits(left, right), dim=-1)[0].numpy()
            assert np.abs(guessed[row] - expected).max() < 1e-4
    first = int(encode("c")[0])
    share = file.counts[first] / file.counts.sum()
    expected = log_softmax(prefixes.logits)[:, first] - np.log(share)
    assert ahead.log_match(prefixes.logits, first) == pytest.approx(expected)


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_guesses_are_what_the_backward_sampler_writes(unit: str) -> None:
    file = model("gru", unit, scale=1.0)
    ahead, _ = look(file, "", [""], "cab", 4)
    writer = Sampler(file, seed=7, num=GUESSES, direction="backward")
    writer.feed("cab")
    texts = [sample.text for sample in writer.generate_all(3)]
    engine = NumpyEngine(file.config, file.arrays, "backward")
    for guess in (0, 5, GUESSES - 1):
        for distance in range(4):
            logits, state = None, engine.start(1)
            for read_id in file.vocabulary.encode(texts[guess][3 - distance :] + "cab")[::-1]:
                logits, state = engine.step(np.array([read_id]), state)
            assert np.abs(ahead.logits[distance, guess] - logits[0]).max() < 1e-5
            assert np.abs(ahead.hidden[distance, guess] - state[-1][0, :8]).max() < 1e-5


# What is refused.


def test_a_one_way_model_says_how_to_get_one_that_reads_both(tmp_path: Path) -> None:
    file = small_model()
    save_model(tmp_path / "m", file)
    for door in (
        lambda: Filler(file),
        lambda: fill(file, "", "", length=1),
        lambda: fill(tmp_path / "m", "", "", length=1),
    ):
        with pytest.raises(SettingError, match=r"filling a gap needs .* `bidirectional=True`") as error:
            door()
        assert in_one_line(error)


def test_wrong_lengths_and_settings_are_errors() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"length": -1}, "length is -1: it must be 0 to 100,000"),
        ({"min_length": -2, "max_length": 3}, "min_length is -2: it must be 0 to 100,000"),
        ({"min_length": 4, "max_length": 3}, "a gap of 4 to 3 characters"),
        ({"length": 3, "min_length": 1}, "contradict"),
        ({"length": 3, "max_length": 3}, "contradict"),
        ({}, "how long is the gap"),
        ({"min_length": 2}, "how long is the gap"),
        ({"length": 3, "particles": 0}, "particles is 0: it must be 1 to"),
        ({"min_length": 8, "max_length": 12, "particles": 4}, "particles is 4: 5 lengths need as many"),
        ({"length": 3, "seed": -1}, "seed is -1: it must be 0 to"),
        ({"length": 3, "seed": 2**64}, "seed is 18446744073709551616: it must be 0 to"),
        ({"length": 3, "top_p": 2}, "top_p is 2.0"),
        ({"length": 3, "config": SampleConfig(), "top_k": 2}, "give top_k in the config or beside it, not both"),
    ]
    for settings, message in wrong:
        with pytest.raises(SettingError, match=message) as error:
            fill(model(), "ab", "cd", **settings)
        assert in_one_line(error)
    assert gap_lengths(3, None, None) == (3, 3)
    assert gap_lengths(None, None, 4) == (0, 4)
    assert gap_lengths(None, 2, 4) == (2, 4)


def test_unknown_characters_are_named(either_way: str) -> None:
    for before, after in (("aZ", "b"), ("a", "bZ"), ("a\u00e9Z", "")):
        with pytest.raises(DataError, match=r"unknown to the model: .*Z") as error:
            fill(model(), before, after, length=2, seed=1)
        assert "\n" not in str(error.value)
    plain = Filler(model(), seed=1).fill("ab", "cd", 2, num=3)
    assert plain.exact == (either_way == "exact")
    assert Filler(model(), seed=1, unknown="skip").fill("aZb", "ZcdZ", 2, num=3) == plain
    assert Filler(model(), seed=1, unknown="skip").fill("ab", "Z", 2).alternatives[0].log_prob_after == 0


def test_weights_too_large_to_compute_with_are_an_error() -> None:
    file = small_model(bidirectional=True)
    file.arrays["output.bias"][:2] = np.inf
    with pytest.raises(ChargenError, match="not finite"):
        fill(file, "ab", "cd", length=3, seed=1)


def test_a_filler_says_in_one_line_what_matters() -> None:
    filler = Filler(model(), seed=7, particles=50, temperature=0.5, unknown="skip")
    shape = f"{model().config.cell.upper()} {model().config.num_layers} x {model().config.hidden_size}"
    settings_ = "particles=50, seed=7, unknown='skip', temperature=0.5"
    assert repr(filler) == f"Filler({shape}, {len(model().vocabulary)} characters, {settings_})"
    assert len(repr(Filler(model(), ban="x" * 10_000))) < 350
