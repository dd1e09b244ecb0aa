"""Filling a gap: enumeration against brute force, particles against enumeration, and what the guesses are made of."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chargen.decoding.choose import SampleConfig
from chargen.errors import ChargenError, DataError, SettingError
from chargen.infill import enumeration
from chargen.infill.fill import Filler, fill, gap_lengths
from chargen.sampling.constraints import Constraints
from chargen.sampling.stream import Stream
from chargen.storage.model_file import save_model
from tests import naive
from tests.infill.gaps import ALL, CONFIGS, LETTERS, model, table
from tests.pairs import some
from tests.small_models import as_bf16, small_model


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
@pytest.mark.parametrize("run", some(range(1, 7), 6))
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


def test_alternatives_are_distinct_and_come_first_whatever_their_number(either_way: str) -> None:
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
