"""What a model expects at every id of short texts, by the engines that write: torch is not loaded."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen.data.borders import as_targets
from chargen.decoding.choose import log_softmax
from chargen.decoding.cloze import NumpyCloze
from chargen.decoding.numpy_engine import Engine
from chargen.decoding.pick_engine import new_engine
from chargen.errors import NOT_FINITE_MESSAGE, ChargenError
from chargen.evaluation.layout import Layout
from chargen.evaluation.predicted_ids import JUDGES, LOGITS, Predicted
from chargen.kernels import available
from chargen.storage.model_file import ModelFile
from chargen.storage.quantize import as_float32

MAX_IDS = 3500
"""Ids of short texts together, too few for a layout to cut. Two cores read these as fast as torch does, which takes
more than a second to load."""
STORED = 2**24
"""Logits of a direction that are kept."""


class _Read(NamedTuple):
    """What a stack made of rows, all N ids of them one behind the other, in the order of its reading.

    Args:
        logits: (N, V), for each id before it was read.
        outputs: (N, H), those that the logits are made of; zeros for a row's first id.
    """

    logits: NDArray[Any]
    outputs: NDArray[np.float32]


class ShortTexts:
    """Predicts every id of short texts.

    Args:
        file: the model.
        engine: returns the engine of a direction; by default new ones.
    """

    def __init__(self, file: ModelFile, engine: Callable[[str], Engine] | None = None) -> None:
        self.file = file
        self.engine = engine or partial(new_engine, file, "cpu")

    @cached_property
    def cloze(self) -> NumpyCloze:
        """The cloze layer of a model that has one."""
        return NumpyCloze(self.file.arrays)

    @property
    def max_ids(self) -> int:
        """How many ids texts may have together; 0 without compiled engines, or of several networks that have cloze."""
        several = self.file.members and self.file.config.bidirectional
        return 0 if several else min(MAX_IDS, STORED // len(self.file.vocabulary)) * available()

    def count_ids(self, text: str) -> int:
        """Count the ids of a text, with those at its ends.

        Args:
            text: any.
        """
        size = len(text)
        if self.file.vocabulary.byte_mode and size <= MAX_IDS:
            size = len(text.encode("utf-8", "surrogatepass"))
        return size + 2

    def fit(self, texts: Sequence[str]) -> bool:
        """Whether texts are short enough, all together.

        Args:
            texts: any number.
        """
        return sum(map(self.count_ids, texts)) <= self.max_ids

    def predict(
        self,
        texts: Sequence[str],
        layout: Layout,
        progress: Callable[[str, int, int], object] = lambda task, done, total: None,
    ) -> Iterator[Predicted]:
        """Predict every id by every judge of the model, as `predict_ids` does.

        Args:
            texts: cleaned as the text that the model learned; none of them is so long that its layout cuts it.
            layout: of these texts; of a model that reads both ways laid out for "both", else for "forward".
            progress: called at the end with the task, and twice the number of characters.

        Yields:
            The predictions of each judge.

        Raises:
            ChargenError: predictions are not finite.
        """
        both, vocabulary, joined = self.file.config.bidirectional, self.file.vocabulary, "".join(texts)
        ids, characters = np.concatenate([*layout.rows, np.zeros(0, np.int64)]).astype(np.int64), layout.owner
        targets = as_targets(ids, vocabulary.end_id)
        extra = np.append(vocabulary.extra_nats(joined), np.zeros(2 * len(texts)))
        logits = {"forward": self._read("forward", layout.rows)}
        if both:
            # Each row's outputs in the order of the text: the stack has read it from its end.
            sizes = np.array([len(row) for row in layout.rows], np.int64)
            ends = np.repeat(np.cumsum(sizes), sizes)
            flipped = ends - 1 - np.arange(len(ids)) + np.repeat(np.cumsum(sizes) - sizes, sizes)
            read = self._read("backward", [row[::-1] for row in layout.behind])
            logits["backward"] = _Read(read.logits[flipped], read.outputs[flipped])
            logits["cloze"] = self._judge_both(logits["forward"], logits["backward"], sizes)
        block = max(1, LOGITS // len(vocabulary))
        for judge, start in product(JUDGES if both else ("forward",), range(0, len(ids), block)):
            part = slice(start, start + block)
            with np.errstate(over="ignore", invalid="ignore"):
                log_probs = log_softmax(logits[judge].logits[part])
            values = log_probs[np.arange(len(log_probs)), targets[part]] - extra[characters[part]]
            if not np.isfinite(values).all():
                raise ChargenError(NOT_FINITE_MESSAGE)
            yield Predicted(judge, characters[part], targets[part], log_probs, values)
        progress("scoring", len(joined), len(joined))

    def _read(self, direction: str, rows: Sequence[NDArray[Any]]) -> _Read:
        """Let a stack read rows side by side."""
        engine, sizes = self.engine(direction), np.array([len(row) for row in rows], np.int64)
        starts, order = np.cumsum(sizes) - sizes, np.argsort(-sizes, kind="stable")
        logits = np.empty((sizes.sum(), engine.size), np.float32)
        outputs = np.zeros((len(logits), self.file.config.hidden_size), np.float32)
        logits[starts[sizes > 0]] = self.file.first_logits
        state = engine.start(len(rows))
        for position in range(1, sizes.max(initial=0)):
            going_on = order[: np.count_nonzero(sizes > position)]
            ids = np.array([rows[row][position - 1] for row in going_on], np.int64)
            at = starts[going_on] + position
            logits[at], state = engine.step(ids, tuple(layer[: len(going_on)] for layer in state))
            outputs[at] = state[-1][:, : outputs.shape[1]]
        return _Read(logits, outputs)

    def _judge_both(self, before: _Read, behind: _Read, sizes: NDArray[np.int64]) -> _Read:
        """The cloze predictions; of a row's first id the backward one, and of its last id the forward one."""
        if self.file.mixtures:
            before, behind = self._without_counts(before), self._without_counts(behind)
        logits = self.cloze.pair_logits(before.outputs, behind.outputs, before.logits, behind.logits)
        ends = np.cumsum(sizes)[sizes > 0]
        first, last = ends - sizes[sizes > 0], ends - 1
        logits[first] = behind.logits[first]
        logits[last] = before.logits[last]
        return _Read(logits, before.outputs)

    def _without_counts(self, read: _Read) -> _Read:
        """The same with the network's own logits, which the cloze layer has learned from."""
        config, arrays = self.file.config, self.file.arrays
        logits = read.outputs @ as_float32(arrays, config.output_table).T + as_float32(arrays, "output.bias")
        return _Read(np.where(read.outputs.any(1, keepdims=True), logits, read.logits), read.outputs)
