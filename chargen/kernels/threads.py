"""Work in threads: independent parts, or members of a team that wait for each other."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

from chargen.locks import Lock


def parallel_for(run: Callable[[slice], None], rows: int, min_rows: int = 1, most: int | None = None) -> None:
    """Share out rows among threads, and wait until all are computed.

    Args:
        run: computes the rows of a slice; it must release the interpreter's lock.
        rows: how many there are.
        min_rows: the fewest rows of a thread; where there are few rows, not all threads are used.
        most: the most threads that are worth it; None: all.
    """
    num_threads = min(threads(), max(1, rows // min_rows), threads() if most is None else most)
    if num_threads < 2:
        run(slice(0, rows))
        return
    list(_pool().map(run, share_out(rows, num_threads)))


def share_out(count: int, parts: int) -> list[slice]:
    """Cut a number of things into parts, in their order, whose sizes differ by at most one.

    Args:
        count: how many there are.
        parts: how many slices of them are wanted.
    """
    borders = [count * part // parts for part in range(parts + 1)]
    return [slice(*pair) for pair in pairwise(borders)]


def run_team(run: Callable[[int], None], members: int) -> None:
    """Run a function in several threads at the same time, one team after the other.

    Args:
        run: is called with a number from 0 to below `members`; it must release the interpreter's lock.
        members: how many threads run it.
    """
    if members == 1:
        run(0)
        return
    with TEAM_LOCK:
        futures = [_pool().submit(run, member) for member in range(1, members)]
        run(0)
        for future in futures:
            future.result()


class AutoTuner:
    """A choice between two ways of computing the same, the one that is faster at the moment.

    On cores that other programs use, threads that wait for each other often wait longer than they compute. The slower
    way is tried again for a hundredth of the time.
    """

    def __init__(self) -> None:
        self.seconds: dict[bool, float] = {}
        self.retry_time = 0.0

    def choose(self) -> bool:
        """Choose the first way (True) or the second."""
        if len(self.seconds) < 2:
            return True not in self.seconds
        best = self.seconds[True] <= self.seconds[False]
        return best if time.monotonic() < self.retry_time else not best

    def record(self, is_first: bool, seconds: float, size: int = 1) -> None:
        """Record how long a way has just taken.

        Args:
            is_first: whether it was the first way.
            seconds: the time it took.
            size: what the time is proportional to.
        """
        self.seconds[is_first] = seconds / size
        if self.seconds[is_first] >= self.seconds.get(not is_first, 0.0):
            self.retry_time = time.monotonic() + 100 * seconds


@cache
def threads() -> int:
    """Return how many threads may compute: $OMP_NUM_THREADS, or the number of cores that this process may use."""
    setting = os.environ.get("OMP_NUM_THREADS", "")
    if setting.isdigit() and int(setting):
        return int(setting)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


TEAM_LOCK = Lock()
"""Held while a team runs: two teams whose members wait for threads of the pool would wait for ever."""


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads(), "chargen")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child process does not have its parent's threads
