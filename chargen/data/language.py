"""A language whose entropy is known exactly: a process that writes a string symbol by symbol, its end the last.

Behind a state each symbol leads to one state, so a string is written in one way only, and its probability is a product.
"""

import json
import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen.rng import Purpose, uniform

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
