"""How the lines of a draft are laid out: rows are full, words are whole, every character has its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.utils import get_cwidth

from chargen.cli.draft_view import lay_out
from tests.terminals import harmful

lines = st.text("abc de,\t漢字。é\u0301\u202e\x1b\r\u200dب", max_size=80) | st.text(
    st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=30
)
widths = st.integers(12, 50)


def rows(line: str, width: int) -> list[str]:
    """What a terminal makes of the cells: it begins a row where a character does not fit."""
    shown, column = [""], 0
    for character in "".join(text for _, text in lay_out(line, width).cells):
        if column + get_cwidth(character) > width:
            shown.append("")
            column = 0
        shown[-1] += character
        column += get_cwidth(character)
    return shown


@given(lines, widths)
def test_every_row_but_the_last_is_full_and_steers_nothing(line: str, width: int) -> None:
    shown = rows(line, width)
    assert {get_cwidth(row) for row in shown[:-1]} <= {width}
    assert get_cwidth(shown[-1]) <= width
    assert not harmful("".join(shown))


@given(lines, widths)
def test_every_character_knows_its_cell(line: str, width: int) -> None:
    row = lay_out(line, width)
    text = "".join(cell for _, cell in row.cells)
    assert len(row.starts) == len(row.columns) == len(line) + 1
    assert row.starts == sorted(row.starts)
    assert row.starts[-1] == len(text)
    for index, character in enumerate(line):
        if character.isprintable():
            assert text[row.starts[index]] == character
            assert get_cwidth(text[: row.starts[index]]) == row.columns[index]


@given(st.lists(st.text("abcdefg", min_size=1, max_size=11), max_size=30), widths)
def test_words_are_whole(words: list[str], width: int) -> None:
    shown = rows(" ".join(words), width)
    assert "".join(f"{row} " for row in shown).split() == words
    assert not any(row.startswith(" ") for row in shown)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("the quick brown fox", ["the quick   ", "brown fox"]),
        ("a" * 14, ["a" * 12, "aa"]),
        ("漢" * 7, ["漢" * 6, "漢"]),
        ("a" + "漢" * 7, ["a" + "漢" * 5 + " ", "漢漢"]),
        ("abcdefghij \x1b[2J", ["abcdefghij  ", r"\x1b[2J"]),
        ("a\tb\t\tc", ["a   b       ", "c"]),
        ("ab cd e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301 x", ["ab cd       ", "e\u0301" * 6 + " x"]),
    ],
)
def test_worked_examples(line: str, expected: list[str]) -> None:
    assert rows(line, 12) == expected
