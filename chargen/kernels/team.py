"""Threads that compute parts of the same step and meet after each."""

import os
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from chargen.kernels.compiled import compiled, native

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
def _look(typing_context: Any, counter: Any) -> Any:
    """The number, with all that threads wrote before they added to it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(data, "seq_cst", 8)

    return types.int64(counter), generate


@native
def _yield(typing_context: Any) -> Any:
    """Let another thread have this core."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if os.name == "posix":
            kind = ir.FunctionType(ir.IntType(32), [])
            found = builder.module.globals.get("sched_yield")
            builder.call(found or ir.Function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@compiled
def meet(counter: NDArray[np.int64], goal: int) -> None:
    """Wait until `goal` threads in all have come here. They spin: a step is shorter than waking a thread takes."""
    _arrive(counter)
    turns = 0
    while _look(counter) < goal:
        turns += 1
        if turns > SPINS:
            _yield()  # the core may be what another one is waiting for
