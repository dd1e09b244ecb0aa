"""What several real processes do where the network fails, as far as a single process can show it."""

from typing import Any

import pytest
import torch

from chargen.errors import ChargenError, DataError, LostProcess
from chargen.launch import Launch
from chargen.training import distributed, heartbeat
from chargen.training.distributed import TorchGroup


class NoHeartbeat:
    """Those of processes of which nothing is known."""

    failure = ""

    def silent(self, since: float, limit: float = 0.0) -> list[int]:
        return []

    def wait_for_failure(self, seconds: float) -> str:
        return ""


def member(**attributes: Any) -> TorchGroup:
    group = TorchGroup.__new__(TorchGroup)
    usual = {"rank": 1, "size": 2, "local_rank": 1, "reduced_bytes": 0, "_visits": 0, "_first_here": 0}
    group.__dict__ |= {**usual, "_heartbeat": NoHeartbeat(), **attributes}
    return group


class Work:
    """A sum that ends while nobody waits for it any more."""

    def __init__(self, fails: bool) -> None:
        self.fails, self.waits = fails, 0

    def is_completed(self) -> bool:
        return self.waits > 0

    def wait(self, limit: Any) -> None:
        self.waits += 1
        if self.fails or self.waits == 1:
            raise RuntimeError("connection closed" if self.fails else "waited too long")


@pytest.mark.parametrize("fails", [False, True])
def test_a_sum_that_ends_just_after_waiting_for_it_is_no_failure(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "BEAT", 0.001)
    monkeypatch.setattr(distributed.distributed, "all_reduce", lambda values, async_op: Work(fails))
    if fails:
        with pytest.raises(LostProcess, match="process 1 of 2 has lost the others: connection closed"):
            member().sum(torch.zeros(1))
    else:
        member().sum(torch.zeros(1))


def test_a_failure_is_known_to_those_that_do_not_wait_and_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT", 0.02)
    monkeypatch.setattr(distributed, "BEAT", 0.02)
    store = distributed.distributed.HashStore()
    groups = [member(rank=rank, _hosts=False, _heartbeat=heartbeat.Heartbeat(store, rank, 4)) for rank in range(4)]
    groups[2].leave(DataError("another text"))
    with pytest.raises(LostProcess, match="process 2 of 2 has failed: another text") as error:
        groups[3].leave(DataError("another text"))
    assert error.value.is_known
    groups[1].leave(DataError("no text"))
    groups[0]._heartbeat._thread.join(0.1)
    assert groups[0]._heartbeat.failure == "process 2 of 2 has failed: another text"
    groups[0]._heartbeat.leave()


@pytest.mark.parametrize("local_rank", [0, 1])
def test_a_store_that_is_gone_while_a_text_is_prepared_is_said(
    local_rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        def check(self, keys: list[str]) -> bool:
            raise RuntimeError("broken pipe")

        def set(self, key: str, value: str) -> None:
            self.check([key])

    monkeypatch.setattr(distributed, "BEAT", 0.001)
    with pytest.raises(LostProcess, match="has lost the others: broken pipe"):
        with member(local_rank=local_rank, _store=Gone()).once_per_machine():
            pass


@pytest.mark.parametrize("port", ["", "0", "65536", "²³", "-1"])
def test_an_address_that_is_none_is_said(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", port)
    with pytest.raises(ChargenError, match=f"MASTER_PORT '{port}' are no address: use torchrun"):
        TorchGroup(Launch(1, 2, 1, 2), print)


def test_an_address_at_which_nobody_listens_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "COMING", 0.0)
    monkeypatch.setattr(distributed, "LOOK", 0.1)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    with pytest.raises(ChargenError, match=r"process 1 of 2 cannot reach 127\.0\.0\.1:1: "):
        TorchGroup(Launch(1, 2, 1, 2), print)
