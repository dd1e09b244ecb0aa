"""A count and its noun agree, in every message: all are written by one function."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import chargen
from chargen.errors import amount

NOUNS = (
    "bytes|carriage returns|characters|draws|epochs|files|gaps|ids|layers|line ends|lines|members|minutes|rows|"
    "samples|steps|symbols|texts|threads|tries|types|units|unknown ones|validations"
)
PLURAL = re.compile(rf" (?:(?!and )[a-z]+ )?(?:{NOUNS})\b|'s' ?\*")


def by_hand() -> Iterator[str]:
    """Numbers that an f-string puts before a plural; those of constants, which are many, are fine."""
    for path in sorted(Path(chargen.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.JoinedStr):
                continue
            for at, (value, text) in enumerate(itertools.pairwise(node.values)):
                if not isinstance(value, ast.FormattedValue) or not isinstance(text, ast.Constant):
                    continue
                words = str(text.value)
                after = node.values[at + 3 : at + 4]
                if re.fullmatch(" ([a-z]+ )?", words) and after and ast.unparse(after[0]).startswith("'s"):
                    words += "units"  # whatever noun is filled in
                if PLURAL.match(words) and not ast.unparse(value.value).isupper():
                    yield f"{path.name}:{node.lineno}: {ast.unparse(value)}{text.value!s}"


def test_no_message_puts_a_number_before_a_plural_by_hand() -> None:
    assert list(by_hand()) == []


@pytest.mark.parametrize(
    ("number", "noun", "plural", "words"),
    [
        (1, "file", "", "1 file"),
        (0, "file", "", "0 files"),
        (2000, "unknown character", "", "2,000 unknown characters"),
        (1, "try", "tries", "1 try"),
        (2, "try", "tries", "2 tries"),
        (1.0, "epoch", "", "1 epoch"),
        (1.5, "minute", "", "1.5 minutes"),
    ],
)
def test_one_is_singular(number: float, noun: str, plural: str, words: str) -> None:
    assert amount(number, noun, plural) == words
