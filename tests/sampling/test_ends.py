"""Where a piece of text ends: worked examples of several scripts, and what is true of every text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.errors import SettingError
from chargen.sampling.ends import MAX_PIECE, Ending
from tests.pieces import CASES, NASTY, cut

texts = st.text(NASTY, max_size=60)
untils = st.sampled_from([*MAX_PIECE])


@pytest.mark.parametrize(("until", "before", "text"), CASES)
def test_pieces(until: str, before: str, text: str) -> None:
    assert cut(until, before, text.replace("|", "")) == text


@given(untils, texts, texts)
def test_a_piece_holds_something_and_no_blank_behind_it(until: str, before: str, coming: str) -> None:
    *pieces, _ = cut(until, before, coming).split("|")
    assert all(piece.strip() for piece in pieces)
    assert not any(piece[-1] in " \t\n\u00a0\u3000\x85" for piece in pieces)


@given(untils, texts)
def test_a_piece_that_ends_here_is_all_that_came(until: str, coming: str) -> None:
    ending = Ending(until, "")
    handed = ""
    for character in coming:
        handed += ending.add(character)
        if ending.ended:
            assert ending.end() == ""
            return
    assert handed + ending.end() == ending.text == coming
    assert (ending.add("a"), ending.end(), ending.text) == ("", "", coming)


@pytest.mark.parametrize("until", MAX_PIECE)
@pytest.mark.parametrize("endless", ["x", " ", "x" + " " * 9])
def test_what_has_no_end_is_cut(until: str, endless: str) -> None:
    ending = Ending(until, "")
    handed = "".join(ending.add(character) for character in endless * 9_999)
    assert len(handed) == (1 if until == "word" and len(endless) > 1 else MAX_PIECE[until])


def test_there_is_no_other_piece() -> None:
    with pytest.raises(SettingError, match="until is 'page': it must be one of word, sentence, paragraph"):
        Ending("page", "")
