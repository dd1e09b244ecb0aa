"""A barrier at which threads that compute parts of the same time step wait for each other."""

import ctypes
import sys
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numpy.typing import NDArray

from chargen.kernels.jit import compiled, native

_INT64 = ir.IntType(64)
SPINS_BEFORE_YIELD = 5_000
"""How often a thread looks at the counter before it lets other threads have the core."""
_YIELD = "chargen_yield_core"


def _address_of_yield() -> int | None:
    """The address of the system's function that lets another thread have the core; it takes nothing, returns an int."""
    library, name = ("kernel32", "SwitchToThread") if sys.platform == "win32" else (None, "sched_yield")
    return ctypes.cast(getattr(ctypes.CDLL(library), name), ctypes.c_void_p).value


binding.add_symbol(_YIELD, _address_of_yield())  # before machine code that calls it is loaded


@native
def _add_one(typing_context: Any, counter: Any) -> Any:
    """Add one to a counter that threads share."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        builder.atomic_rmw("add", data, _INT64(1), "seq_cst")
        return context.get_dummy_value()

    return types.void(counter), generate


@native
def _read(typing_context: Any, counter: Any) -> Any:
    """Read a counter that threads share; what they wrote before they added to it can be seen then."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(data, "seq_cst", 8)

    return types.int64(counter), generate


@native
def _yield_core(typing_context: Any) -> Any:
    """Let another thread have the core."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        declared = builder.module.globals.get(_YIELD)
        builder.call(declared or ir.Function(builder.module, ir.FunctionType(ir.IntType(32), []), _YIELD), [])
        return context.get_dummy_value()

    return types.void(), generate


@compiled
def wait_for_all(counter: NDArray[np.int64], arrivals: int) -> None:
    """Add one to a counter, and wait until it has reached a number.

    Threads spin: a time step takes less time than waking a sleeping thread.

    Args:
        counter: (1,), shared by the threads, zero at first.
        arrivals: the number to wait for: a multiple of the number of threads.
    """
    _add_one(counter)
    spins = 0
    while _read(counter) < arrivals:
        spins += 1
        if spins > SPINS_BEFORE_YIELD:
            _yield_core()  # another thread may be waiting for the core
