"""Checks of what models, layers and losses are called with, so that compiled code reads only memory that it may read.

A wrong argument is refused with the same message whatever path runs it and however many rows it has.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chargen.errors import ArgumentError
from chargen.model.device import to_device

FLOATS = torch.float32, torch.bfloat16, torch.float16, torch.float64
INTEGERS = (
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64
)  # fmt: skip


def is_transforming() -> bool:
    """Whether torch records or transforms what runs: tensors are then placeholders without numbers to read."""
    untyped_torch: Any = torch
    return bool(
        untyped_torch.compiler.is_compiling()
        or untyped_torch.jit.is_tracing()
        or untyped_torch._C._are_functorch_transforms_active()
        or untyped_torch.autograd.forward_ad._current_level >= 0
    )


def is_host_memory(*tensors: Tensor) -> bool:
    """Whether all tensors are plain memory of the host, which compiled code can read."""
    if is_transforming():
        return False
    return all(
        type(value) in (Tensor, nn.Parameter) and value.is_cpu and value.layout == torch.strided and not value.is_neg()
        for value in tensors
    )


def product_dtype(values: Tensor) -> torch.dtype:
    """The type that products of these values are computed in: autocast's, or their own."""
    device = values.device.type
    casts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if casts else values.dtype


def check_tensor(name: str, values: Any, dtypes: tuple[torch.dtype, ...], dimensions: str) -> None:
    """Check that a value is a dense tensor of one of some types, with the right number of dimensions.

    Args:
        name: what the message calls it.
        values: the value.
        dtypes: the types that are allowed.
        dimensions: their letters, such as "B, T"; "..." stands for any number of them.

    Raises:
        ArgumentError: it is not.
    """
    words = {INTEGERS: "whole numbers", FLOATS: "floats"}.get(dtypes, "true or false")
    requirement = f"needed is a tensor ({dimensions}) of {words}"
    if not isinstance(values, Tensor):
        raise ArgumentError(f"{name} {_conjugate('is', name)} of type {type(values).__name__}: {requirement}")
    surplus = values.dim() - dimensions.count(",") - 1
    fits = surplus >= -1 if dimensions[0] == "." else surplus == 0
    if values.dtype not in dtypes or values.layout != torch.strided or not fits:
        shape = f"shape {tuple(values.shape)} and type {values.dtype}"
        raise ArgumentError(f"{name} {_conjugate('has', name)} {shape}: {requirement}")


def check_shape(name: str, values: Tensor, shape: tuple[int, ...]) -> None:
    """Check the shape of a tensor.

    Args:
        name: what the message calls it.
        values: the tensor.
        shape: the shape that it must have.

    Raises:
        ArgumentError: it has another one.
    """
    if values.shape != shape:
        raise ArgumentError(f"{name} {_conjugate('has', name)} shape {tuple(values.shape)}: needed is {tuple(shape)}")


def check_device(name: str, values: Tensor, device: torch.device) -> None:
    """Check that a tensor is on the device of the weights.

    Args:
        name: what the message calls it.
        values: the tensor.
        device: where the weights are.

    Raises:
        ArgumentError: it is on another device.
    """
    if values.device != device:
        mismatch = f"{name} {_conjugate('is', name)} on {values.device} and the weights are on {device}"
        raise ArgumentError(f"{mismatch}: move one to the other with .to()")


def _conjugate(verb: str, name: str) -> str:
    """The verb for a name that may be a plural: ids are, a state is."""
    return {"is": "are", "has": "have"}[verb] if name.endswith("s") else verb


def read_fresh(fresh: Any, shape: tuple[int, ...]) -> Tensor | None:
    """Check where states are fresh; None where none is, which every layer computes fastest.

    Args:
        fresh: bool on the host; None for nowhere.
        shape: (B, T).

    Raises:
        ArgumentError: it is none, has another shape, or is on another device.
    """
    if fresh is None:
        return None
    check_tensor("fresh", fresh, (torch.bool,), "B, T")
    check_shape("fresh", fresh, shape)
    check_device("fresh", fresh, torch.device("cpu"))
    return as_normal_tensor(fresh) if fresh.numpy().any() else None


def read_ids(name: str, ids: Tensor, size: int, device: torch.device) -> Tensor:
    """Check that ids are in range, and move them to a device as int64.

    Ids on the host are checked there and then moved, so a training loop need not wait for its GPU. Ids on a GPU are
    read back once a call, but not while a CUDA graph is captured.

    Args:
        name: what the message calls them.
        ids: whole numbers of any type and shape.
        size: V; ids are 0 to V - 1.
        device: where they are needed.

    Raises:
        ArgumentError: an id is out of range, or they are neither on the host nor on that device.
    """
    if ids.device.type != "cpu":
        check_device(name, ids, device)
    if _is_readable(ids) and ids.numel():
        ends: Any = torch.stack(torch.aminmax(ids.to(torch.int64))).cpu() if ids.device.type != "cpu" else ids
        low, high = (int(end(ends.numpy())) for end in (np.min, np.max))
        if low < 0 or high >= size:
            raise ArgumentError(f"{name} are {low} to {high}: they must be 0 to {size - 1}")
    ids = as_normal_tensor(ids).to(torch.int64)
    if ids.device == device:
        return ids
    return to_device(ids.numpy(), device) if is_host_memory(ids) else ids.to(device)


def as_normal_tensor(values: Tensor) -> Tensor:
    """A copy of a tensor that was made in inference mode, which autograd cannot save; any other tensor as it is."""
    if is_transforming() or not values.is_inference() or torch.is_inference_mode_enabled():
        return values
    return values.clone()


def _is_readable(ids: Tensor) -> bool:
    """Whether the host can read the numbers of a tensor now."""
    if is_transforming() or type(ids) is not Tensor or ids.is_meta:
        return False
    return not (ids.is_cuda and torch.cuda.is_current_stream_capturing())


def read_floats(name: str, values: Any, dimensions: str, shape: tuple[int, ...], weight: Tensor) -> Tensor:
    """Check floats, and convert them to the type that a layer with these weights computes in.

    Args:
        name: what the message calls them.
        values: the floats.
        dimensions: the letters of the dimensions, for the message.
        shape: the shape that they must have.
        weight: a weight of the layer.

    Raises:
        ArgumentError: they are no floats of this shape on the device of the weight.
    """
    check_tensor(name, values, FLOATS, dimensions)
    check_shape(name, values, shape)
    check_device(name, values, weight.device)
    floats = as_normal_tensor(values)
    return floats if product_dtype(floats) != floats.dtype else floats.to(weight.dtype)


def read_state(name: str, state: Any, rows: int, size: int, weight: Tensor) -> Tensor:
    """Check a layer's state (B, S), and convert it to the type in which it is carried: float32, or float64.

    Args:
        name: what the message calls it.
        state: the state.
        rows: B.
        size: S: H for GRU (h), 2 H for LSTM (h, then c).
        weight: a weight of the layer.

    Raises:
        ArgumentError: it is no tensor of floats of this shape on the device of the weight.
    """
    if not isinstance(state, Tensor) or state.shape != (rows, size):
        wrong = f"has shape {tuple(state.shape)}" if isinstance(state, Tensor) else f"is of type {type(state).__name__}"
        words = "(B, H) of a GRU, (B, 2 H) of an LSTM: h, then c"
        raise ArgumentError(f"{name} {wrong}: needed is ({rows}, {size}), which is {words}")
    check_tensor(name, state, FLOATS, "B, S")
    check_device(name, state, weight.device)
    return as_normal_tensor(state).to(state_dtype(weight))


def state_dtype(weight: Tensor) -> torch.dtype:
    """The type in which the state of a layer with such weights is carried."""
    return torch.promote_types(weight.dtype, torch.float32)
