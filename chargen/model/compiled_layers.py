"""A recurrent layer of PyTorch, computed on a CPU by compiled kernels, in bf16 or float32."""

import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from chargen.kernels.amx import SIDE, TILE_CONFIG, aligned_zeros
from chargen.kernels.packing import pack_backward, pack_forward
from chargen.kernels.sharing import Costs, Sharing, Work, costs_of, microseconds, ways
from chargen.kernels.sums import sums_by_id, sums_over_time
from chargen.kernels.threads import AutoTuner, cores, parallel_for, run_team, share_out, threads
from chargen.kernels.train_rnn import GRU_KERNELS, LSTM_KERNELS, Backward, Forward, Kernels, Part, pad
from chargen.model.device import numpy_view
from chargen.model.pieces import Pieces


def run(
    module: nn.RNNBase, inputs: Tensor, state: Tensor, dtype: torch.dtype, ids: Tensor | None = None,
    fresh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Run a layer over a window of characters.

    Args:
        module: an LSTM or a GRU of one layer and one direction.
        inputs: (B, T, F), or with `ids` a table (V, F), of whose rows each product is computed once.
        state: (B, S), hidden state and cell side by side in an LSTM.
        dtype: of the factors of products and of the outputs, bfloat16 or float32.
        ids: (B, T), the row of the table that each character has as its input.
        fresh: (B, T) bool, true where the state is zero before a character.

    Returns:
        Outputs (B, T, H), and the state after (B, S) in float32.
    """
    size, padded = module.hidden_size, pad(module.hidden_size)
    weights: list[Tensor] = [getattr(module, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    state = state.float()
    if padded > size:
        # Hidden units with weights and states of zero stay at zero.
        weights = [_pad_weight(weight, size, padded, weight is weights[1]) for weight in weights]
        state = functional.pad(state.reshape(len(state), -1, size), (0, padded - size)).flatten(1)
    by_time = (inputs if ids is not None else inputs.transpose(0, 1)).to(dtype).contiguous()
    ids_by_time, fresh_by_time = (None if values is None else values.t().contiguous() for values in (ids, fresh))
    layer: Any = _Layer
    outputs, after = layer.apply(_kernels(module), by_time, ids_by_time, *weights, state, fresh_by_time)
    if padded > size:
        outputs, after = outputs[..., :size], after.view(len(after), -1, padded)[..., :size].flatten(1)
    return outputs.transpose(0, 1), after


def _kernels(module: nn.RNNBase) -> Kernels:
    return LSTM_KERNELS if isinstance(module, nn.LSTM) else GRU_KERNELS


def _pad_weight(weight: Tensor, size: int, padded: int, recurrent: bool) -> Tensor:
    """Pad a weight or bias with zeros for more hidden units, and a recurrent weight in both dimensions."""
    by_gate = weight.reshape(-1, size, *weight.shape[1:])
    padding = (0, padded - size)
    ends = padding if weight.dim() == 1 else (*(padding if recurrent else (0, 0)), *padding)
    return functional.pad(by_gate, ends).flatten(0, 1)


def _pack_weights(weights: Tensor, dtype: torch.dtype, *, transposed: bool) -> NDArray[Any]:
    """Pack weights, or their transpose, as the right side of products: blocks of 32 columns."""
    weights = weights.detach().contiguous()
    inputs, outputs = reversed(weights.shape) if transposed else weights.shape
    if dtype == torch.float32:
        columns = weights.t() if transposed else weights
        return numpy_view(columns.reshape(inputs, -1, SIDE).transpose(0, 1).contiguous())
    packed = aligned_zeros((outputs // SIDE, inputs // 2, SIDE, 2), np.uint16)
    kernel, values = pack_forward if transposed else pack_backward, weights.numpy()
    parallel_for(lambda part: kernel(values, part.start, part.stop, packed), len(packed), microseconds=0.0025 * inputs)
    return packed


def _run_kernels(
    kernels: Kernels, layer: Forward | Backward, rows: int, size: int, grad_hidden: Tensor | None = None
) -> None:
    """Run a layer's forward pass, or its backward pass where there is a gradient of the state.

    Rows are multiplied in blocks of 32, padded with zeros. Threads share out rows, or rows and hidden units, in the way
    that measurements say is the fastest of a few; no bit depends on it.

    Args:
        kernels: the compiled loops of the cell.
        layer: the arrays of the pass.
        rows: B.
        size: H.
        grad_hidden: (B, H), the gradient of the hidden state after; becomes that of the state before through sums.
    """
    blocks, gates, dtype = size // SIDE, kernels.cell.gates, layer.weights.dtype
    work = Work(rows, blocks, gates, layer.gates.size // (rows * gates * size))
    tuner = _tuner(work, costs_of(dtype), grad_hidden is None, threads(), cores())
    sharing, start_time = tuner.choose(), time.perf_counter()
    teams, members = sharing
    row_parts, block_parts = share_out(rows, teams), share_out(blocks, members)
    kernel: Any = kernels.forward if grad_hidden is None else kernels.backward
    left_blocks, compiled = blocks if grad_hidden is None else gates * blocks, len(kernel.overloads)
    lefts = [aligned_zeros((2, left_blocks, pad(part.stop - part.start), SIDE), dtype) for part in row_parts]
    grads = [] if grad_hidden is None else [_to_blocks(grad_hidden, part) for part in row_parts]
    counters = np.zeros((teams, 1), np.int64)

    def run(number: int) -> None:
        team, member = divmod(number, members)
        mine, block = row_parts[team], block_parts[member]
        sums = grads[team] if grads else aligned_zeros((2, gates, SIDE, SIDE), np.float32)
        input_only = aligned_zeros((kernels.cell.gradients - gates, SIDE, SIDE), dtype)
        place = mine.start, mine.stop, block.start, block.stop, members
        part = Part(*place, counters[team], lefts[team], sums, input_only)
        kernel(TILE_CONFIG, layer, part)

    run_team(run, sharing.threads)
    if grad_hidden is not None:
        for part, blocks_of_part in zip(row_parts, grads, strict=True):
            _from_blocks(blocks_of_part, part, grad_hidden)
    if len(kernel.overloads) == compiled:
        tuner.record(sharing, time.perf_counter() - start_time)


@cache
def _tuner(work: Work, costs: Costs, forward: bool, num_threads: int, num_cores: int) -> AutoTuner[Sharing]:
    """The choice among ways to share out a layer's pass."""
    choices = ways(work, costs, num_threads, num_cores)
    return AutoTuner({way: microseconds(way, work, costs, num_cores) / 1e6 for way in choices})


def _to_blocks(values: Tensor, rows: slice) -> NDArray[np.float32]:
    """Copy some rows (B, H) into blocks of hidden units (H / 32, M, 32)."""
    count, size = rows.stop - rows.start, values.shape[1]
    blocks = aligned_zeros((size // SIDE, pad(count), SIDE), np.float32)
    blocks[:, :count] = values[rows].view(count, -1, SIDE).transpose(0, 1).numpy()
    return blocks


def _from_blocks(blocks: NDArray[np.float32], rows: slice, values: Tensor) -> None:
    """Copy blocks of hidden units (H / 32, M, 32) into some rows of `values` (B, H)."""
    count = rows.stop - rows.start
    values[rows] = torch.from_numpy(blocks[:, :count]).transpose(0, 1).reshape(count, -1)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: Kernels, *arguments: Any) -> tuple[Tensor, Tensor]:
        results, saved = _run_forward(kernels, *arguments)
        ctx.kernels = kernels
        ctx.save_for_backward(*arguments, *saved)
        return results

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            return None, *differentiate_by_torch(ctx, gradients)
        inputs, ids, weight_ih, weight_hh, fresh, by_block, gates, outputs, kept = _load_saved(ctx)
        cell, (time_steps, rows), size = ctx.kernels.cell, gradients[0].shape[:2], weight_hh.shape[1]
        grad_outputs, after = gradients[0].to(inputs.dtype).contiguous(), gradients[1].float()
        dh, direct = (part.clone(memory_format=torch.contiguous_format) for part in (after[:, :size], after[:, size:]))
        if cell.kept != "f":
            direct = torch.zeros_like(dh)
        grad_sums = _empty_transposed(cell.gradients * size, time_steps * rows, inputs)
        packed = _pack_weights(weight_hh, inputs.dtype, transposed=False)
        before = outputs[:-1] if fresh is None else outputs[:-1].masked_fill(fresh[:, :, None], 0)
        layer = Backward(
            packed, numpy_view(gates), numpy_view(kept), numpy_view(before), numpy_view(grad_outputs),
            direct.numpy(), numpy_view(grad_sums), _flags(fresh), aligned_zeros((SIDE,), np.float32),
        )  # fmt: skip
        _run_kernels(ctx.kernels, layer, rows, size, dh)
        # First the gradients of sums over inputs, in the cell's order; last those of sums over the state.
        outer, inner, grad_bias = grad_sums[: cell.gates * size], grad_sums[-cell.gates * size :], _sum_rows(grad_sums)
        gate_order = [cell.order.index(gate) for gate in range(cell.gates)]
        weight = _reorder(weight_ih, gate_order)
        grad_inputs, grad_ih = _input_gradients(inputs, ids, gates, by_block, weight, outer)
        grad_hh = inner @ before.view(time_steps * rows, size)
        grad_ih, grad_bias_ih = (_reorder(part, cell.order) for part in (grad_ih, grad_bias[: cell.gates * size]))
        grad_state = torch.cat([dh, direct], dim=1) if cell.kept == "f" else dh + direct
        if fresh is not None:
            grad_state = grad_state.masked_fill(fresh[0, :, None], 0)
        grad_bias_hh = grad_bias[-cell.gates * size :].clone()
        return None, grad_inputs, None, grad_ih.float(), grad_hh.float(), grad_bias_ih, grad_bias_hh, grad_state, None


def _reorder(values: Tensor, order: Sequence[int]) -> Tensor:
    """Put the gates of values (gates H, ...) into another order."""
    if list(order) == sorted(order):
        return values
    gates = values.chunk(len(order))
    return torch.cat([gates[gate] for gate in order])


def _run_forward(
    kernels: Kernels, inputs: Tensor, ids: Tensor | None, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor,
    bias_hh: Tensor, state: Tensor, fresh: Tensor | None,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:  # fmt: skip
    """Compute outputs and the state after, and the tensors that the backward pass needs besides."""
    cell, (time_steps, rows), size = kernels.cell, (inputs if ids is None else ids).shape[:2], weight_hh.shape[1]
    by_block = _group_gates(weight_ih, size, inputs.dtype)
    sums, index, gates = _sum_inputs(inputs, ids, by_block)
    outputs = _with_initial(time_steps, state[:, :size], inputs.dtype)
    if cell.kept == "f":
        kept = _with_initial(time_steps, state[:, size:])
    else:
        kept = inputs.new_empty(time_steps + 1 if cell.kept else 0, rows, size)
    hidden = state[:, :size].clone(memory_format=torch.contiguous_format)
    num_joint = (2 * cell.gates - cell.gradients) * size
    biases = torch.cat([(bias_ih + bias_hh)[:num_joint], bias_ih[num_joint:], bias_hh[num_joint:]]).detach()
    layer = Forward(
        _pack_weights(weight_hh, inputs.dtype, transposed=True), biases.numpy(),
        numpy_view(sums), index, numpy_view(gates), numpy_view(kept), hidden.numpy(), numpy_view(outputs[1:]),
        _flags(fresh), aligned_zeros((SIDE,), np.float32),
    )  # fmt: skip
    _run_kernels(kernels, layer, rows, size)
    after = torch.cat([hidden, kept[time_steps]], dim=1) if cell.kept == "f" else hidden
    return (outputs[1:], after), (by_block, gates, outputs, kept)


def _load_saved(ctx: Any) -> tuple[Any, ...]:
    """Load inputs, ids, both weights, where the state is fresh, and the tensors of the forward pass.

    The backward pass overwrites gates by gradients: when it runs again over the same graph, gates are computed again.
    """
    arguments, saved = ctx.saved_tensors[:_NUM_ARGUMENTS], ctx.saved_tensors[_NUM_ARGUMENTS:]
    if getattr(ctx, "used", False):
        _, saved = _run_forward(ctx.kernels, *arguments)
    ctx.used = True
    return *arguments[:4], arguments[-1], *saved


def differentiate_by_torch(ctx: Any, gradients: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    """Compute gradients by torch's own layer in float32, so that they can be differentiated again."""
    # Aliases, because an argument may have been computed from another, such as the state from the weights.
    saved, needs_grad = ctx.saved_tensors[:_NUM_ARGUMENTS], ctx.needs_input_grad[1:]
    aliases: Any = [values if values is None else values.view_as(values) for values in saved]
    inputs, ids, weight_ih, weight_hh, bias_ih, bias_hh, state, fresh = aliases
    with torch.autocast("cpu", enabled=False):
        layer_inputs = (inputs if ids is None else inputs[ids]).float()
        weights, size = [weight_ih, weight_hh, bias_ih, bias_hh], weight_hh.shape[1]
        pieces = Pieces(
            torch.zeros(layer_inputs.shape[1::-1], dtype=torch.bool) if fresh is None else fresh.t(), inputs.device
        )
        data, state = pieces.pack(layer_inputs.transpose(0, 1)), pieces.before(state)[None]
        options = weights, True, 1, 0.0, False, False
        if len(weight_hh) == 4 * size:
            initial = [part.contiguous() for part in state.chunk(2, 2)]
            outputs, hidden, cell = torch.lstm(data, pieces.batch_sizes, initial, *options)
            after = torch.cat([hidden, cell], 2)
        else:
            outputs, after = torch.gru(data, pieces.batch_sizes, state, *options)
        outputs, after = pieces.unpack(outputs).transpose(0, 1), pieces.after(after[0])[None]
        needed = [alias for alias, is_needed in zip(aliases, needs_grad, strict=True) if is_needed]
        results = torch.autograd.grad(
            [outputs.to(inputs.dtype), after[0]], needed, gradients, create_graph=True, materialize_grads=True
        )
    grads = iter(results)
    return tuple(next(grads) if is_needed else None for is_needed in needs_grad)


_NUM_ARGUMENTS = 8
"""Tensors that a layer is computed from: inputs, ids, two weights, two biases, the state before, where it is fresh."""


def _flags(fresh: Tensor | None) -> NDArray[np.bool_]:
    return np.zeros((0, 0), bool) if fresh is None else fresh.numpy()


def _with_initial(time_steps: int, values: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Make an array (T + 1, B, H) of values before and after each of T characters, and fill in the first (B, H)."""
    result = values.new_empty(time_steps + 1, *values.shape, dtype=dtype)
    result[0] = values
    return result


def _group_gates(weight_ih: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Reorder weights of inputs (gates H, F): for every 32 hidden units those of all gates."""
    by_gate = weight_ih.detach().reshape(-1, size // SIDE, SIDE, weight_ih.shape[1])
    return by_gate.transpose(0, 1).to(dtype, memory_format=torch.contiguous_format).flatten(0, 2)


def _empty_transposed(size: int, columns: int, like: Tensor) -> Tensor:
    """Make a matrix (N, T B) of the type of another, with contiguous columns of float32 or contiguous rows of bf16.

    Rows are no power of two apart, for these would share one set of a cache.
    """
    if like.dtype == torch.float32:
        return like.new_empty(columns, size).t()
    buffer = like.new_empty(size, columns + 2 * SIDE)
    buffer[:, columns:] = 0  # torch's product may multiply what is between rows by zero, which must not be NaN
    return buffer[:, :columns]


def _sum_inputs(inputs: Tensor, ids: Tensor | None, by_block: Tensor) -> tuple[Tensor, NDArray[np.int64], Tensor]:
    """Compute the sums over inputs.

    Args:
        inputs: (T, B, F), or with `ids` a table (V, F).
        ids: (T, B), rows of the table.
        by_block: (gates H, F), the weights, for every 32 hidden units those of all gates.

    Returns:
        The sums (N, gates H), the row of them that each character has (T, B), and memory for gates (T B, gates H).
    """
    input_sums = inputs.view(-1, inputs.shape[-1]) @ by_block.t()
    if ids is None:
        return input_sums, np.arange(len(input_sums)).reshape(inputs.shape[:2]), input_sums
    return input_sums, ids.numpy(), input_sums.new_empty(ids.numel(), len(by_block))


def _input_gradients(
    inputs: Tensor, ids: Tensor | None, gates: Tensor, by_block: Tensor, weight: Tensor, grad_sums: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of inputs and of their weights.

    Args:
        inputs: (T, B, F), or with `ids` a table (V, F).
        ids: (T, B), rows of the table.
        gates: (T B, gates H), the gradients of sums over inputs in the order of `by_block`; used for bf16 only.
        by_block: (gates H, F), the weights, for every 32 hidden units those of all gates.
        weight: (gates H, F), in the order of `grad_sums`.
        grad_sums: (gates H, T B), the gradients of sums over inputs.

    Returns:
        The gradient of `inputs`, and that of the weights, (gates H, F).
    """
    if ids is None:
        grad_inputs = gates @ by_block if inputs.dtype == torch.bfloat16 else grad_sums.t() @ weight
        return grad_inputs.view(inputs.shape), grad_sums @ inputs.view(-1, inputs.shape[-1])
    grad_rows = _sum_by_id(grad_sums, ids, len(inputs))
    return grad_rows.t() @ weight.to(inputs.dtype), grad_rows @ inputs


def _sum_by_id(values: Tensor, ids: Tensor, size: int) -> Tensor:
    """Sum the columns of a matrix (N, T B) that have the same id: (N, V)."""
    if values.dtype == torch.float32:
        sums = values.new_zeros(size, len(values))
        arrays = numpy_view(values.t()), ids.view(-1).numpy()
        blocks, each = len(values) // SIDE, 0.012 * ids.numel()
        parallel_for(lambda part: sums_by_id(*arrays, part.start, part.stop, sums.numpy()), blocks, microseconds=each)
        return sums.t()
    # In bf16, matrix units multiply by one-hot rows sooner than memory gives what would be added.
    one_hot = values.new_zeros(ids.numel(), pad(size))
    return values @ one_hot.scatter_(1, ids.view(-1, 1), 1)[:, :size]


def _sum_rows(values: Tensor) -> Tensor:
    """Sum each row of a matrix (N, T B)."""
    if values.dtype == torch.float32:
        return values.sum(1)
    stored, sums = numpy_view(values), values.new_empty(len(values), dtype=torch.float32)
    out = sums.numpy()
    each = 1e-4 * stored.shape[1]
    parallel_for(lambda part: sums_over_time(stored, part.start, part.stop, out), len(stored), microseconds=each)
    return sums
