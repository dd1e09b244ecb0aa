"""The command in several processes, as a launcher starts them: forks of one that has loaded everything already."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.yardstick import HANG

SMALL = ["--hidden-size", "12", "--embedding-size", "6", "--num-layers", "1", "--batch-size", "8", "--seq-length", "8"]
SMALL += ["--lr", "0.01", "--precision", "fp32", "--preview", "0"]
_SERVER = """
import json, os, sys, threading
from chargen.cli.main import main
import chargen.cli.train, chargen.training.trainer, chargen.training.distributed, chargen.model.compiled_layers
import tqdm
codes = {}
def start(arguments, folder, err, environment):
    child = os.fork()
    if child:
        codes[child] = None
        return child
    tqdm.tqdm.set_lock(threading.RLock())
    os.environ.update(environment)
    os.chdir(folder)
    out = os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0), os.dup2(null, 1), os.dup2(out, 2)
    code = 99
    try:
        main(arguments)
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        import traceback
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)
def poll(child):
    if codes[child] is None:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            codes[child] = os.waitstatus_to_exitcode(status)
    return codes[child]
for line in sys.stdin:
    name, *values = json.loads(line)
    print(json.dumps({"start": start, "poll": poll}[name](*values)), flush=True)
"""


class Server:
    """Forks commands."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, *words: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(HANG)
        self._process.stdout.close()


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


class Launched:
    """Processes with numbers from 0, each with a file for what it says.

    Args:
        server: starts them.
        size: how many.
        arguments: behind `chargen`.
        folder: where they run.
        restarts: how often the launcher of the last of them has started it again; others may count less.
    """

    def __init__(self, server: Server, size: int, arguments: list[str], folder: Path, restarts: int = 0) -> None:
        self.server, self.folder, self.processes = server, folder, []
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        shared |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
        shared |= {"CHARGEN_CACHE": str(folder / "cache")}
        for rank in range(size):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            own |= {"TORCHELASTIC_RESTART_COUNT": str(restarts if rank == size - 1 else 0)}
            err = str(folder / f"err{rank}")
            self.processes.append(server.ask("start", arguments, str(folder), err, shared | own))

    def said(self, rank: int) -> str:
        return (self.folder / f"err{rank}").read_text()

    def send(self, rank: int, number: int) -> None:
        os.kill(self.processes[rank], number)

    def codes(self) -> dict[int, int | None]:
        """The exit codes; None for those that run."""
        return {rank: self.server.ask("poll", process) for rank, process in enumerate(self.processes)}

    def wait(self, *but: int) -> dict[int, int | None]:
        """Wait until all but some have ended; return their exit codes."""
        end = time.monotonic() + HANG
        while any(code is None for rank, code in self.codes().items() if rank not in but):
            assert time.monotonic() < end, [self.said(rank) for rank in range(len(self.processes))]
            time.sleep(0.02)
        return {rank: code for rank, code in self.codes().items() if rank not in but}

    def wait_for_step(self, step: int) -> None:
        """Wait until there is a line of metrics of a step."""
        metrics, end = self.folder / "run" / "metrics.jsonl", time.monotonic() + HANG
        while not (metrics.exists() and f'"step": {step},' in metrics.read_text()):
            assert time.monotonic() < end
            assert None in self.codes().values(), [self.said(rank) for rank in range(len(self.processes))]
            time.sleep(0.01)


@contextlib.contextmanager
def launched(server: Server, size: int, arguments: list[str], folder: Path, restarts: int = 0) -> Iterator[Launched]:
    """Processes that are gone when the context ends."""
    job = Launched(server, size, arguments, folder, restarts)
    try:
        yield job
    finally:
        for rank, code in job.codes().items():
            if code is None:
                job.send(rank, signal.SIGKILL)
        job.wait()
