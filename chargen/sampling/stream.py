"""Where one sample stands beside the model's state: its draws, its unfinished character, what it must not write."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.utf8 import utf8_before, utf8_length, utf8_next, utf8_unfinished
from chargen.data.vocabulary import Vocabulary
from chargen.kernels import available
from chargen.rng import Purpose, uniform
from chargen.sampling.constraints import Constraints

TAIL = 32
"""Characters written last that are kept: a stop text that is given later may begin in them."""


class Stream:
    """One sample's own position.

    Args:
        allowed: the rules for its next character, with what they remember.
        index: with the seed and the number of draws so far, the address of its next draw.
    """

    def __init__(self, allowed: Constraints, index: int) -> None:
        self.allowed = allowed
        self.index = index
        self.draws = 0
        self.partial = b""
        self.log_prob = 0.0
        self.tail = ""

    def finish(self, one: int, vocabulary: Vocabulary) -> str:
        """The character that the drawn id completes, or nothing while bytes are missing."""
        if not vocabulary.byte_mode:
            character = vocabulary.characters[one]
        else:
            byte = bytes([one])
            self.partial = byte + self.partial if self.allowed.backward else self.partial + byte
            if utf8_unfinished(self.partial):
                return ""
            character, self.partial = self.partial.decode(), b""
        self.allowed.wrote(character)
        return character

    def take_log_prob(self) -> float:
        """The log-probability of the character just finished, over all its draws."""
        taken, self.log_prob = self.log_prob, 0.0
        return taken

    def stops(self, character: str, stop: tuple[str, ...]) -> bool:
        """True where a stop text ends with the character just written; what it took is not matched again."""
        self.keep(character, max(map(len, stop), default=0))
        if any(self.tail.endswith(text[::-1] if self.allowed.backward else text) for text in stop):
            self.tail = ""
            return True
        return False

    def keep(self, text: str, longest: int = 0) -> None:
        """Note text that was written, for stop texts: the longest one's length of it, or more."""
        self.tail = (self.tail + text)[-max(longest, TAIL) :]

    def describe(self) -> dict[str, Any]:
        """The stored form."""
        return {
            "draws": self.draws,
            "partial": self.partial.hex(),
            "log_prob": self.log_prob,
            "tail": self.tail,
            "no_repeat": self.allowed.no_repeat,
            "recent": self.allowed.recent,
            "followers": {run: "".join(sorted(ends)) for run, ends in self.allowed.followers.items()},
        }

    def restore(self, described: dict[str, Any]) -> None:
        """Take over what `describe` stored. Runs written under another `no_repeat` are not known under this one.

        Raises KeyError, TypeError or ValueError where the data is not what `describe` wrote.
        """
        draws, partial = described["draws"], bytes.fromhex(described["partial"])
        written = [described["tail"], *described["followers"].values()]
        log_prob = float(described["log_prob"])
        if type(draws) is not int or not 0 <= draws < 2**63 or not math.isfinite(log_prob):
            raise ValueError("a stream's position is not one that chargen wrote")
        vocabulary = self.allowed.vocabulary
        if len(partial) > 3:
            possible = False
        elif self.allowed.backward:
            possible = all(partial[at] in utf8_before(partial[at + 1 :]) for at in range(len(partial)))
            possible = possible and b"\x80" <= partial[:1] < b"\xc0"
        else:
            possible = all(partial[at] in utf8_next(partial[:at]) for at in range(len(partial)))
            possible = possible and (not partial or len(partial) < utf8_length(partial[0]))
        if partial and not (vocabulary.byte_mode and possible):
            raise ValueError("a stream's unfinished character is none")
        for text in written:
            vocabulary.encode(text)
        vocabulary.encode(described["recent"].replace("\ufffd", ""))  # how folded characters of a prime are remembered
        self.draws, self.partial, self.tail, self.log_prob = draws, partial, described["tail"], log_prob
        if described["no_repeat"] == self.allowed.no_repeat:
            self.allowed.recent = described["recent"]
            self.allowed.followers.update((run, set(ends)) for run, ends in described["followers"].items())


def next_draws(seed: int, streams: Sequence[Stream], turns: int) -> NDArray[np.float64]:
    """The numbers (R, T) that the next characters of each stream are drawn with."""
    index = np.array([stream.index for stream in streams], np.uint64)
    first = np.array([stream.draws for stream in streams], np.uint64)
    if not available():
        return uniform(seed, index[:, None], first[:, None] + np.arange(turns, dtype=np.uint64), Purpose.SAMPLE)
    from chargen.kernels.uniforms import uniforms

    out = np.empty((len(streams), turns))
    uniforms(np.uint64(seed), index, first, np.uint64(Purpose.SAMPLE), out)
    return out
