"""How functions are compiled: once per machine, into chargen's cache."""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import numba
from llvmlite import binding
from numba.core import event
from numba.core.caching import FunctionCache
from numba.extending import intrinsic

from chargen.cache_folder import cache_folder
from chargen.kernels.units import amx

_config: Any = numba.config
Function = TypeVar("Function", bound=Callable[..., Any])
FEATURES = frozenset((_config.CPU_FEATURES or binding.get_host_cpu_features().flatten()).split(","))
"""What the processor can do, as LLVM calls it: "+avx2"."""
PAIRS = {"+avx512f", "+avx512bw", "+avx512bf16"} <= FEATURES
"""Whether vector units round to bf16 and multiply pairs of it."""


def _place() -> str:
    """A folder for the machine code of these very sources: numba itself looks at the outermost function's file only.

    In $NUMBA_CACHE_DIR, or in chargen's cache.
    """
    digest = hashlib.sha256(f"{numba.__version__} {amx()}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return str(Path(_config.CACHE_DIR or cache_folder() / "kernels") / f"chargen-{digest.hexdigest()[:16]}")


def compiled(function: Function) -> Function:
    """Compile a function when it is first called, without the interpreter's lock, with IEEE arithmetic as written.

    Not for a function made by another one around what it calls: it would be compiled anew in every process.
    """
    if not _writable(Path(PLACE)):
        return _compile(function, cache=False)  # in every process; numba's own folders miss changes of other files
    before = _config.CACHE_DIR
    try:
        _config.CACHE_DIR = PLACE
        return _compile(function, cache=True)
    finally:
        _config.CACHE_DIR = before


def when_compiling(call: Callable[[], None]) -> AbstractContextManager["Compiling"]:
    """Within, call once as soon as a function is compiled: not where machine code is in the cache."""
    result: AbstractContextManager[Compiling] = event.install_listener("numba:compile", Compiling(call))
    return result


class Compiling(event.Listener):
    """Hears of functions that are compiled, one within the other, and sums up how long it took.

    Args:
        call: once, when the first begins.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call
        self.seconds = 0.0
        self._begun: list[float] = []

    def on_start(self, event: Any) -> None:
        """A function is about to be compiled."""
        self._begun.append(time.monotonic())
        call, self.call = self.call, None
        if call:
            call()

    def on_end(self, event: Any) -> None:
        """It is compiled, or cannot be."""
        begun = self._begun.pop()
        if not self._begun:
            self.seconds += time.monotonic() - begun


def _writable(folder: Path) -> bool:
    """Whether a folder can be written, or be made."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


def inlined(function: Function) -> Function:
    """Write a function out where a compiled one calls it: a processor may then do both at the same time."""
    result: Function = numba.njit(function, inline="always", error_model="numpy")
    return result


def native(function: Callable[..., Any]) -> Any:
    """What compiled functions may call, generated in LLVM's own words; `function` tells the types and how."""
    return intrinsic(function)


def _compile(function: Function, *, cache: bool) -> Function:
    result: Any = numba.njit(function, nogil=True, error_model="numpy")
    if cache:
        result._cache = _Cache(function)  # type: ignore[no-untyped-call]  # as `cache=True` does with numba's own
    found: Function = result
    return found


class _Cache(FunctionCache):
    """Numba's cache, but what a crash has left empty or half written is compiled anew."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Machine code for these types, or None."""
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # half a pickle can raise anything
            with contextlib.suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]
            return None


PLACE = _place()
"""Where machine code is kept; not there before anything has been compiled."""
