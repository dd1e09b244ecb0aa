"""A recurrent layer over one row that learns, on a CPU in float32, by compiled kernels."""

import time
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from chargen.kernels.amx import SIDE
from chargen.kernels.threads import AutoTuner, halves, run_team, threads
from chargen.kernels.train_rnn import pad
from chargen.kernels.train_row import GRU_ROW, LSTM_ROW, Member, RowBackward, RowForward
from chargen.model.compiled_layers import differentiate_by_torch

TEAM_BYTES = 2**20
"""Bytes of recurrent weights from which several threads share a layer's hidden units."""
Weights = tuple[Tensor, Tensor, Tensor, Tensor]
"""A layer's weight_ih, weight_hh, bias_ih and bias_hh."""


def run(module: nn.RNNBase, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Run a layer over one row.

    Args:
        module: an LSTM or a GRU of one layer and one direction.
        inputs: (1, T, F) in float32.
        state: (1, S).

    Returns:
        Outputs (1, T, H), and the state after (1, S).
    """
    layer: Any = _Layer
    outputs, after = layer.apply(None, inputs.transpose(0, 1), None, *layer_weights(module), state, None)
    return outputs.transpose(0, 1), after


def layer_weights(module: Any) -> Weights:
    """The weights of a layer.

    Args:
        module: an LSTM or a GRU of one layer and one direction.
    """
    return module.weight_ih_l0, module.weight_hh_l0, module.bias_ih_l0, module.bias_hh_l0


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        inputs, _, *weights, state, _ = arguments[1:]
        window = ctx.window = Window(tuple(weights), inputs[:, 0], state)
        ctx.save_for_backward(*arguments[1:])
        return window.outputs[:, None].clone(), window.after.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            return None, *differentiate_by_torch(ctx, gradients)
        window, weight_ih = ctx.window, ctx.saved_tensors[2]
        of_inputs, of_state, grad_state = window.differentiate(gradients[0][:, 0], gradients[1])
        weights = of_inputs.t() @ window.inputs, of_state.t() @ window.before, of_inputs.sum(0), of_state.sum(0)
        return None, (of_inputs @ weight_ih)[:, None], None, *weights, grad_state, None


class Window:
    """A layer that has read a window of T characters.

    Args:
        weights: of the layer.
        inputs: (T, F).
        state: (1, S), the state before.
    """

    def __init__(self, weights: Weights, inputs: Tensor, state: Tensor) -> None:
        self.weights, self.inputs = weights, inputs.contiguous()
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        self.size = size = weight_hh.shape[1]
        self.kernels = LSTM_ROW if len(weight_hh) == 4 * size else GRU_ROW
        cell, length = self.kernels.cell, len(inputs)
        # The bias of the inputs is added ahead; where a gate has two biases, nothing is left of its first one.
        biases, joint = bias_hh.reshape(-1, size), 2 * cell.gates - cell.gradients
        biases = torch.cat([biases[:joint], torch.zeros_like(biases[joint:]), biases[joint:]])
        initial = self._pad(state.reshape(-1, size))
        self.gates = self._pad(torch.addmm(bias_ih, inputs, weight_ih.t()).view(length, cell.gates, size))
        self.hidden, self.kept = (initial.new_empty(length + 1, pad(size)) for _ in range(2))
        self.hidden[0], self.kept[0] = initial[0], initial[-1]
        arrays = weight_hh, self._pad(biases), self.gates, self.kept, self.hidden
        _run_kernel(self.kernels.forward, RowForward(*map(_array, arrays)))
        self.outputs, self.before = (part[:, :size].contiguous() for part in (self.hidden[1:], self.hidden[:-1]))
        last = self.hidden[-1:, :size], self.kept[-1:, :size]
        self.after = torch.cat(last[: len(initial)], 1)

    def differentiate(self, grad_outputs: Tensor, grad_after: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Compute gradients.

        Args:
            grad_outputs: (T, H), the gradient of the outputs.
            grad_after: (1, S), the gradient of the state after; None for zeros.

        Returns:
            The gradients of sums over the inputs and over the state, (T, G H) each, and of the state before.
        """
        cell, length, size = self.kernels.cell, len(grad_outputs), self.size
        grad_state = self.hidden.new_zeros(2, pad(size))
        if grad_after is not None:
            grad_state[: grad_after.numel() // size, :size] = grad_after.reshape(-1, size)
        grad_sums = self.hidden.new_empty(length, cell.gradients, pad(size))
        arrays = (
            self.weights[1], self.gates, self.kept, self.hidden, self._pad(grad_outputs), *grad_state, grad_sums
        )  # fmt: skip
        _run_kernel(self.kernels.backward, RowBackward(*map(_array, arrays)))
        grad_sums = grad_sums[..., :size]
        of_state = grad_sums[:, -cell.gates :].flatten(1)
        of_inputs = grad_sums[:, cell.order].flatten(1) if cell.gradients > cell.gates else of_state
        grad_before = grad_state[:, :size] if cell.kept == "f" else grad_state.sum(0)[:size]
        return of_inputs, of_state, grad_before.reshape(1, -1)

    def _pad(self, values: Tensor) -> Tensor:
        padding = -self.size % SIDE
        return functional.pad(values, (0, padding)) if padding else values.contiguous()


def _array(values: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return values.detach().contiguous().numpy()


def _run_kernel(kernel: Any, layer: RowForward | RowBackward) -> None:
    """Run a layer's forward or backward pass; several threads share out its hidden units where that is faster."""
    size = layer.weights.shape[1]
    blocks = pad(size) // SIDE
    most = min(threads(), blocks) if layer.weights.nbytes >= TEAM_BYTES else 1
    tuner, compiled = _tuner(layer.weights.shape, kernel, most), bool(kernel.overloads)
    team, start_time, counter = tuner.choose(), time.perf_counter(), np.zeros(1, np.int64)
    borders = [blocks * member // team for member in range(team + 1)]
    run_team(lambda member: kernel(layer, Member(borders[member], borders[member + 1], team, counter)), team)
    if compiled:
        tuner.record(team, time.perf_counter() - start_time, len(layer.gates))


@cache
def _tuner(shape: tuple[int, int], kernel: Any, most: int) -> AutoTuner[int]:
    """The choice among numbers of threads, for each size of layer."""
    return AutoTuner(dict.fromkeys(halves(most), 0.0))
