"""Compiled layers in several threads: no bit changes, and work is shared out where that is faster."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.kernels import amx, threads, train_rnn
from chargen.model import compiled_layers
from tests.model.layer_cases import Cell, case, every_cell, everything, forward, same_bits

BF16, FP32 = torch.bfloat16, torch.float32


@pytest.fixture
def use_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Compute in so many threads from now on, however few rows that leaves to each."""
    pools: list[ThreadPoolExecutor] = []

    def use(number: int) -> None:
        pools.append(ThreadPoolExecutor(number))
        for module in (threads, compiled_layers):
            monkeypatch.setattr(module, "threads", lambda: number)
        monkeypatch.setattr(threads, "_pool", lambda: pools[-1])
        monkeypatch.setattr(compiled_layers, "MIN_ROWS", 1)
        compiled_layers._tuner.cache_clear()

    yield use
    for pool in pools:
        pool.shutdown()


@pytest.mark.parametrize("size", [(8, 3, 10, 12), (31, 4, 33, 40), (64, 2, 1, 96), (33, 17, 10, 1), (9, 5, 10, 160)])
@every_cell
def test_the_number_of_threads_changes_no_bit(
    cell: Cell, size: tuple[int, int, int, int], use_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    example, blocks = case(cell, *size), -(-size[3] // amx.SIDE)
    order = torch.from_numpy(np.random.default_rng(0).permutation(size[0]))
    moved = replace(example, inputs=example.inputs[order], state=example.state[order])
    seen = watch(cell, monkeypatch)
    expected = everything(example)
    assert [part[:4] for part in seen] == [(0, size[0], 0, blocks)] * 2
    for number in (1, 2, 3, 5, 16):
        use_threads(number)
        seen.clear()
        assert same_bits(everything(example), expected)
        computed = np.zeros((size[0], blocks), int)
        teams = [part[:2] for part in seen]
        for first, last, begin, end, members in seen:
            computed[first:last, begin:end] += 1
            assert teams.count((first, last)) == 2 * members
        assert (computed == 2).all(), "once forward, once backward"
        assert 2 <= len(seen) <= 2 * number
        outputs, after = forward(moved)
        assert torch.equal(outputs.float(), expected["outputs"][order])
        assert torch.equal(after, expected["after"][order])


Seen = tuple[int, int, int, int, int]


def watch(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """The rows and blocks of 32 hidden units of each thread, and how many threads compute blocks of these rows."""
    seen: list[Seen] = []
    name = f"{cell.name.upper()}_KERNELS"
    kernels = getattr(compiled_layers, name)
    forward, backward = (partial(watched, kernel, seen) for kernel in (kernels.forward, kernels.backward))
    monkeypatch.setattr(compiled_layers, name, kernels._replace(forward=forward, backward=backward))
    return seen


def watched(kernel: Callable[..., None], seen: list[Seen], config: Any, layer: Any, part: train_rnn.Part) -> None:
    seen.append((part.start_row, part.stop_row, part.start_block, part.stop_block, part.members))
    kernel(config, layer, part)


@pytest.mark.parametrize(
    ("rows", "hidden", "number", "expected"),
    [
        (64, 128, 2, {(0, 32, 0, 4, 1), (32, 64, 0, 4, 1)}),  # no zeros either way: rows, since nobody waits then
        (32, 128, 2, {(0, 32, 0, 2, 2), (0, 32, 2, 4, 2)}),  # 16 rows for each would be padded to 32
        (32, 160, 2, {(0, 32, 0, 2, 2), (0, 32, 2, 5, 2)}),
        (32, 32, 2, {(0, 16, 0, 1, 1), (16, 32, 0, 1, 1)}),  # hidden units of a single block cannot be shared out
        (8, 96, 2, {(0, 8, 0, 1, 2), (0, 8, 1, 3, 2)}),
        (50, 128, 2, {(0, 25, 0, 4, 1), (25, 50, 0, 4, 1)}),
        (96, 128, 2, {(0, 96, 0, 2, 2), (0, 96, 2, 4, 2)}),  # 48 rows for each would be filled up to 64
        (64, 128, 4, {(row, row + 32, block, block + 2, 2) for row in (0, 32) for block in (0, 2)}),
        (32, 128, 4, {(0, 32, block, block + 1, 4) for block in range(4)}),
        (32, 96, 16, {(0, 32, block, block + 1, 3) for block in range(3)}),
        (128, 64, 8, {(row, row + 32, block, block + 1, 2) for row in (0, 32, 64, 96) for block in (0, 1)}),
        (33, 96, 1, {(0, 33, 0, 3, 1)}),
    ],
)
@every_cell
def test_threads_share_out_rows_or_hidden_units_with_the_fewest_zeros(
    cell: Cell,
    rows: int,
    hidden: int,
    number: int,
    expected: set[Seen],
    use_threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    min_rows = compiled_layers.MIN_ROWS
    use_threads(number)
    monkeypatch.setattr(compiled_layers, "MIN_ROWS", min_rows)
    seen = watch(cell, monkeypatch)
    forward(case(cell, rows, 2, 10, hidden))
    assert len(seen) == len(expected)
    assert set(seen) == expected


@settings(max_examples=200)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 64))
def test_more_threads_never_have_more_to_do_than_fewer(rows: int, blocks: int, number: int) -> None:
    fewer, more = (compiled_layers.least_work(rows, blocks, count) for count in (number, number + 1))
    assert more.work(rows, blocks) <= fewer.work(rows, blocks)
    for sharing, most in ((fewer, number), (more, number + 1)):
        assert 1 <= sharing.teams <= train_rnn.pad(rows) // amx.SIDE
        assert 1 <= sharing.members <= blocks
        assert sharing.teams * sharing.members <= most
    least = rows * blocks / number  # without any zeros
    assert least <= fewer.work(rows, blocks) <= train_rnn.pad(rows) * blocks


@every_cell
def test_hidden_units_are_shared_out_only_while_that_is_faster(
    cell: Cell, use_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_threads(2)
    chosen, recorded = iter([True, False, False, True]), []
    monkeypatch.setattr(threads.AutoTuner, "choose", lambda self: next(chosen))
    monkeypatch.setattr(threads.AutoTuner, "record", lambda self, way, seconds: recorded.append((way, seconds > 0)))
    seen = watch(cell, monkeypatch)
    example = case(cell, 9, 3, 10, 96)
    first, second = everything(example), everything(example)
    assert same_bits(first, second)
    assert [members for *_, members in seen] == [2, 2, 1, 1, 1, 1, 2, 2]
    assert recorded == [(True, True), (False, True), (False, True), (True, True)]


def test_the_faster_way_is_taken_and_the_other_one_seldom_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(threads, "time", SimpleNamespace(monotonic=lambda: now))
    tuner, ways = threads.AutoTuner(), []

    def compute(times: int, seconds: dict[bool, float]) -> float:
        nonlocal now
        spent = 0.0
        for _ in range(times):
            way = tuner.choose()
            ways.append(way)
            now += seconds[way]
            spent += seconds[way] * (not way)
            tuner.record(way, seconds[way])
        return spent

    compute(2, {True: 1.0, False: 2.0})
    assert ways == [True, False]
    spent = compute(10_000, {True: 1.0, False: 2.0})
    assert 0.005 < spent / 10_000 < 0.011
    before = now
    compute(3, {True: 50.0, False: 2.0})  # the machine gets busy: at once the other way
    assert ways[-2:] == [False, False]
    compute(20_000, {True: 50.0, False: 2.0})
    assert ways[-20_000:].count(True) * 50 < 0.02 * (now - before)
    compute(5_000, {True: 1.0, False: 2.0})  # and when it is at rest again, back
    assert ways[-1]
    assert ways[-1000:].count(False) < 10


def test_ways_are_compared_by_what_they_take_for_the_same_size() -> None:
    tuner = threads.AutoTuner()
    tuner.record(True, 10.0, 100)
    tuner.record(False, 1.0, 5)
    assert tuner.choose() is True
    tuner.record(True, 1.0, 1)
    assert tuner.choose() is False


@every_cell
def test_the_number_of_threads_of_torch_changes_no_bit_either(cell: Cell) -> None:
    example, before = case(cell, 33, 17, 10, 40), torch.get_num_threads()
    expected = everything(example)
    try:
        for number in (2, 3):
            torch.set_num_threads(number)
            assert same_bits(everything(example), expected)
    finally:
        torch.set_num_threads(before)


@every_cell
def test_layers_may_run_in_several_threads_at_once(cell: Cell, use_threads: Callable[[int], None]) -> None:
    use_threads(2)
    examples = [case(cell, 9, 5, 10, 12, seed=seed) for seed in range(8)]
    expected = [everything(example) for example in examples]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert all(map(same_bits, pool.map(everything, examples), expected))


@settings(max_examples=30)
@given(st.integers(1, 100), st.integers(1, 40), st.integers(1, 7))
def test_rows_are_shared_out_evenly_each_once_and_never_too_few(rows: int, min_rows: int, number: int) -> None:
    parts: list[slice] = []
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(number) as pool:
        patch.setattr(threads, "threads", lambda: number)
        patch.setattr(threads, "_pool", lambda: pool)
        threads.parallel_for(parts.append, rows, min_rows)
    parts.sort(key=lambda part: part.start)
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(rows))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1
    assert len(parts) == min(number, max(1, rows // min_rows))
    assert len(parts) == 1 or min(lengths) >= min_rows


def test_shared_rows_run_at_the_same_time_and_errors_are_passed_on(use_threads: Callable[[int], None]) -> None:
    use_threads(3)
    barrier = threading.Barrier(3)
    threads.parallel_for(lambda part: barrier.wait(30) and None, 9)

    def fail(part: slice) -> None:
        if part.start:
            raise ValueError(f"row {part.start}")

    with pytest.raises(ValueError, match="row 3"):
        threads.parallel_for(fail, 9)


@pytest.mark.parametrize(("setting", "expected"), [("3", 3), ("1", 1), ("0", 0), ("", 0), ("two", 0), ("-2", 0)])
def test_the_number_of_threads_is_that_of_openmp_or_of_cores(
    setting: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {4, 5, 6, 7, 9}, raising=False)
    assert threads.threads.__wrapped__() == (expected or 5)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads.threads.__wrapped__() == 5
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert threads.threads.__wrapped__() == 1
