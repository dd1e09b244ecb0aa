"""One recurrent layer on a CPU: the layer of `recurrent` computed by compiled kernels, in bf16 or float32."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from chargen.kernels import packing
from chargen.kernels import recurrent as kernels
from chargen.kernels.threads import Faster, share, threads, together
from chargen.kernels.tiles import SETTINGS, SIDE, aligned
from chargen.model.device import numpy_view

ROWS = 16
"""Fewer rows are not worth a thread of their own."""


def run(
    module: nn.RNNBase, inputs: Tensor, state: Tensor, kind: torch.dtype, ids: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As `run_layer`: inputs (B, T, F) and a state (B, S) -> outputs (B, T, H) and the state after, in float32.

    Products are of a kind, bfloat16 or float32, which outputs have too.

    Where `ids` (B, T) are given, inputs are their rows in a table (V, F), and products are made once for each row.
    """
    size, padded, lstm = module.hidden_size, kernels.pad(module.hidden_size), isinstance(module, nn.LSTM)
    weights: list[Tensor] = [getattr(module, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    state = state.float()
    if padded > size:
        # Units with weights and states of zero stay at zero.
        weights = [_fill(weight, size, padded, weight is weights[1]) for weight in weights]
        state = functional.pad(state.reshape(len(state), -1, size), (0, padded - size)).flatten(1)
    by_time = (inputs if ids is not None else inputs.transpose(0, 1)).to(kind).contiguous()
    which = None if ids is None else ids.t().contiguous()
    layer: Any = _Lstm if lstm else _Gru
    outputs, after = layer.apply(by_time, which, *weights, state)
    if padded > size:
        outputs, after = outputs[..., :size], after.view(len(after), -1, padded)[..., :size].flatten(1)
    return outputs.transpose(0, 1), after


def _fill(weight: Tensor, size: int, padded: int, both: bool) -> Tensor:
    """Zeros for more units in each gate, and in what a recurrent weight is multiplied by."""
    by_gate = weight.reshape(-1, size, *weight.shape[1:])
    more = (0, padded - size)
    ends = more if weight.dim() == 1 else (*(more if both else (0, 0)), *more)
    return functional.pad(by_gate, ends).flatten(0, 1)


def _pack(weights: Tensor, kind: torch.dtype, kernel: Callable[..., None], inputs: int, outputs: int) -> NDArray[Any]:
    """Weights as the right side (inputs, outputs) of a product, blocks of 32 columns one after the other."""
    if kind == torch.float32:
        right = weights.detach() if len(weights) == inputs else weights.detach().t()
        return numpy_view(right.reshape(inputs, -1, SIDE).transpose(0, 1).contiguous())
    packed = aligned((outputs // SIDE, inputs // 2, SIDE, 2), np.uint16)
    values = weights.detach().contiguous().numpy()
    share(lambda part: kernel(values, part.start, part.stop, packed), len(packed))
    return packed


@dataclass(frozen=True)
class _Part:
    """What a thread computes.

    Args:
        rows: which.
        left: (2, inputs / 32, M, 32), left sides of products, of now and for the following character.
        sums: (H / 32, M, 32), the gradient of the state of these rows; None on the way forward.
        units: from which to which 32 units, how many threads compute some units of these rows, and where they meet.
    """

    rows: slice
    left: NDArray[Any]
    sums: Any
    units: tuple[int, int, int, NDArray[np.int64]]


def _in_threads(
    run: Callable[[_Part], None], like: NDArray[Any], rows: int, size: int, inputs: int, of_state: Tensor | None = None
) -> None:
    """Share out rows, or units where fewer zeros are multiplied so and where that turns out faster.

    Matrix units take 32 rows at a time, filled up with zeros.

    Args:
        like: an array of the type of the factors.
        rows, size, inputs: B, H, and how many inputs products have.
        of_state: (B, H), stands in `sums` and is replaced by what is there in the end.
    """
    blocks = size // SIDE
    row_parts, members = min(threads(), max(1, rows // ROWS)), min(threads(), blocks)
    fewer = kernels.pad(rows) * -(-blocks // members) < kernels.pad(-(-rows // row_parts)) * blocks
    by_units, begun = fewer and _faster(rows, size, inputs).choose(), time.perf_counter()
    borders = [blocks * member // members for member in range(members + 1)] if by_units else [0, blocks]

    def some_rows(part: slice) -> None:
        left = aligned((2, inputs // SIDE, kernels.pad(part.stop - part.start), SIDE), like.dtype)
        sums: Any = None if of_state is None else _by_block(of_state, part)
        counter = np.zeros(1, np.int64)
        units = [(*border, len(borders) - 1, counter) for border in pairwise(borders)]
        together(lambda member: run(_Part(part, left, sums, units[member])), len(units))
        if of_state is not None:
            _from_blocks(sums, part, of_state)

    if by_units:
        some_rows(slice(0, rows))
    else:
        share(some_rows, rows, ROWS)
    if fewer:
        _faster(rows, size, inputs).took(by_units, time.perf_counter() - begun)


@cache
def _faster(rows: int, size: int, inputs: int) -> Faster:
    """By units or by rows, for each kind of layer."""
    return Faster()


def _by_block(values: Tensor, rows: slice) -> NDArray[np.float32]:
    """Some rows (B, H) as blocks of units (H / 32, M, 32)."""
    number, size = rows.stop - rows.start, values.shape[1]
    found = aligned((size // SIDE, kernels.pad(number), SIDE), np.float32)
    found[:, :number] = values[rows].view(number, -1, SIDE).transpose(0, 1).numpy()
    return found


def _from_blocks(found: NDArray[np.float32], rows: slice, values: Tensor) -> None:
    """The way back, into `values`."""
    number = rows.stop - rows.start
    values[rows] = torch.from_numpy(found[:, :number]).transpose(0, 1).reshape(number, -1)


class _Lstm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        results, kept = _run_lstm(*arguments)
        ctx.save_for_backward(*arguments, *kept)
        return results

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            return _by_torch(ctx, gradients)
        inputs, which, weight_ih, weight_hh, by_unit, gates, outputs, cells = _kept(ctx, _run_lstm)
        (turns, rows), size = gradients[0].shape[:2], weight_hh.shape[1]
        of_outputs, after = gradients[0].to(inputs.dtype).contiguous(), gradients[1].float()
        dh, dc = (part.clone(memory_format=torch.contiguous_format) for part in after.chunk(2, dim=1))
        transposed = _transposed(4 * size, turns * rows, inputs)
        packed = _pack(weight_hh, inputs.dtype, packing.pack_backward, 4 * size, size)
        arrays = packed, numpy_view(gates), cells.numpy(), numpy_view(of_outputs), dc.numpy(), numpy_view(transposed)

        def run(part: _Part) -> None:
            kernels.lstm_backward(SETTINGS, *arrays, part.rows.start, part.rows.stop, part.left, part.sums, *part.units)

        _in_threads(run, packed, rows, size, 4 * size, dh)
        of_inputs, of_ih = _input_gradients(inputs, which, gates, by_unit, weight_ih, transposed)
        of_hh = transposed @ outputs[:-1].view(turns * rows, size)
        bias = _sums(transposed)
        return of_inputs, None, of_ih.float(), of_hh.float(), bias, bias, torch.cat([dh, dc], dim=1)


def _run_lstm(
    inputs: Tensor, which: Tensor | None, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor,
    state: Tensor,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:  # fmt: skip
    """Outputs and the state after, and what the way back needs besides."""
    (turns, rows), size = (inputs if which is None else which).shape[:2], weight_hh.shape[1]
    by_unit = _by_unit(weight_ih, size, inputs.dtype)
    entering, chosen, gates = _entering(inputs, which, by_unit)
    outputs, cells = _with_first(turns, state[:, :size], inputs.dtype), _with_first(turns, state[:, size:])
    hidden = state[:, :size].clone(memory_format=torch.contiguous_format)
    packed = _pack(weight_hh, inputs.dtype, packing.pack_forward, size, 4 * size)
    arrays = (
        packed, (bias_ih + bias_hh).detach().numpy(), numpy_view(entering), chosen, numpy_view(gates), hidden.numpy(),
        cells.numpy(), numpy_view(outputs[1:]),
    )  # fmt: skip

    def run(part: _Part) -> None:
        sums = aligned((2, 4, SIDE, SIDE), np.float32)
        kernels.lstm_forward(SETTINGS, *arrays, part.rows.start, part.rows.stop, part.left, sums, *part.units)

    _in_threads(run, packed, rows, size, size)
    return (outputs[1:], torch.cat([hidden, cells[turns]], dim=1)), (by_unit, gates, outputs, cells)


class _Gru(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        results, kept = _run_gru(*arguments)
        ctx.save_for_backward(*arguments, *kept)
        return results

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            return _by_torch(ctx, gradients)
        inputs, which, weight_ih, weight_hh, by_unit, gates, outputs, inner = _kept(ctx, _run_gru)
        (turns, rows), size = gradients[0].shape[:2], weight_hh.shape[1]
        of_outputs, after = gradients[0].to(inputs.dtype).contiguous(), gradients[1].float()
        dh, direct = after.clone(memory_format=torch.contiguous_format), torch.zeros_like(after)
        transposed = _transposed(4 * size, turns * rows, inputs)
        packed = _pack(weight_hh, inputs.dtype, packing.pack_backward, 3 * size, size)
        arrays = (
            packed, numpy_view(gates), numpy_view(inner), numpy_view(outputs[:-1]), numpy_view(of_outputs),
            direct.numpy(), numpy_view(transposed),
        )  # fmt: skip

        def run(part: _Part) -> None:
            fresh = aligned((SIDE, SIDE), packed.dtype)
            first, last = part.rows.start, part.rows.stop
            kernels.gru_backward(SETTINGS, *arrays, fresh, first, last, part.left, part.sums, *part.units)

        _in_threads(run, packed, rows, size, 3 * size, dh)
        bias = _sums(transposed)
        # Its rows lie in the order new, reset, update, and what the reset gate acts on.
        weight, outer = torch.cat([weight_ih[2 * size :], weight_ih[: 2 * size]]), transposed[: 3 * size]
        of_inputs, of_ih = _input_gradients(inputs, which, gates, by_unit, weight, outer)
        of_hh = transposed[size:] @ outputs[:-1].view(turns * rows, size)
        of_ih, of_bias_ih = (torch.cat([each[size:], each[:size]]) for each in (of_ih, bias[: 3 * size]))
        return of_inputs, None, of_ih.float(), of_hh.float(), of_bias_ih, bias[size:], dh + direct


def _run_gru(
    inputs: Tensor, which: Tensor | None, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor,
    state: Tensor,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:  # fmt: skip
    """As `_run_lstm`."""
    (turns, rows), size = (inputs if which is None else which).shape[:2], weight_hh.shape[1]
    by_unit = _by_unit(weight_ih, size, inputs.dtype)
    entering, chosen, gates = _entering(inputs, which, by_unit)
    outputs, inner = _with_first(turns, state, inputs.dtype), inputs.new_empty(turns, rows, size)
    hidden = state.clone(memory_format=torch.contiguous_format)
    bias, inside = (each.detach().clone(memory_format=torch.contiguous_format) for each in (bias_ih, bias_hh))
    bias[: 2 * size] += inside[: 2 * size]
    packed = _pack(weight_hh, inputs.dtype, packing.pack_forward, size, 3 * size)
    arrays = (
        packed, bias.numpy(), inside[2 * size :].numpy(), numpy_view(entering), chosen, numpy_view(gates),
        hidden.numpy(), numpy_view(outputs[1:]), numpy_view(inner),
    )  # fmt: skip

    def run(part: _Part) -> None:
        sums = aligned((2, 3, SIDE, SIDE), np.float32)
        kernels.gru_forward(SETTINGS, *arrays, part.rows.start, part.rows.stop, part.left, sums, *part.units)

    _in_threads(run, packed, rows, size, size)
    return (outputs[1:], hidden), (by_unit, gates, outputs, inner)


def _kept(ctx: Any, run: Callable[..., tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]]) -> tuple[Any, ...]:
    """Inputs, which of them, their weights and the recurrent ones, and what `run` keeps for the way back.

    Gates are overwritten by their gradients: where a graph is used once more, they are computed once more.
    """
    arguments, kept = ctx.saved_tensors[:_ARGUMENTS], ctx.saved_tensors[_ARGUMENTS:]
    if getattr(ctx, "used", False):
        _, kept = run(*arguments)
    ctx.used = True
    return *arguments[:4], *kept


def _by_torch(ctx: Any, gradients: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    """The gradients by torch's own layer in float32, which can be differentiated again."""
    # Aliases: what one of them was made of another one before, such as a state, is not counted here.
    given: Any = [each if each is None else each.view_as(each) for each in ctx.saved_tensors[:_ARGUMENTS]]
    inputs, which, weight_ih, weight_hh, bias_ih, bias_hh, state = given
    with torch.autocast("cpu", enabled=False):
        read = (inputs if which is None else inputs[which]).float()
        weights, size = [weight_ih, weight_hh, bias_ih, bias_hh], weight_hh.shape[1]
        options = True, 1, 0.0, False, False, False
        if len(weight_hh) == 4 * size:
            first = [part.contiguous() for part in state[None].chunk(2, 2)]
            outputs, hidden, cells = torch.lstm(read, first, weights, *options)
            after = torch.cat([hidden, cells], 2)
        else:
            outputs, after = torch.gru(read, state[None], weights, *options)
        wanted = [each for each, needed in zip(given, ctx.needs_input_grad, strict=True) if needed]
        found = torch.autograd.grad(
            [outputs.to(inputs.dtype), after[0]], wanted, gradients, create_graph=True, materialize_grads=True
        )
    each = iter(found)
    return tuple(next(each) if needed else None for needed in ctx.needs_input_grad)


_ARGUMENTS = 7
"""Of each function: inputs, which of them, four weights, and the state before."""


def _with_first(turns: int, values: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Room for what is before (B, H) and after each of T characters (T + 1, B, H)."""
    room = values.new_empty(turns + 1, *values.shape, dtype=dtype)
    room[0] = values
    return room


def _by_unit(weight_ih: Tensor, size: int, kind: torch.dtype) -> Tensor:
    """Weights of inputs (gates H, F), for every 32 units those of all gates together."""
    by_gate = weight_ih.detach().reshape(-1, size // SIDE, SIDE, weight_ih.shape[1])
    return by_gate.transpose(0, 1).to(kind, memory_format=torch.contiguous_format).flatten(0, 2)


def _transposed(size: int, columns: int, like: Tensor) -> Tensor:
    """Room for a matrix (N, T B) of the type of another: of float32 by columns, of bf16 by rows.

    Rows do not lie a power of two apart: these would share one place of a cache.
    """
    if like.dtype == torch.float32:
        return like.new_empty(columns, size).t()
    room = like.new_empty(size, columns + 2 * SIDE)
    room[:, columns:] = 0  # torch's product multiplies some of what is between rows by zero, and it might be NaN
    return room[:, :columns]


def _entering(inputs: Tensor, which: Tensor | None, by_unit: Tensor) -> tuple[Tensor, NDArray[np.int64], Tensor]:
    """Sums over inputs (N, gates H), which of them enters where (T, B), and room for gates (T B, gates H).

    Args:
        inputs: (T, B, F), or a table (V, F), of whose rows `which` (T, B) are read.
    """
    entering = inputs.view(-1, inputs.shape[-1]) @ by_unit.t()
    if which is None:
        return entering, np.arange(len(entering)).reshape(inputs.shape[:2]), entering
    return entering, which.numpy(), entering.new_empty(which.numel(), len(by_unit))


def _input_gradients(
    inputs: Tensor, which: Tensor | None, gates: Tensor, by_unit: Tensor, weight: Tensor, transposed: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of inputs and of their weights, from those of the gates' sums.

    Args:
        gates: (T B, gates H), in the order of `by_unit`; of bf16 only.
        weight: (gates H, F), in the order of `transposed`, which is (gates H, T B).
    """
    if which is None:
        of_inputs = gates @ by_unit if inputs.dtype == torch.bfloat16 else transposed.t() @ weight
        return of_inputs.view(inputs.shape), transposed @ inputs.view(-1, inputs.shape[-1])
    # The product with a row of zeros and a one for each position adds up the gradients of each row of the table.
    ones = inputs.new_zeros(which.numel(), kernels.pad(len(inputs)))
    of_rows = transposed @ ones.scatter_(1, which.view(-1, 1), 1)[:, : len(inputs)]
    return of_rows.t() @ weight.to(inputs.dtype), of_rows @ inputs


def _sums(transposed: Tensor) -> Tensor:
    """Sums over time and rows (N,) of what is transposed (N, T B)."""
    if transposed.dtype == torch.float32:
        return transposed.sum(1)
    bits, found = numpy_view(transposed), transposed.new_empty(len(transposed), dtype=torch.float32)
    out = found.numpy()
    share(lambda part: kernels.sums_over_time(bits, part.start, part.stop, out), len(bits), SIDE)
    return found
