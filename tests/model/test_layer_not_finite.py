"""What is not finite in a compiled layer reaches what depends on it, and nothing else."""

import math
from dataclasses import replace

import pytest
import torch

from tests.model.layer_cases import CELLS, Cell, case, every_cell, everything, forward, plain
from tests.pairs import all_pairs

BF16, FP32 = torch.bfloat16, torch.float32


@every_cell
@pytest.mark.parametrize("at", [0, 3, 5])
def test_a_nan_in_an_input_reaches_its_row_from_then_on_only(cell: Cell, at: int) -> None:
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
def test_a_gradient_not_finite_reaches_its_row_and_all_weights(cell: Cell, value: float, at: int | str) -> None:
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


@pytest.mark.parametrize(
    ("cell", "value", "part"),
    all_pairs(
        CELLS, (math.inf, -math.inf, 3.4e38), ("inputs", "state", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ),
)
def test_infinity_has_the_consequences_it_has_in_the_plain_layer(cell: Cell, value: float, part: str) -> None:
    """Where gates saturate, both go on with finite numbers."""
    for at in range(0, 12 * (4 if cell.name == "lstm" else 3), 5):  # of every gate
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
