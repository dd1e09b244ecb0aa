"""Work in threads: parts that have nothing to do with each other, or members of a team that wait for each other."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

from chargen.locks import Lock


def parallel_for(run: Callable[[slice], None], rows: int, at_least: int = 1) -> None:
    """Run `rows` rows in as many threads as there are cores, or fewer where that leaves a thread too few.

    Args:
        run: computes some rows; it must leave the interpreter to the other threads.
        at_least: rows for every thread.
    """
    number = min(threads(), max(1, rows // at_least))
    if number < 2:
        run(slice(0, rows))
        return
    borders = [rows * part // number for part in range(number + 1)]
    list(_pool().map(run, [slice(*pair) for pair in pairwise(borders)]))


def run_team(run: Callable[[int], None], members: int) -> None:
    """Run as members 0 to `members` - 1, all at the same time; one team after the other."""
    if members == 1:
        run(0)
        return
    with TEAM_LOCK:
        others = [_pool().submit(run, member) for member in range(1, members)]
        run(0)
        for other in others:
            other.result()


class AutoTuner:
    """Which of two ways of computing the same is faster at the moment.

    On cores that other programs use, threads that meet several times a step wait for each other more than they compute.
    The slower way is tried again for a hundredth of the time.
    """

    def __init__(self) -> None:
        self.seconds: dict[bool, float] = {}
        self.again = 0.0

    def choose(self) -> bool:
        """One way (True) or the other."""
        if len(self.seconds) < 2:
            return True not in self.seconds
        best = self.seconds[True] <= self.seconds[False]
        return best if time.monotonic() < self.again else not best

    def record(self, way: bool, seconds: float, size: int = 1) -> None:
        """Remember how long a way has just taken for something of this size."""
        self.seconds[way] = seconds / size
        if self.seconds[way] >= self.seconds.get(not way, 0.0):
            self.again = time.monotonic() + 100 * seconds


@cache
def threads() -> int:
    """How many threads may compute: $OMP_NUM_THREADS, or the cores that this process may use."""
    setting = os.environ.get("OMP_NUM_THREADS", "")
    if setting.isdigit() and int(setting):
        return int(setting)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


TEAM_LOCK = Lock()
"""Two teams, each with members that wait for a thread of the pool, would wait for ever."""


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads(), "chargen")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child process has none of its parent's threads
