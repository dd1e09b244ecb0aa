"""Processes that a launcher such as torchrun has started: sums by torch.distributed, and signs of life.

gloo sums on CPUs, NCCL on GPUs.
"""

import atexit
import contextlib
import datetime
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed.nn.functional  # later its defaults would keep a group, and its threads, for ever
from torch import Tensor, distributed

from chargen.errors import ChargenError, LostProcess
from chargen.launch import Launch
from chargen.training.group import Group
from chargen.training.heartbeat import BEAT, SILENCE, Heartbeat

LOOK = 2.0
"""Seconds that a process waits for the others before it looks for signs of life."""
PATIENCE = 10.0, 30.0
"""Seconds after which it is said who is waited for, and from then on how often."""
COMING = 300.0
"""Seconds after which an address is wrong at which nobody listens."""
NO_LIMIT = datetime.timedelta(days=365)
"""For what may take as long as there are signs of life."""
ADVICE = "see that MASTER_ADDR can be reached, and name the network by GLOO_SOCKET_IFNAME where there are several"


class TorchGroup(Group):
    """Processes that a launcher has started, on one machine or several.

    Each gives signs of life by a thread. So one that reads, compiles or computes is waited for without limit, and one
    that is gone, stopped or cut off is noticed.

    Args:
        launch: which of them this is.
        on_wait: called with a line now and then, in the first process, while others are waited for.

    Raises:
        ChargenError: they cannot reach each other.
    """

    def __init__(self, launch: Launch, on_wait: Callable[[str], None]) -> None:
        super().__init__(launch.rank, launch.world_size, launch.local_rank)
        self._first_here = launch.rank - launch.local_rank
        self._on_wait = on_wait
        self._hosts = self.leads and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        self._speaks_at = 0.0
        self._visits = 0
        stores = [self._connect(hosts=hosts) for hosts in (self._hosts, False)]
        try:
            prefix = self._meet(stores[0])
            self._store, for_heartbeat = (distributed.PrefixStore(prefix, store) for store in stores)  # type: ignore[attr-defined]
            self._heartbeat = Heartbeat(for_heartbeat, self.rank, self.size)
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "cpu:gloo",
                store=self._store, rank=self.rank, world_size=self.size, timeout=NO_LIMIT,
            )  # fmt: skip
        except (RuntimeError, ValueError) as error:
            raise ChargenError(f"{self._name} cannot reach the others: {_first_line(error)}; {ADVICE}") from error
        self._origin = self.broadcast(time.monotonic())
        self.exchange()

    @property
    def _name(self) -> str:
        return f"process {self.rank} of {self.size}"

    def _connect(self, hosts: bool) -> Any:
        """Connect to the store of this launch, at the address that the launcher has chosen.

        Args:
            hosts: whether this process holds it, because the launcher does not.
        """
        address, port = (os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
        if not address or not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
            raise ChargenError(f"MASTER_ADDR {address!r} and MASTER_PORT {port!r} are no address: use torchrun")
        end, make = time.monotonic() + COMING, distributed.TCPStore  # type: ignore[attr-defined]
        while True:
            try:  # for a short time: no signal ends it
                limit = datetime.timedelta(seconds=LOOK)
                store = make(address, int(port), None, hosts, limit, wait_for_workers=False, multi_tenant=True)
                store.set_timeout(NO_LIMIT)
                return store
            except (RuntimeError, ValueError) as error:
                if hosts or time.monotonic() > end:
                    reason = f"{self._name} cannot reach {address}:{port}: {_first_line(error)}"
                    raise ChargenError(f"{reason}; {ADVICE}") from error

    def _meet(self, store: Any) -> str:
        """Wait until all are there, and agree on a prefix for their keys.

        The store may have served others before: it outlives processes that a launcher starts again, and how often it
        did so each machine counts for itself. So the first process makes a new prefix, and what it answers to is known
        to be no answer to one that is gone.
        """
        mine, prefix, began = secrets.token_hex(8), "", time.monotonic()
        if self.leads:
            prefix = f"chargen/{mine}"
            store.set("chargen", prefix)
            others = [f"{prefix}/here/{rank}" for rank in range(1, self.size)]
            while not store.check(others):
                time.sleep(BEAT / 10)
                if self._may_speak(began):
                    missing = next((key.rpartition("/")[2] for key in others if not store.check([key])), None)
                    if missing:
                        self._on_wait(f"waiting for others: process {missing} of {self.size} has not come yet")
            store.set(f"{prefix}/all", b" ".join(store.multi_get(others)).decode())
            return prefix
        while not (prefix and store.check([f"{prefix}/all"]) and mine in store.get(f"{prefix}/all").decode().split()):
            if store.check(["chargen"]) and (latest := store.get("chargen").decode()) != prefix:
                prefix = latest
                store.set(f"{prefix}/here/{self.rank}", mine)
            time.sleep(BEAT / 10)
        return prefix

    def _may_speak(self, began: float) -> bool:
        """Whether it is time to say who is waited for, since `time.monotonic()` was `began`; once each time."""
        first, again = PATIENCE
        now = time.monotonic()
        if not self.leads or now - began <= first or now <= self._speaks_at:
            return False
        self._speaks_at = now + again
        return True

    def doing(self, what: str) -> None:  # noqa: D102
        self._heartbeat.doing = what

    def sum(self, values: Tensor) -> None:  # noqa: D102
        self.reduced_bytes += values.nbytes
        if values.device.type == "cuda":
            distributed.all_reduce(values)  # in the device's own time
            return
        work, began = distributed.all_reduce(values, async_op=True), time.monotonic()
        while True:
            has_ended = work.is_completed()  # otherwise an error may be that of waiting, though the sum ends just then
            try:
                work.wait(datetime.timedelta(seconds=LOOK))
                return
            except RuntimeError as error:
                if has_ended:
                    raise self._find_lost(_first_line(error)) from error
                if not work.is_completed():
                    self._look(began)

    def wait_for_device(self, device: torch.device) -> None:  # noqa: D102
        if device.type != "cuda":
            return
        computed = torch.cuda.Event()  # type: ignore[no-untyped-call]
        computed.record()
        began = looked = time.monotonic()
        while not computed.query():  # type: ignore[no-untyped-call]
            time.sleep(1e-4)
            if time.monotonic() - looked > LOOK:
                looked = time.monotonic()
                self._look(began)

    @contextlib.contextmanager
    def once_per_machine(self) -> Iterator[None]:  # noqa: D102
        self._visits += 1
        key, began = f"done/{self._visits}/{self._first_here}", time.monotonic()
        if self.local_rank == 0:
            yield
        try:
            if self.local_rank == 0:
                self._store.set(key, "")
                return
            while not self._store.check([key]):
                time.sleep(BEAT / 4)
                if time.monotonic() - began > LOOK:
                    self._look(began)
        except RuntimeError as error:
            raise self._find_lost(_first_line(error)) from error
        yield

    def _look(self, began: float) -> None:
        """Look for signs of life of the others; in the first process, say now and then whom it waits for.

        Args:
            began: `time.monotonic()` when this process began to wait.

        Raises:
            LostProcess: one of them gives none, or says that it has failed.
        """
        silent = self._heartbeat.silent(began)
        if silent:  # to this process too, where it was stopped itself
            time.sleep(2 * BEAT)
            silent = self._heartbeat.silent(began)
        if self._heartbeat.failure:
            raise LostProcess(self._heartbeat.failure, is_known=True)
        if silent:
            raise self._lost(silent, f"no sign of life for {SILENCE:g} seconds")
        if (busy := self._heartbeat.busy()) and self._may_speak(began):
            self._on_wait(f"waiting for others: {busy[0]}")

    def _find_lost(self, reason: str) -> LostProcess:
        """Make the error for a sum that has failed: who says so, or gives no sign of life since.

        Args:
            reason: what the sum's error says.
        """
        began = time.monotonic()
        if failure := self._heartbeat.wait_for_failure(4 * BEAT):
            return LostProcess(failure, is_known=True)
        if silent := self._heartbeat.silent(began, 2.5 * BEAT):
            return self._lost(silent, "its connection has ended")
        return LostProcess(f"{self._name} has lost the others: {reason}; {ADVICE}", is_known=False)

    def _lost(self, ranks: list[int], reason: str) -> LostProcess:
        """Make the error that ends this process. Who knows first says it; without the store, the first that is left."""
        named = ", ".join(map(str, ranks[:5])) + " …" * (len(ranks) > 5)
        message = f"process{'es' * (len(ranks) > 1)} {named} of {self.size} is gone or stopped: {reason}"
        if self._heartbeat.was_stopped:
            return LostProcess(message, is_known=True)
        speaks = self._heartbeat.speak(message, 2 * BEAT)
        if speaks is None:
            speaks = self.rank == min({*range(self.size)} - {*ranks})
        if speaks:
            self._heartbeat.wake(ranks)
        else:
            self._heartbeat.wait_for_failure(5 * BEAT)  # who ends first might be taken for the one that is gone
        return LostProcess(message, is_known=not speaks)

    def leave(self, error: BaseException | None) -> None:
        """Leave, so that the others notice what kind of end this is.

        Args:
            error: what ends this process, where it fails.

        Raises:
            LostProcess: another process fails as this one does, and says so.
        """
        if error is None:
            with contextlib.suppress(RuntimeError, LostProcess):
                self.exchange()  # all have got so far
                self._heartbeat.leave()
                self.exchange()  # and nobody still asks the store for anything
                distributed.destroy_process_group()
            return
        if isinstance(error, LostProcess):
            atexit.register(_exit_at_once)
            self._end_heartbeat(speaks=not error.is_known)
            return
        if not self.leads:
            self._heartbeat.wait_for_failure(2 * BEAT)
        message = f" has failed: {_first_line(error)}"
        speaks = self._heartbeat.speak(self._name + message, 2 * BEAT) is not False
        self._end_heartbeat(speaks)
        with contextlib.suppress(RuntimeError, AssertionError):
            distributed.destroy_process_group()  # its threads outlive the interpreter otherwise
        if not speaks and self._heartbeat.failure.endswith(message):
            raise LostProcess(self._heartbeat.failure, is_known=True) from error

    def _end_heartbeat(self, speaks: bool) -> None:
        """Give no more signs; where others have yet to read what this process says, keep the store for a while."""
        self._heartbeat.leave()
        if speaks and self._hosts:
            time.sleep(2 * BEAT)


def _exit_at_once() -> None:
    """End this process: torch would wait for ever for sums that others will never make."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(LostProcess.exit_code)


def _first_line(error: BaseException) -> str:
    """What an error says, without the place in the code where it came up."""
    line = str(error).strip().partition("\n")[0]
    return (line.partition("] ")[2] if line.startswith("[") and "] " in line else line)[:200]
