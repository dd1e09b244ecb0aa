"""metrics.jsonl: one JSON line per entry, readable while the run goes on and after a kill."""

import json
import os
from pathlib import Path
from typing import Any

from chargen.errors import ChargenError

FILE_NAME = "metrics.jsonl"


class Metrics:
    """Appends lines to a run folder's metrics, or nowhere where there is no folder.

    Args:
        folder: the run folder.
        size: the bytes that belong to the run; what a killed process wrote beyond them is cut off by `cut`.
    """

    def __init__(self, folder: Path | None, size: int = 0) -> None:
        self.path = folder / FILE_NAME if folder else None
        self.size = size

    def cut(self) -> None:
        """Begin to write: make the file, or cut off what does not belong to the run."""
        if self.path:
            with open(self.path, "ab") as file:
                self.size = min(self.size, file.tell())
                file.truncate(self.size)

    def write(self, line: dict[str, Any]) -> None:
        """Append one line."""
        if self.path:
            try:
                with open(self.path, "ab") as file:
                    file.write(json.dumps(line).encode() + b"\n")
                    self.size = file.tell()
            except OSError as error:
                advice = "make room, or put the run folder back, and go on with --resume"
                raise ChargenError(f"cannot write {self.path}: {error.strerror or error}; {advice}") from error

    def sync(self) -> int:
        """Put all lines on the disk and return their size in bytes, for the run's state."""
        if self.path:
            with open(self.path, "ab") as file:
                os.fsync(file.fileno())
        return self.size
