"""The steps of a torch model, whole chunks on its device: the host neither chooses nor waits between two characters.

On a GPU one turn, from logits to the next logits, is captured in a CUDA graph and replayed for every character.
"""

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chargen.decoding.choose import SampleConfig
from chargen.decoding.numpy_engine import Chunk, State, Stepper
from chargen.decoding.rules import Rules
from chargen.kernels import NONE_ALLOWED, NOT_FINITE
from chargen.locks import Lock
from chargen.model.config import check_direction
from chargen.model.device import float32_products

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel

TURNS = 256
"""Room for as many characters a row at least, so that chunks of other lengths use the same graph."""
PIECE = 4096
"""Characters that a row reads at once, so that memory does not grow with a text."""
WARM = 3
"""Turns before a graph is captured, in which libraries set themselves up."""


class TorchStepper(Stepper):
    """A torch model's steps, all rows at once. State, logits and ids cross to the host once a chunk, as NumPy."""

    def __init__(self, model: "CharModel", direction: str = "forward") -> None:
        check_direction(model.config, direction)
        super().__init__(model.config, model.vocabulary_size)
        self.model = model
        self.layers = [
            tuple(module.get_parameter(f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            for module in model.stack(direction)
        ]
        self.direction = direction
        self._turns: _Turns | None = None
        self._one_writer = Lock()

    def _step(self, ids: NDArray[np.int64], state: State) -> tuple[NDArray[np.float32], State]:
        logits = np.zeros((len(ids), self.size), np.float32)
        return self._read(ids[:, None], np.ones(len(ids), np.int64), logits, state)

    def advance(self, ids: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As `step`, on the device, with what fits."""
        values, after = self.model.embedding(ids), []
        for layer, weights in zip(state, self.layers, strict=True):
            if self.config.cell == "lstm":
                values, cell = torch.lstm_cell(values, layer.chunk(2, 1), *weights)
                after.append(torch.cat([values, cell], 1))
            else:
                values = torch.gru_cell(values, layer, *weights)
                after.append(values)
        return self.model.output(values).float(), tuple(after)

    def _read(
        self, ids: NDArray[np.int64], counts: NDArray[np.int64], logits: NDArray[np.float32], state: State
    ) -> tuple[NDArray[np.float32], State]:
        """Where all rows read as many, in one go."""
        rows, turns = ids.shape
        with torch.inference_mode():
            given, number = self._there(ids, torch.int64), self._there(np.asarray(counts), torch.int64)
            found, carried = self._there(logits), tuple(self._there(layer) for layer in state)
            if rows and turns and (np.asarray(counts) == turns).all():
                with float32_products("fp32", self.model.device):
                    for first in range(0, turns, PIECE):
                        values, carried = self.model.read(
                            given[:, first : first + PIECE], carried, direction=self.direction
                        )
                found = self.model.output(values[:, -1]).float()
            else:
                for turn in range(turns):
                    reads = (number > turn)[:, None]
                    new, after = self.advance(given[:, turn].clamp(0, self.size - 1), carried)
                    found = torch.where(reads, new, found)
                    carried = tuple(torch.where(reads, *pair) for pair in zip(after, carried, strict=True))
            return found.cpu().numpy(), tuple(layer.float().cpu().numpy() for layer in carried)

    def _write(
        self, logits: NDArray[np.float32], state: State, uniforms: NDArray[np.float64], rules: Rules,
        mask_index: NDArray[np.int64], config: SampleConfig,
    ) -> Chunk:  # fmt: skip
        rows, turns = uniforms.shape
        with self._one_writer, torch.inference_mode():
            # Room for a power of two, so that rows that end, or a new mask, need no other graph.
            room = (1 << (size - 1).bit_length() for size in (max(rows, 1), len(rules.masks)))
            kind = *room, max(TURNS, turns), config
            if self._turns is None or self._turns.kind != kind:
                self._turns = None  # free its memory first
                self._turns = _Turns(weakref.proxy(self), *kind)
            return self._turns.run(logits, state, uniforms, rules, mask_index)

    def _there(self, values: NDArray[Any], kind: torch.dtype = torch.float32) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.model.device, kind)


class _Turns:
    """What rows write in on the device, and one turn of writing that is repeated without asking the host.

    Args:
        stepper: the model's.
        rows, masks, turns: R, M, T: room for as many rows, masks and characters of each row.
        config: how ids are chosen.
    """

    def __init__(self, stepper: TorchStepper, rows: int, masks: int, turns: int, config: SampleConfig) -> None:
        self.kind = rows, masks, turns, config
        self.stepper, self.config = stepper, config
        device, size = stepper.model.device, stepper.model.vocabulary_size
        self.real = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no more
        options: dict[str, Any] = {"device": device}
        self.logits = torch.zeros(rows, size, **options)
        self.state = tuple(torch.zeros(rows, stepper.config.state_size, **options) for _ in stepper.layers)
        self.uniforms = torch.zeros(rows, turns, dtype=self.real, **options)
        self.masks = torch.ones(masks, size, dtype=torch.bool, **options)
        self.next_mask = torch.zeros(masks, size, dtype=torch.int64, **options)
        self.stop_after = torch.zeros(size, dtype=torch.bool, **options)
        self.mask_index, self.counts = (torch.zeros(rows, dtype=torch.int64, **options) for _ in range(2))
        self.active = torch.zeros(rows, dtype=torch.bool, **options)
        self.ids = torch.zeros(rows, turns, dtype=torch.int64, **options)
        self.log_probs = torch.zeros(rows, turns, dtype=self.real, **options)
        self.turn = torch.zeros(1, dtype=torch.int64, **options)
        self.graph: Any = None
        if device.type == "cuda":
            self._capture()

    def _capture(self) -> None:
        """Record one turn; what it writes meanwhile is overwritten by `run`."""
        aside: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                self._turn()
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self._turn()

    def run(
        self, logits: NDArray[Any], state: State, uniforms: NDArray[np.float64], rules: Rules,
        mask_index: NDArray[np.int64],
    ) -> Chunk:  # fmt: skip
        """Write a chunk."""
        rows, turns = uniforms.shape
        given = [logits, *state, uniforms, rules.masks, rules.next_mask, rules.stop_after, mask_index]
        places = [
            self.logits, *self.state, self.uniforms[:, :turns], self.masks, self.next_mask, self.stop_after,
            self.mask_index,
        ]  # fmt: skip
        with np.errstate(over="ignore"):
            for place, values in zip(places, given, strict=True):
                kind = np.float32 if place.dtype == torch.float32 else None
                place[: len(values)].copy_(torch.from_numpy(np.ascontiguousarray(values, kind)))
        self.active.fill_(False)
        self.active[:rows] = True
        for place in (self.counts, self.ids, self.log_probs, self.turn):
            place.zero_()
        for _ in range(turns):
            if self.graph:
                self.graph.replay()
            else:
                self._turn()
        return Chunk(
            self.logits[:rows].cpu().numpy().copy(),
            tuple(layer[:rows].cpu().numpy().copy() for layer in self.state),
            self.ids[:rows, :turns].cpu().numpy().copy(),
            self.log_probs[:rows, :turns].cpu().double().numpy().copy(),
            self.counts[:rows].cpu().numpy().copy(),
        )

    def _turn(self) -> None:
        """Let every row that may write on choose an id and read it. Changes its tensors in place and asks nothing."""
        allowed = self.masks[self.mask_index.clamp(min=0)]
        finite, some = torch.isfinite(self.logits).all(1), allowed.any(1)
        writes = self.active & finite & some
        scores = self.logits.to(self.real)
        uniform = self.uniforms.index_select(1, self.turn)
        chosen = torch.where(writes, choose_rows(scores, allowed, uniform, self.config), 0)
        codes = torch.where(finite, torch.where(some, chosen, NONE_ALLOWED), NOT_FINITE)
        log_probs = torch.log_softmax(scores, 1).gather(1, chosen[:, None])[:, 0]
        self._note(self.ids, self.active, codes)
        self._note(self.log_probs, writes, log_probs)
        self.counts.add_(writes)
        logits, state = self.stepper.advance(chosen, self.state)
        for place, new in ((self.logits, logits), *zip(self.state, state, strict=True)):
            torch.where(writes[:, None], new, place, out=place)
        following = self.next_mask[self.mask_index.clamp(min=0), chosen]
        torch.where(writes, following, self.mask_index, out=self.mask_index)
        self.active.copy_(writes & (self.mask_index >= 0) & ~self.stop_after[chosen])
        self.turn.add_(1)

    def _note(self, table: Tensor, rows: Tensor, values: Tensor) -> None:
        """Values of some rows in this turn's column, where nothing stands yet."""
        table.index_copy_(1, self.turn, torch.where(rows, values, 0)[:, None])


def choose_rows(scores: Tensor, allowed: Tensor, uniforms: Tensor, config: SampleConfig) -> Tensor:
    """What `choose` finds in each row: scores (R, V), allowed (R, V) and draws (R, 1) -> ids (R,)."""
    size = scores.shape[1]
    scores = scores.masked_fill(~allowed, -torch.inf)
    top, best = scores.max(1, keepdim=True)
    if config.temperature == 0:
        return best[:, 0]
    weights = scores - top
    if config.temperature != 1:
        weights /= config.temperature
    weights.exp_()
    if 0 < config.top_k < size or config.top_p < 1:
        order = scores.sort(dim=1, descending=True, stable=True).indices
        kept = weights.gather(1, order)
        if config.top_k:
            kept[:, config.top_k :] = 0
        if config.top_p < 1:
            reached = kept.cumsum(1)
            # The first one stays, and all before which the goal is not reached.
            over = reached[:, :-1] >= config.top_p * reached[:, -1:]
            kept = torch.cat([kept[:, :1], kept[:, 1:].masked_fill(over, 0)], 1)
        weights = torch.zeros_like(weights).scatter(1, order, kept)
    if config.min_p > 0:
        weights = weights.masked_fill(weights < config.min_p, 0)
    running = weights.cumsum(1)
    chosen = (running <= uniforms * running[:, -1:]).sum(1).clamp(max=size - 1)
    # A sum in parallel may grow, by rounding, where nothing is added: what has no weight is not chosen.
    return torch.where(weights.gather(1, chosen[:, None])[:, 0] > 0, chosen, best[:, 0])
