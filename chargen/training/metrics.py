"""metrics.jsonl: one JSON line per entry, readable while the run goes on and after a kill."""

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from chargen.durable import FolderGuard, describe_os_error, sync_file
from chargen.errors import WriteError

FILE_NAME = "metrics.jsonl"
MAX_LINES = 5_000
"""Lines at the interval that was asked for. Then it doubles as the steps do: some 2,500 more for each doubling."""


def is_logged_step(step: int, every: int) -> bool:
    """True where a line is due for a step: at multiples of `every`, or of twice, four times … as much as steps grow."""
    return step % (every << (step // (every * MAX_LINES)).bit_length()) == 0


class Metrics:
    """Appends lines to a run folder's metrics, or nowhere where there is no folder.

    Args:
        folder: the run folder; nothing is written once another one stands in its place.
        size: the bytes that belong to the run; what a killed process wrote beyond them is cut off by `cut`.
    """

    def __init__(self, folder: Path | None, size: int = 0) -> None:
        self.path = folder / FILE_NAME if folder else None
        self.folder = FolderGuard(folder) if folder else None
        self.size = size
        self.waiting = b""
        self.only_queues = False
        """True while lines only wait, because the file is still another run's."""

    def cut(self) -> None:
        """Begin to write: make the file, or cut off what does not belong to the run.

        Raises:
            WriteError: where the disk refuses.
        """
        self._append(sync=False)

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; where the disk refuses, it waits for the next one, and for `sync` to complain."""
        if self.path:
            self.waiting += json.dumps(line).encode() + b"\n"
            if self.only_queues:
                return
            with contextlib.suppress(WriteError):
                self._append(sync=False)

    def sync(self) -> int:
        """Put all lines on the disk.

        Returns:
            Their size in bytes, for the run's state.

        Raises:
            WriteError: where the disk refuses.
        """
        self._append(sync=True)
        return self.size

    def _append(self, sync: bool) -> None:
        """Write what waits behind what belongs to the run; what a failed write has left there is cut by the next."""
        if not (self.path and self.folder):
            return
        try:
            self.folder.check()
            if os.path.lexists(self.path) and not stat.S_ISREG(os.lstat(self.path).st_mode):
                raise WriteError(f"cannot write {self.path}: there is something else than a file")
            with open(self.path, "ab", buffering=0) as file:
                if file.tell() > self.size:
                    file.truncate(self.size)
                left = memoryview(self.waiting)
                while left:
                    left = left[file.write(left) :]
                if sync:
                    sync_file(file.fileno())
                self.size, self.waiting = file.tell(), b""
        except OSError as error:
            raise WriteError(
                f"cannot write {self.path}: {describe_os_error(error, self.path.parent, len(self.waiting))}"
            ) from error
