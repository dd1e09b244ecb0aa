"""A GRU over one row on a CPU, with gradients.

torch's own layer adds up the gradients of weights id by id; here they are one product over all ids of the row.
"""

from typing import Any

import torch
from torch import Tensor, nn

from chargen.model.compiled_layers import differentiate_by_torch


def run(module: nn.RNNBase, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Run a layer over one row.

    Args:
        module: a GRU of one layer and one direction.
        inputs: (1, T, F) in float32.
        state: (1, H).

    Returns:
        Outputs (1, T, H), and the state after (1, H).
    """
    weights = [getattr(module, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    layer: Any = _Layer
    outputs, after = layer.apply(None, inputs.transpose(0, 1), None, *weights, state, None)
    return outputs.transpose(0, 1), after


class _Layer(torch.autograd.Function):
    """The gates of a row, (T, 3, H), are r, z and n; n adds its sum over the state after that is multiplied by r."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        _, inputs, _, weight_ih, weight_hh, bias_ih, bias_hh, state, _ = arguments
        length, size = len(inputs), weight_hh.shape[1]
        gates = torch.addmm(bias_ih, inputs[:, 0], weight_ih.t()).view(length, 3, size)
        state_sums = bias_hh.repeat(length, 1).view(length, 3, size)
        hidden = inputs.new_empty(length + 1, 1, size)
        hidden[0] = state
        recurrent = weight_hh.t()
        for t in range(length):
            step, sums = gates[t], state_sums[t]
            sums.view(1, -1).addmm_(hidden[t], recurrent)
            step[:2].add_(sums[:2]).sigmoid_()
            step[2].addcmul_(step[0], sums[2]).tanh_()
            torch.lerp(step[2:], hidden[t], step[1:2], out=hidden[t + 1])
        ctx.save_for_backward(*arguments[1:], gates, state_sums, hidden)
        return hidden[1:].clone(), hidden[-1].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            return None, *differentiate_by_torch(ctx, gradients)
        inputs, _, weight_ih, weight_hh, _, _, _, _, gates, state_sums, hidden = ctx.saved_tensors
        length, (r, z, n), before = len(inputs), gates.unbind(1), hidden[:-1, 0]
        # The gradients of a step's sums are these factors times that of its hidden state.
        of_n = (1 - z) * (1 - n * n)
        of_r, of_z = of_n * state_sums[:, 2] * r * (1 - r), (before - n) * z * (1 - z)
        factors = torch.stack([of_r, of_z, of_n * r], 1)
        grad_sums, grad_hidden = torch.empty_like(factors), gradients[1].clone()
        grad_n = torch.empty_like(of_n)
        for t in range(length - 1, -1, -1):
            grad_hidden += gradients[0][t]
            torch.mul(factors[t], grad_hidden, out=grad_sums[t])
            torch.mul(of_n[t], grad_hidden[0], out=grad_n[t])
            grad_hidden.mul_(z[t]).addmm_(grad_sums[t].view(1, -1), weight_hh)
        of_state = grad_sums.view(length, -1)
        of_inputs = torch.cat([grad_sums[:, :2].flatten(1), grad_n], 1)
        weights = of_inputs.t() @ inputs[:, 0], of_state.t() @ before, of_inputs.sum(0), of_state.sum(0)
        return None, (of_inputs @ weight_ih)[:, None], None, *weights, grad_hidden, None
