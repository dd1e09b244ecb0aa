"""What may be true of each character of a text, or how much of it: where it stands in its line, whether it is quoted.

A state stands between two characters, and knows what it has read: read forward, a quotation begins with its first mark
and is over with its last one; read backward, the other way round. All features are those of the text as it is read.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.code_points import code_points
from chargen.errors import SettingError, repr_short, truncate

Feature = NDArray[Any]
"""(N,) of bool, or of numbers in float32."""
Bools = NDArray[np.bool_]
MAX_LABELS = 20
"""Labels that are features: the most frequent ones."""
OPENING, CLOSING = "\u201c\u00ab\u201e\u300c\u300e\u2039", "\u201d\u00bb\u300d\u300f\u203a"
"""Quotation marks; where a text has \u201e, \u201c closes."""
TRIPLE = '"""'


def text_features(
    texts: Sequence[str],
    *,
    labels: Sequence[str | None] | None = None,
    patterns: Mapping[str, str] | None = None,
    direction: str = "forward",
) -> dict[str, Feature]:
    """Compute the features of each of the N characters of some texts; those that never change are left out.

    Args:
        texts: one or many; several are called records.
        labels: of each text; None for none.
        patterns: regular expressions by name: a character is in what one matches, or not.
        direction: in which the texts are read, "forward" or "backward".

    Returns:
        (N,) by name: bool, or numbers in float32.

    Raises:
        SettingError: a pattern is no regular expression.
    """
    if not isinstance(patterns, (Mapping, type(None))) or not all(isinstance(name, str) for name in patterns or ()):
        raise SettingError(f"patterns is {repr_short(patterns)}: it must be regular expressions by name", "patterns")
    text, forward, sizes = "".join(texts), direction == "forward", np.array([*map(len, texts)], np.int64)
    codes = code_points(text)
    begins = np.zeros(len(codes), bool)
    begins[(np.cumsum(sizes) - sizes)[sizes > 0]] = True
    marks = _Marks(text, codes, begins)
    order = slice(None, None, 1 if forward else -1)
    ends = np.append(begins[1:], True)[: len(codes)]
    first = begins if forward else ends[::-1]  # where reading begins, in the order of reading
    features: dict[str, Feature] = {}
    if "\n" in text:
        so_far, share = _places(first | _after(codes[order] == 0x0A))
        features |= {"line length so far": so_far[order], "position in line": share[order]}
        features["indentation"] = marks.indentation(forward)
    if len(texts) > 1:
        so_far, share = _places(first)
        features |= {"record length so far": so_far[order], "position in record": share[order]}
    inside = {"inside quotes": marks.quotes(), "inside triple quotes": marks.triple_quotes(),
              "inside single quotes": marks.single_quotes(), "inside brackets": marks.brackets()}  # fmt: skip
    features |= {name: after if forward else _after(after) & ~begins for name, after in inside.items()}
    is_word = marks.where(str.isalnum)[order]
    features["word start"] = (is_word & ~(_after(is_word) & ~first))[order]
    features["upper case"] = marks.where(str.isupper)
    for label in _frequent(labels or ()):
        is_own = np.array([each == label for each in labels or ()], bool)
        features[f"label {label}"] = np.repeat(is_own, sizes)
    for name, pattern in (patterns or {}).items():
        features[name] = _matches(texts, name, pattern)
    return {name: values for name, values in features.items() if len(values) and (values != values[0]).any()}


def _after(values: Bools) -> Bools:
    """Whether something is true of the character before; False of the first one."""
    moved = np.zeros_like(values)
    moved[1:] = values[:-1]
    return moved


def _places(begins: Bools) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How many characters of its stretch have been read with each character, and their share of the stretch."""
    first, number = np.flatnonzero(begins), np.cumsum(begins) - 1
    so_far = np.arange(1, len(begins) + 1) - first[number]
    return so_far.astype(np.float32), (so_far / np.bincount(number)[number]).astype(np.float32)


def _frequent(labels: Sequence[str | None]) -> list[str]:
    names, counts = np.unique([label for label in labels if label], return_counts=True)
    return [str(name) for name in names[np.argsort(-counts, kind="stable")][:MAX_LABELS]]


def _matches(texts: Sequence[str], name: str, pattern: str) -> Bools:
    """Whether each character is in what a regular expression matches."""
    try:
        compiled = re.compile(pattern)
        compiled.search("")  # a pattern of bytes matches no text
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        problem = f"{repr_short(pattern)} is no regular expression: {truncate(error)}"
        raise SettingError(f"pattern {repr_short(name)}: {problem}", "patterns") from error
    matched = [np.zeros(len(text), bool) for text in texts]
    for values, text in zip(matched, texts, strict=True):
        for match in compiled.finditer(text):
            values[match.start() : match.end()] = True
    return np.concatenate([np.zeros(0, bool), *matched])


class _Marks:
    """The marks of a text, and what is inside them after each character.

    What is opened and never closed ends with its paragraph, where a line is empty; a single quote ends with its line.

    Args:
        text: of N characters.
        codes: (N,), its code points.
        begins: (N,), where a text begins.
    """

    def __init__(self, text: str, codes: NDArray[np.uint32], begins: Bools) -> None:
        self.text, self.codes, self.begins = text, codes, begins
        self._unique, self._index = np.unique(codes, return_inverse=True)
        is_end = codes == 0x0A
        self.lines = begins | _after(is_end)
        self.paragraphs = begins | _after(is_end & _after(is_end))

    def where(self, is_true: Callable[[str], bool]) -> Bools:
        """Whether something is true of each character."""
        return np.array([is_true(chr(code)) for code in self._unique.tolist()], bool)[self._index]

    def any_of(self, characters: str) -> Bools:
        """Whether each character is one of some."""
        return self.where(lambda character: character in characters)

    def quotes(self) -> Bools:
        """Whether a text stands in double quotes, or in other marks that come in pairs."""
        opening, closing = OPENING, CLOSING
        if "\u201e" in self.text:
            opening, closing = opening.replace("\u201c", ""), closing + "\u201c"
        pairs = _depth(self.any_of(opening), self.any_of(closing), self.paragraphs) > 0
        return pairs | _is_odd(self.any_of('"') & ~self._triples(), self.paragraphs)

    def single_quotes(self) -> Bools:
        """Whether a text stands in single quotes; an apostrophe between two letters is none."""
        is_word = self.where(str.isalnum)
        apostrophe = _after(is_word) & np.append(is_word[1:], False)[: len(is_word)]
        pairs = _depth(self.any_of("\u2018"), self.any_of("\u2019") & ~apostrophe, self.lines) > 0
        return pairs | _is_odd(self.any_of("'") & ~apostrophe, self.lines)

    def triple_quotes(self) -> Bools:
        """Whether a text stands in three double quotes, as long strings in Python do."""
        last = np.zeros(len(self.codes), bool)
        last[[match.end() - 1 for match in re.finditer(TRIPLE, self.text)]] = True
        return _is_odd(last, self.begins)

    def _triples(self) -> Bools:
        return _matches([self.text], "", TRIPLE)

    def brackets(self) -> Bools:
        """Whether a text stands in brackets of any kind."""
        return _depth(self.any_of("([{\uff08"), self.any_of(")]}\uff09"), self.paragraphs) > 0

    def indentation(self, so_far: bool) -> NDArray[np.float32]:
        """The blanks at the beginning of each character's line, up to the character or in all."""
        others = np.cumsum(~self.any_of(" \t"))
        number, first = np.cumsum(self.lines) - 1, np.flatnonzero(self.lines)
        before = np.concatenate([[0], others])[first]
        leads = others == before[number]
        if not so_far:
            return np.asarray(np.bincount(number, leads)[number], np.float32)
        counts = np.cumsum(leads)
        return np.asarray(counts - np.concatenate([[0], counts])[first][number], np.float32)


def _is_odd(marks: Bools, begins: Bools) -> Bools:
    """Whether an odd number of marks stands between the beginning of a stretch and the end of each character."""
    counts, number, first = np.cumsum(marks), np.cumsum(begins) - 1, np.flatnonzero(begins)
    odd: Bools = (counts - np.concatenate([[0], counts])[first][number]) % 2 == 1
    return odd


def _depth(opening: Bools, closing: Bools, begins: Bools) -> NDArray[np.int64]:
    """How many marks are open after each character; one that closes nothing counts for nothing."""
    sums = np.cumsum(opening.astype(np.int64) - closing)
    number, first = np.cumsum(begins) - 1, np.flatnonzero(begins)
    own = sums - np.concatenate([[0], sums])[first][number]
    # A walk that stops at zero is a walk less its lowest point so far; a step far down begins each stretch anew.
    far = number * (2 * len(own) + 2)
    lowest = np.minimum.accumulate(np.minimum(own, 0) - far) + far
    depths: NDArray[np.int64] = own - lowest
    return depths
