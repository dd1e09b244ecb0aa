"""The output layer and its loss in blocks of characters, so that the logits of a large vocabulary fit in memory."""

import math
from collections.abc import Iterator, Sequence
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
    as_normal_tensor,
    check_device,
    check_shape,
    check_tensor,
    is_host_memory,
    is_transforming,
    product_dtype,
    read_ids,
)
from chargen.model.device import KERNEL_DTYPES, numpy_view

BLOCK = {"cpu": 2**21, "cuda": 2**25, "compiled": 2**24}
"""Logits in a block: on a CPU they should fit its cache; on a GPU they should fill it; compiled code reads each row
once and gains from large products."""
Fixed = tuple[Tensor, Tensor, Tensor]
"""Values (..., H'), weights (V, H') and a bias (V,) whose product adds to the logits; they get no gradient."""


def cross_entropy(values: Tensor, output: nn.Linear, targets: Tensor, fixed: Fixed | None = None) -> Tensor:
    """Compute the mean of -ln p(target), `functional.cross_entropy(output(values), targets)`, in blocks.

    Its gradient is computed in the same pass and stored, so that only one block of logits exists at a time. Every
    target counts; there is no index to ignore.

    Args:
        values: (..., H) floats, the input of the output layer.
        output: the output layer, with a bias.
        targets: (...), whole numbers from 0 to V - 1; or (..., V) floats, the probabilities of each. Whole numbers on
            the host are checked there and then moved, so that nothing waits for a GPU.
        fixed: what adds to the logits and gets no gradient.

    Returns:
        The loss in nats per target, a scalar.

    Raises:
        ArgumentError: the arguments do not fit each other, or there are no targets.
    """
    targets = _check(values, output, targets, fixed, probabilities=True)
    if not targets.numel():
        raise ArgumentError(f"targets have shape {tuple(targets.shape)}: the mean over no targets is no number")
    if not torch.is_grad_enabled():
        return _unchecked_costs(values, output, targets, fixed).mean()
    if fixed is None and values.dim() == 3 and values.transpose(0, 1).is_contiguous():
        # Time by rows is their order in memory: flattening copies nothing.
        values, targets = values.transpose(0, 1), targets.transpose(0, 1)
    values, fixed = _flatten(values, fixed)
    compute: Any = _loss_by_torch if is_transforming() else _Loss.apply
    loss: Tensor = compute(values, output.weight, output.bias, _flatten_targets(targets), fixed)
    return loss


def nats_per_target(values: Tensor, output: nn.Linear, targets: Tensor, fixed: Fixed | None = None) -> Tensor:
    """Compute -ln p(target) of each target, without gradients, in blocks.

    Args:
        values: (..., H) floats, the input of the output layer.
        output: the output layer, with a bias.
        targets: (...), whole numbers from 0 to V - 1.
        fixed: what adds to the logits.

    Returns:
        (N,) in nats, for the flattened targets; float64 where the values are, else float32.

    Raises:
        ArgumentError: the arguments do not fit each other.
    """
    return _unchecked_costs(values, output, _check(values, output, targets, fixed), fixed)


@torch.no_grad()
def _unchecked_costs(values: Tensor, output: nn.Linear, targets: Tensor, fixed: Fixed | None) -> Tensor:
    values, fixed = _flatten(values, fixed)
    targets = _flatten_targets(targets)
    nats = [values.new_zeros(0, dtype=_logits_dtype(values))]
    for rows, logits in _blocks(values, output.weight, output.bias, fixed):
        nats.append(functional.cross_entropy(logits, _like(targets[rows], logits), reduction="none"))
    return torch.cat(nats)


@torch.no_grad()
def predict_in_blocks(
    values: Tensor, output: nn.Linear, members: Sequence[tuple[Tensor, nn.Linear]] = ()
) -> Iterator[tuple[slice, Tensor]]:
    """Compute the logarithms of what a network predicts, in blocks.

    Args:
        values: (N, H) floats, the input of the output layer.
        output: the output layer, with a bias.
        members: values and output layers of other networks, whose probabilities are averaged with those of the first.

    Yields:
        Rows, and what is predicted there (n, V); in float64 where the values are, else float32.
    """
    blocks = [
        _blocks(_flatten(own, None)[0], head.weight, head.bias, None) for own, head in ((values, output), *members)
    ]
    for (rows, logits), *more in zip(*blocks, strict=True):
        yield rows, average_log_probs([logits, *(own for _, own in more)])


def average_log_probs(logits: Sequence[Tensor]) -> Tensor:
    """Average what networks predict.

    Args:
        logits: (n, V), those of each network.

    Returns:
        (n, V), the logarithms of the means of their probabilities; of one network, of its probabilities.
    """
    log_probs = [torch.log_softmax(own, 1) for own in logits]
    if len(log_probs) == 1:
        return log_probs[0]
    return torch.logsumexp(torch.stack(log_probs), 0) - math.log(len(log_probs))


def _check(
    values: Tensor, output: nn.Linear, targets: Tensor, fixed: Fixed | None, probabilities: bool = False
) -> Tensor:  # fmt: skip
    """Check all arguments, and move the targets to the device of the values."""
    if not isinstance(output, nn.Linear) or output.bias is None:
        raise ArgumentError(f"output is {truncate(output)}: it must be an nn.Linear with a bias")
    size, inputs = output.weight.shape
    check_shape("output.bias", output.bias, (size,))
    check_tensor("values", values, FLOATS, "..., H")
    check_shape("values", values, (*values.shape[:-1], inputs))
    check_device("values", values, output.weight.device)
    soft = probabilities and isinstance(targets, Tensor) and targets.is_floating_point()
    soft = soft and targets.shape == (*values.shape[:-1], size)
    if not soft:
        check_tensor("targets", targets, INTEGERS, "...")
        check_shape("targets", targets, tuple(values.shape[:-1]))
    if fixed is not None:
        if not isinstance(fixed, tuple) or len(fixed) != 3:
            raise ArgumentError(f"fixed is of type {type(fixed).__name__}: needed are values, weights and biases")
        for name, part, letters in zip(("values", "weights", "biases"), fixed, ("..., H'", "V, H'", "V"), strict=True):
            check_tensor(f"fixed {name}", part, FLOATS, letters)
            check_device(f"fixed {name}", part, values.device)
        fixed_values, weight, bias = fixed
        check_shape("fixed values", fixed_values, (*values.shape[:-1], fixed_values.shape[-1]))
        check_shape("fixed weights", weight, (size, fixed_values.shape[-1]))
        check_shape("fixed biases", bias, (size,))
    return targets.to(values.device) if soft else read_ids("targets", targets, size, values.device)


def _flatten_targets(targets: Tensor) -> Tensor:
    """Reshape targets to ids (N,), or to probabilities (N, V)."""
    return targets.reshape(-1, targets.shape[-1]) if targets.is_floating_point() else targets.flatten()


def _like(targets: Tensor, logits: Tensor) -> Tensor:
    """Ids as they are, probabilities in the type of the logits."""
    return targets.to(logits.dtype) if targets.is_floating_point() else targets


def _logits_dtype(values: Tensor) -> torch.dtype:
    """The type of logits and losses: float32, or float64 where the values are."""
    return torch.promote_types(values.dtype, torch.float32)


def _flatten(values: Tensor, fixed: Fixed | None) -> tuple[Tensor, Fixed | None]:
    """Reshape values to matrices, in the type that products are computed in."""
    dtype = product_dtype(values)
    if fixed:
        fixed_values, weight, bias = (tensor.detach() for tensor in fixed)
        fixed = fixed_values.reshape(-1, fixed_values.shape[-1]).to(dtype), weight.to(dtype), bias
    return as_normal_tensor(values).reshape(-1, values.shape[-1]).to(dtype), fixed


def _blocks(values: Tensor, weight: Tensor, bias: Tensor, fixed: Fixed | None) -> Iterator[tuple[slice, Tensor]]:
    """Yield blocks of rows with their logits."""
    size = max(1, BLOCK.get(values.device.type, BLOCK["cpu"]) // len(weight))
    weight, bias = weight.detach().to(values.dtype), bias.detach()
    for first in range(0, len(values), size):
        rows = slice(first, min(first + size, len(values)))
        yield rows, _logits(values[rows], weight, bias, (fixed[0][rows], *fixed[1:]) if fixed else None)


def _logits(values: Tensor, weight: Tensor, bias: Tensor, fixed: Fixed | None) -> Tensor:
    """The logits of values (N, H), multiplied in their type."""
    dtype = _logits_dtype(values)
    logits = (values @ weight.to(values.dtype).t()).to(dtype) + bias.to(dtype)
    return logits + ((fixed[0] @ fixed[1].t()).to(dtype) + fixed[2]) if fixed else logits


def _loss_by_torch(values: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, fixed: Fixed | None) -> Tensor:
    """The loss by torch's own functions with all logits at once, which can be traced and differentiated twice."""
    logits = _logits(values, weight, bias, fixed)
    return functional.cross_entropy(logits, _like(targets, logits))


LossAndGrads = tuple[Tensor, Tensor, Tensor, Tensor]
"""The mean loss, and the gradients of values, weights and bias."""


def _loss_in_blocks(values: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, fixed: Fixed | None) -> LossAndGrads:
    """Loss and gradients by torch's functions, on any device."""
    nats = values.new_zeros((), dtype=_logits_dtype(values))
    grad_values, grad_weight, grad_bias = torch.empty_like(values), torch.zeros_like(weight), torch.zeros_like(bias)
    cast_weight, scale = weight.to(values.dtype), 1 / max(len(values), 1)
    for rows, logits in _blocks(values, weight, bias, fixed):
        wanted = _like(targets[rows], logits)
        logits -= logits.logsumexp(1, keepdim=True)
        # The gradient of the logits: p, and p - 1 at the target; of probabilities q it is p - q, where they sum to 1.
        if wanted.is_floating_point():
            nats -= (wanted * logits).sum()
            logits.exp_().mul_(wanted.sum(1, keepdim=True)).sub_(wanted)
        else:
            columns = wanted[:, None]
            nats -= logits.gather(1, columns).sum()
            logits.exp_().scatter_add_(1, columns, logits.new_full((1, 1), -1).expand_as(columns))
        logits *= scale
        grad_bias += logits.sum(0)
        grad_logits = logits.to(values.dtype)
        torch.mm(grad_logits, cast_weight, out=grad_values[rows])
        grad_weight += grad_logits.t() @ values[rows]
    return nats * scale, grad_values, grad_weight, grad_bias


def _loss_compiled(values: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> LossAndGrads:
    """Loss and gradients by compiled code: on a CPU, torch's passes over the logits take longer than their products."""
    from chargen.kernels.amx import SIDE
    from chargen.kernels.cross_entropy import GROUP

    (number, inputs), size = values.shape, len(weight)
    padded_size = -(-size // SIDE) * SIDE
    padded_weight = values.new_zeros(padded_size, inputs)
    padded_weight[:size] = weight
    padded_bias = values.new_full((padded_size,), -1e30, dtype=torch.float32)  # gives the padding a p of zero
    padded_bias[:size] = bias
    grad_values, grad_weight = torch.empty_like(values), padded_bias.new_zeros(padded_size, inputs)
    grad_bias = torch.zeros_like(padded_bias)
    block = max(1, BLOCK["compiled"] // padded_size // GROUP) * GROUP
    nats, memory = np.zeros(number), values.new_empty(min(block, number), padded_size)
    for first in range(0, number, block):
        rows = slice(first, min(first + block, number))
        logits = memory[: rows.stop - rows.start]
        torch.mm(values[rows], padded_weight.t(), out=logits)
        # From here on, `logits` hold their gradient.
        grad_bias += _to_gradient(logits, padded_bias, targets[rows], 1 / number, nats[rows])
        torch.mm(logits, padded_weight, out=grad_values[rows])
        grad_weight += logits.t() @ values[rows]
    return padded_bias.new_tensor(nats.mean()), grad_values, grad_weight[:size], grad_bias[:size]


def _to_gradient(logits: Tensor, bias: Tensor, targets: Tensor, scale: float, nats: NDArray[np.float64]) -> Tensor:
    """Replace logits (N, V) by their scaled gradient, fill in `nats` (N,), and return the gradient of the bias."""
    from chargen.kernels.cross_entropy import GROUP, loss_and_error
    from chargen.kernels.threads import parallel_for

    totals = bias.new_empty(-(-len(logits) // GROUP), logits.shape[1])
    arrays = numpy_view(logits), bias.numpy(), targets.numpy(), scale, nats, totals.numpy()
    each = 3 + 0.018 * logits.shape[1]
    parallel_for(lambda groups: loss_and_error(*arrays, groups.start, groups.stop), len(totals), microseconds=each)
    return totals.sum(0)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, fixed: Fixed | None) -> Tensor:
        targets = targets.contiguous()
        is_compiled = values.dtype in KERNEL_DTYPES and fixed is None and not targets.is_floating_point()
        if is_compiled and is_host_memory(values, weight, targets) and available():
            loss, *gradients = _loss_compiled(values, weight, bias, targets)
        else:
            loss, *gradients = _loss_in_blocks(values, weight, bias, targets, fixed)
        ctx.save_for_backward(*gradients, values, weight, bias, targets, *(fixed or ()))
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        grad_values, grad_weight, grad_bias, *inputs, targets = ctx.saved_tensors[:7]
        gradient = gradients[0]
        if torch.is_grad_enabled():  # the gradient may be differentiated again
            # Aliases, because the values may have been computed from the weights.
            values, weight, bias = aliases = [tensor.view_as(tensor) for tensor in inputs]
            needed = [alias for alias, is_needed in zip(aliases, ctx.needs_input_grad, strict=False) if is_needed]
            loss = _loss_by_torch(values, weight, bias, targets, ctx.saved_tensors[7:])
            grads = iter(torch.autograd.grad(loss, needed, gradient, create_graph=True))
            return tuple(next(grads) if is_needed else None for is_needed in ctx.needs_input_grad)
        if gradient.device.type == "cpu" and gradient.item() == 1:  # the host would have to wait for a GPU
            return grad_values, grad_weight, grad_bias, None, None
        return grad_values * gradient.to(grad_values.dtype), grad_weight * gradient, grad_bias * gradient, None, None
