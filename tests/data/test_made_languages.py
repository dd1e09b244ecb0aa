"""Made languages: probabilities add up, entropies are exact, and what is drawn follows them."""

import json
import math
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chargen.data.language import END, Language
from chargen.data.made_languages import LANGUAGES, brackets, counter, embedded_reber, find_language
from chargen.errors import DataError

REST = "(?:XT*VP)*(?:SE|XT*VVE)"
REBER = f"B(?:TS*X{REST}|PT*V(?:VE|P{REST}))"
seeds = st.integers(0, 2**64 - 1)
names = st.sampled_from(list(LANGUAGES))
small = st.one_of(
    st.builds(counter, st.integers(1, 6), st.floats(0.01, 0.99)),
    st.builds(brackets, st.sampled_from([("()",), ("()", "[]")]), st.integers(1, 3), st.floats(0.01, 0.6)),
    st.builds(embedded_reber),
)


def is_grammatical(name: str, text: str) -> bool:
    """Whether a string is of a language, in another way than by its states."""
    if name == "embedded-reber":
        return re.fullmatch(f"B(?:T{REBER}T|P{REBER}P)E", text) is not None
    if name == "counter":
        return text == "a" * (len(text) // 2) + "b" * (len(text) // 2) and 2 <= len(text) <= 128
    deepest = max((text.count("(", 0, at) + text.count("[", 0, at) - text.count(")", 0, at) - text.count("]", 0, at)
                   for at in range(len(text) + 1)), default=0)  # fmt: skip
    while (shorter := text.replace("()", "").replace("[]", "")) != text:
        text = shorter
    return not text and deepest in range(1, 9)


def enumerated(language: Language, least: float) -> tuple[dict[str, float], list[tuple[float, object]]]:
    """All strings with their probabilities, but those whose beginnings are less likely than `least`; and these."""
    strings, cut, waiting = {}, [], [("", 1.0, language.start)]
    while waiting:
        begun, probability, state = waiting.pop()
        if probability < least:
            cut.append((probability, state))
            continue
        for share, symbol, after in language.moves(state):
            if symbol == END:
                assert begun not in strings, "there are two ways to write it"
                strings[begun] = probability * share
            else:
                waiting.append((begun + symbol, probability * share, after))
    return strings, cut


@given(small)
@example(counter(6))
def test_entropy_and_length_are_the_sums_over_all_strings(language: Language) -> None:
    strings, cut = enumerated(language, 2e-4)
    assert sum(strings.values()) + sum(share for share, _ in cut) == pytest.approx(1, abs=1e-12)
    rest = [(share, replace(language, start=state)) for share, state in cut]
    nats = -sum(p * math.log(p) for p in strings.values())
    nats += sum(share * (after.nats_per_string - math.log(share)) for share, after in rest)
    assert language.nats_per_string == pytest.approx(nats, abs=1e-9)
    for text, probability in list(strings.items())[:50]:
        assert language.log_prob(text) == pytest.approx(math.log(probability), abs=1e-9)
    if not cut:
        length = sum(p * (len(text) + 1) for text, p in strings.items())
        assert language.mean_length == pytest.approx(length, abs=1e-9)
        assert language.nats_per_character == pytest.approx(nats / length, abs=1e-12)


@given(small)
def test_entropy_and_length_are_what_a_walk_through_the_states_adds_up(language: Language) -> None:
    """The slow way: where the process is after each symbol, and what its next symbol is worth."""
    shares, nats, length = {language.start: 1.0}, 0.0, 0.0
    while sum(shares.values()) > 1e-12:
        after: Counter[object] = Counter()
        for state, share in shares.items():
            length += share
            for probability, symbol, target in language.moves(state):
                nats -= share * probability * math.log(probability)
                if symbol != END:
                    after[target] += share * probability
        shares = after
    assert (language.nats_per_string, language.mean_length) == pytest.approx((nats, length), abs=1e-6)


def test_worked_examples() -> None:
    """Seven choices between two symbols write a string of the embedded Reber grammar, on average; the rest is given."""
    reber, small_counter = LANGUAGES["embedded-reber"], counter(2, 0.75)
    assert reber.nats_per_string == pytest.approx(7 * math.log(2), abs=1e-12)
    assert reber.mean_length == pytest.approx(13, abs=1e-12)
    assert math.exp(reber.log_prob("BTBTXSETE")) == pytest.approx(1 / 16)
    assert reber.log_prob("BTBTXSEPE") == -math.inf
    assert [small_counter.log_prob(text) for text in ("ab", "aabb")] == [math.log(0.25), math.log(0.75)]
    assert small_counter.mean_length == 0.25 * 3 + 0.75 * 5
    assert math.exp(brackets(("()", "[]"), 1, 0.5).log_prob("()[]")) == pytest.approx(0.5 * 0.25 * 0.5)
    assert LANGUAGES["brackets"].log_prob("(" * 8 + ")" * 8) > -math.inf
    assert LANGUAGES["brackets"].log_prob("(" * 9 + ")" * 9) == -math.inf


@pytest.mark.parametrize("name", LANGUAGES)
def test_what_is_drawn_is_as_long_and_as_likely_as_the_entropy_says(name: str) -> None:
    language = LANGUAGES[name]
    strings = language.draw(2_000, seed=3)
    for measured, exact in (
        ([-language.log_prob(text) for text in strings], language.nats_per_string),
        ([len(text) + 1 for text in strings], language.mean_length),
    ):
        assert abs(np.mean(measured) - exact) < 4 * np.std(measured) / math.sqrt(len(strings))


def test_each_string_is_drawn_as_often_as_it_is_likely() -> None:
    language = counter(4, 0.6)
    strings = language.draw(4_000, seed=1)
    for text, count in Counter(strings).items():
        share = math.exp(language.log_prob(text))
        assert abs(count - 4_000 * share) < 4 * math.sqrt(4_000 * share * (1 - share))
    assert set(strings) == {"a" * n + "b" * n for n in (1, 2, 3, 4)}


@given(names, seeds)
def test_what_is_drawn_is_of_the_language_and_what_is_spoiled_is_not(name: str, seed: int) -> None:
    language = LANGUAGES[name]
    for index, text in enumerate(language.draw(5, seed)):
        bad = language.spoil(text, seed, index)
        assert is_grammatical(name, text)
        assert not is_grammatical(name, bad)
        assert len(bad) == len(text)
        assert sum(map(str.__ne__, text, bad)) == 1
        assert set(bad) <= set(language.symbols)


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_string_with_any_one_symbol_changed_is_not_of_the_language(name: str) -> None:
    language = LANGUAGES[name]
    for text in set(language.draw(20, 0)):
        for place, symbol in enumerate(text):
            for other in language.symbols.replace(symbol, ""):
                assert not is_grammatical(name, text[:place] + other + text[place + 1 :])


def test_every_change_of_a_string_is_as_likely() -> None:
    changed = Counter(LANGUAGES["embedded-reber"].spoil("BTBTXSETE", 0, index) for index in range(2_700))
    assert len(changed) == 9 * 6
    assert all(abs(count - 50) < 5 * 7.1 for count in changed.values())


@given(names, st.data())
def test_a_string_is_likely_only_where_it_is_of_the_language(name: str, data: st.DataObject) -> None:
    language = LANGUAGES[name]
    text = data.draw(st.text(st.sampled_from(language.symbols + "x"), max_size=10))
    assert (language.log_prob(text) > -math.inf) == is_grammatical(name, text)
    drawn = language.draw(1, seed=len(text))[0]
    nats = language.log_probs(drawn + text)
    assert len(nats) == len(drawn + text) + 1
    assert np.isfinite(nats[: len(drawn)]).all()
    wrong = np.flatnonzero(np.isinf(nats))
    assert wrong.tolist() == list(range(len(nats) - len(wrong), len(nats)))


@given(names, seeds, st.integers(0, 5), st.integers(0, 5))
def test_a_string_depends_on_seed_and_number_only(name: str, seed: int, first: int, number: int) -> None:
    language = LANGUAGES[name]
    assert language.draw(first, seed) + language.draw(number, seed, first) == language.draw(first + number, seed)
    assert language.draw(20, seed) != language.draw(20, seed ^ 1)


def test_long_strings_are_drawn_symbol_by_symbol_as_short_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    strings = LANGUAGES["brackets"].draw(40, 5)
    monkeypatch.setattr("chargen.data.language.DRAWS", 3)
    assert LANGUAGES["brackets"].draw(40, 5) == strings


@given(names, st.integers(0, 9))
def test_lines_are_strings_or_labelled_strings_of_blocks_of_any_size(name: str, seed: int) -> None:
    language = LANGUAGES[name]
    plain = list(language.lines(7, seed))
    assert "".join(plain).split("\n") == [*language.draw(7, seed), ""]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chargen.data.language.BLOCK", 3)
        assert list(language.lines(7, seed)) == plain
    rows = [json.loads(line) for line in language.lines(7, seed, labelled=True)]
    assert [row["label"] for row in rows] == ["good", "bad"] * 3 + ["good"]
    assert [row["text"] for row in rows[::2]] == language.draw(7, seed)[::2]
    assert [is_grammatical(name, row["text"]) for row in rows] == [True, False] * 3 + [True]


def test_golden_strings() -> None:
    """A seed makes the same corpus in every version."""
    assert LANGUAGES["embedded-reber"].draw(2, 0) == ["BPBPTTVPSEPE", "BPBPVPXVPSEPE"]
    assert LANGUAGES["counter"].draw(3, 0)[2] == "aaabbb"
    assert LANGUAGES["brackets"].draw(1, 0) == ["[][][()()][([[[]]])]"]
    assert LANGUAGES["counter"].spoil("aaabbb", 0, 2) == "aabbbb"


def test_another_name_is_an_error_that_names_the_languages() -> None:
    assert find_language("counter") is LANGUAGES["counter"]
    with pytest.raises(DataError, match="no language 'countr'; did you mean counter"):
        find_language("countr")
    with pytest.raises(DataError, match="there are embedded-reber, counter, brackets"):
        find_language("?")
