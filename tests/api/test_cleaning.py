"""Every text that enters is what training saw: with the line ends and in the normal form of the model's own text."""

import unicodedata
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import chargen
from chargen import Sampler, clean, evaluate, fill, score
from chargen.data.reading_config import ReadingConfig
from chargen.decoding.choose import SampleConfig
from chargen.errors import DataError, SettingError
from chargen.evaluation.dynamic import adapt_model
from chargen.infill.fill import Filler
from chargen.infill.template import Template, fill_gaps
from chargen.storage.model_file import ModelFile, build_model
from tests.small_models import small_model

LETTERS = "\n abcde\u00e9\uac00"
READING = ReadingConfig(newline="lf", normalize="NFC")
raw = st.lists(
    st.sampled_from(["a", "b", "e\u0301", "\u00e9", "\r\n", "\r", "\n", "\u1100\u1161", "\uac00"]), max_size=12
)
texts = raw.map("".join)


@cache
def model(unit: str = "character") -> ModelFile:
    return replace(
        small_model("gru", hidden_size=8, characters=LETTERS, unit=unit, bidirectional=True), reading=READING
    )


def written(file: ModelFile, prime: str = "", length: int = 200, **settings: Any) -> str:
    sampler = Sampler(file, seed=1, **settings)
    sampler.feed(prime)
    return sampler.generate(length)


@given(texts, texts, st.sampled_from(["character", "byte"]))
def test_every_call_takes_a_text_as_training_would_have_read_it(text: str, other: str, unit: str) -> None:
    file, done = model(unit), clean(text, READING)
    assert done == unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    assert clean(done, READING) == done
    assert written(file, text, 9) == written(file, done, 9)
    assert score(file, text) == score(file, done)
    if len(done) > 1:
        network = build_model(file)
        ours, theirs = (evaluate(network, file.vocabulary, variant, reading=READING) for variant in (text, done))
        assert ours == theirs
    config = {"length": 1, "seed": 0}
    assert fill(file, text, other, **config) == fill(file, done, clean(other, READING), **config)


def test_a_ban_of_a_decomposed_letter_bans_the_letter() -> None:
    for letter in ("\u00e9", "e\u0301"):
        text = written(model(), ban=letter)
        assert "\u00e9" not in text
        assert "e" in text
        (gap,) = fill(model(), "ab", "cd", length=1, seed=0, num=1, ban="\n abcd\uac00" + letter).alternatives
        assert gap.text == "e"


@pytest.mark.parametrize(("given_", "meant"), [("e\u0301", "\u00e9"), ("\r\n", "\n"), ("\u1100\u1161", "\uac00")])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_stop_text_fires_in_any_form(given_: str, meant: str, direction: str) -> None:
    text = written(model(), stop=(given_,), direction=direction)
    assert text == written(model(), stop=(meant,), direction=direction)
    assert 0 < len(text) < 200
    assert (text[0] if direction == "backward" else text[-1]) == meant
    assert Filler(model(), stop=(given_,)).config.stop == (meant,)


def test_the_text_around_gaps_is_given_back_as_it_was_read() -> None:
    (filled,) = fill_gaps(Filler(model(), seed=0), Template.parse("ae\u0301___{1}\r\nb___{1}"))
    assert filled.text.startswith("a\u00e9")
    assert filled.text[3:5] == "\nb"


def test_what_a_model_learns_before_it_writes_is_cleaned() -> None:
    ours, theirs = (adapt_model(model(), text, 1) for text in ("abe\u0301\r\nab", "ab\u00e9\nab"))
    assert all((ours.arrays[name] == theirs.arrays[name]).all() for name in theirs.arrays)


def test_a_model_that_says_nothing_of_its_reading_gets_texts_as_they_are() -> None:
    file = model()
    network = build_model(file)
    plain = Sampler(network, vocabulary=file.vocabulary, seed=0)
    cleaning = Sampler(network, vocabulary=file.vocabulary, reading=READING, seed=0)
    cleaning.feed("\r\n")
    with pytest.raises(DataError, match="U\\+000D"):
        plain.feed("\r\n")
    with pytest.raises(DataError, match="U\\+000D"):
        evaluate(network, file.vocabulary, "ab\r\n", unknown="error")
    with pytest.raises(SettingError, match="reading and begin: give none"):
        Sampler(file, reading=READING)
    assert chargen.clean("\r\n", None) == "\r\n"


def test_a_text_in_pieces_is_cleaned_whole_first() -> None:
    whole, pieces = Sampler(model(), seed=3), Sampler(model(), seed=3)
    text = "abe\u0301\r\nb"
    whole.feed(text)
    for piece in clean(text, pieces.reading):
        pieces.feed(piece)
    assert whole.generate(20) == pieces.generate(20)


# A stop text that cannot be written is an error


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"stop": ("ab", "a\u2019")},
            r"stop is 'a\u2019', .*does not have '\u2019' \(U\+2019\); give a text without it",
        ),
        ({"stop": ("aB",)}, r"does not have 'B' \(U\+0042\); write 'b' for 'B'"),
        ({"stop": ("abc",), "ban": "xc"}, r"stop is 'abc', which is never written: `ban` forbids 'c'"),
        ({"stop": ("abcab",), "no_repeat": 2}, r"`no_repeat=2` forbids a run in it"),
        ({"stop": ("x",), "folded": "xyz"}, r"does not have 'x' \(U\+0078\)"),
        ({"stop": ("a\udc80",), "unit": "byte"}, r"does not have '\\udc80'"),
    ],
)
def test_a_stop_text_that_can_never_be_written_is_refused(config: dict[str, Any], words: str) -> None:
    kind = {name: config.pop(name) for name in ("folded", "unit") if name in config}
    file = small_model(characters="abc ", bidirectional=True, **kind)
    for door in (Sampler, Filler):
        with pytest.raises(SettingError, match=words) as error:
            door(file, SampleConfig(**config))
        assert error.value.setting == "stop"
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", [{"ban": "xyz"}, {"stop": ("abab",), "no_repeat": 3}, {"stop": ("aa",), "ban": "b"}])
def test_what_can_be_written_is_no_error(config: dict[str, Any]) -> None:
    Sampler(small_model(characters="abc "), **config).generate(3)


def test_any_character_may_end_a_text_in_bytes() -> None:
    Sampler(small_model(unit="byte"), stop=("\u2019", "\U0001f600"), seed=0).generate(3)
