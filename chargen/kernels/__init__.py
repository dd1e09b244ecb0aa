"""Compiled inner loops; the only place that imports numba. Tests compare each with a slow, obvious version."""

import os
from functools import cache

# Where colorama is installed, numba would write its codes to every terminal at exit.
os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")

NONE_ALLOWED, NOT_FINITE = -1, -2
"""Codes in place of an id: every id is forbidden, or a logit is not finite."""
SEPARATOR = 0xFE
"""Ends each text in an array of bytes: a byte that no UTF-8 holds."""


@cache
def available() -> bool:
    """Whether a numba that fits this NumPy is installed. Without it everything works, slower."""
    try:
        import chargen.kernels.jit  # noqa: F401
    except ImportError:
        return False
    return True


@cache
def fast_bf16() -> bool:
    """Whether compiled kernels multiply bf16 faster than float32."""
    if not available():
        return False
    from chargen.kernels.cpu_features import amx, bf16_pairs

    return bf16_pairs() or amx()
