"""Languages that are made, and whose entropy is known exactly: no model can be better, and a good one comes near.

A language is a process that writes a string symbol by symbol; the last symbol is its end. Behind a state each symbol
leads to one state, so a string is written in one way only, and its probability is a product.
"""

import json
import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen.errors import DataError, repr_short
from chargen.rng import Purpose, uniform
from chargen.settings import check_text
from chargen.suggestions import did_you_mean

END = ""
"""The symbol that ends a string: the line end of a text, the end symbol of a record."""
BLOCK, DRAWS = 1_000, 64
"""Strings that are drawn at a time, and symbols of each for which draws are made at a time."""
GOOD, BAD = "good", "bad"
"""Labels of strings that are of a language, and of those that are not."""


class Move(NamedTuple):
    """A symbol that may come next: how likely it is, the symbol, and the state behind it."""

    probability: float
    symbol: str
    state: Any


@dataclass(frozen=True, eq=False)
class Language:
    """A language: states, and what each may write.

    Args:
        summary: what its strings are, in some words.
        symbols: all that occur.
        start: the first state.
        moves: a state's moves, whose probabilities are above 0 and add up to 1.
        kind: what the entropy of the rest of a string depends on, where that is less than the state.
    """

    summary: str
    symbols: str
    start: Hashable
    moves: Callable[[Any], tuple[Move, ...]]
    kind: Callable[[Any], Hashable] = lambda state: state

    @property
    def nats_per_string(self) -> float:
        """The entropy of a string, -sum of p ln p over all strings."""
        return self._expected[0]

    @property
    def mean_length(self) -> float:
        """Symbols of a string on average, its end among them."""
        return self._expected[1]

    @property
    def nats_per_character(self) -> float:
        """The entropy rate of strings one behind the other; the end of a string counts as a character."""
        return self.nats_per_string / self.mean_length

    @cached_property
    def _expected(self) -> tuple[float, float]:
        """Nats and symbols of a string. Behind a state they are those of its next symbol and of what may follow."""
        states, numbers = [self.start], {self.kind(self.start): 0}
        for state in states:  # it grows
            for move in self.moves(state):
                if move.symbol != END and numbers.setdefault(self.kind(move.state), len(states)) == len(states):
                    states.append(move.state)
        system, constants = np.eye(len(states)), np.ones((len(states), 2))
        for number, state in enumerate(states):
            moves = self.moves(state)
            constants[number, 0] = -sum(move.probability * math.log(move.probability) for move in moves)
            for move in moves:
                if move.symbol != END:
                    system[number, numbers[self.kind(move.state)]] -= move.probability
        nats, length = np.linalg.solve(system, constants)[0].tolist()
        return nats, length

    def log_probs(self, text: str) -> NDArray[np.float64]:
        """The log-probability of each symbol of a string behind those before it.

        Args:
            text: any string.

        Returns:
            Nats (N + 1,), the last those of the end; -inf from the first symbol on that no string has there.
        """
        state, nats = self.start, np.full(len(text) + 1, -np.inf)
        for place, symbol in enumerate([*text, END]):
            move = next((move for move in self.moves(state) if move.symbol == symbol), None)
            if move is None:
                break
            nats[place], state = math.log(move.probability), move.state
        return nats

    def log_prob(self, text: str) -> float:
        """The log-probability of a string, its end included, in nats; -inf where it is not of the language.

        Args:
            text: any string.
        """
        return float(self.log_probs(text).sum())

    def draw(self, number: int, seed: int, first: int = 0) -> list[str]:
        """Draw strings. String n of a seed is the same however many are drawn.

        Args:
            number: how many.
            seed: 0 to 2**64 - 1.
            first: the number of the first of them.
        """
        rows = np.arange(first, first + number)[:, None]
        draws = uniform(seed, rows, np.arange(DRAWS), Purpose.LANGUAGE).tolist()
        return [self._write(row, seed, index) for index, row in enumerate(draws, first)]

    def _write(self, draws: list[float], seed: int, index: int) -> str:
        state, symbols = self.start, list[str]()
        while True:
            at = len(symbols)
            if at == len(draws):
                draws += uniform(seed, index, np.arange(at, at + DRAWS), Purpose.LANGUAGE).tolist()
            rest, moves = draws[at], self.moves(state)
            for move in moves:
                rest -= move.probability
                if rest < 0:
                    break
            else:  # the probabilities add up to a little less than 1
                move = moves[-1]
            if move.symbol == END:
                return "".join(symbols)
            symbols.append(move.symbol)
            state = move.state

    def spoil(self, text: str, seed: int, index: int) -> str:
        """Change one symbol of a string; in the languages here no change leads to another string of theirs.

        Args:
            text: of the language.
            seed: 0 to 2**64 - 1.
            index: the number of the string; each has a draw of its own.
        """
        others = len(self.symbols) - 1
        place, other = divmod(int(uniform(seed, index, 0, Purpose.CHANGE) * len(text) * others), others)
        return text[:place] + self.symbols.replace(text[place], "")[other] + text[place + 1 :]

    def lines(self, number: int, seed: int, labelled: bool = False) -> Iterator[str]:
        """Write strings as the lines of a file.

        Args:
            number: how many.
            seed: 0 to 2**64 - 1.
            labelled: whether each line is a JSON object with a `text` and a `label`; the labels take turns, and what is
                bad is a string with one symbol changed.
        """
        for first in range(0, number, BLOCK):
            strings = self.draw(min(BLOCK, number - first), seed, first)
            for index, text in enumerate(strings, first):
                if not labelled:
                    yield f"{text}\n"
                elif index % 2 == 0:
                    yield json.dumps({"text": text, "label": GOOD}) + "\n"
                else:
                    yield json.dumps({"text": self.spoil(text, seed, index), "label": BAD}) + "\n"


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
