"""The output layer and its loss in blocks of characters: logits of a large vocabulary never lie in memory whole."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from chargen.errors import ArgumentError, truncate
from chargen.kernels import available
from chargen.model.arguments import (
    FLOATS,
    INTEGERS,
    check_device,
    check_shape,
    check_tensor,
    for_gradients,
    in_memory,
    product_type,
    read_ids,
    transformed,
)
from chargen.model.device import STORED, numpy_view

BLOCK = {"cpu": 2**21, "cuda": 2**25, "compiled": 2**24}
"""Logits at once: few for plain passes over them, which want a CPU's cache; enough to fill a GPU; compiled code reads
each row once, and products like to be large.
"""
Fixed = tuple[Tensor, Tensor, Tensor]
"""Values (..., H'), weights (V, H') and a bias (V,) that add to the logits, and that no gradient enters."""


def cross_entropy(values: Tensor, output: nn.Linear, targets: Tensor, fixed: Fixed | None = None) -> Tensor:
    """The mean of -ln p(target) in nats: `functional.cross_entropy(output(values), targets)`, in blocks.

    Its gradient is computed in the same pass and kept, so that only one block of logits is ever alive. No target is
    passed over, whatever its value: leave out what is not to count.

    Args:
        values: (..., H), what the output layer is applied to.
        targets: (...), whole numbers from 0 to V - 1. On the host they are checked there and moved, so that a GPU need
            not be waited for.

    Raises ArgumentError where these do not fit each other, or there are no targets.
    """
    targets = _checked(values, output, targets, fixed)
    if not targets.numel():
        raise ArgumentError(f"targets have shape {tuple(targets.shape)}: the mean over no targets is no number")
    if not torch.is_grad_enabled():
        return _costs(values, output, targets, fixed).mean()
    if fixed is None and values.dim() == 3 and values.transpose(0, 1).is_contiguous():
        values, targets = values.transpose(0, 1), targets.transpose(0, 1)  # as they lie in memory: nothing is copied
    flat, given = _flat(values, fixed)
    loss: Any = _whole if transformed() else _Loss.apply
    found: Tensor = loss(flat, output.weight, output.bias, targets.flatten(), given)
    return found


def costs(values: Tensor, output: nn.Linear, targets: Tensor, fixed: Fixed | None = None) -> Tensor:
    """Each -ln p(target) in nats (N,), in float32 or float64; arguments and errors as for `cross_entropy`."""
    return _costs(values, output, _checked(values, output, targets, fixed), fixed)


@torch.no_grad()
def _costs(values: Tensor, output: nn.Linear, targets: Tensor, fixed: Fixed | None) -> Tensor:
    flat, given = _flat(values, fixed)
    wanted = targets.flatten()
    found = [flat.new_zeros(0, dtype=_wide(flat))]
    for part, logits in _blocks(flat, output.weight, output.bias, given):
        found.append(functional.cross_entropy(logits, wanted[part], reduction="none"))
    return torch.cat(found)


def _checked(values: Tensor, output: nn.Linear, targets: Tensor, fixed: Fixed | None) -> Tensor:
    """The targets where the values are. Raises ArgumentError where anything does not fit."""
    if not isinstance(output, nn.Linear) or output.bias is None:
        raise ArgumentError(f"output is {truncate(output)}: it must be an nn.Linear with a bias")
    size, inputs = output.weight.shape
    check_shape("output.bias", output.bias, (size,))
    check_tensor("values", values, FLOATS, "..., H")
    check_shape("values", values, (*values.shape[:-1], inputs))
    check_device("values", values, output.weight.device)
    check_tensor("targets", targets, INTEGERS, "...")
    check_shape("targets", targets, tuple(values.shape[:-1]))
    if fixed is not None:
        if not isinstance(fixed, tuple) or len(fixed) != 3:
            raise ArgumentError(f"fixed is of type {type(fixed).__name__}: needed are values, weights and biases")
        for name, each, letters in zip(("values", "weights", "biases"), fixed, ("..., H'", "V, H'", "V"), strict=True):
            check_tensor(f"fixed {name}", each, FLOATS, letters)
            check_device(f"fixed {name}", each, values.device)
        beside, weight, bias = fixed
        check_shape("fixed values", beside, (*values.shape[:-1], beside.shape[-1]))
        check_shape("fixed weights", weight, (size, beside.shape[-1]))
        check_shape("fixed biases", bias, (size,))
    return read_ids("targets", targets, size, values.device)


def _wide(values: Tensor) -> torch.dtype:
    """The type of logits and of what they cost."""
    return torch.promote_types(values.dtype, torch.float32)


def _flat(values: Tensor, fixed: Fixed | None) -> tuple[Tensor, Fixed | None]:
    """As matrices, in the type that products are to be computed in."""
    kind = product_type(values)
    if fixed:
        beside, weight, bias = (one.detach() for one in fixed)
        fixed = beside.reshape(-1, beside.shape[-1]).to(kind), weight.to(kind), bias
    return for_gradients(values).reshape(-1, values.shape[-1]).to(kind), fixed


def _blocks(values: Tensor, weight: Tensor, bias: Tensor, fixed: Fixed | None) -> Iterator[tuple[slice, Tensor]]:
    """Some rows at a time, and their logits in float32, or in float64 where the values are."""
    size = max(1, BLOCK.get(values.device.type, BLOCK["cpu"]) // len(weight))
    narrow = weight.detach().to(values.dtype).t()
    for first in range(0, len(values), size):
        part = slice(first, min(first + size, len(values)))
        logits = (values[part] @ narrow).to(_wide(values)) + bias.detach().to(_wide(values))
        if fixed:
            logits += (fixed[0][part] @ fixed[1].t()).to(_wide(values)) + fixed[2]
        yield part, logits


def _whole(values: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, fixed: Fixed | None) -> Tensor:
    """The loss by torch's own functions, with all logits at once: what can be traced, and differentiated twice."""
    logits = (values @ weight.to(values.dtype).t()).to(_wide(values)) + bias
    if fixed:
        logits = logits + (fixed[0] @ fixed[1].t()).to(_wide(values)) + fixed[2]
    return functional.cross_entropy(logits, targets)


Found = tuple[Tensor, Tensor, Tensor, Tensor]
"""The mean cost, and the gradients of values, weights and bias."""


def _plain(values: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, fixed: Fixed | None) -> Found:
    """Loss and gradients, on any device."""
    nats = values.new_zeros((), dtype=_wide(values))
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
    from chargen.kernels.amx import SIDE
    from chargen.kernels.cross_entropy import GROUP

    (rows, inputs), size = values.shape, len(weight)
    padded = -(-size // SIDE) * SIDE
    narrow = values.new_zeros(padded, inputs)
    narrow[:size] = weight
    biases = values.new_full((padded,), -1e30, dtype=torch.float32)  # no p is left for what is not there
    biases[:size] = bias
    of_values, of_weight = torch.empty_like(values), biases.new_zeros(padded, inputs)
    of_bias = torch.zeros_like(biases)
    block = max(1, BLOCK["compiled"] // padded // GROUP) * GROUP
    nats, logits = np.zeros(rows), values.new_empty(min(block, rows), padded)
    for first in range(0, rows, block):
        part = slice(first, min(first + block, rows))
        error = logits[: part.stop - part.start]
        torch.mm(values[part], narrow.t(), out=error)
        of_bias += _to_errors(error, biases, targets[part], 1 / rows, nats[part])
        torch.mm(error, narrow, out=of_values[part])
        of_weight += error.t() @ values[part]
    return biases.new_tensor(nats.mean()), of_values, of_weight[:size], of_bias[:size]


def _to_errors(logits: Tensor, bias: Tensor, targets: Tensor, each: float, nats: NDArray[np.float64]) -> Tensor:
    """Turn logits (N, V) into their gradient, fill in `nats` (N,); returns the gradient of the bias."""
    from chargen.kernels.cross_entropy import GROUP, loss_and_error
    from chargen.kernels.threads import parallel_for

    totals = bias.new_empty(-(-len(logits) // GROUP), logits.shape[1])
    bits, biases, wanted, sums = numpy_view(logits), bias.numpy(), targets.numpy(), totals.numpy()
    parallel_for(
        lambda groups: loss_and_error(bits, biases, wanted, each, nats, sums, groups.start, groups.stop),
        len(totals),
    )
    return totals.sum(0)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, fixed: Fixed | None) -> Tensor:
        targets = targets.contiguous()
        if values.dtype in STORED and fixed is None and in_memory(values, weight, targets) and available():
            loss, *gradients = _compiled(values, weight, bias, targets)
        else:
            loss, *gradients = _plain(values, weight, bias, targets, fixed)
        ctx.save_for_backward(*gradients, values, weight, bias, targets, *(fixed or ()))
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        of_values, of_weight, of_bias, *given, targets = ctx.saved_tensors[:7]
        gradient = gradients[0]
        if torch.is_grad_enabled():  # it may be differentiated again
            values, weight, bias = aliases = [each.view_as(each) for each in given]  # values may be made of the weights
            wanted = [each for each, needed in zip(aliases, ctx.needs_input_grad, strict=False) if needed]
            loss = _whole(values, weight, bias, targets, ctx.saved_tensors[7:])
            found = iter(torch.autograd.grad(loss, wanted, gradient, create_graph=True))
            return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)
        if gradient.device.type == "cpu" and gradient.item() == 1:  # a GPU would have to be waited for
            return of_values, of_weight, of_bias, None, None
        return of_values * gradient.to(of_values.dtype), of_weight * gradient, of_bias * gradient, None, None
