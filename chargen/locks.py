"""A lock for what threads share."""

import os
import threading
import weakref


class Lock:
    """A reentrant lock for threads, used as a context manager. A copy of it, or a forked child, has a lock of its own.

    In a child the thread that held the lock does not exist, and would never release it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type["Lock"], tuple[()]]:
        return Lock, ()


_LOCKS: "weakref.WeakSet[Lock]" = weakref.WeakSet()
"""Every lock of this process."""


def _renew_locks() -> None:
    for lock in _LOCKS:
        lock._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
