"""Bounds that hold on every machine: processor time as a multiple of another one's, taken in the same test."""

import json
import statistics
import time
from collections.abc import Callable
from functools import cache

from chargen.storage import tensor_file

HANG = 600
"""Seconds after which what is waited for is given up. No bound on speed: only what hangs ever takes them."""
LONG = 5
"""How many times as long as parsing the largest header, with nothing checked, reading any file may take."""
_LARGEST = "[" + "[]," * (tensor_file.MAX_HEADER // 3 - 1) + "[]]"


def spent(work: Callable[[], object]) -> float:
    """Seconds of processor time, whatever else the machine is busy with."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def ratio(work: Callable[[], object], yardstick: Callable[[], object], times: int = 5) -> float:
    """How many times a yardstick's processor time some work takes: the median, both taken by turns."""
    return statistics.median(spent(work) / spent(yardstick) for _ in range(times))


def is_read_soon(read: Callable[[], object]) -> bool:
    """Whether something reads a file, or refuses it, in a time that belongs to a file's size."""
    return spent(read) <= LONG * _parsing() or ratio(read, _parse) <= LONG


def _parse() -> None:
    json.loads(_LARGEST)


@cache
def _parsing() -> float:
    return spent(_parse)
