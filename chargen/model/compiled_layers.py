"""One recurrent layer on a CPU: the layer of `recurrent` computed by compiled kernels, in bf16 or float32."""

import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from chargen.kernels.amx import SIDE, TILE_CONFIG, aligned
from chargen.kernels.packing import pack_backward, pack_forward
from chargen.kernels.threads import AutoTuner, parallel_for, run_team, threads
from chargen.kernels.train_rnn import GRU_KERNELS, LSTM_KERNELS, Backward, Forward, Kernels, Part, pad, sums_over_time
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
    size, padded = module.hidden_size, pad(module.hidden_size)
    weights: list[Tensor] = [getattr(module, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    state = state.float()
    if padded > size:
        # Hidden units with weights and states of zero stay at zero.
        weights = [_fill(weight, size, padded, weight is weights[1]) for weight in weights]
        state = functional.pad(state.reshape(len(state), -1, size), (0, padded - size)).flatten(1)
    by_time = (inputs if ids is not None else inputs.transpose(0, 1)).to(kind).contiguous()
    which = None if ids is None else ids.t().contiguous()
    layer: Any = _Layer
    outputs, after = layer.apply(_kernels(module), by_time, which, *weights, state)
    if padded > size:
        outputs, after = outputs[..., :size], after.view(len(after), -1, padded)[..., :size].flatten(1)
    return outputs.transpose(0, 1), after


def _kernels(module: nn.RNNBase) -> Kernels:
    return LSTM_KERNELS if isinstance(module, nn.LSTM) else GRU_KERNELS


def _fill(weight: Tensor, size: int, padded: int, both: bool) -> Tensor:
    """Zeros for more hidden units in each gate, and in what a recurrent weight is multiplied by."""
    by_gate = weight.reshape(-1, size, *weight.shape[1:])
    more = (0, padded - size)
    ends = more if weight.dim() == 1 else (*(more if both else (0, 0)), *more)
    return functional.pad(by_gate, ends).flatten(0, 1)


def _pack(weights: Tensor, kind: torch.dtype, *, transposed: bool) -> NDArray[Any]:
    """Weights, or their transpose, as the right side of a product: blocks of 32 columns one after the other."""
    weights = weights.detach().contiguous()
    inputs, outputs = reversed(weights.shape) if transposed else weights.shape
    if kind == torch.float32:
        right = weights.t() if transposed else weights
        return numpy_view(right.reshape(inputs, -1, SIDE).transpose(0, 1).contiguous())
    packed = aligned((outputs // SIDE, inputs // 2, SIDE, 2), np.uint16)
    kernel, values = pack_forward if transposed else pack_backward, weights.numpy()
    parallel_for(lambda part: kernel(values, part.start, part.stop, packed), len(packed))
    return packed


def _in_threads(
    kernels: Kernels, layer: Forward | Backward, rows: int, size: int, of_state: Tensor | None = None
) -> None:
    """Compute a layer forward, or backward where `of_state` is given.

    Threads share out rows; or hidden units where fewer zeros are multiplied so and where that turns out faster: rows
    are multiplied in blocks of 32, filled up with zeros.

    Args:
        rows, size: B, H.
        of_state: (B, H), the gradient of the state after; becomes a part of that of the state before.
    """
    blocks, gates = size // SIDE, kernels.cell.gates
    row_parts, members = min(threads(), max(1, rows // ROWS)), min(threads(), blocks)
    fewer = pad(rows) * -(-blocks // members) < pad(-(-rows // row_parts)) * blocks
    tuner = _tuner(rows, size, gates, of_state is None)
    by_hidden, begun = fewer and tuner.choose(), time.perf_counter()
    borders = [blocks * member // members for member in range(members + 1)] if by_hidden else [0, blocks]

    def some_rows(part: slice) -> None:
        first, last, kind = part.start, part.stop, layer.weights.dtype
        inputs = blocks if of_state is None else gates * blocks
        left, counter = aligned((2, inputs, pad(last - first), SIDE), kind), np.zeros(1, np.int64)
        carried = None if of_state is None else _to_blocks(of_state, part)
        apart = kernels.cell.gradients - gates

        def run(member: int) -> None:
            sums = aligned((2, gates, SIDE, SIDE), np.float32) if carried is None else carried
            spare = aligned((apart, SIDE, SIDE), kind)
            hidden = borders[member], borders[member + 1]
            kernel: Any = kernels.forward if carried is None else kernels.backward
            kernel(TILE_CONFIG, layer, Part(first, last, *hidden, len(borders) - 1, counter, left, sums, spare))

        run_team(run, len(borders) - 1)
        if of_state is not None and carried is not None:
            _from_blocks(carried, part, of_state)

    if by_hidden:
        some_rows(slice(0, rows))
    else:
        parallel_for(some_rows, rows, ROWS)
    if fewer:
        tuner.record(by_hidden, time.perf_counter() - begun)


@cache
def _tuner(rows: int, size: int, gates: int, forward: bool) -> AutoTuner:
    """By hidden units or by rows, for each kind of layer."""
    return AutoTuner()


def _to_blocks(values: Tensor, rows: slice) -> NDArray[np.float32]:
    """Some rows (B, H) as blocks of hidden units (H / 32, M, 32)."""
    count, size = rows.stop - rows.start, values.shape[1]
    blocks = aligned((size // SIDE, pad(count), SIDE), np.float32)
    blocks[:, :count] = values[rows].view(count, -1, SIDE).transpose(0, 1).numpy()
    return blocks


def _from_blocks(blocks: NDArray[np.float32], rows: slice, values: Tensor) -> None:
    """Blocks of hidden units (H / 32, M, 32) into some rows of `values` (B, H)."""
    count = rows.stop - rows.start
    values[rows] = torch.from_numpy(blocks[:, :count]).transpose(0, 1).reshape(count, -1)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: Kernels, *arguments: Any) -> tuple[Tensor, Tensor]:
        results, kept = _run_forward(kernels, *arguments)
        ctx.kernels = kernels
        ctx.save_for_backward(*arguments, *kept)
        return results

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            return None, *_by_torch(ctx, gradients)
        inputs, which, weight_ih, weight_hh, by_block, gates, outputs, kept = _kept(ctx)
        cell, (steps, rows), size = ctx.kernels.cell, gradients[0].shape[:2], weight_hh.shape[1]
        of_outputs, after = gradients[0].to(inputs.dtype).contiguous(), gradients[1].float()
        dh, second = (part.clone(memory_format=torch.contiguous_format) for part in (after[:, :size], after[:, size:]))
        if cell.kept != "f":
            second = torch.zeros_like(dh)
        transposed = _transposed(cell.gradients * size, steps * rows, inputs)
        packed = _pack(weight_hh, inputs.dtype, transposed=False)
        layer = Backward(
            packed, numpy_view(gates), numpy_view(kept), numpy_view(outputs[:-1]), numpy_view(of_outputs),
            second.numpy(), numpy_view(transposed),
        )  # fmt: skip
        _in_threads(ctx.kernels, layer, rows, size, dh)
        # Gradients of sums over inputs come first, in an order of their own; those of sums over the state come last.
        outer, inner, bias = transposed[: cell.gates * size], transposed[-cell.gates * size :], _sums(transposed)
        places = [cell.order.index(place) for place in range(cell.gates)]
        weight = _reordered(weight_ih, places)
        of_inputs, of_ih = _input_gradients(inputs, which, gates, by_block, weight, outer)
        of_hh = inner @ outputs[:-1].view(steps * rows, size)
        of_ih, of_bias_ih = (_reordered(part, cell.order) for part in (of_ih, bias[: cell.gates * size]))
        of_state = torch.cat([dh, second], dim=1) if cell.kept == "f" else dh + second
        of_bias_hh = bias[-cell.gates * size :].clone()
        return None, of_inputs, None, of_ih.float(), of_hh.float(), of_bias_ih, of_bias_hh, of_state


def _reordered(values: Tensor, order: Sequence[int]) -> Tensor:
    """Values (gates H, ...) with gates in another order."""
    if list(order) == sorted(order):
        return values
    gates = values.chunk(len(order))
    return torch.cat([gates[place] for place in order])


def _run_forward(
    kernels: Kernels, inputs: Tensor, which: Tensor | None, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor,
    bias_hh: Tensor, state: Tensor,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:  # fmt: skip
    """Outputs and the state after, and what the way back needs besides."""
    cell, (steps, rows), size = kernels.cell, (inputs if which is None else which).shape[:2], weight_hh.shape[1]
    by_block = _gates_together(weight_ih, size, inputs.dtype)
    entering, chosen, gates = _entering(inputs, which, by_block)
    outputs = _with_first(steps, state[:, :size], inputs.dtype)
    if cell.kept == "f":
        kept = _with_first(steps, state[:, size:])
    else:
        kept = inputs.new_empty(steps + 1 if cell.kept else 0, rows, size)
    hidden = state[:, :size].clone(memory_format=torch.contiguous_format)
    joint = (2 * cell.gates - cell.gradients) * size
    biases = torch.cat([(bias_ih + bias_hh)[:joint], bias_ih[joint:], bias_hh[joint:]]).detach()
    layer = Forward(
        _pack(weight_hh, inputs.dtype, transposed=True), biases.numpy(),
        numpy_view(entering), chosen, numpy_view(gates), numpy_view(kept), hidden.numpy(), numpy_view(outputs[1:]),
    )  # fmt: skip
    _in_threads(kernels, layer, rows, size)
    after = torch.cat([hidden, kept[steps]], dim=1) if cell.kept == "f" else hidden
    return (outputs[1:], after), (by_block, gates, outputs, kept)


def _kept(ctx: Any) -> tuple[Any, ...]:
    """Inputs, which of them, their weights and the recurrent ones, and what is kept for the way back.

    Gates are overwritten by their gradients: where a graph is used once more, they are computed once more.
    """
    arguments, kept = ctx.saved_tensors[:_ARGUMENTS], ctx.saved_tensors[_ARGUMENTS:]
    if getattr(ctx, "used", False):
        _, kept = _run_forward(ctx.kernels, *arguments)
    ctx.used = True
    return *arguments[:4], *kept


def _by_torch(ctx: Any, gradients: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    """The gradients by torch's own layer in float32, which can be differentiated again."""
    # Aliases: what one of them was made of another one before, such as a state, is not counted here.
    saved, needed = ctx.saved_tensors[:_ARGUMENTS], ctx.needs_input_grad[1:]
    aliases: Any = [values if values is None else values.view_as(values) for values in saved]
    inputs, which, weight_ih, weight_hh, bias_ih, bias_hh, state = aliases
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
        wanted = [alias for alias, asked in zip(aliases, needed, strict=True) if asked]
        results = torch.autograd.grad(
            [outputs.to(inputs.dtype), after[0]], wanted, gradients, create_graph=True, materialize_grads=True
        )
    following = iter(results)
    return tuple(next(following) if asked else None for asked in needed)


_ARGUMENTS = 7
"""Of each function: inputs, which of them, four weights, and the state before."""


def _with_first(steps: int, values: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Room for what is before (B, H) and after each of T characters (T + 1, B, H)."""
    room = values.new_empty(steps + 1, *values.shape, dtype=dtype)
    room[0] = values
    return room


def _gates_together(weight_ih: Tensor, size: int, kind: torch.dtype) -> Tensor:
    """Weights of inputs (gates H, F), for every 32 hidden units those of all gates together."""
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


def _entering(inputs: Tensor, which: Tensor | None, by_block: Tensor) -> tuple[Tensor, NDArray[np.int64], Tensor]:
    """Sums over inputs (N, gates H), which of them enters where (T, B), and room for gates (T B, gates H).

    Args:
        inputs: (T, B, F), or a table (V, F), of whose rows `which` (T, B) are read.
    """
    entering = inputs.view(-1, inputs.shape[-1]) @ by_block.t()
    if which is None:
        return entering, np.arange(len(entering)).reshape(inputs.shape[:2]), entering
    return entering, which.numpy(), entering.new_empty(which.numel(), len(by_block))


def _input_gradients(
    inputs: Tensor, which: Tensor | None, gates: Tensor, by_block: Tensor, weight: Tensor, transposed: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of inputs and of their weights, from those of the gates' sums.

    Args:
        gates: (T B, gates H), in the order of `by_block`; of bf16 only.
        weight: (gates H, F), in the order of `transposed`, which is (gates H, T B).
    """
    if which is None:
        of_inputs = gates @ by_block if inputs.dtype == torch.bfloat16 else transposed.t() @ weight
        return of_inputs.view(inputs.shape), transposed @ inputs.view(-1, inputs.shape[-1])
    # The product with a row of zeros and a one for each position adds up the gradients of each row of the table.
    ones = inputs.new_zeros(which.numel(), pad(len(inputs)))
    of_rows = transposed @ ones.scatter_(1, which.view(-1, 1), 1)[:, : len(inputs)]
    return of_rows.t() @ weight.to(inputs.dtype), of_rows @ inputs


def _sums(transposed: Tensor) -> Tensor:
    """Sums over time and rows (N,) of what is transposed (N, T B)."""
    if transposed.dtype == torch.float32:
        return transposed.sum(1)
    bits, sums = numpy_view(transposed), transposed.new_empty(len(transposed), dtype=torch.float32)
    out = sums.numpy()
    parallel_for(lambda part: sums_over_time(bits, part.start, part.stop, out), len(bits), SIDE)
    return sums
