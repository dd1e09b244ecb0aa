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
from numba.core import event
from numba.core.caching import FunctionCache
from numba.extending import intrinsic

from chargen.cache_folder import cache_folder
from chargen.kernels.cpu_features import amx

_config: Any = numba.config
Function = TypeVar("Function", bound=Callable[..., Any])


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

    A function that another one makes around what it calls would be compiled anew in every process: see `named`.
    """
    return _compile(function)


def named(name: str, function: Function) -> Function:
    """Compile a function that another one makes, and keep its machine code under a name.

    The name must tell which of all that it makes this is; without one, nothing is kept.
    """
    function.__name__ = function.__qualname__ = name or function.__name__
    return _compile(function, name, keep=bool(name))


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


def _compile(function: Function, name: str = "", *, keep: bool = True) -> Function:
    dispatcher: Any = numba.njit(function, nogil=True, error_model="numpy")
    if keep and _writable(Path(PLACE)):  # elsewhere in every process; numba's own folders miss changes of other files
        before = _config.CACHE_DIR
        try:
            _config.CACHE_DIR = PLACE
            dispatcher._cache = _Cache(function, name)  # as `cache=True` does with numba's own
        finally:
            _config.CACHE_DIR = before
    result: Function = dispatcher
    return result


class _Cache(FunctionCache):
    """Numba's cache, but what a crash has left empty or half written is compiled anew.

    Args:
        name: in place of what a function has from the one that made it.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self.name = name

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        if self.name:
            return sig, codegen.magic_tuple(), self.name
        return super()._index_key(sig, codegen)  # type: ignore[no-untyped-call]

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
