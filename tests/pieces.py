"""Texts in pieces: where words, sentences and paragraphs end, whoever looks for it, the package or a page."""

import random

from chargen.sampling.ends import MAX_PIECE, Ending

LINE = "It was the best of times, it was the worst of times. " + "x" * 60
CASES = [
    ("word", "The qu", "ick| fox| jumped|. Then| she"),
    ("word", "The ", "quick|\nfox| "),
    ("word", "", "\n\n  fox|  "),
    ("word", "", "'tis| so|, “he| said|."),
    ("word", "", " - \n— well-known's| end-"),
    ("word", "", "a|--b| -c|.5| _d_| "),
    ("word", "", "dogs|' tails| don't| don’t|' "),
    ("word", "", "e\u0301te\u0301| \u0301a|."),
    ("word", "", "漢|字|か|な|カタカナ|で|。「漢|」"),
    ("word", "", "abc|漢|'a|-漢|-"),
    ("word", "床", "前|明|月|, ก|า\u0301|a|ไ"),
    ("word", "", "안녕| 하세요| 3|.14|!"),
    ("word", "", "می\u200cروم| سلام|؟"),
    ("word", "", "שלום| עולם|\r\n"),
    ("sentence", "He", " sat.| She"),
    ("sentence", "He", " said: “Go!”| Then he (went.)|\nThen"),
    ("sentence", "He", ' said "No!"| twice ("no.").|\u00a0'),
    ("sentence", "Pi is 3", ".14.| So it"),
    ("sentence", "", "What?!| No…|  She lay.| "),
    ("sentence", "He sat.", " She lay.| It"),
    ("sentence", "He sat.", "” she said.| And"),
    ("sentence", "", "„Er ging.“| »Ja.«| Dann"),
    ("sentence", "A line,", "\nanother line.| And"),
    ("sentence", "", "no stop|\n\nNext"),
    ("sentence", "", "他说：“走吧。”|她走了。|“你？！”|他"),
    ("sentence", "", "床前明月光。|\n疑是。。|他"),
    ("sentence", "", "ماذا؟| نعم۔| वह गया।| फिर"),
    ("sentence", LINE, "x|\nHe went"),
    ("paragraph", "", "One.\nTwo.|\n\nThree|\n\n\nFour\n"),
    ("paragraph", "One.", "\n\nTwo.|\n\nThree"),
    ("paragraph", "", "One.| \n \t\n  Two,\n  three.|\n\u3000\n"),
    ("paragraph", "", "One.|\r\n\r\nTwo.\r\n"),
    ("paragraph", f"\n{LINE}", f"y|\nShort.\n{LINE}|\nShort.\n"),
    ("paragraph", f"{LINE}\n", f"y\n{LINE}|\n"),
    ("paragraph", "x" * 98, "y\nz"),
    ("paragraph", "x" * 98, "y|  \nz"),
    ("paragraph", "", "漢" * 49 + "\n" + "漢" * 50 + "|\n字"),
]
"""End of what, the text before, and the text that comes, with "|" where a piece of it ends."""
NASTY = "aé3_ก\u0301漢カ가'’-.!…。？\"”“»«)」\u200c \t\u00a0\u3000\x1c\x85\ufeff😀𠀀\n\n"


def random_cases(number: int) -> list[tuple[str, str, str]]:
    """As many texts of all that means something, or looks like it: end of what, the text before, and the text.

    Args:
        number: how many.
    """
    chance = random.Random(number)

    def text() -> str:
        runs = (chance.choice(NASTY) * chance.choice([1, 1, 1, 2, 50]) for _ in range(chance.randint(0, 20)))
        return "".join(runs)

    return [(chance.choice([*MAX_PIECE]), text(), text()[:90]) for _ in range(number)]


def cut(until: str, before: str, text: str) -> str:
    """Cut a text where pieces end, each of which goes on from those before it.

    Args:
        until: the end of what.
        before: the text that it goes on from.
        text: without "|".

    Returns:
        The text, with "|" where a piece ends.
    """
    done = ""
    while True:
        ending = Ending(until, before)
        handed = "".join(ending.add(character) for character in text)
        assert handed == ending.text == text[: len(handed)]
        if not ending.ended:
            return done + text
        done += f"{handed}|"
        before, text = before + handed, text[len(handed) :]
