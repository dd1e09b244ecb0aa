"""Primes, stop texts and bans in every script: no crash, no unknown symbol written, and every text is valid UTF-8."""

import unicodedata
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.errors import ChargenError
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import ModelFile
from tests.small_models import small_model

SCRIPTS = {
    "latin": "abcdeéüß ƒŋ",
    "cyrillic": "абвгдёжїц ",
    "arabic": "ابتثجحخ لا\u200d",
    "hebrew": "אבגדהוז\u05b8 ",
    "devanagari": "कखगघ\u094d\u093f\u200c ",
    "thai": "กขคง\u0e34\u0e48",
    "han": "詩酒花月山水𠀀𠮷",
    "kana": "あいうえおがパ゛",
    "hangul": "한글가각\u1100\u1161",
    "emoji": "😀👩\u200d👩\u200d👧🏽🇩🇪\ufe0f",
    "marks": "e\u0301\u0323a\u0308o",
    "controls": "\0\t\r\n\x1b\x7f\x85\u2028\u202e\ufeff",
    "far ends": "\ud7ff\ue000\uffff\U00010000\U0010ffff\ufffd",
}
CHARACTERS = "".join(dict.fromkeys("".join(SCRIPTS.values())))
KNOWN = CHARACTERS[::2]
"""What the model of characters has met; it folds a few of the others, and has never met the rest."""
FOLDED = "".join(sorted(CHARACTERS[1:40:2]))

texts = st.text(st.sampled_from(CHARACTERS) | st.characters(exclude_categories=["Cs"]), max_size=12)
bans = st.text(st.sampled_from(CHARACTERS), max_size=8)
UNITS = ("character", "byte")


@cache
def model(unit: str, both: bool) -> ModelFile:
    return small_model("gru", num_layers=1, hidden_size=8, unit=unit, characters="".join(sorted(KNOWN)),
                       folded=FOLDED, bidirectional=both)  # fmt: skip


def check_line(message: str) -> None:
    assert len(message.splitlines()) == 1
    assert len(message) < 500


def check(
    unit: str, reverse: bool, unknown: str, prime: str, stop: list[str], ban: str, no_repeat: int, seed: int
) -> None:
    try:
        sampler = Sampler(
            model(unit, reverse), seed=seed, stop=tuple(stop), ban=ban, no_repeat=no_repeat, num=2,
            direction="backward" if reverse else "forward",
        )  # fmt: skip
        sampler.feed(prime, unknown)
        samples = sampler.generate_all(24)
    except ChargenError as error:
        check_line(str(error))
        return
    for sample in samples:
        assert sample.text.encode("utf-8").decode("utf-8") == sample.text
        assert not set(sample.text) & set(ban)
        assert len(sample.text) <= 24
        if unit == "character":
            assert set(sample.text) <= set(KNOWN)
        written = sample.text[::-1] if reverse else sample.text
        for end in stop:
            end = end[::-1] if reverse else end
            assert end not in written[:-1] or not end, "it goes on behind a stop text"
        if sample.stopped:
            assert any(written.endswith(end[::-1] if reverse else end) for end in stop)


def check_stop(unit: str, reverse: bool, prime: str, ban: str, no_repeat: int, seed: int) -> None:
    """A piece of what is written ends the same text where it first ends there, if it is a stop text."""

    def write(stop: tuple[str, ...]) -> list[str]:
        sampler = Sampler(
            model(unit, reverse), seed=seed, stop=stop, ban=ban, no_repeat=no_repeat, num=2,
            direction="backward" if reverse else "forward",
        )  # fmt: skip
        sampler.feed(prime, "skip")
        return [sample.text[::-1] if reverse else sample.text for sample in sampler.generate_all(24)]

    try:
        free = write(())
    except ChargenError:  # a ban of everything, or no way on without a run again
        return
    at, length = seed % 20, 1 + seed % 3
    piece = free[0][at : at + length]
    for text, whole in zip(write((piece[::-1] if reverse else piece,)), free, strict=True):
        end = whole.find(piece)
        assert text == (whole if end < 0 else whole[: end + length])


CASES = {
    "unit": st.sampled_from(UNITS),
    "reverse": st.booleans(),
    "unknown": st.sampled_from(["error", "skip", "replace"]),
    "prime": texts,
    "stop": st.lists(texts, max_size=3),
    "ban": bans,
    "no_repeat": st.sampled_from([0, 0, 1, 3, 20]),
    "seed": st.integers(0, 2**64 - 1),
}


@settings(max_examples=50)
@given(**CASES)
def test_text_of_any_script_is_fed_stopped_at_and_banned(
    unit: str, reverse: bool, unknown: str, prime: str, stop: list[str], ban: str, no_repeat: int, seed: int
) -> None:
    check(unit, reverse, unknown, prime, stop, ban, no_repeat, seed)
    check_stop(unit, reverse, prime, ban, no_repeat, seed)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(**CASES)
def test_ten_thousand_texts_of_any_script_are_fed_stopped_at_and_banned(
    unit: str, reverse: bool, unknown: str, prime: str, stop: list[str], ban: str, no_repeat: int, seed: int
) -> None:
    check(unit, reverse, unknown, prime, stop, ban, no_repeat, seed)
    check_stop(unit, reverse, prime, ban, no_repeat, seed)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("unit", UNITS)
def test_a_script_is_written_again_in_whole_characters(script: str, unit: str) -> None:
    characters = SCRIPTS[script]
    file = small_model("gru", num_layers=1, hidden_size=8, unit=unit, characters="".join(sorted(set(characters))))
    sampler = Sampler(file, seed=3, num=4)
    sampler.feed(characters)
    for sample in sampler.generate_all(60):
        assert len(sample.text) == 60
        assert sample.text.encode().decode() == sample.text
        assert not any(unicodedata.category(sign) == "Cs" for sign in sample.text)
        assert unit == "byte" or set(sample.text) <= set(characters)
