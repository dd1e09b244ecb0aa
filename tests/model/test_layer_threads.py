"""Compiled layers in several threads: no bit changes, and work is shared out where that is faster."""

import itertools
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
from hypothesis import given
from hypothesis import strategies as st

from chargen.kernels import amx, threads, train_rnn
from chargen.kernels.sharing import Sharing
from chargen.model import compiled_layers
from tests.model.layer_cases import CELLS, Cell, case, every_cell, everything, forward, same_bits

BF16, FP32 = torch.bfloat16, torch.float32


@pytest.fixture
def use_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Compute in so many threads from now on, however few rows that leaves to each."""
    pools: list[ThreadPoolExecutor] = []

    def use(number: int) -> None:
        pools.append(ThreadPoolExecutor(number))
        for module in (threads, compiled_layers):
            monkeypatch.setattr(module, "threads", lambda: number)
        monkeypatch.setattr(compiled_layers, "cores", lambda: number)
        monkeypatch.setattr(threads, "_pool", lambda: pools[-1])
        monkeypatch.setattr(threads, "start_time", lambda number: 0.0)
        compiled_layers._tuner.cache_clear()

    yield use
    for pool in pools:
        pool.shutdown()


@pytest.mark.parametrize("size", [(8, 3, 10, 12), (31, 4, 33, 40), (64, 2, 1, 96), (33, 17, 10, 1), (9, 5, 10, 160)])
@every_cell
def test_no_way_to_share_out_a_layer_changes_a_bit(
    cell: Cell, size: tuple[int, int, int, int], use_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever timing chooses: forward and backward, for all teams and members that there may be."""
    example, blocks = case(cell, *size), -(-size[3] // amx.SIDE)
    order = torch.from_numpy(np.random.default_rng(0).permutation(size[0]))
    moved = replace(example, inputs=example.inputs[order], state=example.state[order])
    seen = watch(cell, monkeypatch)
    use_threads(1)
    expected = everything(example)
    assert [part[:4] for part in seen] == [(0, size[0], 0, blocks)] * 2
    use_threads(16)
    for teams, members in itertools.product({1, 2, 3, min(16, size[0])}, range(1, min(blocks, 5) + 1)):
        if teams * members > 16:
            continue
        choose(Sharing(teams, members), monkeypatch)
        seen.clear()
        assert same_bits(everything(example), expected)
        computed = np.zeros((size[0], blocks), int)
        for first, last, begin, end, _ in seen:
            computed[first:last, begin:end] += 1
        assert (computed == 2).all(), "once forward, once backward"
        assert len(seen) == 2 * teams * members
        assert {part[4] for part in seen} == {members}
        outputs, after = forward(moved)
        assert torch.equal(outputs.float(), expected["outputs"][order])
        assert torch.equal(after, expected["after"][order])


def choose(sharing: Sharing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let layers be shared out so, whatever the rule and timing say."""
    monkeypatch.setattr(compiled_layers, "ways", lambda *arguments: (sharing,))
    compiled_layers._tuner.cache_clear()


Seen = tuple[int, int, int, int, int]


def watch(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """The rows and blocks of 32 hidden units of each thread, and how many threads compute blocks of these rows."""
    seen: list[Seen] = []
    name = f"{cell.name.upper()}_KERNELS"
    kernels = getattr(compiled_layers, name)
    forward, backward = (partial(watched, kernel, seen) for kernel in (kernels.forward, kernels.backward))
    forward.overloads = backward.overloads = ()
    monkeypatch.setattr(compiled_layers, name, kernels._replace(forward=forward, backward=backward))
    return seen


def watched(kernel: Callable[..., None], seen: list[Seen], config: Any, layer: Any, part: train_rnn.Part) -> None:
    seen.append((part.start_row, part.stop_row, part.start_block, part.stop_block, part.members))
    kernel(config, layer, part)


@every_cell
def test_the_way_that_a_layer_is_shared_out_is_chosen_by_timing(
    cell: Cell, use_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_threads(2)
    pair, alone = Sharing(1, 2), Sharing(1, 1)
    monkeypatch.setattr(compiled_layers, "ways", lambda *arguments: (pair, alone))
    chosen, recorded = iter([pair, alone, alone, pair]), []
    monkeypatch.setattr(threads.AutoTuner, "choose", lambda self: next(chosen))
    monkeypatch.setattr(threads.AutoTuner, "record", lambda self, way, seconds: recorded.append((way, seconds > 0)))
    seen = watch(cell, monkeypatch)
    example = case(cell, 9, 3, 10, 96)
    first, second = everything(example), everything(example)
    assert same_bits(first, second)
    assert [members for *_, members in seen] == [2, 2, 1, 1, 2, 2]
    assert recorded == [(pair, True), (alone, True), (alone, True), (pair, True)]


def test_a_pass_that_compiles_its_loop_is_not_timed(use_threads: Callable[[int], None]) -> None:
    use_threads(1)
    loop, recorded = SimpleNamespace(overloads=[]), []

    def run(config: Any, layer: Any, part: train_rnn.Part) -> None:
        if not loop.overloads:
            loop.overloads.append("for these types")

    class Loop:
        overloads = loop.overloads
        __call__ = staticmethod(run)

    kernels = train_rnn.GRU_KERNELS._replace(forward=Loop())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads.AutoTuner, "record", lambda self, way, seconds: recorded.append(way))
        patch.setattr(compiled_layers, "GRU_KERNELS", kernels)
        example = case(next(cell for cell in CELLS if cell.name == "gru"), 9, 3, 10, 32)
        for expected in ([], [Sharing(1, 1)], [Sharing(1, 1)] * 2):
            forward(example)
            assert recorded == expected


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


@given(st.integers(1, 100), st.floats(0.01, 1000), st.integers(1, 64))
def test_rows_are_shared_out_evenly_among_threads_that_are_worth_starting(
    rows: int, microseconds: float, number: int
) -> None:
    parts: list[slice] = []
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(threads, "threads", lambda: number)
        patch.setattr(threads, "_pool", lambda: pool)
        threads.parallel_for(parts.append, rows, microseconds)
        parts.sort(key=lambda part: part.start)
        assert [row for part in parts for row in range(part.start, part.stop)] == list(range(rows))
        lengths = [part.stop - part.start for part in parts]
        assert max(lengths) - min(lengths) <= 1
        taken = rows * microseconds / len(parts) + threads.start_time(len(parts))
        assert taken <= rows * microseconds, "as in the calling thread, at most"
        parts.clear()
        threads.parallel_for(parts.append, rows)
        assert len(parts) == min(number, rows), "where nobody knows how long it takes"


def test_shared_rows_run_at_the_same_time_and_errors_are_passed_on(use_threads: Callable[[int], None]) -> None:
    use_threads(3)
    barrier = threading.Barrier(3)
    threads.parallel_for(lambda part: barrier.wait(30) and None, 9)

    def fail(part: slice) -> None:
        if part.start:
            raise ValueError(f"row {part.start}")

    with pytest.raises(ValueError, match="row 3"):
        threads.parallel_for(fail, 9)
