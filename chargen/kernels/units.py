"""What matrix units this process may use."""

import ctypes
import platform
import sys
from functools import cache

_ARCH_PRCTL, _PERMIT, _TILE_DATA = 158, 0x1023, 18  # the call, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA


@cache
def amx() -> bool:
    """Whether this process may use bf16 matrix units: a Linux kernel must be asked for permission."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    with open("/proc/cpuinfo") as file:
        if not any(line.startswith("flags") and " amx_bf16" in line for line in file):
            return False
    return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _PERMIT, _TILE_DATA) == 0)
