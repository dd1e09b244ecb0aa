"""A heartbeat: signs of life that processes give each other, through a store that all of them can reach."""

import contextlib
import itertools
import os
import platform
import signal
import sys
import threading
import time
from typing import Any

BEAT = 1.0
"""Seconds between two signs of a process."""
SILENCE = 15.0
"""Seconds without a sign after which a process is lost."""


class Heartbeat:
    """Gives this process's signs and reads those of the others, in a thread: a store may never answer.

    Args:
        store: of torch.distributed, of this thread's own.
        rank: of this process.
        size: how many processes there are.
    """

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self.rank, self.others = rank, [other for other in range(size) if other != rank]
        self.doing = "starting"
        """What this process does, a part of its sign."""
        self.failure = ""
        """What a process has said before it ended, once one has: the first that did."""
        self.was_stopped = False
        """Whether this process itself was stopped: then it is the one that is lost, and others say so."""
        self.store_error = ""
        """Why the store cannot be used any more, once that is so."""
        self._store = store
        self._seen: dict[int, tuple[str, float]] = {}
        self._answered = time.monotonic()
        self._reads, self._leaves, self._wakes = False, False, threading.Event()
        self._message = ""
        self._speaks: bool | None = None
        self._process = f"{os.getpid()}@{''.join(platform.node().split())}"
        self._thread = threading.Thread(target=self._run, name="chargen heartbeat", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for number in itertools.count():
                self._store.set(f"sign/{self.rank}", f"{number} {self._process} {self.doing}")
                if self._message and self._speaks is None:
                    self._take(self._store.compare_set("failure", "", f"{self.rank} {self._message}"))
                elif not self.failure and self._store.check(["failure"]):
                    self._take(self._store.get("failure"))
                if self._reads:
                    self._read()
                self._answered = time.monotonic()
                if self._leaves:
                    return
                self._wakes.wait(BEAT)
                self._wakes.clear()
                self.was_stopped |= time.monotonic() - self._answered > SILENCE / 2
        except RuntimeError as error:
            self.store_error = str(error).strip() or "no answer"

    def _take(self, failure: bytes) -> None:
        """Take over what the store holds: the number of the process that was the first to speak, and what it said."""
        rank, _, self.failure = failure.decode().partition(" ")
        self._speaks = int(rank) == self.rank

    def _read(self) -> None:
        there = [rank for rank in self.others if rank in self._seen or self._store.check([f"sign/{rank}"])]
        for rank, read in zip(there, self._store.multi_get([f"sign/{rank}" for rank in there]), strict=True):
            sign = read.decode()
            if self._seen.get(rank, ("", 0.0))[0] != sign:
                self._seen[rank] = sign, time.monotonic()

    def silent(self, since: float, limit: float = SILENCE) -> list[int]:
        """The processes that give no sign; the first one, where the store does not answer.

        From the first call on, the signs of others are read.

        Args:
            since: when somebody began to wait for one, as `time.monotonic()` told it.
            limit: seconds without a sign.
        """
        self._reads, now = True, time.monotonic()
        if self.store_error:  # the first process holds it, or its launcher does
            return [0] * bool(self.rank)
        if now - self._answered > 3 * BEAT:  # then no other's sign can be read either
            return [0] * bool(self.rank and now - max(self._answered, since) > limit)
        return [rank for rank in self.others if now - max(self._seen.get(rank, ("", 0.0))[1], since) > limit]

    def busy(self) -> list[str]:
        """What others do that do something else than this process: "process 1 is reading the text"."""
        doing = {rank: sign.split(" ", 2)[2] for rank, (sign, _) in sorted(self._seen.items())}
        return [f"process {rank} is {what}" for rank, what in doing.items() if what != self.doing]

    def wait_for_failure(self, seconds: float) -> str:
        """Wait until another process has said why it fails.

        Args:
            seconds: at most.

        Returns:
            What it has said; empty where none has.
        """
        self._reads, end = True, time.monotonic() + seconds
        while not self.failure and not self.store_error and time.monotonic() < end:
            time.sleep(BEAT / 10)
        return self.failure

    def speak(self, message: str, seconds: float) -> bool | None:
        """Say for all processes why the job fails, if no other has said it.

        Args:
            message: one line.
            seconds: to wait for the store, at most.

        Returns:
            Whether this process is the first; None where the store does not answer.
        """
        self._message, end = message, time.monotonic() + seconds
        self._wakes.set()
        while self._speaks is None and not self.store_error and time.monotonic() < end:
            time.sleep(BEAT / 10)
        return self._speaks

    def wake(self, ranks: list[int]) -> None:
        """Let processes on this machine go on that were stopped: they see then that they are too late, and end.

        Args:
            ranks: of those that give no sign.
        """
        for rank in ranks:
            process, _, machine = self._seen.get(rank, ("0 @ ", 0.0))[0].split(" ")[1].partition("@")
            if sys.platform != "win32" and process and machine == self._process.partition("@")[2]:
                with contextlib.suppress(OSError):
                    os.kill(int(process), signal.SIGCONT)

    def leave(self) -> None:
        """Give no more signs."""
        self._leaves = True
        self._wakes.set()
        self._thread.join(2 * BEAT)
