"""The processes that train together, of which one is this. All that they exchange is sums: what one alone knows, others
add nothing to.
"""

import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from chargen.arguments import Arrays
from chargen.errors import DataError
from chargen.kernels.threads import share_out

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DIGIT = 4096
"""Whole numbers are summed in float32 as two digits of this base: exact below 2**36, of up to 4,096 processes."""
TICKS = 1000
"""Of a clock, in a second."""


class Group:
    """The processes that train together, of which this is one; by itself, one that trains alone.

    Args:
        rank: the number of this process, from 0; the first one alone writes files.
        size: how many there are.
        local_rank: its number among those on this machine.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self.stopping = False
        """Whether all have agreed to stop."""
        self.reduced_bytes = 0
        """Bytes that this process has added to sums."""
        self._stop_asked = False
        self._origin = self._time = 0.0

    def sum(self, values: "Tensor") -> None:
        """Replace values by their sum over all processes, in each of them.

        Args:
            values: of the same shape and type everywhere.

        Raises:
            ChargenError: where another process is gone.
        """

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    @property
    def leads(self) -> bool:
        """Whether this is the first process, which writes files, decides and tells."""
        return self.rank == 0

    def share_of(self, count: int) -> range:
        """The things that this process takes of many.

        Args:
            count: how many there are.
        """
        part = share_out(count, self.size)[self.rank]
        return range(part.start, part.stop)

    def now(self) -> float:
        """The time in seconds: of the first process, when sums were last exchanged; so all take the same decisions."""
        return time.monotonic() if self.alone else self._time

    def stops(self, asked: bool) -> bool:
        """Whether to stop now: all processes do at the same step, once one was asked to.

        Args:
            asked: whether this one was.
        """
        self._stop_asked |= asked
        return asked if self.alone else self.stopping

    def notices(self) -> list[float]:
        """What each sum carries behind its own values: requests to stop, and the first process's clock."""
        ticks = round((time.monotonic() - self._origin) * TICKS) if self.leads else 0
        return [float(self._stop_asked), *to_digits(ticks)]

    def read_notices(self, notices: list[float]) -> None:
        """Take over what a sum has carried.

        Args:
            notices: of all processes.
        """
        self.stopping |= notices[0] > 0
        self._time = self._origin + from_digits(notices[1:]) / TICKS

    def exchange(self, values: Iterable[float] = ()) -> list[float]:
        """Sum a few numbers over all processes; in one alone they stay as they are.

        Args:
            values: as many everywhere.
        """
        values = list(values)
        if self.alone:
            return values
        import torch

        sums = torch.tensor(values + self.notices(), dtype=torch.float64)
        self.sum(sums)
        *values, stop, high, low = sums.tolist()
        self.read_notices([stop, high, low])
        return values

    def broadcast(self, value: Any) -> Any:
        """What the first process has, in all of them.

        Args:
            value: of JSON's types; those of other processes are ignored.
        """
        if self.alone:
            return value
        import torch

        data = np.frombuffer(json.dumps(value).encode(), np.uint8).copy() if self.leads else np.zeros(0, np.uint8)
        (size,) = self.exchange([len(data)])
        if not self.leads:
            data = np.zeros(int(size), np.uint8)
        self.sum(torch.from_numpy(data))
        return json.loads(data.tobytes())

    def broadcast_arrays(self, arrays: Arrays) -> Arrays:
        """The first process's arrays, in all of them.

        Args:
            arrays: float32, by name; those of other processes are ignored.
        """
        if self.alone:
            return arrays
        import torch

        shapes = self.broadcast({name: array.shape for name, array in arrays.items()})
        if not self.leads:
            arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        arrays = {name: np.ascontiguousarray(array).copy() for name, array in arrays.items()}
        for array in arrays.values():
            self.sum(torch.from_numpy(array).view(torch.int32))  # bits, so that a zero keeps its sign
        return arrays

    def gather(self, rows: "Tensor", count: int) -> "Tensor":
        """The rows of all processes.

        Args:
            rows: those of this one, its `share_of(count)`, (b, S) float32.
            count: how many there are in all.

        Returns:
            (count, S).
        """
        if self.alone:
            return rows
        import torch

        part = self.share_of(count)
        gathered = rows.new_zeros(count, *rows.shape[1:])
        gathered[part.start : part.stop] = rows
        self.sum(gathered.view(torch.int32))
        return gathered

    def check_same(self, name: str, value: str) -> None:
        """Check that all processes have the same.

        Args:
            name: what it is.
            value: of this process.

        Raises:
            DataError: the first process has another.
        """
        if self.broadcast(value) != value:
            raise DataError(f"{name} is not the same here as in the first process: give all machines the same")

    def wait_for_device(self, device: "torch.device") -> None:
        """Wait until a device has computed the sums that it was asked for.

        Args:
            device: where they are.

        Raises:
            ChargenError: where another process is gone.
        """

    @contextlib.contextmanager
    def once_per_machine(self) -> Iterator[None]:
        """A context that the first process of each machine enters first, and the others when it has left it."""
        yield

    def doing(self, what: str) -> None:
        """Say what this process does, for those that wait for it.

        Args:
            what: such as "preparing the text".
        """


ALONE = Group()
"""A process that trains alone."""


def to_digits(number: int) -> list[float]:
    """Write a whole number as two digits of base `DIGIT`, which are summed one by one.

    Args:
        number: 0 to below 2**36.
    """
    return [float(number // DIGIT), float(number % DIGIT)]


def from_digits(digits: Iterable[float]) -> int:
    """Read a sum of numbers that `to_digits` wrote.

    Args:
        digits: two sums.
    """
    high, low = digits
    return round(high) * DIGIT + round(low)
