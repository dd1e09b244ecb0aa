"""What teachers write: networks whose training is over, for another one to learn from beside the text.

Distillation from sequences that the teachers themselves draw (Kim and Rush, "Sequence-level knowledge distillation",
2016), with their probabilities at each place as targets (Hinton, Vinyals and Dean, "Distilling the knowledge in a
neural network", 2015). About the text itself they would only say what they know by heart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chargen.data.batches import MAX_ROWS, Batch, Batches
from chargen.data.begin import begin_text
from chargen.data.borders import as_targets
from chargen.data.corpus import Corpus
from chargen.decoding.choose import SampleConfig
from chargen.decoding.torch_engine import choose_rows
from chargen.model.config import DIRECTIONS
from chargen.model.device import autocast
from chargen.model.language_model import CharModel
from chargen.model.layers import State
from chargen.rng import Purpose, uniform
from chargen.training.memory import block_size

AS_PREDICTED = SampleConfig()
"""How teachers choose what they write."""
Written = tuple[NDArray[np.int64], NDArray[np.float16]]
"""Ids of texts (R, 1 + N), and the probabilities (R, N, V) of all but the first of each."""


def weigh_begins(corpus: Corpus, direction: str) -> NDArray[np.float64]:
    """How often a text begins behind each id.

    Args:
        corpus: what is learned.
        direction: of reading.

    Returns:
        (E,), which sum to 1: of the line end where lines begin, of the begin symbols of records, or of any character.
    """
    vocabulary, weights = corpus.vocabulary, corpus.counts.astype(np.float64)
    if vocabulary.end_id is not None:
        weights[: vocabulary.end_id] = 0
    elif len(begin := vocabulary.encode(begin_text(vocabulary, corpus.counts))):
        weights = np.zeros_like(weights)
        weights[begin[0 if direction == "forward" else -1]] = 1
    return np.asarray(weights / weights.sum())


@dataclass(frozen=True, eq=False)
class Teachers:
    """Networks that write together: the mean of their probabilities.

    Args:
        networks: one or more.
        begins: how often each id stands before a text, (E,).
        end_id: of records, the end symbol, behind which the next one begins.
        direction: in which they read and write.
        precision: of matrix products.
        seed: of the run.
    """

    networks: Sequence[CharModel]
    begins: NDArray[np.float64]
    end_id: int | None
    direction: str
    precision: str
    seed: int

    def write(self, texts: range, places: range) -> Written:
        """Write texts, each from a fresh state; a text depends on its own number alone, but for rounding.

        Args:
            texts: their numbers.
            places: of their characters, by which these are drawn.
        """
        device, index = self.networks[0].device, np.array(texts)[:, None] + MAX_ROWS * DIRECTIONS.index(self.direction)
        real = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no more
        draws = torch.from_numpy(uniform(self.seed, index, np.array(places), Purpose.TEACH)).to(device, real)
        begins = torch.from_numpy(self._draw_begins(index, places)).to(device)
        ids, written = [begins[:, :1]], list[Tensor]()
        states: list[State | None] = [None] * len(self.networks)
        with torch.inference_mode(), autocast(self.precision, device):
            for place in range(len(places)):
                predicted, states = self._predict(ids[-1], states)
                any_id = torch.ones((), dtype=torch.bool, device=device).expand_as(predicted)
                chosen = choose_rows(predicted.log().to(real), any_id, draws[:, place, None], AS_PREDICTED)[:, None]
                if self.end_id is not None:
                    chosen = torch.where(chosen == self.end_id, begins[:, place + 1, None], chosen)
                ids.append(chosen)
                written.append(predicted.half())
        return torch.cat(ids, 1).cpu().numpy(), torch.stack(written, 1).cpu().numpy()

    def _draw_begins(self, index: NDArray[np.int64], places: range) -> NDArray[np.int64]:
        """What stands before a text (R, 1 + N), wherever one begins."""
        draws = uniform(self.seed, index, np.array([*places, places.stop]), Purpose.BEGIN)
        last = self.begins.nonzero()[0][-1]  # whatever the sums are rounded to
        return np.asarray(np.minimum(np.searchsorted(self.begins.cumsum(), draws, "right"), last), np.int64)

    def _predict(self, ids: Tensor, states: Sequence[State | None]) -> tuple[Tensor, list[State | None]]:
        """Read ids (R, 1); return the probabilities (R, V) of what follows, and the state of each network."""
        probabilities, after = list[Tensor](), list[State | None]()
        for network, before in zip(self.networks, states, strict=True):
            values, state = network.read(ids, before, direction=self.direction)
            probabilities.append(torch.softmax(network.output(values[:, 0]).float(), 1))
            after.append(state)
        return torch.stack(probabilities).mean(0), after


class TaughtBatches:
    """Batches whose first rows read the text, while the others read what teachers write. A function of the step, too.

    Args:
        own: of the first rows, where this process has some of them.
        teachers: write for the others.
        rows: those of the others that this process takes, by their numbers among all of them.
        number: how many these are.
        seq_length: T.
        steps_per_epoch: how many steps have as many targets as the text has characters.
    """

    def __init__(
        self, own: Batches | None, teachers: Teachers, rows: range, number: int, seq_length: int, steps_per_epoch: float
    ) -> None:  # fmt: skip
        self.own, self.teachers, self.rows = own, teachers, rows
        self.seq_length, self.steps_per_epoch = seq_length, steps_per_epoch
        self.texts, self.windows = block_size(len(teachers.begins), number, seq_length)
        self._block = lru_cache(maxsize=1)(self._write_block)

    def _write_block(self, number: int) -> Written:
        length = self.windows * self.seq_length
        texts = range(self.rows.start * self.texts, self.rows.stop * self.texts)
        return self.teachers.write(texts, range(number * length, (number + 1) * length))

    def batch(self, step: int) -> Batch:
        """Return the batch of a step.

        Args:
            step: counted from 0.
        """
        parts = [] if self.own is None else [self.own.batch(step)]
        if self.rows:
            parts.append(self._written(step))
        if len(parts) == 1:
            return parts[0]
        inputs, targets = (np.concatenate([getattr(part, name) for part in parts]) for name in ("inputs", "targets"))
        return Batch(inputs, targets, np.concatenate([part.fresh for part in parts]), parts[-1].taught)

    def _written(self, step: int) -> Batch:
        """The rows that teachers have written: each reads its texts one after the other, each from a fresh state."""
        block, window = divmod(step, self.texts * self.windows)
        text, window = divmod(window, self.windows)
        ids, probabilities = self._block(block)
        rows, first = slice(text, None, self.texts), window * self.seq_length
        places = slice(first, first + self.seq_length)
        inputs, targets = ids[rows, places], as_targets(ids[rows, first + 1 : places.stop + 1], self.teachers.end_id)
        fresh = np.zeros(inputs.shape, bool)
        fresh[:, 0] = window == 0
        return Batch(inputs, targets, fresh, probabilities[rows, places])
