"""Compiled dropout masks: Philox of their address, the same on the way back, for any threads and memory order."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.errors import ArgumentError, SettingError
from chargen.kernels import threads
from chargen.kernels.dropout import GROUP
from chargen.model import dropout
from chargen.model.dropout import DropoutKey, drop
from chargen.rng import Purpose, philox

NOISE = DropoutKey(1, 2)


def by_hand(shape: tuple[int, int, int], rate: float, noise: DropoutKey, layer: int) -> torch.Tensor:
    """Which values (B, T, F) are kept: groups of 512 in order of time, word j of 64 counters after word j - 1."""
    rows, turns, size = shape
    groups = -(-rows * turns * size // GROUP)
    at = np.arange(groups * 64, dtype=np.uint64) + np.uint64((noise.step << 24) % 2**64)
    places = [
        at & np.uint64(0xFFFFFFFF),
        at >> np.uint64(32),
        np.full_like(at, layer),
        np.full_like(at, Purpose.DROPOUT),
    ]
    words = philox(np.stack(places, -1), (noise.seed & 0xFFFFFFFF, noise.seed >> 32)).astype(np.uint32)
    numbers = np.ascontiguousarray(words.reshape(groups, 64, 4).transpose(0, 2, 1)).view(np.uint16).ravel()
    kept = numbers[: rows * turns * size] >= round(rate * 65536)
    return torch.from_numpy(kept.reshape(turns, rows, size)).transpose(0, 1)


sizes = st.tuples(st.integers(1, 9), st.integers(1, 30), st.integers(1, 70))


@settings(max_examples=60)
@given(sizes, st.sampled_from([0.1, 0.5, 0.97]), st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(0, 1064))
def test_masks_are_philox_of_their_address(
    shape: tuple[int, int, int], rate: float, seed: int, step: int, layer: int
) -> None:
    noise = DropoutKey(seed, step)
    kept = by_hand(shape, rate, noise, layer)
    scale = 65536 / (65536 - round(rate * 65536))
    for dtype in (torch.float32, torch.bfloat16):
        values = torch.linspace(1, 2, kept.numel()).reshape(shape).to(dtype)
        found = drop(values, rate, noise, layer)
        assert found.dtype == dtype
        expected = torch.where(kept, (values.float() * scale).to(dtype), torch.zeros((), dtype=dtype))
        assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gradient_is_dropped_where_the_value_was(dtype: torch.dtype) -> None:
    values = torch.ones(5, 40, 30, dtype=dtype, requires_grad=True)
    found = drop(values, 0.3, DropoutKey(1, 2), 3)
    found.backward(torch.full_like(found, 2.0))
    assert torch.equal(values.grad, 2 * found.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_order_changes_nothing(dtype: torch.dtype) -> None:
    values = torch.randn(7, 33, 20).to(dtype)
    other = values.transpose(0, 1).contiguous().transpose(0, 1)
    assert not other.is_contiguous()
    assert torch.equal(*(drop(one, 0.5, DropoutKey(1, 2), 3) for one in (values, other)))


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    threads._pool.cache_clear()
    yield monkeypatch
    threads._pool.cache_clear()


def test_the_number_of_threads_changes_nothing(pools: pytest.MonkeyPatch) -> None:
    values, found = torch.randn(16, 64, 200), []
    for number in (1, 2, 3):
        pools.setattr(threads, "threads", lambda number=number: number)
        threads._pool.cache_clear()
        found.append(drop(values, 0.5, DropoutKey(1, 2), 3))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_non_finite_value_stays_one_where_it_is_kept() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for value in (torch.nan, torch.inf):
            found = drop(torch.full((4, 4, 100), value, dtype=dtype), 0.5, DropoutKey(1, 2), 3)
            kept = by_hand((4, 4, 100), 0.5, DropoutKey(1, 2), 3)
            assert torch.equal(torch.isfinite(found), ~kept)


def test_without_numba_masks_come_from_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropout, "available", lambda: False)
    values = torch.ones(10, 40, 100)
    found = drop(values, 0.25, DropoutKey(1, 2), 3)
    assert (found == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(found, drop(values, 0.25, DropoutKey(1, 2), 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mask_of_a_gradient_of_a_gradient_is_the_same(dtype: torch.dtype) -> None:
    values, passed = torch.ones(3, 4, 50, dtype=dtype, requires_grad=True), drop(torch.ones(3, 4, 50), 0.5, NOISE, 3)
    (first,) = torch.autograd.grad(drop(values, 0.5, NOISE, 3).pow(2).sum(), values, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), values)
    assert torch.equal(second.float(), 2 * passed.pow(2))


@pytest.mark.parametrize("available", [True, False])
def test_what_cannot_be_dropped_from_is_refused(available: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropout, "available", lambda: available)
    for values in (torch.ones(3), torch.ones(3, 4), torch.ones(3, 4, 5, dtype=torch.long), None):
        with pytest.raises(ArgumentError, match=r"^values "):
            drop(values, 0.5, NOISE, 3)  # type: ignore[arg-type]
    for rate in (1.0, -0.1, math.nan, 2.0):
        with pytest.raises(SettingError, match="dropout is"):
            drop(torch.ones(3, 4, 5), rate, NOISE, 3)
    for address in ((-1, 0), (0, -1), (2**64, 0), (0.5, 0), ("1", 0)):
        with pytest.raises(SettingError):
            DropoutKey(*address)  # type: ignore[arg-type]
