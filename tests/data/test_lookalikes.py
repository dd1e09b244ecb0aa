"""Which known character was meant by an unknown one."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.data.lookalikes import LOOKALIKES, find_lookalike, suggest_lookalikes
from chargen.data.vocabulary import Vocabulary
from chargen.errors import DataError

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("text", "known", "instead"),
    [
        ("it\u2019s", "'its", "\"'\" for '\u2019'"),
        ("it's", "\u2019its", "'\u2019' for \"'\""),
        ("\u201cit\u201d", '"it', "'\"' for '\u201c', '\"' for '\u201d'"),
        ("a\u2013b\u2014c", "abc-", "'-' for '\u2013', '-' for '\u2014'"),
        ("a\u00a0b", "ab ", "' ' for '\\xa0'"),
        ("a\tb", "ab ", "' ' for '\\t'"),
        ("e\u0301t\u00e9", "et\u00e9", "'\u00e9' for 'e\u0301'"),
        ("\u00e9t", "et\u0301", "'e\u0301' for '\u00e9'"),
        ("\u00e9t", "et", "'e' for '\u00e9'"),
        ("\uff21\uff01", "A!", "'!' for '\uff01', 'A' for '\uff21'"),
        ("a!", "a\uff01", "'\uff01' for '!'"),
        ("Ab", "ab", "'a' for 'A'"),
        ("\u00c9", "\u00e9e", "'\u00e9' for '\u00c9'"),
        ("\ufb01n\u2026", "fin.", "'...' for '\u2026', 'fi' for '\ufb01'"),
    ],
)
def test_the_likely_twin_is_offered_before_skipping(text: str, known: str, instead: str) -> None:
    with pytest.raises(DataError, match="unknown to the model: ") as error:
        Vocabulary("".join(sorted(known))).encode(text)
    message = str(error.value)
    assert f'; write {instead}; `unknown="skip"`' in message
    assert "\n" not in message


def test_where_nothing_is_alike_nothing_is_offered() -> None:
    with pytest.raises(DataError, match=r"first at position 1; `unknown=\"skip\"`"):
        Vocabulary("ab").encode("a\u5b57b")
    assert suggest_lookalikes("\u0301a", [0], "a") == suggest_lookalikes("x\u0301", [1], "x") == ""


@given(st.characters(), st.sets(st.characters(exclude_categories=["Cs"]), max_size=8))
def test_a_twin_is_made_of_known_characters_only(character: str, known: set[str]) -> None:
    unknown, instead = find_lookalike("a" + character, 1, known - {character})
    assert set(instead) <= known - {character}
    assert unknown in (character, "a" + character)


@given(st.sampled_from(LETTERS + "\u00e9\u00fc\u0436"))
def test_every_form_of_a_letter_leads_to_the_one_that_is_known(letter: str) -> None:
    for form in ("NFC", "NFD"):
        known = set(unicodedata.normalize(form, letter))
        for other in (unicodedata.normalize("NFC", letter), letter.upper()):
            assert other in known or set(find_lookalike(other, 0, known)[1]) <= known != set()


def test_no_character_is_in_two_groups() -> None:
    assert len(set("".join(LOOKALIKES))) == len("".join(LOOKALIKES))
