"""Languages that are made, and whose entropy is known exactly: no model can be better, and a good one comes near."""

from collections.abc import Hashable
from functools import lru_cache

from chargen.data.language import END, Language, Move
from chargen.errors import DataError, repr_short
from chargen.settings import check_text
from chargen.suggestions import did_you_mean

_REBER: dict[int, dict[str, int]] = {
    0: {"B": 1},
    1: {"T": 2, "P": 3},
    2: {"S": 2, "X": 4},
    3: {"T": 3, "V": 5},
    4: {"X": 3, "S": 6},
    5: {"P": 4, "V": 6},
    6: {"E": 7},
}
"""The Reber grammar (Reber, "Implicit learning of artificial grammars", 1967): states, and where symbols lead."""


def embedded_reber() -> Language:
    """Make the embedded Reber grammar: a string of the Reber grammar between two T or two P.

    After Hochreiter and Schmidhuber, "Long short-term memory" (1997). All symbols that may come next are equally
    likely. What comes before the end has to be remembered from the second symbol on.
    """

    @lru_cache(4096)
    def moves(state: tuple[str, int]) -> tuple[Move, ...]:
        outer, inner = state
        targets: dict[str, tuple[str, int]]
        if not outer:
            targets = {"B": ("", 1)} if inner == 0 else {"T": ("T", 0), "P": ("P", 0)}
        elif inner in _REBER:
            targets = {symbol: (outer, target) for symbol, target in _REBER[inner].items()}
        else:
            targets = {[outer, "E", END][inner - len(_REBER)]: (outer, inner + 1)}
        return tuple(Move(1 / len(targets), symbol, target) for symbol, target in targets.items())

    return Language("strings of the Reber grammar between two T or two P", "BEPSTVX", ("", 0), moves)


def counter(limit: int = 64, go_on: float = 0.9) -> Language:
    """Make the language of equally many a and b, the a first.

    After Gers and Schmidhuber, "LSTM recurrent networks learn simple context-free and context-sensitive languages"
    (2001).

    Args:
        limit: the most a.
        go_on: how likely another a follows an a, up to the limit.
    """

    @lru_cache(4096)
    def moves(state: tuple[str, int]) -> tuple[Move, ...]:
        phase, number = state
        if phase == "b":
            return (Move(1.0, "b", ("b", number - 1)) if number else Move(1.0, END, None),)
        again = 1.0 if number == 0 else go_on if number < limit else 0.0
        both = Move(again, "a", ("a", number + 1)), Move(1 - again, "b", ("b", number - 1))
        return tuple(move for move in both if move.probability)

    return Language("some a, then as many b", "ab", ("a", 0), moves)


def brackets(pairs: tuple[str, ...] = ("()", "[]"), depth: int = 8, opening: float = 2 / 3) -> Language:
    """Make the language of balanced brackets: each closes the last one that is open.

    After Hewitt and others, "RNNs can generate bounded hierarchical languages with optimal memory" (2020).

    Args:
        pairs: the kinds of brackets, equally likely.
        depth: the most that are open at once.
        opening: how likely a bracket opens where none is open; a share of it that falls to 0 at `depth` where some are.
            Else the last one closes, or where none is open the string ends.
    """

    @lru_cache(4096)
    def moves(state: tuple[bool, str]) -> tuple[Move, ...]:
        begun, awaited = state
        opens = opening * (1 - len(awaited) / depth) if begun else 1.0
        each = [Move(opens / len(pairs), pair[0], (True, awaited + pair[1])) for pair in pairs]
        last = Move(1 - opens, awaited[-1], (True, awaited[:-1])) if awaited else Move(1 - opens, END, None)
        return tuple(move for move in [*each, last] if move.probability)

    def kind(state: tuple[bool, str]) -> Hashable:
        return state[0], len(state[1])

    return Language("balanced brackets of two kinds", "".join(pairs), (False, ""), moves, kind)


LANGUAGES = {"embedded-reber": embedded_reber(), "counter": counter(), "brackets": brackets()}
"""The languages that are known by name."""


def find_language(name: str) -> Language:
    """Look up a language.

    Args:
        name: one of `LANGUAGES`.

    Raises:
        DataError: where there is none of that name.
    """
    if check_text("name", name) not in LANGUAGES:
        advice = did_you_mean(name, LANGUAGES) or f"; there are {', '.join(LANGUAGES)}"
        raise DataError(f"there is no language {repr_short(name)}{advice}")
    return LANGUAGES[name]
