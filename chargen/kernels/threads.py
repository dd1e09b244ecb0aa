"""Work in threads: independent parts, or members of a team that wait for each other."""

import contextlib
import ctypes
import math
import os
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Generic, TypeVar

from chargen.launch import read_launch
from chargen.locks import Lock
from chargen.settings import check_int

Way = TypeVar("Way", bound=Hashable)


START, START_EACH = 90.0, 22.5
"""Microseconds that starting threads takes: once, and for each of them; on 16 cores of a busy host."""


def parallel_for(
    run: Callable[[slice], None], rows: int, microseconds: float = math.inf, most: int | None = None
) -> None:
    """Share out rows among threads, and wait until all are computed.

    Args:
        run: computes the rows of a slice; it must release the interpreter's lock.
        rows: how many there are.
        microseconds: what a row takes, roughly: where that is little, few threads are worth starting.
        most: the most threads that are worth it; None: all.
    """
    most = min(threads(), rows, threads() if most is None else most)
    num_threads = _worth_starting(most, rows * microseconds)
    if num_threads < 2:
        run(slice(0, rows))
        return
    list(_pool().map(run, share_out(rows, num_threads)))


def _worth_starting(most: int, microseconds: float) -> int:
    """The number of threads, of `most` and its halves, that are done with so much work first."""
    if microseconds == math.inf:
        return most
    return min(halves(max(1, most)), key=lambda number: microseconds / number + start_time(number))


def start_time(number: int) -> float:
    """Predict the microseconds until so many threads have started.

    Args:
        number: 1, which is there already, or more.
    """
    return START + number * START_EACH if number > 1 else 0.0


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
        # All run at the same time, also where fewer threads compute since somebody chose this number.
        pool = _pool() if members <= threads() else _pool(members)
        futures = [pool.submit(run, member) for member in range(1, members)]
        run(0)
        for future in futures:
            future.result()


class AutoTuner(Generic[Way]):
    """A choice among ways of computing the same, the one that is fastest at the moment.

    On cores that other programs use, threads that wait for each other often wait longer than they compute. The slower
    ways are tried again for a hundredth of the time.

    Args:
        predicted: seconds that each way is thought to take, until it has been tried; 0 where nobody knows.
    """

    def __init__(self, predicted: Mapping[Way, float]) -> None:
        self.seconds = dict(predicted)
        self.untried = set(predicted)
        self.pause = 100 * (len(predicted) - 1)
        self.due = {way: time.monotonic() + self.pause * seconds for way, seconds in predicted.items()}

    def choose(self) -> Way:
        """Choose a way."""
        best, now = min(self.seconds, key=self.seconds.__getitem__), time.monotonic()
        late = [way for way, due in self.due.items() if due <= now and way != best]
        return min(late, key=self.due.__getitem__, default=best)

    def record(self, way: Way, seconds: float, size: int = 1) -> None:
        """Record how long a way has just taken.

        Args:
            way: which.
            seconds: the time it took. Other programs only ever add to it, so less counts at once, and more by and by.
            size: what the time is proportional to.
        """
        self.due[way] = time.monotonic() + self.pause * seconds
        last, seconds = self.seconds[way], seconds / size
        if way not in self.untried and seconds > last:
            seconds = last + min(seconds - last, last) / 4
        self.seconds[way] = seconds
        self.untried.discard(way)


def halves(number: int) -> list[int]:
    """A number, its half, a half of that and so on, down to 1.

    Args:
        number: 1 or more.
    """
    return [number >> shift for shift in range(number.bit_length())]


@cache
def threads() -> int:
    """Return how many threads may compute: $OMP_NUM_THREADS, or the number of cores that this process may use."""
    setting = os.environ.get("OMP_NUM_THREADS", "")
    return int(setting) if setting.isdigit() and int(setting) else cores()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(number: int) -> None:
    """Compute in so many threads from now on, in this process and those that it starts, torch and NumPy included.

    Args:
        number: 1 to 1,024; more than there are cores compute no faster.

    Raises:
        SettingError: where it is no such number.
    """
    number = check_int("threads", number, 1, MOST_THREADS)
    with TEAM_LOCK:
        _CHOSEN.append(number)
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(number))
        threads.cache_clear()
        _pool.cache_clear()
    # A library that is loaded has read its variable already.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(number)
    if "numpy" in sys.modules:
        with contextlib.suppress(AttributeError, OSError):  # of another NumPy, or with another library for products
            library = ctypes.CDLL(sys.modules["numpy._core._multiarray_umath"].__file__ or "")
            library.scipy_openblas_set_num_threads64_(number)


def share_cores() -> None:
    """Give this process its share of the cores, where others were started with it on this machine.

    torchrun sets OMP_NUM_THREADS to 1 where nobody else has; any other number is somebody's wish, and so is a call of
    `set_threads`.

    Raises:
        SettingError: where the launcher's variables contradict each other.
    """
    processes = read_launch().local_world_size
    if processes > 1 and not _CHOSEN and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        set_threads(max(1, cores() // processes))


MOST_THREADS = 1_024
"""More are a slip."""
_CHOSEN: list[int] = []
"""What `set_threads` was called with."""
TEAM_LOCK = Lock()
"""Held while a team runs: two teams whose members wait for threads of the pool would wait for ever."""


@cache
def _pool(size: int | None = None) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size or threads(), "chargen")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child process does not have its parent's threads
