"""One recurrent layer on a CPU with bf16 matrix units: the layer of `recurrent` computed by compiled kernels."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from chargen.kernels import recurrent as kernels
from chargen.kernels.threads import share
from chargen.kernels.tiles import SETTINGS, SIDE

ROWS = 16
"""Fewer rows are not worth a thread of their own."""


def run(module: nn.RNNBase, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """As `run_layer`: inputs (B, T, F) and a state (B, S) -> outputs (B, T, H) in bf16 and the state after, in fp32."""
    weights = [module.get_parameter(f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    layer: Any = _Lstm if isinstance(module, nn.LSTM) else _Gru
    by_time = inputs.transpose(0, 1).to(torch.bfloat16).contiguous()
    outputs, after = layer.apply(by_time, *weights, state.float())
    return outputs.transpose(0, 1), after


def _bits(values: Tensor) -> NDArray[np.uint16]:
    """A bf16 tensor's memory."""
    found: NDArray[np.uint16] = values.view(torch.uint16).numpy()
    return found


def _pack(weights: Tensor, gates: int) -> Tensor:
    """Recurrent weights (gates H, H) as `tiles.pack` packs their transpose, each gate filled up."""
    size = weights.shape[1]
    padded = kernels.pad(size)
    filled = torch.zeros(gates, padded, padded, dtype=torch.bfloat16)
    filled[:, :size, :size] = weights.detach().view(gates, size, size)
    # Pairs of inputs that lie side by side travel together.
    pairs = filled.view(torch.int32).view(gates * padded // SIDE, SIDE, padded // 2)
    return pairs.transpose(1, 2).contiguous().view(torch.bfloat16).view(-1, padded // 2, SIDE, 2)


def _pack_back(weights: Tensor, gates: int) -> Tensor:
    """Recurrent weights (gates H, H) as `tiles.pack` packs them, each gate filled up."""
    size = weights.shape[1]
    padded = kernels.pad(size)
    filled = torch.zeros(gates, padded, padded, dtype=torch.bfloat16)
    filled[:, :size, :size] = weights.detach().view(gates, size, size)
    rows = filled.view(gates * padded // 2, 2, padded // SIDE, SIDE)
    return rows.permute(2, 0, 3, 1).contiguous()


class _Room:
    """What the kernels compute some rows in."""

    def __init__(self, rows: slice, inputs: int, outputs: int) -> None:
        filled = -(-(rows.stop - rows.start) // SIDE) * SIDE
        self.left = _bits(torch.zeros(filled, inputs, dtype=torch.bfloat16))
        self.sums = torch.empty(outputs // SIDE, filled, SIDE).numpy()
        self.all = rows.start, rows.stop, self.left, self.sums


class _Lstm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        (turns, rows, _), size = inputs.shape, weight_hh.shape[1]
        padded = kernels.pad(size)
        gates = inputs.view(turns * rows, -1) @ weight_ih.to(torch.bfloat16).t()
        outputs, cells = _with_first(turns, state[:, :size]), torch.empty(turns, rows, size)
        hidden, cell = (part.contiguous() for part in state.clone().chunk(2, dim=1))
        packed, bias = _bits(_pack(weight_hh, 4)), (bias_ih + bias_hh).detach().numpy()
        arrays = _bits(gates.view(turns, rows, -1)), hidden.numpy(), cell.numpy(), _bits(outputs[1:]), cells.numpy()

        def run(part: slice) -> None:
            room = _Room(part, padded, 4 * padded)
            kernels.lstm_forward(SETTINGS, packed, bias, *arrays, *room.all)

        share(run, rows, ROWS)
        ctx.save_for_backward(inputs, weight_ih, weight_hh, state, gates, outputs, cells)
        return outputs[1:], torch.cat([hidden, cell], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        inputs, weight_ih, weight_hh, state, gates, outputs, cells = _once(ctx)
        gradient, after = gradients
        turns, rows, size = cells.shape
        padded = kernels.pad(size)
        dh, dc = (part.contiguous() for part in after.float().clone().chunk(2, dim=1))
        bias = torch.zeros(rows, 4 * size)
        packed = _bits(_pack_back(weight_hh, 4))
        arrays = (
            _bits(gates.view(turns, rows, -1)), cells.numpy(), state[:, size:].contiguous().numpy(),
            _bits(gradient.to(torch.bfloat16).contiguous()), dh.numpy(), dc.numpy(), bias.numpy(),
        )  # fmt: skip

        def run(part: slice) -> None:
            room = _Room(part, 4 * padded, padded)
            kernels.lstm_backward(SETTINGS, packed, *arrays, *room.all)

        share(run, rows, ROWS)
        before = outputs[:-1].view(turns * rows, size)
        entering = _input_gradients(inputs, weight_ih, gates)
        return *entering, (gates.t() @ before).float(), bias.sum(0), bias.sum(0), torch.cat([dh, dc], dim=1)


class _Gru(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        (turns, rows, _), size = inputs.shape, weight_hh.shape[1]
        padded = kernels.pad(size)
        gates = inputs.view(turns * rows, -1) @ weight_ih.to(torch.bfloat16).t()
        outputs, carried = _with_first(turns, state), torch.empty(turns, rows, size, dtype=torch.bfloat16)
        hidden, bias = state.detach().clone(), bias_ih.detach().clone()
        bias[: 2 * size] += bias_hh.detach()[: 2 * size]
        packed, new_bias = _bits(_pack(weight_hh, 3)), bias_hh.detach()[2 * size :].contiguous().numpy()
        arrays = _bits(gates.view(turns, rows, -1)), hidden.numpy(), _bits(outputs[1:]), _bits(carried)

        def run(part: slice) -> None:
            room = _Room(part, padded, 3 * padded)
            kernels.gru_forward(SETTINGS, packed, bias.numpy(), new_bias, *arrays, *room.all)

        share(run, rows, ROWS)
        ctx.save_for_backward(inputs, weight_ih, weight_hh, state, gates, outputs, carried)
        return outputs[1:], hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        inputs, weight_ih, weight_hh, state, gates, outputs, carried = _once(ctx)
        gradient, after = gradients
        turns, rows, size = carried.shape
        padded = kernels.pad(size)
        dh = after.float().clone()
        bias, inner_bias = torch.zeros(rows, 3 * size), torch.zeros(rows, size)
        packed = _bits(_pack_back(weight_hh, 3))
        arrays = (
            _bits(gates.view(turns, rows, -1)), _bits(carried), _bits(outputs[1:]), state.contiguous().numpy(),
            _bits(gradient.to(torch.bfloat16).contiguous()), dh.numpy(), bias.numpy(), inner_bias.numpy(),
        )  # fmt: skip

        def run(part: slice) -> None:
            room = _Room(part, 3 * padded, padded)
            kernels.gru_backward(SETTINGS, packed, *arrays, *room.all)

        share(run, rows, ROWS)
        before, inner = outputs[:-1].view(turns * rows, size), carried.view(turns * rows, size)
        recurrent = torch.cat([gates[:, : 2 * size].t() @ before, inner.t() @ before]).float()
        recurrent_bias = torch.cat([bias.sum(0)[: 2 * size], inner_bias.sum(0)])
        return *_input_gradients(inputs, weight_ih, gates), recurrent, bias.sum(0), recurrent_bias, dh


def _once(ctx: Any) -> tuple[Tensor, ...]:
    """What the forward pass kept; gates are overwritten by their gradients, so only once."""
    if getattr(ctx, "used", False):
        raise RuntimeError("a compiled layer's gradient can be taken once: run the forward pass again")
    ctx.used = True
    saved: tuple[Tensor, ...] = ctx.saved_tensors
    return saved


def _with_first(turns: int, hidden: Tensor) -> Tensor:
    """Room for the hidden state before (B, H) and after each of T characters (T + 1, B, H)."""
    room = torch.empty(turns + 1, *hidden.shape, dtype=torch.bfloat16)
    room[0] = hidden
    return room


def _input_gradients(inputs: Tensor, weight_ih: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the inputs (T, B, F) and of their weights, from those of the sums (T B, gates H)."""
    flat = inputs.view(len(sums), -1)
    return (sums @ weight_ih.to(torch.bfloat16)).view(inputs.shape), (sums.t() @ flat).float()
