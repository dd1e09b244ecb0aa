"""Where one sample stands beside the model's state: its draws, its unfinished character, what it must not write."""

import copy
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.utf8 import utf8_before, utf8_next, utf8_unfinished
from chargen.data.vocabulary import Vocabulary
from chargen.sampling.constraints import Constraints
from chargen.sampling.sample import Character

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
        self.end_id = constraints.vocabulary.end_id
        self.index = index
        self.draws = 0
        self.partial = b""
        self.log_prob = 0.0
        """Of the ids of the unfinished character, in nats."""
        self.tail = ""
        self.ended = False
        """Whether the end symbol was written: of this record nothing more comes."""
        self.ids = np.zeros(0, np.int64)
        """What was read and written, in the order of reading, where `keeps_ids`."""
        self.keeps_ids = False
        """Whether logits processors want to know."""

    def fork(self, index: int) -> "Stream":
        """Copy the stream, to go on from here with other draws.

        Args:
            index: of the copy.
        """
        forked = copy.copy(self)
        forked.index = index
        if self.constraints.no_repeat:
            forked.constraints = self.constraints.fork()
        return forked

    def read(self, ids: NDArray[np.int64], text: str) -> None:
        """Note what the stream reads without having written it.

        Args:
            ids: (N,), in the order of reading, at least one.
            text: the same as a text, in the order of reading.
        """
        self.constraints.note_read(text)
        self.tail = ""
        self._keep(ids)

    def write(self, drawn: int, log_prob: float, stop: tuple[str, ...]) -> Character | None:
        """Note an id that the stream wrote.

        Args:
            drawn: the id.
            log_prob: the model's own log-probability of it, in nats.
            stop: the stop texts, in the order of the text.

        Returns:
            The character that the id completes, an empty one for the end symbol; None while bytes are missing.
        """
        self.draws += 1
        self.log_prob += log_prob
        self._keep(drawn)
        character = self.add_id(drawn, self.constraints.vocabulary)
        if not character and not self.ended:
            return None
        completed = Character(self.index, character, self.log_prob, self.ended or self.check_stop(character, stop))
        self.log_prob = 0.0
        return completed

    def _keep(self, ids: Any) -> None:
        if self.keeps_ids:
            self.ids = np.append(self.ids, ids)

    def add_id(self, drawn: int, vocabulary: Vocabulary) -> str:
        """Note an id that the stream wrote.

        Args:
            drawn: the id.
            vocabulary: the model's.

        Returns:
            The character that the id completes; "" while bytes are missing, and for the end symbol.
        """
        if drawn == self.end_id:
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
