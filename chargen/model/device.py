"""Devices, the precision of products on them, and tensors as NumPy arrays."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from chargen.errors import SettingError, amount
from chargen.kernels import fast_bf16
from chargen.kernels.cpu_features import amx


def pick_device(name: str, number: int = 0) -> torch.device:
    """The device that a setting names.

    Args:
        name: "cpu", "cuda", "mps", or "auto": the first of cuda, mps and cpu that is there.
        number: which of several GPUs, for one of several processes on this machine.

    Raises:
        SettingError: this machine or this torch has no such device.
    """
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if usable[device])
    if not isinstance(name, str) or not usable.get(name, False):
        names = ", ".join(device for device, is_usable in usable.items() if is_usable)
        raise SettingError(f"device is {name!r}: this machine and this torch have {names}", "device")
    if name == "cuda" and number:
        if number >= torch.cuda.device_count():
            there = amount(torch.cuda.device_count(), "GPU")
            raise SettingError(f"this machine has {there}: start as many processes on it, not more", "device")
        torch.cuda.set_device(number)
        return torch.device(name, number)
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> str:
    """The precision that a setting names.

    Args:
        name: "fp32", "bf16", or "auto": bf16 where the hardware multiplies it faster than fp32.
        device: where products run.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and (fast_bf16() or amx())  # torch's own products use matrix units without numba
    return "bf16" if fast else "fp32"


KERNEL_DTYPES = torch.float32, torch.bfloat16
"""Types that compiled kernels read and write."""


def numpy_view(values: torch.Tensor) -> NDArray[Any]:
    """A tensor on a CPU as a NumPy array that shares its memory; bf16, which NumPy does not have, as bits in uint16."""
    array: NDArray[Any] = (values.view(torch.uint16) if values.dtype == torch.bfloat16 else values).numpy()
    return array


def to_device(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy an array to a device; the host does not wait for a GPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """A context in which torch computes in the calling thread alone, so that it never waits for a busy core."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(number)


@contextlib.contextmanager
def _switched_off(backend: Any, flag: str) -> Iterator[None]:
    """A context in which a flag of one of torch's backends is False."""
    value = getattr(backend, flag)
    setattr(backend, flag, False)
    try:
        yield
    finally:
        setattr(backend, flag, value)


def torch_lstm_in_bf16() -> AbstractContextManager[None]:
    """A context in which torch's own LSTM runs in bf16 on every CPU: oneDNN's refuses to on those without AVX-512."""
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        return contextlib.nullcontext()
    return _switched_off(torch.backends.mkldnn, "enabled")


@contextlib.contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """A context in which products run in a precision.

    Args:
        precision: "bf16" or "fp32".
        device: where they run.
    """
    casts = contextlib.nullcontext() if precision == "fp32" else torch.autocast(device.type, torch.bfloat16)
    with float32_products(precision, device), casts:
        yield


@contextlib.contextmanager
def float32_products(precision: str, device: torch.device) -> Iterator[None]:
    """A context in which a GPU does not round the factors of fp32 products to TF32, whatever torch's flags say.

    Args:
        precision: "fp32"; any other one changes nothing.
        device: where products run; any other than a CUDA device changes nothing.
    """
    with contextlib.ExitStack() as flags:
        if precision == "fp32" and device.type == "cuda":
            for backend in (torch.backends.cuda.matmul, torch.backends.cudnn):
                flags.enter_context(_switched_off(backend, "allow_tf32"))
        yield
