"""A lock for what threads share."""

import os
import threading
import weakref
from types import TracebackType


class Lock:
    """Lets one thread in, which may come in again. A copy has a lock of its own, and so has a forked child.

    In a child the thread that held the lock does not exist, and would never let go.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _ALL.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type["Lock"], tuple[()]]:
        return Lock, ()


_ALL: "weakref.WeakSet[Lock]" = weakref.WeakSet()


def _in_a_child() -> None:
    for lock in _ALL:
        lock._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_child)
