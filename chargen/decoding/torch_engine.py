"""The torch engine: whole chunks on the model's device; the host neither chooses nor waits between two ids.

On a GPU one time step, from logits to the next logits, is captured in a CUDA graph and replayed for every id.
"""

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chargen.decoding.choose import SampleConfig, active_filters, apply_filters, need_ranks
from chargen.decoding.numpy_engine import Chunk, Engine, State
from chargen.decoding.rules import Rules
from chargen.kernels import NONE_ALLOWED, NOT_FINITE
from chargen.locks import Lock
from chargen.model.config import LAYER_WEIGHTS, check_direction
from chargen.model.device import float32_products

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel

MIN_LENGTH = 256
"""Ids of each row that there is room for at least, so that chunks of other lengths use the same graph."""
MAX_READ = 4096
"""Ids that a row reads at once, so that memory does not grow with a text."""
WARMUP_STEPS = 3
"""Time steps before a graph is captured, in which libraries set themselves up."""


class TorchEngine(Engine):
    """A torch model's time steps, all rows at once. State, logits and ids cross to the host once a chunk, as NumPy.

    Args:
        model: the model, on any device.
        direction: the stack that is computed; ids come in the order of its reading.
    """

    many_rows = 1024

    def __init__(self, model: "CharModel", direction: str = "forward") -> None:
        check_direction(model.config, direction)
        super().__init__(model.config, model.vocabulary_size)
        self.model = model
        self.layers = [tuple(map(module.get_parameter, LAYER_WEIGHTS)) for module in model.stack(direction)]
        self.direction = direction
        self._writer: _Writer | None = None
        self._write_lock = Lock()

    def advance(self, ids: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Let each row read one id, on the device; arguments are not checked.

        Args:
            ids: (R,).
            state: before the ids, one (R, S) per layer.

        Returns:
            Logits (R, V) for what follows, and the state after the ids.
        """
        values, after = self.model.embedding(ids), []
        if self.config.begin_symbols:
            carried = (ids < self.first_begin)[:, None]
            state = tuple(layer * carried for layer in state)
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
        """Read in one go where all rows read equally many ids, else id by id."""
        rows, length = ids.shape
        with torch.inference_mode():
            inputs, limits = self._to_device(ids, torch.int64), self._to_device(np.asarray(counts), torch.int64)
            outputs, carried = self._to_device(logits), tuple(self._to_device(layer) for layer in state)
            if rows and length and (np.asarray(counts) == length).all():
                with float32_products("fp32", self.model.device):
                    for first in range(0, length, MAX_READ):
                        values, carried = self.model.read(
                            inputs[:, first : first + MAX_READ], carried, direction=self.direction
                        )
                outputs = self.model.output(values[:, -1]).float()
            else:
                for column in range(length):
                    reads = (limits > column)[:, None]
                    new, after = self.advance(inputs[:, column].clamp(0, self.size - 1), carried)
                    outputs = torch.where(reads, new, outputs)
                    carried = tuple(torch.where(reads, *pair) for pair in zip(after, carried, strict=True))
            return outputs.cpu().numpy(), tuple(layer.float().cpu().numpy() for layer in carried)

    def _write(
        self, logits: NDArray[np.float32], state: State, uniforms: NDArray[np.float64], rules: Rules,
        mask_index: NDArray[np.int64], config: SampleConfig,
    ) -> Chunk:  # fmt: skip
        rows, length = uniforms.shape
        with self._write_lock, torch.inference_mode():
            # Room for a power of two, so that rows that end, or a new mask, need no other graph.
            room = (1 << (size - 1).bit_length() for size in (max(rows, 1), len(rules.masks)))
            key = *room, max(MIN_LENGTH, length), config
            if self._writer is None or self._writer.key != key:
                self._writer = None  # free its memory first
                self._writer = _Writer(weakref.proxy(self), *key)
            return self._writer.run(logits, state, uniforms, rules, mask_index)

    def _to_device(self, values: NDArray[Any], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.model.device, dtype)


class _Writer:
    """Tensors on the device in which rows write, and one time step that is repeated without asking the host.

    Args:
        engine: the model's.
        rows: R, rows that there is room for.
        masks: M, masks that there is room for.
        length: T, ids of each row that there is room for.
        config: how ids are chosen.
    """

    def __init__(self, engine: TorchEngine, rows: int, masks: int, length: int, config: SampleConfig) -> None:
        self.key = rows, masks, length, config
        self.engine, self.config = engine, config
        device, size = engine.model.device, engine.model.vocabulary_size
        self.float_dtype = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no more
        options: dict[str, Any] = {"device": device}
        self.logits = torch.zeros(rows, size, **options)
        self.state = tuple(torch.zeros(rows, engine.config.state_size, **options) for _ in engine.layers)
        self.uniforms = torch.zeros(rows, length, dtype=self.float_dtype, **options)
        self.masks = torch.ones(masks, size, dtype=torch.bool, **options)
        self.next_mask = torch.zeros(masks, size, dtype=torch.int64, **options)
        self.stop_after = torch.zeros(size, dtype=torch.bool, **options)
        self.mask_index, self.counts = (torch.zeros(rows, dtype=torch.int64, **options) for _ in range(2))
        self.active = torch.zeros(rows, dtype=torch.bool, **options)
        self.ids = torch.zeros(rows, length, dtype=torch.int64, **options)
        self.log_probs = torch.zeros(rows, length, dtype=self.float_dtype, **options)
        self.column = torch.zeros(1, dtype=torch.int64, **options)
        self.graph: Any = None
        if device.type == "cuda":
            self._capture()

    def _capture(self) -> None:
        """Record one time step; what it writes meanwhile is overwritten by `run`."""
        side_stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side_stream):
            for _ in range(WARMUP_STEPS):
                self._time_step()
        torch.cuda.current_stream().wait_stream(side_stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self._time_step()

    def run(
        self, logits: NDArray[Any], state: State, uniforms: NDArray[np.float64], rules: Rules,
        mask_index: NDArray[np.int64],
    ) -> Chunk:  # fmt: skip
        """Write a chunk."""
        rows, length = uniforms.shape
        arguments = [logits, *state, uniforms, rules.masks, rules.next_mask, rules.stop_after, mask_index]
        tensors = [
            self.logits, *self.state, self.uniforms[:, :length], self.masks, self.next_mask, self.stop_after,
            self.mask_index,
        ]  # fmt: skip
        with np.errstate(over="ignore"):
            for tensor, values in zip(tensors, arguments, strict=True):
                dtype = np.float32 if tensor.dtype == torch.float32 else None
                tensor[: len(values)].copy_(torch.from_numpy(np.ascontiguousarray(values, dtype)))
        self.active.fill_(False)
        self.active[:rows] = True
        for tensor in (self.counts, self.ids, self.log_probs, self.column):
            tensor.zero_()
        for _ in range(length):
            if self.graph:
                self.graph.replay()
            else:
                self._time_step()
        return Chunk(
            self.logits[:rows].cpu().numpy().copy(),
            tuple(layer[:rows].cpu().numpy().copy() for layer in self.state),
            self.ids[:rows, :length].cpu().numpy().copy(),
            self.log_probs[:rows, :length].cpu().double().numpy().copy(),
            self.counts[:rows].cpu().numpy().copy(),
        )

    def _time_step(self) -> None:
        """Let every row that may write on choose an id and read it; tensors change in place."""
        allowed = self.masks[self.mask_index.clamp(min=0)]
        finite, any_allowed = torch.isfinite(self.logits).all(1), allowed.any(1)
        writes = self.active & finite & any_allowed
        scores = self.logits.to(self.float_dtype)
        uniform = self.uniforms.index_select(1, self.column)
        chosen = torch.where(writes, choose_rows(scores, allowed, uniform, self.config), 0)
        codes = torch.where(finite, torch.where(any_allowed, chosen, NONE_ALLOWED), NOT_FINITE)
        log_probs = torch.log_softmax(scores, 1).gather(1, chosen[:, None])[:, 0]
        self._store(self.ids, self.active, codes)
        self._store(self.log_probs, writes, log_probs)
        self.counts.add_(writes)
        logits, state = self.engine.advance(chosen, self.state)
        for tensor, new in ((self.logits, logits), *zip(self.state, state, strict=True)):
            torch.where(writes[:, None], new, tensor, out=tensor)
        next_index = self.next_mask[self.mask_index.clamp(min=0), chosen]
        torch.where(writes, next_index, self.mask_index, out=self.mask_index)
        self.active.copy_(writes & (self.mask_index >= 0) & ~self.stop_after[chosen])
        self.column.add_(1)

    def _store(self, table: Tensor, rows: Tensor, values: Tensor) -> None:
        """Put values (R,) of some rows into the current column of a table (R, T), and zeros of the others."""
        table.index_copy_(1, self.column, torch.where(rows, values, 0)[:, None])


def choose_rows(scores: Tensor, allowed: Tensor, uniforms: Tensor, config: SampleConfig) -> Tensor:
    """Draw an id in each row by the filters of `SampleConfig`, ties broken towards the lower id.

    Args:
        scores: logits (R, V), finite or -inf.
        allowed: (R, V) bool.
        uniforms: (R, 1), from 0 to below 1.
        config: temperature and filters.

    Returns:
        Ids (R,).
    """
    size = scores.shape[1]
    scores = scores.masked_fill(~allowed, -torch.inf)
    top, best = scores.max(1, keepdim=True)
    if config.temperature == 0:
        return best[:, 0]
    weights = scores - top
    if config.temperature != 1:
        weights /= config.temperature
    weights.exp_()
    active = active_filters(config)
    if need_ranks(active):
        order = scores.sort(dim=1, descending=True, stable=True).indices
        weights = torch.zeros_like(weights).scatter(1, order, apply_filters(weights.gather(1, order), active))
    else:
        weights = apply_filters(weights, active)
    cumulated = weights.cumsum(1)
    chosen = (cumulated <= uniforms * cumulated[:, -1:]).sum(1).clamp(max=size - 1)
    # A parallel sum may grow by rounding where nothing is added, but what has no weight must not be chosen.
    return torch.where(weights.gather(1, chosen[:, None])[:, 0] > 0, chosen, best[:, 0])
