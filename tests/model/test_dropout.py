"""Dropout masks: Philox of their address, equal in both passes, for any other rows, threads and order in memory."""

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chargen.errors import ArgumentError, SettingError
from chargen.kernels import threads
from chargen.model import dropout
from chargen.model.dropout import DropoutKey, drop
from tests import naive

KEY = DropoutKey(1, 2)


def draw_mask(shape: tuple[int, ...], key: DropoutKey, layer: int = 3, rate: float = 0.5) -> torch.Tensor:
    return drop(torch.ones(shape), rate, key, layer) != 0


sizes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.one_of(st.integers(1, 40), st.sampled_from([128, 136])))
rates = st.sampled_from([2**-16, 0.1, 0.5, 0.97, 1 - 2**-16])
first_rows = st.one_of(st.integers(0, 40), st.just(2**32 - 5))


@given(sizes, rates, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 1064), first_rows)
def test_masks_are_philox_of_their_address(
    shape: tuple[int, int, int], rate: float, seed: int, step: int, layer: int, first_row: int
) -> None:
    key = DropoutKey(seed, step, first_row)
    kept = naive.dropout_mask(shape, rate, key, layer)
    scale = 65536 / (65536 - round(rate * 65536))
    for dtype in (torch.float32, torch.bfloat16):
        values = torch.linspace(1, 2, kept.numel()).reshape(shape).to(dtype)
        dropped = drop(values, rate, key, layer)
        assert dropped.dtype == dtype
        expected = torch.where(kept, (values.float() * scale).to(dtype), torch.zeros((), dtype=dtype))
        assert torch.equal(dropped, expected)
    for dtype in (torch.float64, torch.float16):
        assert torch.equal(drop(torch.ones(shape, dtype=dtype), rate, key, layer) != 0, kept)
    assert torch.equal(key.get_mask(torch.ones(shape), rate, layer), kept)


@given(st.data(), st.integers(1, 12), st.integers(1, 12), st.integers(1, 300), st.booleans())
def test_a_row_has_its_mask_beside_any_rows_and_in_a_longer_window(
    data: st.DataObject, rows: int, positions: int, size: int, compiled: bool
) -> None:
    first = data.draw(st.integers(0, rows - 1))
    stop, end = data.draw(st.integers(first + 1, rows)), data.draw(st.integers(1, positions))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dropout, "available", lambda: compiled)
        mask = draw_mask((rows, positions, size), DropoutKey(7, 8))
        part_mask = draw_mask((stop - first, end, size), DropoutKey(7, 8, first))
        wide_mask = draw_mask((rows, positions, size + 9), DropoutKey(7, 8))
    assert torch.equal(part_mask, mask[first:stop, :end])
    assert torch.equal(wide_mask[..., :size], mask)


def test_processes_that_share_rows_have_the_masks_of_a_single_one() -> None:
    single = draw_mask((32, 64, 96), KEY)
    halves = [draw_mask((16, 64, 96), DropoutKey(1, 2, first_row)) for first_row in (0, 16)]
    assert torch.equal(torch.cat(halves), single)
    assert not torch.equal(*halves)


def test_masks_of_other_addresses_are_independent() -> None:
    shape = 40, 50, 104
    here = draw_mask(shape, KEY)
    others = {
        "seed": draw_mask(shape, DropoutKey(2, 2)),
        "high half of the seed": draw_mask(shape, DropoutKey(1 + 2**32, 2)),
        "step": draw_mask(shape, DropoutKey(1, 3)),
        "step after 2**40": draw_mask(shape, DropoutKey(1, 2 + 2**40)),
        "layer": draw_mask(shape, KEY, 4),
        "row": draw_mask(shape, DropoutKey(1, 2, 40)),
        "position": here.roll(1, 1),
        "row of the same process": here.roll(1, 0),
        "hidden unit": here.roll(1, 2),
        "other half of a word": here.reshape(40, 50, 52, 2).flip(3).reshape(shape),
        "counter": here.roll(8, 2),
    }
    for name, other in others.items():
        assert other.float().mean().item() == pytest.approx(0.5, abs=0.006), name  # 208,000 values: 5 deviations
        assert (here == other).float().mean().item() == pytest.approx(0.5, abs=0.006), name


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.8])
def test_the_share_that_is_dropped_is_the_rate(rate: float) -> None:
    for mask in (draw_mask((50, 40, 100), KEY, 3, rate), naive.dropout_mask((10, 10, 30), rate, KEY, 3)):
        deviation = math.sqrt(rate * (1 - rate) / mask.numel())
        assert (~mask).float().mean().item() == pytest.approx(rate, abs=5 * deviation)


def test_masks_never_return() -> None:
    """A step of 1,024 x 128 x 1,024 has 2**24 counters: neither those further nor the next step's are the same."""
    shape, rows = (1, 128, 1024), (0, 1, 1023, 1024, 2**17, 2**24, 2**31, 2**32 - 1)
    masks = [draw_mask(shape, DropoutKey(1, step, row)) for step in (2, 3) for row in rows]
    masks += draw_mask((1, 2**16, 8), KEY).reshape(4, *shape)
    masks += draw_mask((1, 1, 2**19), KEY).reshape(4, *shape)
    for place, mask in enumerate(masks):
        for other in masks[:place]:
            assert (mask == other).float().mean().item() == pytest.approx(0.5, abs=0.008)  # 131,072 values


def test_more_rows_than_there_are_addresses_are_refused() -> None:
    assert drop(torch.ones(2, 1, 1), 0.5, DropoutKey(1, 2, 2**32 - 2), 3).shape == (2, 1, 1)
    for values, first_row in ((torch.ones(2, 1, 1), 2**32 - 1), (torch.ones(1).expand(1, 2**32 + 1, 1), 0)):
        with pytest.raises(ArgumentError, match=r"^rows end at [\d,]+, positions at [\d,]+: masks have 4,294,967,296"):
            drop(values, 0.5, DropoutKey(1, 2, first_row), 3)


@pytest.mark.parametrize("rate", [0.0, 2**-18])
def test_a_rate_that_rounds_to_zero_drops_nothing(rate: float) -> None:
    values = torch.randn(3, 4, 5)
    assert torch.equal(drop(values, rate, KEY, 3), values)


def test_nothing_is_dropped_from_nothing() -> None:
    for shape in ((0, 3, 4), (3, 0, 4), (3, 4, 0)):
        assert drop(torch.ones(shape), 0.5, KEY, 3).shape == shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gradient_is_dropped_where_the_value_was(dtype: torch.dtype) -> None:
    values = torch.ones(5, 40, 30, dtype=dtype, requires_grad=True)
    dropped = drop(values, 0.3, DropoutKey(1, 2), 3)
    dropped.backward(torch.full_like(dropped, 2.0))
    assert torch.equal(values.grad, 2 * dropped.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_order_changes_nothing(dtype: torch.dtype) -> None:
    values = torch.randn(7, 33, 20).to(dtype)
    other = values.transpose(0, 1).contiguous().transpose(0, 1)
    assert not other.is_contiguous()
    assert torch.equal(*(drop(tensor, 0.5, DropoutKey(1, 2), 3) for tensor in (values, other)))


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    threads._pool.cache_clear()
    yield monkeypatch
    threads._pool.cache_clear()


def test_the_number_of_threads_changes_nothing(pools: pytest.MonkeyPatch) -> None:
    values, results = torch.randn(16, 64, 200), []
    pools.setattr(threads, "start_time", lambda number: 0.0)
    for number in (1, 2, 3):
        pools.setattr(threads, "threads", lambda number=number: number)
        threads._pool.cache_clear()
        results.append(drop(values, 0.5, DropoutKey(1, 2), 3))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_non_finite_value_stays_one_where_it_is_kept() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for value in (torch.nan, torch.inf):
            dropped = drop(torch.full((4, 4, 100), value, dtype=dtype), 0.5, DropoutKey(1, 2), 3)
            kept = naive.dropout_mask((4, 4, 100), 0.5, DropoutKey(1, 2), 3)
            assert torch.equal(torch.isfinite(dropped), ~kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_numba_masks_are_the_same(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.ones(10, 40, 100, dtype=dtype, requires_grad=True)
    compiled = drop(values, 0.25, KEY, 3)
    monkeypatch.setattr(dropout, "available", lambda: False)
    plain = drop(values, 0.25, KEY, 3)
    plain.sum().backward()
    assert torch.equal(plain.detach(), compiled.detach())
    assert torch.equal(values.grad, plain.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mask_of_a_gradient_of_a_gradient_is_the_same(dtype: torch.dtype) -> None:
    values, passed = torch.ones(3, 4, 50, dtype=dtype, requires_grad=True), drop(torch.ones(3, 4, 50), 0.5, KEY, 3)
    (first,) = torch.autograd.grad(drop(values, 0.5, KEY, 3).pow(2).sum(), values, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), values)
    assert torch.equal(second.float(), 2 * passed.pow(2))


@pytest.mark.parametrize("available", [True, False])
def test_what_cannot_be_dropped_from_is_refused(available: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropout, "available", lambda: available)
    for values in (torch.ones(3), torch.ones(3, 4), torch.ones(3, 4, 5, dtype=torch.long), None):
        with pytest.raises(ArgumentError, match=r"^values "):
            drop(values, 0.5, KEY, 3)
    for rate in (1.0, -0.1, math.nan, 2.0):
        with pytest.raises(SettingError, match="dropout is"):
            drop(torch.ones(3, 4, 5), rate, KEY, 3)
    places = (0, 0, -1), (0, 0, 2**32), (0, 0, 0.5)
    for address in ((-1, 0), (0, -1), (2**64, 0), (0, 2**64), (0.5, 0), ("1", 0), *places):
        with pytest.raises(SettingError):
            DropoutKey(*address)
