"""A text without a length ends with a line or a word; a text with a length has that length."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import Sampler
from chargen.data.vocabulary import Vocabulary
from chargen.sampling.rounding import MAX_LINE, MAX_WORD, Rounding
from chargen.storage.model_file import ModelFile
from tests import naive
from tests.small_models import small_model

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@cache
def model(characters: str, unit: str = "character", often: str = "") -> ModelFile:
    """A model that writes some characters rarely, so that lines and words are long, or often."""
    file = small_model(characters=characters, unit=unit, scale=1.0, bidirectional=True)
    for character in "\n ":
        if unit == "byte" or character in file.vocabulary.characters:
            file.arrays["output.bias"][file.vocabulary.encode(character)] += 2.0 if character in often else -3.0
    return file


def texts(sampler: Sampler, length: int) -> list[str]:
    """In the order of writing."""
    written = [""] * sampler.num
    for characters in sampler.write(length, rounded=True):
        for character in characters:
            written[character.stream] += character.character
    return written


@given(
    st.sampled_from([LETTERS + "\n ", LETTERS + "\n", LETTERS + " ", LETTERS, "\n", "a\t"]),
    st.sampled_from(["", "\n", " ", "\n "]),
    st.sampled_from(["forward", "backward"]),
    st.sampled_from(["", "\n", " \n"]),
    st.integers(1, 60),
    st.integers(1, 3),
)
def test_texts_end_where_lines_or_words_do(
    characters: str, often: str, direction: str, ban: str, length: int, num: int
) -> None:
    if set(characters) <= set(ban):
        return
    given_: dict[str, Any] = {"seed": 1, "num": num, "direction": direction, "ban": ban}
    file = model(characters, often=often)
    line = MAX_LINE * ("\n" in set(characters) - set(ban))
    word = MAX_WORD * bool(set(characters) & set(" \t") - set(ban))
    plain = [sample.text for sample in Sampler(file, **given_).generate_all(length + MAX_LINE + MAX_WORD + 1)]
    plain = [text[::-1] for text in plain] if direction == "backward" else plain
    assert texts(Sampler(file, **given_), length) == [naive.rounded(text, length, line, word) for text in plain]


def test_in_bytes_characters_are_counted() -> None:
    file = model(LETTERS, "byte")
    (text,) = texts(Sampler(file, seed=1), 20)
    assert 20 <= len(text) <= 20 + MAX_LINE + MAX_WORD
    assert text == naive.rounded(Sampler(file, seed=1).generate(20 + MAX_LINE + MAX_WORD + 1), 20, MAX_LINE, MAX_WORD)


def test_a_state_stands_where_the_rounded_text_ends() -> None:
    file = model(LETTERS + "\n ")
    rounded, plain = Sampler(file, seed=1), Sampler(file, seed=1)
    (text,) = texts(rounded, 30)
    assert plain.generate(len(text)) == text
    assert rounded.hidden_and_logits()[1].tobytes() == plain.hidden_and_logits()[1].tobytes()
    assert rounded.generate(20) == plain.generate(20)


def test_a_stop_text_and_a_length_are_as_ever() -> None:
    file = model(LETTERS + "\n ")
    whole = Sampler(file, seed=1).generate(50)
    (text,) = texts(Sampler(file, seed=1, stop=(whole[10:13],)), 30)
    assert text == whole[: whole.index(whole[10:13]) + 3]
    assert [len(Sampler(file, seed=1).generate(length)) for length in (0, 1, 49)] == [0, 1, 49]
    assert texts(Sampler(file, seed=1), 0) == [""]


@pytest.mark.parametrize("excess", [0, 5])
def test_without_rounding_a_text_ends_at_its_length(excess: int) -> None:
    assert [Rounding().ends("a", at) for at in (-2, -1, 0)] == [False, False, True]
    ends = [Rounding(2, 2).ends(character, excess) for character in "a\n "]
    assert ends == ([False, True, False] if excess == 0 else [False, True, True])


def test_what_ends_lines_and_words_is_what_a_model_can_write() -> None:
    known = [Vocabulary(""), Vocabulary("\n"), Vocabulary("\u3000"), Vocabulary("\n "), Vocabulary(unit="byte")]
    roundings = [Rounding.of(vocabulary, "") for vocabulary in known]
    assert roundings == [
        Rounding(),
        Rounding(MAX_LINE),
        Rounding(0, MAX_WORD),
        Rounding(MAX_LINE, MAX_WORD),
        Rounding(MAX_LINE, MAX_WORD),
    ]
    assert Rounding.of(known[-1], "\n ") == Rounding()
