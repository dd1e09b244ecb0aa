"""What teachers write: networks whose training is over, for another one to learn from beside the text.

Distillation from sequences that the teachers themselves draw (Kim and Rush, "Sequence-level knowledge distillation",
2016), with their probabilities at each place as targets (Hinton, Vinyals and Dean, "Distilling the knowledge in a
neural network", 2015). About the text itself they would only say what they know by heart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
        seed: of what they write.
    """

    networks: Sequence[CharModel]
    begins: NDArray[np.float64]
    end_id: int | None
    direction: str
    precision: str
    seed: int

    def predict(self, ids: Tensor, states: Sequence[State | None]) -> tuple[Tensor, list[State | None]]:
        """Read an id in each text.

        Args:
            ids: (R, 1).
            states: of each network, before them; None before a text.

        Returns:
            The probabilities (R, V) of what follows, and the states after the ids.
        """
        probabilities, after = list[Tensor](), list[State | None]()
        for network, before in zip(self.networks, states, strict=True):
            values, state = network.read(ids, before, direction=self.direction)
            probabilities.append(torch.softmax(network.output(values[:, 0]).float(), 1))
            after.append(state)
        return torch.stack(probabilities).mean(0), after

    def draw_begins(self, draws: NDArray[np.float64]) -> NDArray[np.int64]:
        """Draw what stands before texts.

        Args:
            draws: of any shape, from 0 to below 1.
        """
        last = self.begins.nonzero()[0][-1]  # whatever the sums are rounded to
        return np.asarray(np.minimum(np.searchsorted(self.begins.cumsum(), draws, "right"), last), np.int64)


class Texts:
    """Texts that teachers are writing, each from a fresh state; one depends on its own number alone, but for rounding.

    Args:
        teachers: who write.
        numbers: of the R texts.
        places: of their N characters, by which these are drawn.
    """

    def __init__(self, teachers: Teachers, numbers: range, places: range) -> None:
        index = np.array(numbers)[:, None] + MAX_ROWS * DIRECTIONS.index(teachers.direction)
        self.teachers, self.device = teachers, teachers.networks[0].device
        self._real = torch.float32 if self.device.type == "mps" else torch.float64  # Apple's GPUs have no more
        draws = uniform(teachers.seed, index, np.array(places), Purpose.TEACH)
        self._draws = torch.from_numpy(draws).to(self.device, self._real)
        borders = uniform(teachers.seed, index, np.array([*places, places.stop]), Purpose.BEGIN)
        self._begins = torch.from_numpy(teachers.draw_begins(borders)).to(self.device)
        self._states: list[State | None] = [None] * len(teachers.networks)
        self._last = self._begins[:, :1]
        self.written = 0
        """Characters of each, so far."""
        self.ids = np.zeros((len(numbers), len(places) + 1), np.int64)
        """(R, 1 + N), what stands before a text first."""
        self.ids[:, :1] = self._last.cpu().numpy()
        size = teachers.networks[0].vocabulary_size
        self.probabilities = np.zeros((len(numbers), len(places), size), np.float16)
        """(R, N, V), of each character in the eyes of the teachers."""

    def write_until(self, length: int) -> None:
        """Write on.

        Args:
            length: characters of each text that there are then, at least.
        """
        places = range(self.written, max(self.written, length))
        ids, written = list[Tensor](), list[Tensor]()
        with torch.inference_mode(), autocast(self.teachers.precision, self.device):
            for place in places:
                predicted, self._states = self.teachers.predict(self._last, self._states)
                any_id = torch.ones((), dtype=torch.bool, device=self.device).expand_as(predicted)
                draws = self._draws[:, place, None]
                chosen = choose_rows(predicted.log().to(self._real), any_id, draws, AS_PREDICTED)[:, None]
                if (end := self.teachers.end_id) is not None:
                    chosen = torch.where(chosen == end, self._begins[:, place + 1, None], chosen)
                self._last = chosen
                ids.append(chosen)
                written.append(predicted.half())
        if places:
            self.ids[:, places.start + 1 : places.stop + 1] = torch.cat(ids, 1).cpu().numpy()
            self.probabilities[:, places.start : places.stop] = torch.stack(written, 1).cpu().numpy()
            self.written = places.stop


class TaughtBatches:
    """Batches whose first rows read the text, while the others read what teachers write. A function of the step, too.

    While the texts of a block are read, those of the next one are written, as much at each step.

    Args:
        own: of the first rows, where this process has some of them.
        teachers: write for the others.
        rows: those of the others that this process takes, by their numbers among all of them.
        number: how many these are.
        seq_length: T.
        steps_per_epoch: how many steps have as many targets as the text has characters.
        first_step: at which the first texts begin.
    """

    def __init__(
        self, own: Batches | None, teachers: Teachers, rows: range, number: int, seq_length: int,
        steps_per_epoch: float, first_step: int = 0,
    ) -> None:  # fmt: skip
        self.own, self.teachers, self.rows = own, teachers, rows
        self.seq_length, self.steps_per_epoch, self.first_step = seq_length, steps_per_epoch, first_step
        self.texts, self.windows = block_size(len(teachers.begins), number, seq_length)
        self._blocks: dict[int, Texts] = {}

    def batch(self, step: int) -> Batch:
        """Return the batch of a step.

        Args:
            step: counted from 0; `first_step` or later.
        """
        parts = [] if self.own is None else [self.own.batch(step)]
        if self.rows:
            parts.append(self._written(step - self.first_step))
        if len(parts) == 1:
            return parts[0]
        inputs, targets = (np.concatenate([getattr(part, name) for part in parts]) for name in ("inputs", "targets"))
        return Batch(inputs, targets, np.concatenate([part.fresh for part in parts]), parts[-1].taught)

    def _written(self, step: int) -> Batch:
        """The rows that teachers have written: each reads its texts one after the other, each from a fresh state."""
        block, window = divmod(step, self.texts * self.windows)
        self._write(block, window)
        written = self._blocks[block]
        text, window = divmod(window, self.windows)
        rows, first = slice(text, None, self.texts), window * self.seq_length
        places = slice(first, first + self.seq_length)
        targets = as_targets(written.ids[rows, first + 1 : places.stop + 1], self.teachers.end_id)
        fresh = np.zeros(targets.shape, bool)
        fresh[:, 0] = window == 0
        return Batch(written.ids[rows, places], targets, fresh, written.probabilities[rows, places])

    def _write(self, block: int, window: int) -> None:
        """Write a block to its end, and of the next one as much as is due at a window of this one."""
        length = self.windows * self.seq_length
        numbers = range(self.rows.start * self.texts, self.rows.stop * self.texts)
        self._blocks = {number: self._blocks[number] for number in (block, block + 1) if number in self._blocks}
        for number in {block, block + 1} - self._blocks.keys():
            self._blocks[number] = Texts(self.teachers, numbers, range(number * length, (number + 1) * length))
        for end in range(self.seq_length, length + 1, self.seq_length):
            self._blocks[block].write_until(end)
        self._blocks[block + 1].write_until(length * (window + 1) // (self.texts * self.windows))
