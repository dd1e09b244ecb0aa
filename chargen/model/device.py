"""Where products run, and in which precision."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from chargen.errors import SettingError
from chargen.kernels import fast_bf16
from chargen.kernels.cpu_features import amx


def pick_device(name: str) -> torch.device:
    """The device of a setting: auto takes cuda, then mps, then cpu. Raises SettingError where it is not there."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there.get(name, False):
        found = ", ".join(device for device, present in there.items() if present)
        raise SettingError(f"device is {name!r}: this machine and this torch have {found}", "device")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> str:
    """The precision of a setting: auto takes bf16 where the hardware multiplies it faster than fp32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and (fast_bf16() or amx())  # torch's own products use matrix units without numba
    return "bf16" if fast else "fp32"


STORED = torch.float32, torch.bfloat16
"""Types that compiled kernels read and write."""


def numpy_view(values: torch.Tensor) -> NDArray[Any]:
    """The memory of a tensor of such a type on a CPU; bf16, which NumPy does not have, as bits."""
    found: NDArray[Any] = (values.view(torch.uint16) if values.dtype == torch.bfloat16 else values).numpy()
    return found


def to_device(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """The same numbers there; a GPU takes them while the host goes on."""
    found = torch.from_numpy(np.ascontiguousarray(values))
    return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found.to(device)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Within, torch computes in this thread alone: none waits for another one's core at every character."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(number)


@contextlib.contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """The context in which products run in bf16, or in float32 as it is."""
    with float32_products(precision, device):
        if precision == "fp32":
            yield
        else:
            with torch.autocast(device.type, torch.bfloat16):
                yield


@contextlib.contextmanager
def float32_products(precision: str, device: torch.device) -> Iterator[None]:
    """Within, a GPU must not round the factors of products in fp32 to TF32, whatever torch's own flags say."""
    if precision != "fp32" or device.type != "cuda":
        yield
        return
    backends: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed
