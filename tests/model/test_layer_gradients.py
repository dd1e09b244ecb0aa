"""Gradients of compiled layers: what they come from, what they are the sum of, and when there are none."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.model.layer_cases import (
    Cell,
    case,
    distance,
    every_cell,
    everything,
    fast,
    from_table,
    parameters,
    plain,
    same_bits,
)

BF16, FP32 = torch.bfloat16, torch.float32


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
def test_weights_that_were_copied_may_change_before_the_gradient(cell: Cell, name: str) -> None:
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
