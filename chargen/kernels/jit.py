"""Compiling functions, once per machine: machine code is kept in chargen's cache."""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Collection
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


def _machine_code_folder() -> str:
    """The folder for machine code, in $NUMBA_CACHE_DIR or in chargen's cache.

    It is named after a hash of all sources: numba itself notices changes of the outermost function's file only.
    """
    digest = hashlib.sha256(f"{numba.__version__} {amx()}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return str(Path(_config.CACHE_DIR or cache_folder() / "kernels") / f"chargen-{digest.hexdigest()[:16]}")


def compiled(function: Function) -> Function:
    """Compile a function when it is first called, without the interpreter's lock, with IEEE arithmetic as written.

    The machine code is kept under the function's name, so closures need `compile_named`.

    Args:
        function: with types that numba knows.
    """
    return _compile(function)


def compiled_in_any_order(function: Function) -> Function:
    """Compile a function as `compiled` does, except that sums are added up in the order that is fastest.

    That order is fixed when the function is compiled. A product and a sum become one instruction.

    Args:
        function: with types that numba knows.
    """
    return _compile(function, flags={"reassoc", "contract", "nsz"})


def compile_named(name: str, function: Function) -> Function:
    """Compile a closure, and keep its machine code under a name.

    Args:
        name: differs among the closures that the same code makes; without a name no machine code is kept.
        function: the closure.
    """
    function.__name__ = function.__qualname__ = name or function.__name__
    return _compile(function, name, keep=bool(name))


def when_compiling(callback: Callable[[], None]) -> AbstractContextManager["Compiling"]:
    """Return a context that calls a function once, when something is compiled; not where the cache has it.

    Args:
        callback: has no arguments.
    """
    result: AbstractContextManager[Compiling] = event.install_listener("numba:compile", Compiling(callback))
    return result


class Compiling(event.Listener):
    """A listener that measures the time of compiling; functions are compiled within each other.

    Args:
        callback: is called once, when the first function begins to be compiled.
    """

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback
        self.seconds = 0.0
        self._start_times: list[float] = []

    def on_start(self, event: Any) -> None:
        """Note the time at which a function begins to be compiled.

        Args:
            event: numba's.
        """
        self._start_times.append(time.monotonic())
        callback, self.callback = self.callback, None
        if callback:
            callback()

    def on_end(self, event: Any) -> None:
        """Add up the time when the outermost function is compiled, or has failed.

        Args:
            event: numba's.
        """
        start_time = self._start_times.pop()
        if not self._start_times:
            self.seconds += time.monotonic() - start_time


def _is_writable(folder: Path) -> bool:
    """Whether files can be written to a folder, or the folder can be made."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


def inlined(function: Function) -> Function:
    """Have a function inlined where compiled code calls it: a processor may then do both at the same time.

    Args:
        function: with types that numba knows.
    """
    result: Function = numba.njit(function, inline="always", error_model="numpy")
    return result


def native(function: Callable[..., Any]) -> Any:
    """Make a function that compiled code can call and that is generated in LLVM's language.

    Args:
        function: of numba's typing context and the arguments' types; returns a signature and a code generator.
    """
    return intrinsic(function)


def _compile(function: Function, name: str = "", *, keep: bool = True, flags: Collection[str] = ()) -> Function:
    dispatcher: Any = numba.njit(function, nogil=True, error_model="numpy", fastmath=set(flags))
    if keep and _is_writable(Path(MACHINE_CODE_FOLDER)):  # else nothing is kept
        numba_folder = _config.CACHE_DIR
        try:
            _config.CACHE_DIR = MACHINE_CODE_FOLDER
            with contextlib.suppress(RuntimeError):  # Windows calls folders writable that are not
                dispatcher._cache = _Cache(function, name)  # numba sets its own cache so for `cache=True`
        finally:
            _config.CACHE_DIR = numba_folder
    result: Function = dispatcher
    return result


class _Cache(FunctionCache):
    """Numba's cache, except that machine code which a crash has left incomplete is compiled again.

    Args:
        function: whose machine code is kept.
        name: distinguishes closures that the same code makes; numba would compare what they refer to.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self.name = name

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        if self.name:
            return sig, codegen.magic_tuple(), self.name
        return super()._index_key(sig, codegen)  # type: ignore[no-untyped-call]

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load machine code.

        Args:
            sig: the types of arguments and result.
            target_context: numba's.

        Returns:
            Numba's result of compiling, or None where the cache has none.
        """
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # half a pickle can raise anything
            with contextlib.suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]
            return None


MACHINE_CODE_FOLDER = _machine_code_folder()
"""The folder for machine code; it exists once something has been compiled."""
