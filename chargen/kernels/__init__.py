"""Compiled inner loops; the only place that imports numba. Each has a slow, obvious twin and a test of both."""

from functools import cache

NONE_ALLOWED, NOT_FINITE = -1, -2
"""What stands where an id should: every id is forbidden, or the logits are no numbers."""


@cache
def available() -> bool:
    """Whether there is a numba, and one that fits this NumPy. Without it everything works, slower."""
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
