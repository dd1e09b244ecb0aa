"""Where a piece of text ends: worked examples of several scripts, and what is true of every text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.errors import SettingError
from chargen.sampling.ends import MAX_PIECE, Ending

texts = st.text('aé.!?"”)漢。」 \n\r\tب؟', max_size=60)
untils = st.sampled_from([*MAX_PIECE])


def piece(until: str, before: str, coming: str) -> str:
    ending = Ending(until, before)
    for character in coming:
        if ending.ended:
            break
        ending.add(character)
    return ending.text if ending.ended else f"{ending.text}|"


@pytest.mark.parametrize(
    ("before", "coming", "expected"),
    [
        ("The qu", "ick fox", "ick "),
        ("The", " quick fox", " quick "),
        ("The ", "quick\nfox", "quick\n"),
        ("", "\n\n  fox ", "\n\n  fox "),
        ("", "don't, he", "don't, "),
        ("床", "前明月", "前"),
        ("", "fox床", "fox"),
        ("", " ，床", " ，"),
        ("", "안녕 하", "안녕 "),
        ("", "سلام عليكم", "سلام "),
    ],
)
def test_words(before: str, coming: str, expected: str) -> None:
    assert piece("word", before, coming) == expected


@pytest.mark.parametrize(
    ("before", "coming", "expected"),
    [
        ("He", " went. Then", " went. "),
        ("He", " said: “Go!” Then", " said: “Go!” "),
        ("He", " went (home.)\nThen", " went (home.)\n"),
        ("It is 3", ".5 m. And", ".5 m. "),
        ("A line,", "\nanother line. And", "\nanother line. "),
        ("A heading", "\n\nText", "\n\nText|"),
        ("A head", "ing\n\nText", "ing\n\n"),
        ("", "他说：“走吧。”她走了。", "他说：“走吧。”"),
        ("", "床前明月光。疑是", "床前明月光。"),
        ("", "ماذا؟ نعم", "ماذا؟ "),
        ("", "वह गया। फिर", "वह गया। "),
        ("Done.", "\nNext one. And", "\nNext one. "),
    ],
)
def test_sentences(before: str, coming: str, expected: str) -> None:
    assert piece("sentence", before, coming) == expected


LONG = "It was the best of times, it was the worst of times. " * 4


@pytest.mark.parametrize(
    ("before", "coming", "expected"),
    [
        ("To be,\n", "or not\nto be.\n\nNext", "or not\nto be.\n\n"),
        ("", "or not\nto be.\r\n\r\nNext", "or not\nto be.\r\n\r\n"),
        (f"{LONG}\n", "He went.\nNext", "He went.\n"),
        ("", f"{LONG}\nNext", f"{LONG}\n"),
        (f"{LONG}\n\n", f"{LONG}\nstill.\n\nNext", f"{LONG}\nstill.\n\n"),
        ("", "床前明月光" * 13 + "\n疑", "床前明月光" * 13 + "\n"),
        ("end.\n", "\nNext\n\n", "\nNext\n\n"),
    ],
)
def test_paragraphs(before: str, coming: str, expected: str) -> None:
    assert piece("paragraph", before, coming) == expected


def test_a_sentence_ends_with_its_paragraph() -> None:
    assert piece("sentence", f"{LONG}\n", "Chapter one\nIt was") == "Chapter one\n"


@given(untils, texts, texts)
def test_a_piece_is_a_beginning_of_what_comes_and_holds_a_word(until: str, before: str, coming: str) -> None:
    ending = Ending(until, before)
    handed = "".join(ending.add(character) for character in coming)
    assert handed == ending.text == coming[: len(handed)]
    assert ending.ended or handed == coming
    assert not ending.ended or ending.text.strip()


@given(texts, texts)
def test_a_word_ends_first(before: str, coming: str) -> None:
    word, *longer = (piece(until, before, coming).rstrip("|") for until in MAX_PIECE)
    assert all(text.startswith(word) for text in longer)


@pytest.mark.parametrize("until", MAX_PIECE)
def test_what_has_no_end_is_cut(until: str) -> None:
    assert len(piece(until, "", "x" * 9_999)) == MAX_PIECE[until]


def test_there_is_no_other_piece() -> None:
    with pytest.raises(SettingError, match="until is 'page': it must be one of word, sentence, paragraph"):
        Ending("page", "")
