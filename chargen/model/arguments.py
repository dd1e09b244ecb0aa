"""Whether what a model, a layer or a loss is called with fits it: compiled code must read nothing that is not its own.

What does not fit is refused in the same line by every path and for every number of rows.
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


def transformed() -> bool:
    """Whether torch records or transforms what runs: tensors then stand for others and hold no numbers to look at."""
    ours: Any = torch
    return bool(
        ours.compiler.is_compiling()
        or ours.jit.is_tracing()
        or ours._C._are_functorch_transforms_active()
        or ours.autograd.forward_ad._current_level >= 0
    )


def in_memory(*tensors: Tensor) -> bool:
    """Whether tensors are plain memory of the host, which compiled code can read."""
    if transformed():
        return False
    return all(
        type(each) in (Tensor, nn.Parameter) and each.is_cpu and each.layout == torch.strided and not each.is_neg()
        for each in tensors
    )


def product_type(values: Tensor) -> torch.dtype:
    """The type that products of these values are computed in: autocast's, or their own."""
    device = values.device.type
    casts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if casts else values.dtype


def check_tensor(name: str, values: Any, kinds: tuple[torch.dtype, ...], dimensions: str) -> None:
    """Raise ArgumentError where a value is no dense tensor of these types with as many dimensions.

    Args:
        dimensions: their letters, such as "B, T"; "..." stands for any number of them.
    """

    def needed() -> str:
        words = {INTEGERS: "whole numbers", FLOATS: "floats"}.get(kinds, "true or false")
        return f"needed is a tensor ({dimensions}) of {words}"

    if not isinstance(values, Tensor):
        raise ArgumentError(f"{name} {_verb(name, 'is')} of type {type(values).__name__}: {needed()}")
    more = values.dim() - dimensions.count(",") - 1
    fits = more >= -1 if dimensions[0] == "." else more == 0
    if values.dtype not in kinds or values.layout != torch.strided or not fits:
        shape = f"shape {tuple(values.shape)} and type {values.dtype}"
        raise ArgumentError(f"{name} {_verb(name, 'has')} {shape}: {needed()}")


def check_shape(name: str, values: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ArgumentError where a tensor has another shape."""
    if values.shape != shape:
        raise ArgumentError(f"{name} {_verb(name, 'has')} shape {tuple(values.shape)}: needed is {tuple(shape)}")


def check_device(name: str, values: Tensor, device: torch.device) -> None:
    """Raise ArgumentError where a tensor is on another device than the weights."""
    if values.device != device:
        found = f"{name} {_verb(name, 'is')} on {values.device}"
        raise ArgumentError(f"{found} and the weights are on {device}: move one to the other with .to()")


def _verb(name: str, verb: str) -> str:
    """As the name wants it: ids are, a state is."""
    return {"is": "are", "has": "have"}[verb] if name.endswith("s") else verb


def read_ids(name: str, ids: Tensor, size: int, device: torch.device) -> Tensor:
    """Whole numbers from 0 to size - 1, as int64 on a device.

    Those on the host are checked there and then moved, so a training loop need not wait for its GPU. A GPU's own are
    asked for once a call, but not while a CUDA graph is captured.

    Raises ArgumentError where one is beyond, or on a third device.
    """
    if ids.device.type != "cpu":
        check_device(name, ids, device)
    if _can_be_asked(ids) and ids.numel():
        ends: Any = torch.stack(torch.aminmax(ids.to(torch.int64))).cpu() if ids.device.type != "cpu" else ids
        low, high = (int(end(ends.numpy())) for end in (np.min, np.max))
        if low < 0 or high >= size:
            raise ArgumentError(f"{name} are {low} to {high}: they must be 0 to {size - 1}")
    ids = for_gradients(ids).to(torch.int64)
    if ids.device == device:
        return ids
    return to_device(ids.numpy(), device) if in_memory(ids) else ids.to(device)


def for_gradients(values: Tensor) -> Tensor:
    """What was made in inference mode, so that a gradient may need it."""
    if transformed() or not values.is_inference() or torch.is_inference_mode_enabled():
        return values
    return values.clone()


def _can_be_asked(ids: Tensor) -> bool:
    if transformed() or type(ids) is not Tensor or ids.is_meta:
        return False
    return not (ids.is_cuda and torch.cuda.is_current_stream_capturing())


def read_floats(name: str, values: Any, dimensions: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Floats as a layer with the weights `like` reads them.

    Raises ArgumentError where they have another shape, or are no floats of that device.
    """
    check_tensor(name, values, FLOATS, dimensions)
    check_shape(name, values, shape)
    check_device(name, values, like.device)
    found = for_gradients(values)
    return found if product_type(found) != found.dtype else found.to(like.dtype)


def read_state(name: str, state: Any, rows: int, size: int, like: Tensor) -> Tensor:
    """A layer's state (B, S) as it is carried: in float32, or in float64 where the weights are.

    Raises ArgumentError where it does not fit.

    Args:
        rows, size: B, and S: H for GRU (h), 2 H for LSTM (h, then c).
        like: a weight of the layer.
    """
    if not isinstance(state, Tensor) or state.shape != (rows, size):
        found = f"has shape {tuple(state.shape)}" if isinstance(state, Tensor) else f"is of type {type(state).__name__}"
        words = "(B, H) of a GRU, (B, 2 H) of an LSTM: h, then c"
        raise ArgumentError(f"{name} {found}: needed is ({rows}, {size}), which is {words}")
    check_tensor(name, state, FLOATS, "B, S")
    check_device(name, state, like.device)
    return for_gradients(state).to(carried_type(like))


def carried_type(weight: Tensor) -> torch.dtype:
    """The type in which the state of a layer with such weights is carried."""
    return torch.promote_types(weight.dtype, torch.float32)
