"""Compiled engines in several threads: bits depend on nothing but what a row read."""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from chargen.decoding import compiled_engine
from chargen.decoding.compiled_engine import HANDOVER, CompiledEngine, worthwhile_threads
from chargen.kernels import threads
from chargen.kernels.threads import AutoTuner
from tests.decoding.engines import CELLS, STORED, Case, bits, free, model


@pytest.fixture
def use_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], list[str]]]:
    """Compute in so many threads, all there at once; returns the names of those that ran."""
    pools, compiled_run = [], compiled_engine.read_or_write

    def use(number: int) -> list[str]:
        pool, ran = ThreadPoolExecutor(number, f"one of {number}"), []
        all_there = threading.Barrier(number)
        pools.append(pool)

        def run(*arguments: Any) -> None:
            ran.append(threading.current_thread().name)
            all_there.wait(30)
            compiled_run(*arguments)

        monkeypatch.setattr(compiled_engine, "worthwhile_threads", lambda rows, products: number)
        monkeypatch.setattr(threads, "threads", lambda: number)
        monkeypatch.setattr(threads, "_pool", lambda: pool)
        monkeypatch.setattr(compiled_engine, "read_or_write", run)
        return ran

    yield use
    for pool in pools:
        pool.shutdown()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("rows", [3, 8])
def test_bits_do_not_depend_on_the_number_of_threads(
    use_threads: Callable[[int], list[str]], cell: str, rows: int
) -> None:
    case = Case(cell, 13, rows, 25)
    alone = [bits(case.write(row), 0) for row in range(rows)]
    for number in (1, 2, 3):
        ran = use_threads(number)
        chunk = case.write()
        assert len(set(ran)) == len(ran) == number
        assert [bits(chunk, row) for row in range(rows)] == alone
        logits, state = case.read(chunk.ids, chunk.counts)
        assert logits.tobytes() == chunk.logits.tobytes()
        assert all(a.tobytes() == b.tobytes() for a, b in zip(state, chunk.state, strict=True))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_bits_do_not_depend_on_the_threads_that_share_a_row(
    use_threads: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch, cell: str, stored: str, layers: int
) -> None:
    case = Case(cell, 192, 1, 25, layers, stored)
    case.rules = free(31)
    counts = np.array([20])
    alone = case.write()
    read_alone = case.read(alone.ids, counts)
    for number in (1, 2, 3):
        ran = use_threads(number)
        monkeypatch.setattr(case.engine, "_tuner", AutoTuner({number: 0.0}))
        chunk = case.write()
        assert len(set(ran)) == len(ran) == number
        assert bits(chunk, 0) == bits(alone, 0)
        logits, state = case.read(alone.ids, counts)
        assert logits.tobytes() == read_alone[0].tobytes()
        assert all(a.tobytes() == b.tobytes() for a, b in zip(state, read_alone[1], strict=True))


def test_a_large_model_has_a_team_for_a_single_row(monkeypatch: pytest.MonkeyPatch) -> None:
    file, odd = model("gru", 1, 192), model("gru", 1, 300)
    monkeypatch.setattr(compiled_engine, "threads", lambda: 2)
    assert numbers(CompiledEngine(file.config, file.arrays)) == {1}
    monkeypatch.setattr(compiled_engine, "TEAM_BYTES", 4 * 192 * 192 * 3)
    for number, expected in ((1, {1}), (2, {2, 1}), (3, {3, 1}), (8, {3, 1})):
        monkeypatch.setattr(compiled_engine, "threads", lambda number=number: number)
        assert numbers(CompiledEngine(file.config, file.arrays)) == expected
        assert numbers(CompiledEngine(odd.config, odd.arrays)) == {1}


def numbers(engine: CompiledEngine) -> set[int]:
    """The numbers of threads to choose from for a single row."""
    return {*engine._tuner.seconds}


def test_a_team_is_as_large_as_was_fastest_last(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("gru", 192, 1, 25, 1, "float32")
    case.rules = free(31)
    chosen, timings, choices = [], [], iter([4, 1, 2])
    monkeypatch.setattr(compiled_engine, "run_team", lambda run, members: chosen.append(members) or run(0))
    monkeypatch.setattr(compiled_engine, "read_or_write", lambda *arguments: None)
    monkeypatch.setattr(case.engine._tuner, "choose", lambda: next(choices))
    monkeypatch.setattr(case.engine._tuner, "record", lambda *arguments: timings.append(arguments))
    for _ in range(3):
        case.write()
    assert chosen == [4, 1, 2]
    assert [(way, size) for way, _, size in timings] == [(4, 25), (1, 25), (2, 25)]
    assert all(seconds > 0 for _, seconds, _ in timings)


@pytest.mark.parametrize(("rows", "length"), [(2, 25), (1, compiled_engine.MIN_TIMED_LENGTH - 1)])
def test_several_rows_and_short_chunks_have_no_team(rows: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("gru", 192, rows, length, 1, "float32")
    case.rules = free(31)
    chosen, tuner = [], AutoTuner({4: 0.0})
    monkeypatch.setattr(compiled_engine, "run_team", lambda run, members: chosen.append(members) or run(0))
    monkeypatch.setattr(compiled_engine, "read_or_write", lambda *arguments: None)
    monkeypatch.setattr(case.engine, "_tuner", tuner)
    case.write()
    assert set(chosen) == {1}
    assert tuner.untried == {4}


def test_no_thread_costs_more_than_it_saves() -> None:
    """By the cost of a chunk that `worthwhile_threads` tells, it takes at most a third longer than the best number."""
    for rows, weights, length in itertools.product((1, 2, 3, 8, 24, 128, 1000), (1e4, 3e5, 4e7), (1, 16, 256)):
        products = int(rows * weights * length)

        def cost(number: int, rows: int = rows, products: int = products) -> float:
            most = -(-rows // number)
            return products / rows * max(most, (most + 9) / 3) + (number - 1) * HANDOVER

        for number in (1, 2, 4, 16, 64):
            chosen = min(number, rows, worthwhile_threads(rows, products))
            assert cost(chosen) <= 1.34 * min(map(cost, range(1, min(number, rows) + 1)))


@pytest.mark.parametrize(("rows", "hidden", "length", "most"), [(24, 12, 1, 1), (24, 12, 25, 1), (128, 512, 1, 7)])
def test_small_steps_are_not_shared_out(
    rows: int, hidden: int, length: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, shared = Case("gru", hidden, rows, length, 1), []
    monkeypatch.setattr(compiled_engine, "parallel_for", lambda run, rows, most: shared.append(most))
    case.write()
    assert shared == [most]


def test_more_records_are_written_side_by_side_by_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    file = model("gru", 1, 12)
    for number, rows in ((1, 128), (2, 128), (16, 1024)):
        monkeypatch.setattr(compiled_engine, "threads", lambda number=number: number)
        assert CompiledEngine(file.config, file.arrays).many_rows == rows


def test_an_error_in_a_thread_is_raised(
    use_threads: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_threads(2)
    monkeypatch.setattr(compiled_engine, "read_or_write", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Case("gru", 12, 4, 2).write()
