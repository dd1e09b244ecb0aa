"""Commands in processes that have loaded everything already: a signal can come at any moment of the command itself."""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.yardstick import HANG

_SERVER = """
import json, os, sys, threading
from chargen.cli.main import main
import chargen.cli.train, chargen.training.trainer, chargen.decoding.compiled_engine, chargen.model.compiled_layers
import torch, tqdm
for line in sys.stdin:
    arguments, folder, err, room = json.loads(line)
    child = os.fork()
    if child == 0:
        # All forks share tqdm's own lock, which a process that was killed within it would hold for ever.
        tqdm.tqdm.set_lock(threading.RLock())
        os.chdir(folder)
        out = os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(out, 1), os.dup2(out, 2)
        if room is not None:
            import resource
            pages = int(open("/proc/self/statm").read().split()[0])
            limit = pages * resource.getpagesize() + room
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            main(arguments)
        except SystemExit as error:
            code = error.code
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 99
        sys.stderr.flush()
        os._exit(code or 0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


_WARM = """
import tempfile
from chargen.cli.main import main
with tempfile.TemporaryDirectory() as folder, open(folder + "/text.txt", "w") as text:
    print("warm " * 1000, file=text, flush=True)
    small = ["--steps", "2", "--hidden-size", "4", "--batch-size", "2", "--seq-length", "4", "--preview", "0"]
    try:
        main(["train", text.name, "--out", folder + "/run", "--precision", "fp32", *small])
    except SystemExit as error:
        assert not error.code
"""


class Commands:
    """Runs one command after the other, each in a process of its own."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self.server, self.folder = server, folder

    def run(
        self, *arguments: str, after: float = 0.0, signal: int | None = None, room: int | None = None
    ) -> tuple[int, str, float]:
        """Run a command and send it a signal after some seconds: exit code, standard error, seconds from then on.

        Args:
            room: bytes that it may allocate.
        """
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.write(json.dumps([arguments, str(self.folder), str(self.folder / "err"), room]) + "\n")
        self.server.stdin.flush()
        child = int(self.server.stdout.readline())
        sent = time.monotonic()
        if signal is not None:
            time.sleep(after)
            sent = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal)
        code = int(self.server.stdout.readline())
        return code, (self.folder / "err").read_text(), time.monotonic() - sent


@contextlib.contextmanager
def commands(folder: Path, warm: bool = False) -> Iterator[Commands]:
    """What runs commands in a folder, with a cache of its own there; `warm` where it has trained once already."""
    words = [sys.executable, "-c", (_WARM if warm else "") + _SERVER]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CHARGEN_CACHE": str(folder / "cache")}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:
        yield Commands(server, folder)
        assert server.stdin
        server.stdin.close()
        server.wait(HANG)


SMALL = ["--hidden-size", "12", "--embedding-size", "6", "--num-layers", "1", "--batch-size", "4", "--seq-length", "8"]
SMALL += ["--dropout", "0.1", "--weight-decay", "0.3", "--lr", "0.01", "--precision", "fp32", "--preview", "0"]


def text(characters: int) -> str:
    words = random.Random(0).choices(["call", "me", "Ishmael", "some", "years", "ago", "never", "mind\n"], k=characters)
    return " ".join(words)[:characters]
