"""The command in several processes, as a launcher starts them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.yardstick import HANG

SMALL = ["--hidden-size", "12", "--embedding-size", "6", "--num-layers", "1", "--batch-size", "8", "--seq-length", "8"]
SMALL += ["--lr", "0.01", "--precision", "fp32", "--preview", "0"]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


class Launched:
    """Processes with numbers from 0, each with a file for what it says.

    Args:
        size: how many.
        arguments: behind `chargen`.
        folder: where they run.
        **environment: more variables of theirs.
    """

    def __init__(self, size: int, arguments: list[str], folder: Path, **environment: str) -> None:
        self.folder, self.processes = folder, []
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
        shared |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), **environment}
        for rank in range(size):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            with open(folder / f"err{rank}", "w") as err:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "chargen", *arguments], cwd=folder, stderr=err,
                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ, **shared, **own},
                    )
                )  # fmt: skip

    def said(self, rank: int) -> str:
        return (self.folder / f"err{rank}").read_text()

    def wait(self, *but: int, limit: float = HANG) -> dict[int, int]:
        """The exit codes of all but some."""
        end = time.monotonic() + limit
        return {
            rank: process.wait(max(0.1, end - time.monotonic()))
            for rank, process in enumerate(self.processes)
            if rank not in but
        }

    def wait_for_step(self, step: int) -> None:
        """Wait until there is a line of metrics of a step, or a process has ended."""
        metrics = self.folder / "run" / "metrics.jsonl"
        while all(process.poll() is None for process in self.processes):
            with contextlib.suppress(OSError):
                if f'"step": {step},' in metrics.read_text():
                    return
            time.sleep(0.01)


@contextlib.contextmanager
def launched(size: int, arguments: list[str], folder: Path, **environment: str) -> Iterator[Launched]:
    """Processes that are gone when the context ends."""
    processes = Launched(size, arguments, folder, **environment)
    try:
        yield processes
    finally:
        for process in processes.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()
