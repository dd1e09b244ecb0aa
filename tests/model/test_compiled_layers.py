"""Compiled recurrent layers: near to torch's, in bf16 very near to a slow emulation, exact where promised.

Bits that must not depend on how a window is cut, on the other rows, or on the number of threads are compared as bits.
"""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from chargen.model import layers
from tests import naive
from tests.model.layer_cases import (
    CELLS,
    Case,
    Cell,
    case,
    distance,
    every_cell,
    everything,
    fast,
    forward,
    parameters,
    plain,
    same_bits,
)
from tests.pairs import some

BF16, FP32 = torch.bfloat16, torch.float32
ROWS, TIME_STEPS, INPUTS, HIDDEN = (8, 9, 31, 33, 64), (1, 2, 17), (1, 10, 33), (1, 12, 32, 40, 96)
every_cell_in_bf16 = pytest.mark.parametrize("cell", [Cell("lstm", BF16), Cell("gru", BF16)], ids=["lstm", "gru"])
sizes = st.tuples(*map(st.sampled_from, (CELLS, ROWS, TIME_STEPS, INPUTS, HIDDEN)))


def emulated(example: Case) -> dict[str, Tensor]:
    """All results as a slow emulation has them."""
    arguments = example.inputs, example.state, example.gradient, example.after
    module = example.module
    if isinstance(module, nn.LSTM):
        return naive.lstm_in_bf16(module, *arguments)
    assert isinstance(module, nn.GRU)
    return naive.gru_in_bf16(module, *arguments)


@pytest.mark.parametrize("rows", some(ROWS, 2))
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


@pytest.mark.parametrize("rows", some(ROWS, 2))
@every_cell_in_bf16
def test_everything_is_very_near_to_an_emulation_that_rounds_alike(cell: Cell, rows: int) -> None:
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
def test_types_and_shapes_are_those_of_the_plain_layer(cell: Cell) -> None:
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


@every_cell
def test_layers_are_compiled_where_that_is_faster(
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
