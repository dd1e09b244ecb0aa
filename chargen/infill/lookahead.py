"""What the text behind a gap says about the gap: guesses that steer proposals, whose errors the weights undo."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.code_points import END_MARK
from chargen.decoding.choose import log_softmax, log_sum_exp
from chargen.decoding.cloze import NumpyCloze
from chargen.decoding.numpy_engine import Engine
from chargen.infill.prefixes import Prefixes
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import ModelFile

GUESSES = 24
"""Texts that the backward stack writes in front of the text behind a gap."""
MAX_NUMBERS = 2**22
"""Prefixes times guesses times ids of a block; more prefixes are computed block by block."""
HORIZON = 64
"""Characters from the text behind up to which guesses reach."""
CONTEXT = 500
"""Characters behind the gap that the backward stack reads before it guesses."""


class Lookahead:
    """Texts that lead up to the text behind a gap, written by the backward stack: right contexts at every distance.

    The match of a left and a right context is p(left, right) / p(left) p(right), were they independent given the
    character between them: the sum of p(x | left) p(x | right) / p(x).

    Args:
        model: a bidirectional model.
        after: ids (A,) of the text behind the gap, at least one; the end symbol only at the end.
        length: the longest gap, in characters.
        seed: fixes the guesses.
        engine: of the backward stack.
        ban: characters that no gap holds.
    """

    def __init__(
        self, model: ModelFile, after: NDArray[Any], length: int, seed: int, engine: Engine, ban: str = ""
    ) -> None:
        self.hidden_size = model.config.hidden_size
        self.byte_mode = model.vocabulary.byte_mode
        self.leads = slice(0xC2, model.vocabulary.end_id)
        """Of bytes: those that begin longer characters; the end symbol begins none."""
        self.horizon = min(length, HORIZON)
        counts = np.maximum(model.counts.astype(np.float64), 0.5)
        self.log_prior = np.log(counts / counts.sum())
        self.cloze, self.top = NumpyCloze(model.arrays), engine.top
        # What follows `after` is not known, unless it is the end of a record: no text ends there.
        vocabulary = model.vocabulary
        ends, ban = after[-1] == vocabulary.end_id, ban + END_MARK * vocabulary.records
        writer = Sampler(
            model, seed=seed, num=GUESSES, direction="backward", ban=ban, begin=None if ends else "", engine=engine
        )
        writer.feed_ids(after[: len(after) - ends])
        # At distance d a guess has written the d characters next to the text behind; at distance 0 all are equal.
        self.logits = np.empty((self.horizon, GUESSES, len(counts)), np.float32)
        self.hidden = np.empty((self.horizon, GUESSES, self.hidden_size), np.float32)
        distances = [0] * GUESSES
        self._store(writer, range(GUESSES), distances)
        for _ in range(self.horizon - 1):
            rows = [character.stream for characters in writer.write(1) for character in characters]
            for row in rows:
                distances[row] += 1
            self._store(writer, rows, distances)

    def _store(self, writer: Sampler, rows: Iterable[int], distances: list[int]) -> None:
        """Keep outputs and logits of guesses at their distances."""
        hidden, logits = writer.hidden_and_logits()
        for row in rows:
            self.hidden[distances[row], row] = hidden[row]
            self.logits[distances[row], row] = logits[row]

    def log_match(self, logits: NDArray[Any], first: int) -> NDArray[np.float64]:
        """Compute how well complete gaps meet the text behind.

        Args:
            logits: (R, V), the forward stack's after each gap.
            first: the first id of the text behind.

        Returns:
            (R,), log p(first | left) - log p(first).
        """
        match: NDArray[np.float64] = log_softmax(logits)[:, first] - self.log_prior[first]
        return match

    def propose(self, prefixes: Prefixes, distance: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Guess the next id and how well each prefix meets the text behind.

        Args:
            prefixes: R left contexts, none inside a character.
            distance: characters between the next one and the text behind, below the horizon.

        Returns:
            Log-probabilities (R, V) of the next id; and (R,), the log of the mean match over all guesses.
        """
        size = len(prefixes.texts)
        rows = max(1, MAX_NUMBERS // (GUESSES * len(self.log_prior)))
        blocks = [
            self._propose_block(prefixes.take(range(first, min(first + rows, size))), distance)
            for first in range(0, size, rows)
        ]
        return np.concatenate([block[0] for block in blocks]), np.concatenate([block[1] for block in blocks])

    def _propose_block(self, prefixes: Prefixes, distance: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        guesses = slice(0, 1) if distance == 0 else slice(None)
        right = self.logits[distance, guesses]
        joint = log_softmax(prefixes.logits)[:, None] + self._log_ratio(log_softmax(right))
        matches = log_sum_exp(joint)
        mean = log_sum_exp(matches) - np.log(matches.shape[1])
        weights = matches - log_sum_exp(matches)[:, None]
        if self.byte_mode:  # the cloze layer predicts a byte between bytes, not the first byte of a character
            guessed = joint - matches[..., None]
        else:
            left = prefixes.state[self.top][:, : self.hidden_size]
            guessed = log_softmax(self.cloze.logits(left, self.hidden[distance, guesses], prefixes.logits, right))
        return log_sum_exp(weights[..., None] + guessed, axis=1), mean

    def _log_ratio(self, backward: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log p(x | right) - log p(x) for each guess and id (M, V).

        In bytes, the backward stack predicts a character's last byte, but its first one is asked for: all first bytes
        of longer characters share the odds of a continuation byte.
        """
        if not self.byte_mode:
            ratio: NDArray[np.float64] = backward - self.log_prior
            return ratio
        ratio = np.zeros_like(backward)
        ratio[:, :0x80] = backward[:, :0x80] - self.log_prior[:0x80]
        odds = log_sum_exp(backward[:, 0x80:0xC0]) - log_sum_exp(self.log_prior[self.leads])
        ratio[:, self.leads] = odds[:, None]
        return ratio
