"""Where threads that compute parts of the same step wait for each other."""

import os
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from chargen.kernels.jit import compiled, native

_INT64 = ir.IntType(64)
SPINS = 5_000


@native
def _arrive(typing_context: Any, counter: Any) -> Any:
    """Add one to a number that threads share."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        builder.atomic_rmw("add", data, _INT64(1), "seq_cst")
        return context.get_dummy_value()

    return types.void(counter), generate


@native
def _load(typing_context: Any, counter: Any) -> Any:
    """That number, with all that threads wrote before they added to it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(data, "seq_cst", 8)

    return types.int64(counter), generate


@native
def _yield_core(typing_context: Any) -> Any:
    """Let another thread have this core."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if os.name == "posix":
            kind = ir.FunctionType(ir.IntType(32), [])
            declared = builder.module.globals.get("sched_yield")
            builder.call(declared or ir.Function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@compiled
def wait_for_all(counter: NDArray[np.int64], goal: int) -> None:
    """Wait until threads have come here `goal` times. They spin: a step is shorter than waking a thread takes."""
    _arrive(counter)
    spins = 0
    while _load(counter) < goal:
        spins += 1
        if spins > SPINS:
            _yield_core()  # the core may be what another thread is waiting for
