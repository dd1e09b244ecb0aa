"""Where one sample stands beside the model's state: its draws, its unfinished character, what it must not write."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.utf8 import utf8_before, utf8_next, utf8_unfinished
from chargen.data.vocabulary import Vocabulary
from chargen.errors import NOT_FINITE_MESSAGE, amount
from chargen.kernels import NOT_FINITE, available
from chargen.rng import Purpose, uniform
from chargen.sampling.constraints import Constraints

MIN_TAIL = 32
"""Characters written last that are kept at least: a later call may have a longer stop text that begins in them."""


class Stream:
    """One sample's own position.

    Args:
        constraints: which characters may come next, with the runs that they remember.
        index: with the seed and the number of draws so far, the address of the sample's next draw.
    """

    def __init__(self, constraints: Constraints, index: int) -> None:
        self.constraints = constraints
        self.index = index
        self.draws = 0
        self.partial = b""
        self.log_prob = 0.0
        """Of the ids of the unfinished character, in nats."""
        self.tail = ""
        self.ended = False
        """Whether the end symbol was written: of this record nothing more comes."""
        self.ids = np.zeros(0, np.int64)
        """What was read and written, in the order of reading; filled only for logits processors."""

    def add_id(self, drawn: int, vocabulary: Vocabulary) -> str:
        """Note an id that the stream wrote.

        Args:
            drawn: the id.
            vocabulary: the model's.

        Returns:
            The character that the id completes; "" while bytes are missing, and for the end symbol.
        """
        if drawn == vocabulary.end_id:
            self.ended = True
            return ""
        character, self.partial = vocabulary.append(self.partial, drawn, self.constraints.backward)
        if character:
            self.constraints.note_written(character)
        return character

    def check_stop(self, character: str, stop: tuple[str, ...]) -> bool:
        """Note a character that was written, and see whether a stop text ends with it.

        Args:
            character: the character.
            stop: the stop texts, in the order of the text.

        Returns:
            Whether one ends with it; its characters are not matched again.
        """
        self.extend_tail(character, max(map(len, stop), default=0))
        if any(self.tail.endswith(text[::-1] if self.constraints.backward else text) for text in stop):
            self.tail = ""
            return True
        return False

    def extend_tail(self, text: str, longest_stop: int = 0) -> None:
        """Remember the end of what was written, in which stop texts are looked for.

        Args:
            text: what was written, in the order of writing.
            longest_stop: characters of the longest stop text; as many are kept, or more.
        """
        self.tail = (self.tail + text)[-max(longest_stop, MIN_TAIL) :]

    def describe(self) -> dict[str, Any]:
        """The stream as values of JSON, as a saved state holds it."""
        return {
            "draws": self.draws,
            "partial": self.partial.hex(),
            "log_prob": self.log_prob,
            "tail": self.tail,
            "no_repeat": self.constraints.no_repeat,
            "recent": self.constraints.recent,
            "followers": {run: "".join(sorted(ends)) for run, ends in self.constraints.followers.items()},
            **({"ended": self.ended} if self.ended else {}),
        }

    def restore(self, described: dict[str, Any]) -> None:
        """Take over what `describe` stored. Runs written under another `no_repeat` are not known under this one.

        Args:
            described: what a saved state holds; checked here.

        Raises:
            KeyError: an entry is missing.
            TypeError: an entry has another type.
            ValueError: an entry has a value that no stream of this model can have.
        """
        draws, partial = described["draws"], bytes.fromhex(described["partial"])
        texts = [described["tail"], *described["followers"].values()]
        log_prob = float(described["log_prob"])
        vocabulary, ended = self.constraints.vocabulary, described.get("ended", False)
        if type(draws) is not int or not 0 <= draws < 2**63 or not math.isfinite(log_prob):
            raise ValueError("a stream's position is not one that chargen wrote")
        if type(ended) is not bool or ended > (vocabulary.records and not partial):
            raise ValueError("a stream that has ended is none of a record")
        if partial and not (vocabulary.byte_mode and len(partial) <= 3 and self._is_possible(partial)):
            raise ValueError("a stream's unfinished character is none")
        for text in texts:
            vocabulary.encode(text)
        vocabulary.encode(described["recent"].replace("\ufffd", ""))  # how folded characters of a prime are remembered
        self.draws, self.partial, self.tail, self.log_prob = draws, partial, described["tail"], log_prob
        self.ended = ended
        if described["no_repeat"] == self.constraints.no_repeat:
            self.constraints.recent = described["recent"]
            self.constraints.followers.update((run, set(ends)) for run, ends in described["followers"].items())

    def _is_possible(self, partial: bytes) -> bool:
        """Whether 1 to 3 bytes are what this stream may have written of a character."""
        if self.constraints.backward:
            allowed = (utf8_before(partial[at + 1 :]) for at in range(len(partial)))
        else:
            allowed = (utf8_next(partial[:at]) for at in range(len(partial)))
        return utf8_unfinished(partial) and all(byte in ids for byte, ids in zip(partial, allowed, strict=True))


def explain_stuck(stream: Stream, code: int) -> str:
    """Say why a stream cannot write on.

    Args:
        stream: the stream.
        code: what an engine put in the place of an id.

    Returns:
        The message of an error.
    """
    if code == NOT_FINITE:
        return NOT_FINITE_MESSAGE
    return (
        f"sample {stream.index}: `ban` and `no_repeat` forbid all "
        f"{amount(len(stream.constraints.vocabulary), 'id')} after {amount(stream.draws, 'draw')}; "
        "ban less, or raise `no_repeat`"
    )


def next_draws(seed: int, streams: Sequence[Stream], count: int) -> NDArray[np.float64]:
    """The uniforms that streams draw their next ids with.

    Args:
        seed: of all draws.
        streams: R streams.
        count: T, draws of each.

    Returns:
        Numbers (R, T) from 0 to below 1.
    """
    index = np.array([stream.index for stream in streams], np.uint64)
    first = np.array([stream.draws for stream in streams], np.uint64)
    if not available():
        return uniform(seed, index[:, None], first[:, None] + np.arange(count, dtype=np.uint64), Purpose.SAMPLE)
    from chargen.kernels.uniforms import uniforms

    out = np.empty((len(streams), count))
    uniforms(np.uint64(seed), index, first, np.uint64(Purpose.SAMPLE), out)
    return out
