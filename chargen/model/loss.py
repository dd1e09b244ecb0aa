"""The output layer and its loss in blocks of characters: logits of a large vocabulary never lie in memory whole."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from chargen.kernels import available
from chargen.model.device import STORED, memory

BLOCK = {"cpu": 2**21, "cuda": 2**25, "compiled": 2**24}
"""Logits at once: few for plain passes over them, which want a CPU's cache; enough to fill a GPU; compiled code reads
each row once, and products like to be large.
"""
Fixed = tuple[Tensor, Tensor, Tensor]
"""Values (..., H'), weights (V, H') and a bias (V,) that add to the logits, and that no gradient enters."""


def cross_entropy(values: Tensor, output: nn.Linear, targets: Tensor, fixed: Fixed | None = None) -> Tensor:
    """The mean of -ln p(target) in nats: `functional.cross_entropy(output(values), targets)`, in blocks.

    Its gradient is computed in the same pass and kept, so that only one block of logits is ever alive.

    Args:
        values: (..., H), what the output layer is applied to.
        targets: (...), int64.
    """
    if not torch.is_grad_enabled():
        return costs(values, output, targets, fixed).mean()
    if fixed is None and values.dim() == 3 and values.transpose(0, 1).is_contiguous():
        values, targets = values.transpose(0, 1), targets.transpose(0, 1)  # as they lie in memory: nothing is copied
    flat, given = _flat(values, fixed)
    loss: Tensor = _Loss.apply(flat, output.weight, output.bias, targets.flatten(), given)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def costs(values: Tensor, output: nn.Linear, targets: Tensor, fixed: Fixed | None = None) -> Tensor:
    """Each -ln p(target) in nats (N,), float32; arguments as for `cross_entropy`."""
    flat, given = _flat(values, fixed)
    wanted = targets.flatten()
    found = [flat.new_zeros(0, dtype=torch.float32)]
    for part, logits in _blocks(flat, output.weight, output.bias, given):
        found.append(functional.cross_entropy(logits, wanted[part], reduction="none"))
    return torch.cat(found)


def _flat(values: Tensor, fixed: Fixed | None) -> tuple[Tensor, Fixed | None]:
    """As matrices, in the type that products are to be computed in."""
    device = values.device.type
    kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else values.dtype
    if fixed:
        beside, weight, bias = (one.detach() for one in fixed)
        fixed = beside.flatten(0, -2).to(kind), weight.to(kind), bias
    return values.flatten(0, -2).to(kind), fixed


def _blocks(values: Tensor, weight: Tensor, bias: Tensor, fixed: Fixed | None) -> Iterator[tuple[slice, Tensor]]:
    """Some rows at a time, and their logits in float32."""
    size = max(1, BLOCK.get(values.device.type, BLOCK["cpu"]) // len(weight))
    narrow = weight.detach().to(values.dtype).t()
    for first in range(0, len(values), size):
        part = slice(first, min(first + size, len(values)))
        logits = (values[part] @ narrow).float() + bias.detach()
        if fixed:
            logits += (fixed[0][part] @ fixed[1].t()).float() + fixed[2]
        yield part, logits


Found = tuple[Tensor, Tensor, Tensor, Tensor]
"""The mean cost, and the gradients of values, weights and bias."""


def _plain(values: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, fixed: Fixed | None) -> Found:
    """Loss and gradients, on any device."""
    nats = torch.zeros((), device=values.device)
    of_values, of_weight, of_bias = torch.empty_like(values), torch.zeros_like(weight), torch.zeros_like(bias)
    narrow, share = weight.to(values.dtype), 1 / max(len(values), 1)
    for part, logits in _blocks(values, weight, bias, fixed):
        wanted = targets[part, None]
        logits -= logits.logsumexp(1, keepdim=True)
        nats -= logits.gather(1, wanted).sum()
        # The gradient of the logits: p, and p - 1 at the target.
        logits.exp_()
        logits.scatter_add_(1, wanted, logits.new_full((1, 1), -1).expand_as(wanted))
        logits *= share
        of_bias += logits.sum(0)
        error = logits.to(values.dtype)
        torch.mm(error, narrow, out=of_values[part])
        of_weight += error.t() @ values[part]
    return nats * share, of_values, of_weight, of_bias


def _compiled(values: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Found:
    """The same on a CPU, where passing over the logits would take longer than their products."""
    from chargen.kernels.softmax import TOGETHER
    from chargen.kernels.tiles import SIDE

    (rows, inputs), size = values.shape, len(weight)
    padded = -(-size // SIDE) * SIDE
    narrow = torch.zeros(padded, inputs, dtype=values.dtype)
    narrow[:size] = weight
    biases = torch.full((padded,), -1e30)  # no p is left for what is not there
    biases[:size] = bias
    of_values, of_weight, of_bias = torch.empty_like(values), torch.zeros(padded, inputs), torch.zeros(padded)
    block = max(1, BLOCK["compiled"] // padded // TOGETHER) * TOGETHER
    nats, logits = np.zeros(rows), torch.empty(min(block, rows), padded, dtype=values.dtype)
    for first in range(0, rows, block):
        part = slice(first, min(first + block, rows))
        error = logits[: part.stop - part.start]
        torch.mm(values[part], narrow.t(), out=error)
        of_bias += _to_errors(error, biases, targets[part], 1 / rows, nats[part])
        torch.mm(error, narrow, out=of_values[part])
        of_weight += error.t() @ values[part]
    return torch.tensor(nats.mean(), dtype=torch.float32), of_values, of_weight[:size], of_bias[:size]


def _to_errors(logits: Tensor, bias: Tensor, targets: Tensor, each: float, nats: NDArray[np.float64]) -> Tensor:
    """Turn logits (N, V) into their gradient, fill in `nats` (N,); returns the gradient of the bias."""
    from chargen.kernels.softmax import TOGETHER, loss_and_error
    from chargen.kernels.threads import share

    totals = torch.empty(-(-len(logits) // TOGETHER), logits.shape[1])
    bits, biases, wanted, sums = memory(logits), bias.numpy(), targets.numpy(), totals.numpy()
    share(
        lambda groups: loss_and_error(bits, biases, wanted, each, nats, sums, groups.start, groups.stop),
        len(totals),
    )
    return totals.sum(0)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, fixed: Fixed | None) -> Tensor:
        if values.dtype in STORED and values.device.type == "cpu" and fixed is None and available():
            loss, *gradients = _compiled(values, weight, bias, targets)
        else:
            loss, *gradients = _plain(values, weight, bias, targets, fixed)
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        of_values, of_weight, of_bias = ctx.saved_tensors
        gradient = gradients[0]
        if gradient.device.type == "cpu" and gradient.item() == 1:  # a GPU would have to be waited for
            return of_values, of_weight, of_bias, None, None
        return of_values * gradient.to(of_values.dtype), of_weight * gradient, of_bias * gradient, None, None
