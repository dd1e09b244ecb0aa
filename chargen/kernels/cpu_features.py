"""The processor's instructions that this process may use."""

import contextlib
import ctypes
import os
import platform
import sys
from functools import cache
from typing import Any

AMX_FLAGS = {"amx_tile", "amx_bf16", "avx512f", "avx512bw", "avx512_bf16"}
"""A processor's flags that AMX kernels need: tiles, and the vector instructions for what goes in and out."""
_ARCH_PRCTL, _PERMIT, _TILE_DATA = 158, 0x1023, 18  # the call, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA


@cache
def amx() -> bool:
    """Whether this process may use AMX with bf16: a Linux kernel must be asked for permission."""
    if "+amx-bf16" not in os.environ.get("NUMBA_CPU_FEATURES", "+amx-bf16"):  # machine code is held to older processors
        return False
    flags: set[str] = set()
    if sys.platform == "linux" and platform.machine() == "x86_64":
        with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:  # a sandbox may have none
            flags = next((set(line.split()) for line in file if line.startswith("flags")), flags)
    return flags >= AMX_FLAGS and bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _PERMIT, _TILE_DATA) == 0)


@cache
def llvm_features() -> frozenset[str]:
    """Return the processor's features in LLVM's words, such as "+avx2"."""
    import numba
    from llvmlite import binding

    config: Any = numba.config
    return frozenset((config.CPU_FEATURES or binding.get_host_cpu_features().flatten()).split(","))


def bf16_pairs() -> bool:
    """Whether vector instructions can round to bf16 and multiply pairs of bf16 numbers."""
    return {"+avx512f", "+avx512bw", "+avx512bf16"} <= llvm_features()
