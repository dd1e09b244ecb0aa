"""Compiled recurrent layers: near to torch's, in bf16 very near to a slow emulation, exact where promised.

Bits that must not depend on how a window is cut, on the other rows, or on the number of threads are compared as bits.
"""

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import pairwise, product
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from chargen.kernels import amx, bf16, bf16_ir, matmul_blocks, threads, train_rnn
from chargen.kernels.cpu_features import bf16_pairs
from chargen.kernels.jit import compiled, inlined
from chargen.kernels.simd import transpose
from chargen.model import compiled_layers, layers
from tests import naive

BF16, FP32 = torch.bfloat16, torch.float32
ROWS, TIME_STEPS, INPUTS, HIDDEN = (8, 9, 31, 33, 64), (1, 2, 17), (1, 10, 33), (1, 12, 32, 40, 96)
V = 11
Run = Callable[[nn.RNNBase, Tensor, Tensor], tuple[Tensor, Tensor]]


class Cell(NamedTuple):
    """A kind of layer: its name, and the type of the factors of its products."""

    name: str
    dtype: torch.dtype

    @property
    def error(self) -> float:
        """How far from exact ones results may be."""
        return 0.01 if self.dtype == BF16 else 1e-5


CELLS = tuple(Cell(name, dtype) for name in ("lstm", "gru") for dtype in (BF16, FP32))
every_cell = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.name}-{str(cell.dtype)[6:]}")
every_cell_in_bf16 = pytest.mark.parametrize("cell", [Cell("lstm", BF16), Cell("gru", BF16)], ids=["lstm", "gru"])
sizes = st.tuples(*map(st.sampled_from, (CELLS, ROWS, TIME_STEPS, INPUTS, HIDDEN)))


@dataclass(frozen=True)
class Case:
    """A layer, what it reads (B, T, F) and starts from (B, S), and the gradients that come back to it."""

    module: nn.RNNBase
    inputs: Tensor
    state: Tensor
    gradient: Tensor
    after: Tensor
    dtype: torch.dtype


def fast(example: Case, ids: Tensor | None = None) -> Run:
    """What is tested, in the type of the case."""
    return lambda module, inputs, state: compiled_layers.run(module, inputs, state, example.dtype, ids)


def plain(module: nn.RNNBase, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Run torch's module."""
    return layers.run_torch(module, inputs, state)


def case(
    cell: Cell,
    rows: int = 9,
    time_steps: int = 5,
    inputs: int = 10,
    hidden: int = 12,
    *,
    seed: int = 0,
    scale: float = 1.0,
) -> Case:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = (nn.LSTM if cell.name == "lstm" else nn.GRU)(inputs, hidden, batch_first=True)
        with torch.no_grad():
            for weight in module.parameters():
                weight *= scale
        width = hidden * (2 if cell.name == "lstm" else 1)
        shapes = (rows, time_steps, inputs), (rows, width), (rows, time_steps, hidden), (rows, width)
        return Case(module, *(torch.randn(*shape) for shape in shapes), cell.dtype)


def parameters(module: nn.RNNBase) -> list[Tensor]:
    return [module.get_parameter(f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


def forward(example: Case, run: Run | None = None) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        outputs, after = (run or fast(example))(example.module, example.inputs, example.state)
    return outputs, after


def everything(example: Case, run: Run | None = None) -> dict[str, Tensor]:
    """Outputs, the state after, and all gradients, by name; all in float32."""
    inputs, state = example.inputs.clone().requires_grad_(), example.state.clone().requires_grad_()
    outputs, after = (run or fast(example))(example.module, inputs, state)
    leaves = [inputs, *parameters(example.module), state]
    gradients = torch.autograd.grad([outputs, after], leaves, [example.gradient.to(outputs.dtype), example.after])
    names = ("inputs", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "state")
    actual = {"outputs": outputs.detach().float(), "after": after.detach()}
    return actual | {f"of {name}": value for name, value in zip(names, gradients, strict=True)}


def distance(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def emulated(example: Case) -> dict[str, Tensor]:
    """All results as a slow emulation has them."""
    arguments = example.inputs, example.state, example.gradient, example.after
    module = example.module
    if isinstance(module, nn.LSTM):
        return naive.lstm_in_bf16(module, *arguments)
    assert isinstance(module, nn.GRU)
    return naive.gru_in_bf16(module, *arguments)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and characters of every layer that the fast path computes, here on machines without AMX too."""
    seen: list[tuple[int, int]] = []
    run_fast = compiled_layers.run

    def run(
        module: nn.RNNBase, inputs: Tensor, state: Tensor, dtype: torch.dtype, ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        rows, time_steps = (inputs if ids is None else ids).shape[:2]
        seen.append((rows, time_steps))
        return run_fast(module, inputs, state, dtype, ids)

    monkeypatch.setattr(compiled_layers, "run", run)
    monkeypatch.setattr(layers, "fast_bf16", lambda: True)
    return seen


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


@pytest.fixture
def dirty_memory() -> Iterator[None]:
    """New tensors that nobody fills hold NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


# Values.


@pytest.mark.parametrize("rows", ROWS)
@every_cell
def test_everything_is_near_to_the_plain_layer_in_fp32(cell: Cell, rows: int) -> None:
    for time_steps, inputs, hidden in product(TIME_STEPS, INPUTS, HIDDEN):
        example = case(cell, rows, time_steps, inputs, hidden, seed=rows)
        actual, expected = everything(example), everything(example, plain)
        far = {name: distance(actual[name], expected[name]) for name in actual}
        if hidden == 1:  # sums of few numbers may nearly vanish: look at all gradients together
            far = {name: value for name, value in far.items() if not name.startswith("of")}
            parts = [
                torch.cat([results[name].flatten() for name in results if name not in far])
                for results in (actual, expected)
            ]
            far["gradients"] = distance(*parts)
        assert max(far.values()) < cell.error * (1 if hidden > 1 else 3), (time_steps, inputs, hidden, far)


@pytest.mark.parametrize("rows", ROWS)
@every_cell_in_bf16
def test_everything_is_very_near_to_an_emulation_that_rounds_where_the_kernel_does(cell: Cell, rows: int) -> None:
    """Sums in another order turn the rounding of some values; half of the sizes are spared and agree as float32 do."""
    far: dict[str, list[float]] = {}
    for time_steps, inputs, hidden in product(TIME_STEPS, INPUTS, HIDDEN):
        example = case(cell, rows, time_steps, inputs, hidden, seed=rows)
        actual, expected = everything(example), emulated(example)
        assert actual.keys() == expected.keys()
        for name, value in actual.items():
            far.setdefault(name, []).append(distance(value, expected[name]))
    for name, values in far.items():
        exact = name in ("outputs", "after", "of bias_ih", "of bias_hh", "of state")
        assert max(values) < (5e-4 if exact else 2e-3), name
        assert np.median(values) < 1e-6, name


@every_cell
def test_large_weights_saturate_as_in_the_plain_layer(cell: Cell) -> None:
    example = case(cell, 9, 3, 10, 12, scale=100.0)
    (actual, after), (expected, _) = forward(example), forward(example, plain)
    assert actual.isfinite().all()
    assert after.isfinite().all()
    assert ((actual - expected).abs() < 0.01).float().mean() > 0.9
    gone = replace(example, inputs=1e30 * example.inputs)
    assert all(value.isfinite().all() for name, value in everything(gone).items() if name != "of weight_ih")
    assert (forward(gone)[0].float() - forward(gone, plain)[0]).abs().max() < 0.01


@every_cell
def test_types_and_shapes_are_those_of_the_plain_layer_but_outputs_have_the_type_of_products(cell: Cell) -> None:
    example = case(cell, 9, 4, 10, 12)
    outputs, after = forward(example)
    assert outputs.dtype == cell.dtype
    assert after.dtype == torch.float32
    expected, expected_after = forward(example, plain)
    assert outputs.shape == expected.shape
    assert after.shape == expected_after.shape == example.state.shape


@every_cell
def test_the_last_output_is_the_state_after_rounded(cell: Cell) -> None:
    outputs, after = forward(case(cell, 9, 4, 10, 12))
    assert torch.equal(outputs[:, -1], after[:, :12].to(cell.dtype))


@every_cell_in_bf16
def test_inputs_in_bf16_are_taken_as_they_are(cell: Cell) -> None:
    example = case(cell)
    same = replace(example, inputs=example.inputs.bfloat16())
    assert all(map(torch.equal, forward(example), forward(same)))
    first, second = everything(example), everything(same)
    assert second["of inputs"].dtype == torch.bfloat16
    assert same_bits(first, {name: value.float() for name, value in second.items()})


@every_cell
def test_arrays_laid_out_otherwise_give_the_same_bits(cell: Cell) -> None:
    example = case(cell)

    def relaid(values: Tensor) -> Tensor:
        result = values.transpose(0, 1).contiguous().transpose(0, 1)
        assert not result.is_contiguous()
        return result

    parts = {name: relaid(getattr(example, name)) for name in ("inputs", "state", "gradient", "after")}
    assert same_bits(everything(example), everything(replace(example, **parts)))
    spread = [
        number.expand_as(values)
        for number, values in ((torch.ones(()), example.gradient), (torch.ones(()), example.after))
    ]
    filled = [torch.ones_like(example.gradient), torch.ones_like(example.after)]
    assert same_bits(
        *(everything(replace(example, gradient=first, after=second)) for first, second in (spread, filled))
    )


@every_cell
def test_nothing_that_is_given_is_changed(cell: Cell) -> None:
    example = case(cell)
    example = replace(example, inputs=example.inputs.to(cell.dtype).transpose(0, 1).contiguous().transpose(0, 1))
    example = replace(example, gradient=example.gradient.to(cell.dtype).transpose(0, 1).contiguous().transpose(0, 1))
    held = [*parameters(example.module), example.inputs, example.state, example.gradient, example.after]
    before = [tensor.detach().clone() for tensor in held]
    outputs, after = fast(example)(example.module, example.inputs, example.state)
    results = [outputs.detach().clone(), after.detach().clone()]
    torch.autograd.backward([outputs, after], [example.gradient, example.after])
    assert all(map(torch.equal, held, before))
    assert all(map(torch.equal, [outputs, after], results))


@every_cell
def test_no_memory_is_read_before_it_is_written(cell: Cell, request: pytest.FixtureRequest) -> None:
    clean = [everything(case(cell, rows, 3, 10, hidden)) for rows, hidden in ((9, 12), (33, 40))]
    request.getfixturevalue("dirty_memory")
    dirty = [everything(case(cell, rows, 3, 10, hidden)) for rows, hidden in ((9, 12), (33, 40))]
    assert all(map(same_bits, clean, dirty))


# A table of inputs.


def from_table(example: Case, size: int, seed: int = 0) -> tuple[Case, Tensor]:
    """The same layer over rows (B, T) of a table (V, F); one row of the table is never read, one is read often."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        table = torch.randn(size, example.inputs.shape[2])
        ids = torch.randint(1, size, example.inputs.shape[:2])
        ids[:, 0] = 1
    return replace(example, inputs=table), ids


def table_and_rows(example: Case, size: int) -> list[dict[str, Tensor]]:
    """All results of reading a table, and of reading its rows; both with the gradient of the table."""
    example, ids = from_table(example, size)
    runs: list[Run] = [
        fast(example, ids),
        lambda module, table, state: fast(example)(module, nn.functional.embedding(ids, table), state),
    ]
    return [everything(example, run) for run in runs]


@pytest.mark.parametrize("size", [2, 31, 32, 65])
@every_cell
def test_a_table_gives_what_its_rows_give(cell: Cell, size: int) -> None:
    for rows, time_steps, inputs, hidden in product((8, 33), (1, 5), (10, 33), (12, 64)):
        actual, expected = table_and_rows(case(cell, rows, time_steps, inputs, hidden), size)
        assert actual.keys() == expected.keys()
        for name in actual:
            limit = cell.error if name in ("of inputs", "of weight_ih") else 1e-5
            assert distance(actual[name], expected[name]) < limit, (rows, time_steps, inputs, hidden, name)
        assert actual["of inputs"].shape == (size, inputs)
        assert not actual["of inputs"][0].any(), "nobody read this row"


@every_cell
def test_a_table_gives_what_the_plain_layer_gives_in_fp32(cell: Cell) -> None:
    example, ids = from_table(case(cell, 33, 6, 10, 40), 7)
    actual = everything(example, fast(example, ids))
    expected = everything(
        example, lambda module, table, state: plain(module, nn.functional.embedding(ids, table), state)
    )
    assert all(distance(actual[name], expected[name]) < cell.error for name in actual)


@every_cell
def test_a_table_in_any_layout_of_ids_gives_the_same_bits_and_reads_no_memory_before_it_is_written(
    cell: Cell, request: pytest.FixtureRequest
) -> None:
    example, ids = from_table(case(cell, 9, 3, 10, 40), 7)
    relaid = ids.t().contiguous().t()
    clean, other = (everything(example, fast(example, ids)) for ids in (ids, relaid))
    request.getfixturevalue("dirty_memory")
    dirty = everything(example, fast(example, ids))
    assert same_bits(clean, other)
    assert same_bits(clean, dirty)


@every_cell
def test_the_first_layer_reads_a_table_where_that_is_less_to_multiply(
    cell: Cell, calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    example, ids = from_table(case(cell, 9, 5, 10, 12), 7)
    seen: list[bool] = []
    run = compiled_layers.run

    def watched(
        module: nn.RNNBase, inputs: Tensor, state: Tensor, dtype: torch.dtype, ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        seen.append(ids is not None)
        assert dtype == cell.dtype
        return run(module, inputs, state, dtype, ids)

    monkeypatch.setattr(compiled_layers, "run", watched)
    for size in (18, 19):  # 3 * 10 for each of 45 ids; for each row 3 * 10 and 45
        embedding = nn.Embedding(size, 10)
        with torch.autocast("cpu", torch.bfloat16, enabled=cell.dtype == BF16):
            actual, after = layers.run_embedded(example.module, embedding, ids, example.state)
            expected, expected_after = layers.run_layer(example.module, embedding(ids), example.state)
        assert distance(actual.detach().float(), expected.detach().float()) < 1e-5
        assert distance(after.detach(), expected_after.detach()) < 1e-5
    assert seen == [True, False, False, False]
    assert calls == [(9, 5)] * 4


@every_cell
def test_layers_are_compiled_where_that_is_faster_and_torch_runs_the_others(
    cell: Cell, calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(rows: int = 9, dtype: torch.dtype = FP32) -> bool:
        example, before = case(cell, rows, 4, 10, 12), len(calls)
        module = example.module.to(dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=cell.dtype == BF16):
            outputs, after = layers.run_layer(module, example.inputs.to(dtype), example.state.to(dtype))
        assert outputs.shape == example.gradient.shape
        assert after.dtype == torch.promote_types(dtype, FP32)
        return len(calls) > before

    assert run()
    assert run(rows=8)
    assert run(rows=7) == run(rows=1) == (cell.name == "gru" and cell.dtype == BF16), "torch has no GRU in bf16"
    assert not run(dtype=torch.float64), "what has weights in float64 is torch's, whatever autocast makes of inputs"
    monkeypatch.setattr(layers, "fast_bf16", lambda: False)
    assert run() == (cell.dtype == FP32), "bf16 without instructions for it is slower than float32"
    monkeypatch.setattr(layers, "available", lambda: False)
    assert not run()


@pytest.mark.parametrize(("rows", "hidden", "number"), [(1, 12, 1), (7, 512, 1), (7, 513, 3), (8, 12, 3)])
def test_torch_computes_few_rows_of_a_small_layer_in_one_thread(
    rows: int, hidden: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine threads that meet at every character mostly wait; afterwards torch has as many as before."""
    seen: list[int] = []
    monkeypatch.setattr(layers, "available", lambda: False)
    example, before = case(CELLS[0], rows, 2, 10, hidden), torch.get_num_threads()
    example.module.register_forward_hook(lambda *ignored: seen.append(torch.get_num_threads()))
    torch.set_num_threads(3)
    try:
        layers.run_layer(example.module, example.inputs, example.state)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [number]


# Gradients.


@every_cell
def test_no_gradient_gives_none(cell: Cell) -> None:
    example = case(cell)
    nothing = replace(example, gradient=torch.zeros_like(example.gradient), after=torch.zeros_like(example.after))
    assert not any(value.any() for name, value in everything(nothing).items() if name.startswith("of"))


@every_cell
@pytest.mark.parametrize("part", ["gradient", "after"])
def test_gradients_flow_from_outputs_and_from_the_state_after(cell: Cell, part: str) -> None:
    example = case(cell, 9, 5, 10, 12)
    example = replace(example, **{part: torch.zeros_like(getattr(example, part))})
    actual, expected = everything(example), everything(example, plain)
    for name in actual:
        assert actual[name].any()
        assert distance(actual[name], expected[name]) < 1.5 * cell.error, name


@every_cell
def test_what_nobody_asks_for_counts_as_a_gradient_of_zero(cell: Cell) -> None:
    example = case(cell)
    for part, other in (("gradient", "after"), ("after", "gradient")):
        expected = everything(replace(example, **{other: torch.zeros_like(getattr(example, other))}))
        state = example.state.clone().requires_grad_()
        result = fast(example)(example.module, example.inputs, state)[part == "after"]
        (actual,) = torch.autograd.grad(result, state, getattr(example, part).to(result.dtype))
        assert torch.equal(actual, expected["of state"])


@every_cell
@pytest.mark.parametrize("factor", [2.0, -0.25, 1024.0])
def test_gradients_are_proportional_to_what_comes_in(cell: Cell, factor: float) -> None:
    """Bit for bit, for powers of two: loss scales lose nothing."""
    example = case(cell, 31, 6, 10, 40)
    once = everything(example)
    scaled = everything(replace(example, gradient=factor * example.gradient, after=factor * example.after))
    assert all(torch.equal(scaled[name], factor * once[name]) for name in once if name.startswith("of"))


@every_cell
def test_the_gradient_of_a_sum_is_the_sum_of_gradients(cell: Cell) -> None:
    example, other = case(cell, 31, 6, 10, 40), case(cell, 31, 6, 10, 40, seed=1)
    moved = replace(example, gradient=other.gradient, after=other.after)
    both = replace(example, gradient=example.gradient + other.gradient, after=example.after + other.after)
    first, second, actual = everything(example), everything(moved), everything(both)
    far = {name: distance(actual[name], first[name] + second[name]) for name in actual if name.startswith("of")}
    assert max(far.values()) < cell.error


@every_cell
def test_gradients_cross_the_border_between_two_windows(cell: Cell) -> None:
    example = case(cell, 31, 6, 10, 40)

    def in_two(module: nn.RNNBase, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        first, between = fast(example)(module, inputs[:, :2], state)
        second, after = fast(example)(module, inputs[:, 2:], between)
        return torch.cat([first, second], 1), after

    whole, parts = everything(example), everything(example, in_two)
    # A GRU's gradient needs the hidden state before, which is carried in fp32 and kept in bf16.
    names = ["outputs", "after", "of inputs", "of state"] if cell.name == "lstm" else ["outputs", "after"]
    assert all(torch.equal(whole[name], parts[name]) for name in names)
    assert all(distance(parts[name], whole[name]) < cell.error for name in whole)


@every_cell
def test_no_gradient_reaches_an_input_behind_the_output(cell: Cell) -> None:
    example = case(cell, 9, 6, 10, 12)
    for at in range(6):
        gradient = torch.zeros_like(example.gradient)
        gradient[:, at] = example.gradient[:, at]
        actual = everything(replace(example, gradient=gradient, after=torch.zeros_like(example.after)))["of inputs"]
        assert not actual[:, at + 1 :].any()
        assert actual[:, : at + 1].abs().amax(2).all()


@every_cell
def test_gradients_of_a_row_come_from_that_row_only(cell: Cell) -> None:
    example = case(cell, 9, 4, 10, 12)
    gradient, after = torch.zeros_like(example.gradient), torch.zeros_like(example.after)
    gradient[5], after[5] = example.gradient[5], example.after[5]
    actual, whole = everything(replace(example, gradient=gradient, after=after)), everything(example)
    for name in ("of inputs", "of state"):
        assert torch.equal(actual[name][5], whole[name][5])
        assert not actual[name][:5].any()
        assert not actual[name][6:].any()


@every_cell
@pytest.mark.parametrize("hidden", [12, 32])
@pytest.mark.parametrize("table", [False, True])
def test_a_gradient_of_a_gradient_is_that_of_the_plain_layer(cell: Cell, hidden: int, table: bool) -> None:
    """Over two windows, so that a state is made of the same weights: what comes by it is counted once."""
    example, ids = case(cell, time_steps=3, hidden=hidden), None
    if table:
        example, ids = from_table(example, 7)
    results = []
    for run in (fast(example, ids), plain):
        inputs, state = example.inputs.clone().requires_grad_(), example.state.clone().requires_grad_()
        leaves = [inputs, *parameters(example.module), state]
        read_inputs = inputs[ids] if table and run is plain else inputs
        outputs, after = run(example.module, read_inputs, state)
        again, last = run(example.module, read_inputs, after)
        cost = outputs.float().pow(2).mean() + again.float().pow(3).mean() + last.sin().mean()
        first = torch.autograd.grad(cost, leaves, create_graph=True)
        results.append([*first, *torch.autograd.grad(sum((gradient.pow(2).sum() for gradient in first), cost), leaves)])
    for ours, theirs in zip(*results, strict=True):
        assert distance(ours.detach(), theirs.detach()) < (0.05 if cell.dtype == BF16 else 1e-4)


@every_cell
@pytest.mark.parametrize("table", [False, True])
def test_a_second_pass_over_a_kept_graph_gives_the_same_gradient(cell: Cell, table: bool) -> None:
    example, ids = case(cell), None
    if table:
        example, ids = from_table(example, 7)
    inputs, state = example.inputs.clone().requires_grad_(), example.state.clone().requires_grad_()
    results = fast(example, ids)(example.module, inputs, state)
    leaves = [inputs, *parameters(example.module), state]
    gradients = example.gradient.to(cell.dtype), example.after
    first, second, third = (torch.autograd.grad(results, leaves, gradients, retain_graph=True) for _ in range(3))
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, first, third))


@every_cell
def test_torchs_own_defaults_change_nothing(cell: Cell) -> None:
    expected = everything(case(cell))
    example = case(cell)
    torch.set_default_dtype(torch.float64)
    try:
        assert same_bits(everything(example), expected)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert same_bits(everything(example), expected)


@every_cell
def test_weights_changed_between_forward_and_backward_are_noticed(cell: Cell) -> None:
    example = case(cell, hidden=32)
    outputs, _ = fast(example)(example.module, example.inputs, example.state)
    with torch.no_grad():
        example.module.get_parameter("weight_hh_l0").mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.float().sum().backward()


@every_cell
@pytest.mark.parametrize("name", ["weight_ih", "weight_hh"])
def test_weights_that_were_filled_up_may_change_the_gradient_is_that_of_the_ones_before(cell: Cell, name: str) -> None:
    gradients = []
    for change in (False, True):
        example = case(cell, hidden=12)
        outputs, _ = fast(example)(example.module, example.inputs, example.state)
        if change:
            with torch.no_grad():
                example.module.get_parameter(f"{name}_l0").mul_(2)
        outputs.float().sum().backward()
        gradients.append([parameter.grad for parameter in example.module.parameters()])
    assert all(map(torch.equal, *gradients))


# What depends on what.


@settings(max_examples=40)
@given(sizes, st.lists(st.integers(1, 16), max_size=3), st.integers(0, 99))
def test_in_pieces_and_in_one_go_are_the_same_bits(
    size: tuple[Cell, int, int, int, int], cuts: list[int], seed: int
) -> None:
    example = case(*size, seed=seed)
    whole, end = forward(example)
    borders = sorted({0, size[2], *(cut for cut in cuts if cut < size[2])})
    pieces, state = [], example.state
    for begin, stop in pairwise(borders):
        piece, state = forward(replace(example, inputs=example.inputs[:, begin:stop], state=state))
        pieces.append(piece)
    assert torch.equal(torch.cat(pieces, 1), whole)
    assert torch.equal(state, end)


@settings(max_examples=40)
@given(sizes, st.integers(0, 99))
def test_rows_in_another_order_have_the_same_bits(size: tuple[Cell, int, int, int, int], seed: int) -> None:
    example = case(*size, seed=seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(size[1]))
    parts = {name: getattr(example, name)[order] for name in ("inputs", "state", "gradient", "after")}
    moved = replace(example, **parts)
    actual, expected = everything(moved), everything(example)
    for name in ("outputs", "after", "of inputs", "of state"):
        # Products of float32 over inputs are torch's, who may compute the last rows in another way.
        error = (actual[name] - expected[name][order]).abs().max()
        assert error <= (0 if size[0].dtype == BF16 else 1e-5), name
    assert all(distance(actual[name], expected[name]) < 0.004 for name in expected if name.startswith("of bias"))


@settings(max_examples=40)
@given(sizes, st.integers(0, 63), st.integers(0, 99))
def test_a_row_has_the_same_bits_whatever_the_others_are(
    size: tuple[Cell, int, int, int, int], row: int, seed: int
) -> None:
    example, others = case(*size, seed=seed), case(*size, seed=seed + 1)
    row %= size[1]
    parts = {}
    for name in ("inputs", "state", "gradient", "after"):
        parts[name] = getattr(others, name).clone()
        parts[name][row] = getattr(example, name)[row]
    actual, expected = everything(replace(example, **parts)), everything(example)
    for name in ("outputs", "after", "of inputs", "of state"):
        assert torch.equal(actual[name][row], expected[name][row])
        assert not torch.equal(actual[name], expected[name])


@every_cell
def test_an_input_changes_its_own_output_and_later_ones_and_none_before(cell: Cell) -> None:
    example = case(cell, 9, 7, 10, 12, scale=2.0)
    outputs, end = forward(example)
    for at in range(7):
        inputs = example.inputs.clone()
        inputs[:, at] += 1
        changed, after = forward(replace(example, inputs=inputs))
        assert torch.equal(changed[:, :at], outputs[:, :at])
        assert (changed[:, at:] != outputs[:, at:]).any(2).all()
        assert (after != end).any(1).all()


@every_cell
def test_every_part_of_a_state_reaches_the_first_output_of_its_row(cell: Cell) -> None:
    example = case(cell, 9, 2, 10, 12, scale=2.0)
    outputs, _ = forward(example)
    for part in range(example.state.shape[1]):
        state = example.state.clone()
        state[4, part] += 2
        changed, _ = forward(replace(example, state=state))
        assert (changed[4, 0] != outputs[4, 0]).any()
        assert torch.equal(changed[:4], outputs[:4])
        assert torch.equal(changed[5:], outputs[5:])


# Threads.


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
    for number in (1, 2, 3, 5):
        use_threads(number)
        seen.clear()
        assert same_bits(everything(example), expected)
        computed = np.zeros((size[0], blocks), int)
        for first, last, begin, end, members in seen:
            computed[first:last, begin:end] += 1
            assert members == (len(seen) / 2 if (first, last) == (0, size[0]) else 1)
        assert (computed == 2).all(), "once forward, once backward"
        assert len(seen) in (2 * number, 2 * min(number, blocks))
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
        (64, 128, 4, {(0, 64, part, part + 1, 4) for part in range(4)}),
        (33, 96, 1, {(0, 33, 0, 3, 1)}),
    ],
)
@every_cell
def test_threads_share_out_rows_or_hidden_units_so_that_the_fewest_zeros_are_multiplied(
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


def test_the_faster_way_is_taken_and_the_other_one_tried_for_a_hundredth_of_the_time(
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


@settings(max_examples=60)
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
def test_the_number_of_threads_is_what_openmp_was_told_or_the_cores_there_are(
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


# Products and bits.


class Products(NamedTuple):
    """A way to multiply, and the type that factors are stored in."""

    multiply: Any
    dtype: Any

    def rounded(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        return (
            naive.rounded_to_bf16(torch.from_numpy(values)).double().numpy()
            if self.dtype == np.uint16
            else values.astype(np.float64)
        )


TILES, VECTORS = Products(matmul_blocks.continue_matmul, np.uint16), Products(matmul_blocks.continue_matmul, np.float32)
PLAIN = Products(inlined(matmul_blocks.continue_in_loops), np.uint16)
IN_PAIRS = [Products(inlined(matmul_blocks.continue_in_pairs), np.uint16)] if bf16_pairs() else []
WAYS = (TILES, PLAIN, VECTORS, *IN_PAIRS)


def stored_as(dtype: Any, values: NDArray[np.float32]) -> NDArray[Any]:
    return bf16.to_bits(values) if dtype == np.uint16 else values


def left_side(values: NDArray[np.float32], dtype: Any) -> NDArray[Any]:
    """A left side (M, K) as (K / 32, M, 32)."""
    blocks = amx.aligned_zeros((values.shape[1] // 32, len(values), 32), dtype)
    blocks[:] = stored_as(dtype, values).reshape(len(values), -1, 32).transpose(1, 0, 2)
    return blocks


def packed_plainly(weights: NDArray[np.float32]) -> NDArray[np.uint16]:
    """(K, N) -> bf16 bits (N / 32, K / 2, 32, 2), filled up with zeros to multiples of 32."""
    inputs, outputs = weights.shape
    padded = np.zeros((train_rnn.pad(inputs), train_rnn.pad(outputs)), np.float32)
    padded[:inputs, :outputs] = weights
    packed = bf16.to_bits(padded).reshape(len(padded) // 2, 2, -1, 32).transpose(2, 0, 3, 1)
    result = amx.aligned_zeros(packed.shape, np.uint16)
    result[:] = packed
    return result


def right_side(weights: NDArray[np.float32], dtype: Any) -> NDArray[Any]:
    """Weights (K, N), filled up, as products want them."""
    if dtype == np.uint16:
        return packed_plainly(weights)
    inputs, outputs = weights.shape
    padded = np.zeros((train_rnn.pad(inputs), train_rnn.pad(outputs)), np.float32)
    padded[:inputs, :outputs] = weights
    result = amx.aligned_zeros((padded.shape[1] // 32, len(padded), 32), np.float32)
    result[:] = padded.reshape(len(padded), -1, 32).transpose(1, 0, 2)
    return result


@cache
def run(multiply: Callable[..., Any]) -> Callable[..., int]:
    """All blocks of a product."""

    @compiled
    def multiply_all(left: Any, packed: Any, out: Any, config: Any, filled: int) -> int:
        blocks, rows, _ = left.shape
        row_bytes = 32 * left.itemsize
        amx.configure_tiles(config)
        budget = 7  # below 32: is handed back as it is
        for row in range(0, rows, 32):
            memory = np.empty((len(packed) + 1) * 1024, np.float32)
            first = (-memory.ctypes.data % 64) // 4
            block, k, remaining, most = 0, 0, len(packed) * blocks, 1
            while remaining:  # 1, 2, 3 and so on at a time
                number = min(most, remaining)
                block, k, budget = multiply(
                    packed, left.ctypes.data + row * row_bytes, rows * row_bytes, packed.ctypes.data,
                    blocks * 32 * row_bytes, memory.ctypes.data + first * 4, blocks, min(32, filled - row), block, k,
                    32 * number + budget,
                )  # fmt: skip
                remaining, most = remaining - number, most + 1
            for column in range(len(packed)):
                begin = first + column * 1024
                out[column, row : row + 32] = memory[begin : begin + 1024].reshape((32, 32))
        amx.release_tiles()
        return budget

    result: Callable[..., int] = multiply_all
    return result


def product_of(way: Products, left: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float32]:
    """A product (M, N), whatever the sizes."""
    (rows, inputs), outputs = left.shape, weights.shape[1]
    padded = np.zeros((train_rnn.pad(rows), train_rnn.pad(inputs)), np.float32)
    padded[:rows, :inputs] = left
    out = amx.aligned_zeros((train_rnn.pad(outputs) // amx.SIDE, len(padded), amx.SIDE), np.float32)
    out[:] = np.nan
    sides = left_side(padded, way.dtype), right_side(weights, way.dtype)
    assert run(way.multiply)(*sides, out, amx.TILE_CONFIG, rows) == 7
    result: NDArray[np.float32] = out.transpose(1, 0, 2).reshape(len(padded), -1)
    assert not result[rows:].any()
    assert not np.nan_to_num(result[:, outputs:]).any()
    return result[:rows, :outputs]


@settings(max_examples=15)
@given(st.integers(1, 70), st.integers(1, 130), st.integers(1, 100), st.integers(0, 99))
def test_products_in_tiles_vectors_pairs_and_plain_loops_are_exact_but_for_the_order_of_sums(
    rows: int, inputs: int, outputs: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    left = random.standard_normal((rows, inputs), np.float32)
    weights = random.standard_normal((inputs, outputs), np.float32)
    for way in WAYS:
        result, exact = product_of(way, left, weights), way.rounded(left) @ way.rounded(weights)
        assert (abs(result - exact) <= 1e-6 * (abs(way.rounded(left)) @ abs(way.rounded(weights)))).all()
        if way is not PLAIN:
            assert (product_of(way, left[rows // 2 :], weights) == result[rows // 2 :]).all()


def test_products_of_small_whole_numbers_are_exact() -> None:
    random = np.random.default_rng(0)
    left, weights = (random.integers(-9, 10, shape).astype(np.float32) for shape in ((33, 96), (96, 65)))
    for way in WAYS:
        assert (product_of(way, left, weights) == left @ weights).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_product_passes_on_what_is_not_finite_and_to_its_row_or_column_only(value: float) -> None:
    random = np.random.default_rng(0)
    for way in WAYS:
        left, weights = random.standard_normal((40, 64), np.float32), random.standard_normal((64, 40), np.float32)
        left[35, 60] = value
        is_finite = np.isfinite(product_of(way, left, weights))
        assert not is_finite[35].any()
        assert is_finite[:35].all()
        assert is_finite[36:].all()
    for way in () if math.isnan(value) else (TILES, VECTORS, *IN_PAIRS):
        packed = right_side(random.standard_normal((64, 64), np.float32), way.dtype)
        packed[(0,) * packed.ndim] = stored_as(way.dtype, np.float32([value]))[0]
        out = amx.aligned_zeros((2, 32, 32), np.float32)
        run(way.multiply)(left_side(np.ones((32, 64), np.float32), way.dtype), packed, out, amx.TILE_CONFIG, 32)
        assert (out[0, :, 0] == value).all()
        assert np.isfinite(out[0, :, 1:]).all()
        assert np.isfinite(out[1]).all()


@settings(max_examples=40)
@given(st.integers(1, 100), st.integers(1, 100))
def test_packed_weights_lie_in_blocks_of_columns_and_pairs_of_inputs(inputs: int, outputs: int) -> None:
    weights = np.random.default_rng(0).standard_normal((inputs, outputs), np.float32)
    packed = packed_plainly(weights)
    assert packed.shape == (train_rnn.pad(outputs) // 32, train_rnn.pad(inputs) // 2, 32, 2)
    assert packed.flags.c_contiguous
    assert packed.ctypes.data % 64 == 0
    k, n = np.indices(weights.shape)
    assert (packed[n // 32, k // 2, n % 32, k % 2] == bf16.to_bits(weights)).all()
    packed[n // 32, k // 2, n % 32, k % 2] = 0
    assert not packed.any()


@pytest.mark.parametrize("hidden", [32, 64, 96])
@pytest.mark.parametrize("gates", [1, 3, 4])
def test_a_layer_packs_its_weights_as_the_products_want_them(gates: int, hidden: int) -> None:
    weights = torch.randn(gates * hidden, hidden, generator=torch.Generator().manual_seed(0))
    for transposed, expected in ((True, packed_plainly(weights.numpy().T)), (False, packed_plainly(weights.numpy()))):
        packed = compiled_layers._pack_weights(weights, BF16, transposed=transposed)
        assert packed.flags.c_contiguous
        assert packed.ctypes.data % 64 == 0
        assert (packed == expected).all()
    for transposed, relaid in ((True, weights.t()), (False, weights)):
        packed = compiled_layers._pack_weights(weights, FP32, transposed=transposed)
        assert packed.flags.c_contiguous
        assert packed.ctypes.data % 64 == 0
        assert (packed == right_side(relaid.numpy(), np.float32)).all()


@settings(max_examples=40)
@given(st.integers(1, 70), st.integers(1, 40), st.integers(0, 3))
def test_sums_over_time_are_those_of_float32(rows: int, columns: int, rest: int) -> None:
    values = torch.randn(rows, columns * 7 + rest, generator=torch.Generator().manual_seed(rows)).bfloat16()
    padded = torch.full((rows, values.shape[1] + 5), math.nan, dtype=torch.bfloat16)
    padded[:, : values.shape[1]] = values
    for matrix in (values, padded[:, : values.shape[1]]):
        torch.testing.assert_close(compiled_layers._sum_rows(matrix), values.float().sum(1), atol=1e-4, rtol=1e-5)
    assert torch.equal(compiled_layers._sum_rows(values.float()), values.float().sum(1))


@compiled
def transpose_once(source: Any, target: Any, count: int) -> None:
    transpose(source, source.ctypes.data, target.ctypes.data, target.strides[0], count)


@pytest.mark.parametrize("count", [1, 7, 31, 32])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_square_is_transposed_and_nothing_beside_it_is_touched(count: int, dtype: Any) -> None:
    source = np.arange(1024, dtype=dtype).reshape(32, 32)
    target = np.full((34, 50), 7777, dtype)
    transpose_once(source, target[1:33, 3 : 3 + count], count)
    assert (target[1:33, 3 : 3 + count] == source.T[:, :count]).all()
    target[1:33, 3 : 3 + count] = 7777
    assert (target == 7777).all()


@given(st.integers(1, 10**6))
def test_sizes_are_filled_up_to_the_next_multiple_of_32(size: int) -> None:
    assert train_rnn.pad(size) % 32 == 0
    assert size <= train_rnn.pad(size) < size + 32


HIGH = np.arange(2**16, dtype=np.uint32) << 16
EDGES = np.concatenate([HIGH | low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)]).view(np.float32)
"""Around every bf16 number: itself, all ties, and what lies right beside them; subnormals, infinities and NaN too."""


@compiled
def stored(values: Any, dtype: Any = np.uint16) -> Any:
    bits = np.empty(len(values), dtype)
    for n in range(len(values)):
        bits[n] = bf16_ir.to_stored(bits, values[n])
    return bits


@compiled
def loaded(elements: Any) -> Any:
    values = np.empty(len(elements), np.float32)
    for n in range(len(elements)):
        values[n] = bf16_ir.to_float(elements[n])
    return values


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_numbers_are_rounded_as_torch_rounds_them(seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(0, 2**32, 10_000, np.uint32).view(np.float32)
    for values in (drawn, EDGES):
        finite, no_number = np.isfinite(values), np.isnan(values)
        assert (stored(values)[~no_number] == naive.bf16_bits(values)[~no_number]).all()
        assert (bf16.to_bits(values[finite]) == naive.bf16_bits(values[finite])).all()
        assert np.isnan(loaded(stored(values))[no_number]).all()
        assert (loaded(stored(values, np.float32)).view(np.uint32) == values.view(np.uint32)).all()


def test_bf16_bits_are_the_upper_half_of_a_float32() -> None:
    assert (loaded(np.arange(2**16, dtype=np.uint16)).view(np.uint32) == HIGH).all()


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3F80),
        (1 + 2**-8, 0x3F80),  # a tie, to even
        (1 + 3 * 2**-8, 0x3F82),  # a tie, to even upwards
        (1 + 2**-8 + 2**-23, 0x3F81),
        (-0.0, 0x8000),
        (2.0**-133, 0x0001),  # the smallest subnormal
        (2.0**-134, 0x0000),
        (3 * 2.0**-134, 0x0002),
        (3.4028234e38, 0x7F80),  # the largest float32 is nearer to infinity
        (3.3895314e38, 0x7F7F),
        (-math.inf, 0xFF80),
    ],
)
def test_examples_of_rounding(value: float, bits: int) -> None:
    values = np.array([value], np.float32)
    assert stored(values)[0] == bits
    if math.isfinite(value):
        assert bf16.to_bits(values)[0] == bits


# What is not finite.


@every_cell
@pytest.mark.parametrize("at", [0, 3, 5])
def test_a_nan_in_an_input_reaches_all_that_its_row_gives_from_then_on_and_nothing_else(cell: Cell, at: int) -> None:
    example = case(cell, 33, 6, 10, 40)
    inputs = example.inputs.clone()
    inputs[17, at, 4] = math.nan
    actual, clean = everything(replace(example, inputs=inputs)), everything(example)
    assert actual["outputs"][17, at:].isnan().all()
    assert actual["after"][17].isnan().all()
    assert torch.equal(actual["outputs"][17, :at], clean["outputs"][17, :at])
    others = torch.arange(33) != 17
    for name in ("outputs", "after", "of inputs", "of state"):
        assert torch.equal(actual[name][others], clean[name][others])
    for name in ("of weight_ih", "of weight_hh", "of bias_ih", "of bias_hh"):
        assert actual[name].isnan().any(), name


@every_cell
def test_a_nan_in_a_state_reaches_its_row_and_no_other(cell: Cell) -> None:
    example = case(cell, 9, 3, 10, 12)
    clean, _ = forward(example)
    others = torch.arange(9) != 4
    for part in range(example.state.shape[1]):
        state = example.state.clone()
        state[4, part] = math.nan
        outputs, after = forward(replace(example, state=state))
        assert outputs[4, 0].isnan().any()
        assert outputs[4, 1:].isnan().all()
        assert after[4].isnan().all()
        assert torch.equal(outputs[others], clean[others])


@every_cell
@pytest.mark.parametrize("name", ["weight_ih", "weight_hh", "bias_ih", "bias_hh"])
def test_a_nan_in_any_weight_reaches_every_row(cell: Cell, name: str) -> None:
    for gate in range(4 if cell.name == "lstm" else 3):
        example = case(cell, 9, 3, 10, 12)
        with torch.no_grad():
            example.module.get_parameter(f"{name}_l0")[12 * gate + 7] = math.nan
        actual = everything(example)
        assert actual["outputs"][:, 0, 7].isnan().all()
        assert actual["outputs"][:, 1:].isnan().all()
        assert actual["after"].isnan().any(1).all()
        for part in ("of inputs", "of state"):
            assert actual[part].isnan().flatten(1).any(1).all(), part
        for part in ("of weight_ih", "of weight_hh", "of bias_ih", "of bias_hh"):
            assert actual[part].isnan().any(), part


@every_cell
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 2, "after"])
def test_a_gradient_that_is_not_finite_reaches_its_row_before_and_all_weights(
    cell: Cell, value: float, at: int | str
) -> None:
    example = case(cell, 33, 4, 10, 40)
    gradient, after = example.gradient.clone(), example.after.clone()
    if isinstance(at, int):
        gradient[20, at, 3] = value
    else:
        after[20, 3] = value
    actual, clean = everything(replace(example, gradient=gradient, after=after)), everything(example)
    end = at + 1 if isinstance(at, int) else 4
    assert not actual["of inputs"][20, :end].isfinite().any()
    assert torch.equal(actual["of inputs"][20, end:], clean["of inputs"][20, end:])
    assert not actual["of state"][20].isfinite().all()
    others = torch.arange(33) != 20
    for name in ("of inputs", "of state"):
        assert torch.equal(actual[name][others], clean[name][others])
    for name in ("of weight_ih", "of weight_hh", "of bias_ih", "of bias_hh"):
        assert not actual[name].isfinite().all(), name


@every_cell
@pytest.mark.parametrize("value", [math.inf, -math.inf, 3.4e38])
@pytest.mark.parametrize("part", ["inputs", "state", "weight_ih", "weight_hh", "bias_ih", "bias_hh"])
def test_what_infinity_makes_not_finite_in_the_plain_layer_is_not_finite_here(
    cell: Cell, value: float, part: str
) -> None:
    """Where gates saturate, both go on with finite numbers."""
    for at in range(12 * (4 if cell.name == "lstm" else 3)):
        example = case(cell, 9, 4, 10, 12, seed=at)
        with torch.no_grad():
            if part in ("inputs", "state"):
                getattr(example, part)[4].view(-1)[at % getattr(example, part)[4].numel()] = value
            else:
                example.module.get_parameter(f"{part}_l0").data[at] = value
        actual, expected = everything(example), everything(example, plain)
        if math.isfinite(value) and cell.dtype == torch.float32:
            # A sum overflows or not by its order, which processors choose; what it does not reach is as it is.
            outputs, right = actual["outputs"][:, 0], expected["outputs"][:, 0]
            reached = 4 if part in ("inputs", "state") else at % 12
            apart = (outputs - right).abs()
            apart[reached if part in ("inputs", "state") else (slice(None), reached)] = 0
            assert apart.max() < 1e-5, at
            continue
        bad = ~actual["outputs"].isfinite().all(2), ~expected["outputs"].isfinite().all(2)
        assert (bad[0] | ~bad[1]).all()
        assert (~actual["after"].isfinite().all(1) | expected["after"].isfinite().all(1)).all()
        for name in actual:
            assert expected[name].isfinite().all() or not actual[name].isfinite().all(), (at, name)
