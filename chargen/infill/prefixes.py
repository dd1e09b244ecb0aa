"""Beginnings of gaps, all different, and how they grow: what several particles have in common is read only once."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.code_points import END_MARK
from chargen.decoding.choose import SampleConfig, active_filters, log_softmax, probabilities
from chargen.decoding.numpy_engine import Engine, State
from chargen.errors import NOT_FINITE_MESSAGE, ChargenError
from chargen.sampling.constraints import Constraints, repeating_characters
from chargen.storage.model_file import ModelFile

ROWS = 512
NO_GAP_ALLOWED = "no gap is allowed: bans, filters, `no_repeat` or stop texts forbid them all; forbid less"


@dataclass(frozen=True, eq=False)
class Prefixes:
    """R beginnings of a gap.

    Args:
        texts: their characters.
        partials: in bytes, the unfinished character of each; empty otherwise.
        log_probs: (R,), log p(text | before) of the forward stack, in nats.
        logits: (R, V), the forward stack's after each.
        state: one (R, S) a layer, the forward stack's after each.
    """

    texts: list[str]
    partials: list[bytes]
    log_probs: NDArray[np.float64]
    logits: NDArray[Any]
    state: State

    def take(self, rows: Any) -> "Prefixes":
        """Take some of them.

        Args:
            rows: their numbers, in the order wanted; one may come twice.

        Returns:
            The prefixes.
        """
        texts, partials = [self.texts[row] for row in rows], [self.partials[row] for row in rows]
        state = tuple(layer[rows] for layer in self.state)
        return Prefixes(texts, partials, self.log_probs[rows], self.logits[rows], state)

    def join(self, other: "Prefixes") -> "Prefixes":
        """Put other prefixes behind these.

        Args:
            other: of the same model.

        Returns:
            All of them.
        """
        return Prefixes(
            self.texts + other.texts,
            self.partials + other.partials,
            np.concatenate([self.log_probs, other.log_probs]),
            np.concatenate([self.logits, other.logits]),
            tuple(np.concatenate(pair) for pair in zip(self.state, other.state, strict=True)),
        )


class Grower:
    """Grows prefixes with a model's forward stack.

    Args:
        model: the model.
        engine: of its forward stack.
        config: bans, no_repeat, stop texts and filters for a gap's characters; its temperature counts as 1.
        before: the text before the gap as the model reads it, which no_repeat looks at as at a prime.
    """

    def __init__(self, model: ModelFile, engine: Engine, config: SampleConfig, before: str = "") -> None:
        self.vocabulary = model.vocabulary
        self.engine = engine
        self.config = replace(config, temperature=1.0)
        self.steps = 0
        """Characters read by the forward stack so far, over all prefixes."""
        self._filters = bool(active_filters(config))
        self._constraints = Constraints(model.vocabulary, config.ban + END_MARK)
        self._tail = before[1 - config.no_repeat :] if config.no_repeat > 1 else ""

    def num_ids(self) -> int:
        """The number of ids that a gap may begin with when nothing is repeated or filtered."""
        return int(self._constraints.mask().sum())

    def allowed(self, prefixes: Prefixes) -> NDArray[np.bool_]:
        """Find the ids that may come next.

        Args:
            prefixes: R prefixes.

        Returns:
            (R, V) bool; a row may be all False.
        """
        masks = np.empty((len(prefixes.texts), len(self.vocabulary)), bool)
        for row, (text, partial) in enumerate(zip(prefixes.texts, prefixes.partials, strict=True)):
            repeating = repeating_characters(self._tail, text, self.config.no_repeat)
            masks[row] = self._constraints.mask(partial, repeating)
            if self._filters and masks[row].any():
                masks[row] = probabilities(prefixes.logits[row], masks[row], self.config) > 0
        return masks

    def grow(self, prefixes: Prefixes, rows: NDArray[np.int64], ids: NDArray[np.int64]) -> Prefixes:
        """Append an id to prefixes.

        Args:
            prefixes: R prefixes.
            rows: (K,), which of them grow; one may grow in several ways.
            ids: (K,), what is appended to each.

        Returns:
            K prefixes.
        """
        log_probs = prefixes.log_probs[rows] + log_softmax(prefixes.logits)[rows, ids]
        texts, partials = [], []
        for row, appended in zip(rows.tolist(), ids.tolist(), strict=True):
            character, partial = self.vocabulary.append(prefixes.partials[row], appended)
            texts.append(prefixes.texts[row] + character)
            partials.append(partial)
        logits, state = self._step(ids, tuple(layer[rows] for layer in prefixes.state))
        return Prefixes(texts, partials, log_probs, logits, state)

    def ended(self, prefixes: Prefixes) -> NDArray[np.bool_]:
        """Find prefixes that end with a stop text: nothing may follow them.

        Args:
            prefixes: R prefixes.

        Returns:
            (R,) bool.
        """
        return np.array(
            [bool(text) and not partial and text.endswith(self.config.stop)
             for text, partial in zip(prefixes.texts, prefixes.partials, strict=True)], bool,
        )  # fmt: skip

    def log_prob_after(self, prefixes: Prefixes, ids: NDArray[Any]) -> NDArray[np.float64]:
        """Compute how likely a text is behind each prefix.

        Args:
            prefixes: R prefixes.
            ids: (A,), of the text.

        Returns:
            (R,), log p(text | before, prefix) in nats.
        """
        total = np.zeros(len(prefixes.texts))
        for first in range(0, len(total), ROWS):  # memory for a large vocabulary
            rows = slice(first, first + ROWS)
            logits, state = prefixes.logits[rows], tuple(layer[rows] for layer in prefixes.state)
            for position, read_id in enumerate(ids):
                total[rows] += log_softmax(logits)[:, read_id]
                if position + 1 < len(ids):
                    logits, state = self._step(np.full(len(logits), read_id), state)
        return total

    def _step(self, ids: NDArray[np.int64], state: State) -> tuple[NDArray[np.float32], State]:
        self.steps += len(ids)
        logits, after = self.engine.step(ids, state)
        if not np.isfinite(logits).all():
            raise ChargenError(NOT_FINITE_MESSAGE)
        return logits, after
