"""Processes that train together, as threads of this one."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from chargen.training.group import Group

Result = TypeVar("Result")
HANG = 120.0
"""Seconds after which threads that wait for each other fail."""


class _Meeting:
    """Where threads hand in what is summed."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=HANG)
        self.values: list[Tensor] = [torch.zeros(0)] * size


class ThreadGroup(Group):
    """A process of a group, as a thread."""

    def __init__(self, rank: int, size: int, meeting: _Meeting) -> None:
        super().__init__(rank, size, rank)
        self._meeting = meeting
        self.sums = 0

    def sum(self, values: Tensor) -> None:
        self.sums += 1
        self._meeting.values[self.rank] = values.clone()
        self._meeting.barrier.wait()
        assert len({(part.shape, part.dtype) for part in self._meeting.values}) == 1
        values.copy_(sum(self._meeting.values[1:], self._meeting.values[0]))
        self._meeting.barrier.wait()


def run_together(size: int, run: Callable[[Group], Result]) -> list[Result]:
    """Run a function in each of several processes; return what each returned.

    Args:
        size: how many there are.
        run: is called with the group, as each process sees it.
    """
    meeting = _Meeting(size)

    def run_rank(rank: int) -> Result:
        try:
            group = ThreadGroup(rank, size, meeting)
            group.exchange()
            return run(group)
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(run_rank, rank) for rank in range(size)]
    errors = [error for future in futures if (error := future.exception())]
    own = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]
    for error in own or errors:
        raise error
    return [future.result() for future in futures]
