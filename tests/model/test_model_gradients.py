"""Gradients of a model: for any number of rows, of a copy, of a gradient, and where some weights need none."""

import copy

import pytest
import torch

from chargen.model.config import ModelConfig
from chargen.model.language_model import CharModel
from chargen.model.layers import new_layer, run_layer, run_torch
from chargen.model.loss import cross_entropy
from tests.new_models import FEW, MANY, NOISE, V, logits_of, new_model, some_ids


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("rows", [FEW, MANY])
def test_what_was_made_in_inference_mode_can_be_learned_from(cell, rows):
    model = new_model(cell)
    with torch.inference_mode():
        ids = some_ids(rows, 5).clone()
        _, state = model(ids)
    values, _ = model.read(ids, state)
    cross_entropy(values, model.output, ids).backward()
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_a_model_in_another_type_learns_alike_for_any_number_of_rows(cell, kind):
    model, ids = new_model(cell, scale=1.0), some_ids(MANY, 5)
    other = copy.deepcopy(model).to(kind)
    error = {torch.float64: 1e-6, torch.float16: 1e-2, torch.bfloat16: 0.1}[kind]
    expected = logits_of(model, ids)
    for rows in (FEW, MANY):
        logits, state = other(ids[:rows, :2])
        later_logits, state = other(ids[:rows, 2:], state)
        assert logits.dtype == kind
        assert {layer.dtype for layer in state} == {torch.promote_types(kind, torch.float32)}
        assert (torch.cat([logits, later_logits], 1) - expected[:rows]).abs().max() < error
        other.zero_grad()
        values, _ = other.read(ids[:rows])
        loss = cross_entropy(values, other.output, ids[:rows])
        loss.backward()
        assert loss.dtype == torch.promote_types(kind, torch.float32)
        assert all(weight.grad.dtype == kind for weight in other.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        logits_by_rows = [other(ids[:rows])[0][0].float() for rows in (FEW, MANY)]
    assert (logits_by_rows[0] - logits_by_rows[1]).abs().max() < 0.1
    assert (logits_by_rows[0] - expected[0]).abs().max() < 0.2


def test_products_in_float64_have_its_precision():
    model, ids = new_model(scale=1.0).double(), some_ids(MANY, 5)
    values, _ = model.read(ids)
    expected = torch.nn.functional.cross_entropy(model.output(values).flatten(0, 1), ids.flatten())
    expected_gradients = torch.autograd.grad(expected, list(model.parameters()), retain_graph=True)
    loss = cross_entropy(values, model.output, ids)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert abs(loss.item() - expected.item()) < 1e-12
    assert all((a - b).abs().max() < 1e-12 for a, b in zip(gradients, expected_gradients, strict=True))


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_further_gradients_do_not_depend_on_the_number_of_rows(cell, tie):
    """Rows that are all the same have the same mean loss, however many they are."""
    config = ModelConfig(cell, 2, 6, None if tie else 5, dropout=0.0, tie_weights=tie)
    model, results = CharModel(config, V), []
    weights = list(model.parameters())
    for rows in (FEW, MANY):
        ids = some_ids(1, 6).expand(rows, 6)
        values, _ = model.read(ids[:, :-1])
        loss = cross_entropy(values, model.output, ids[:, 1:])
        first = torch.autograd.grad(loss, weights, retain_graph=True)
        second = torch.autograd.grad(loss, weights, retain_graph=True)
        assert all(map(torch.equal, first, second))
        third = torch.autograd.grad(loss, weights, create_graph=True)
        of_gradient = torch.autograd.grad(sum(gradient.pow(2).sum() for gradient in third), weights)
        results.append([*first, *third, *of_gradient])
        assert sum(gradient.abs().sum() for gradient in of_gradient) > 1e-3
    for gradient, other in zip(*results, strict=True):
        assert (gradient - other).abs().max() < 1e-5


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_gradient_of_a_gradient_is_what_finite_differences_say(cell):
    """Dropout is part of the model: its masks are the same in the forward and the backward pass."""
    model, ids = new_model(cell, scale=1.0, dropout=0.5), some_ids(MANY, 4)
    weights = list(model.parameters())

    def gradient(create):
        values, _ = model.read(ids, None, NOISE)
        return torch.autograd.grad(cross_entropy(values, model.output, ids), weights, create_graph=create)

    step = [torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) for weight in weights]
    along = sum((values * other).sum() for values, other in zip(gradient(True), step, strict=True))
    product = torch.autograd.grad(along, weights)
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            for weight, other in zip(weights, step, strict=True):
                weight += sign * 1e-3 * other
        sides.append(gradient(False))
        with torch.no_grad():
            for weight, other in zip(weights, step, strict=True):
                weight -= sign * 1e-3 * other
    for exact, plus, minus in zip(product, *sides, strict=True):
        assert (exact - (plus - minus) / 2e-3).norm() <= 0.02 * exact.norm() + 1e-4


@pytest.mark.parametrize("rows", [FEW, MANY])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_copy_says_the_same_before_and_after_a_gradient(cell, rows):
    model, ids = new_model(cell, bidirectional=True), some_ids(rows, 5)
    first = copy.deepcopy(model)
    values, _ = model.read(ids)
    cross_entropy(values, model.output, ids).backward()
    second = copy.deepcopy(model)
    for other in (first, second):
        assert torch.equal(logits_of(other, ids), logits_of(model, ids))


@pytest.mark.parametrize("rows", [FEW, MANY])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_weights_without_a_gradient_get_none_and_the_others_get_theirs(cell, rows):
    model, ids = new_model(cell), some_ids(rows, 5)

    def gradients():
        model.zero_grad()
        values, _ = model.read(ids)
        cross_entropy(values, model.output, ids).backward()
        return {name: weight.grad for name, weight in model.named_parameters()}

    all_gradients = gradients()
    for name, weight in model.named_parameters():
        weight.requires_grad_("forward_layers.1" in name or "hh" in name)
    for name, gradient in gradients().items():
        is_needed = "forward_layers.1" in name or "hh" in name
        assert (gradient - all_gradients[name]).abs().max() < 1e-5 if is_needed else gradient is None
    for weight in model.parameters():
        weight.requires_grad_(False)
    assert not model(ids)[0].requires_grad


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # what torch says of its own layers
@pytest.mark.parametrize(
    ("cell", "rows"),
    [
        ("lstm", FEW),
        ("gru", MANY),
        *(pytest.param(*other, marks=pytest.mark.slow) for other in (("lstm", MANY), ("gru", FEW))),
    ],
)
def test_what_torch_traces_or_transforms_is_what_it_would_be_for_few_rows(cell, rows):
    model, ids = new_model(cell), some_ids(rows, 5)
    expected = logits_of(model, ids)
    for strict in (False, True):
        exported = torch.export.export(model, (ids,), strict=strict).module()
        assert (exported(ids)[0] - expected).abs().max() < 1e-5
    weights = dict(model.named_parameters())

    def loss(weights):
        return torch.func.functional_call(model, weights, (ids,))[0].pow(2).mean()

    gradients = torch.func.grad(loss)(weights)
    expected = torch.autograd.grad(model(ids)[0].pow(2).mean(), list(weights.values()))
    assert all((gradients[name] - other).abs().max() < 1e-4 for name, other in zip(weights, expected, strict=True))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("length", [1, 2, 40])
def test_a_row_that_learns_gets_the_gradients_of_torch(cell: str, length: int) -> None:
    """One row has a way of its own, where gradients are needed."""
    module = new_layer(ModelConfig(cell, 1, 7, 5), 0)
    draws, state_size = torch.Generator().manual_seed(length), 14 if cell == "lstm" else 7
    inputs, state, weights, state_weights = (
        torch.randn(shape, generator=draws)
        for shape in ((1, length, 5), (1, state_size), (1, length, 7), (1, state_size))
    )
    inputs.requires_grad_()
    state.requires_grad_()
    before = copy.deepcopy(module.state_dict())
    results = []
    for run in (run_layer, run_torch):
        outputs, after = run(module, inputs, state)
        total = (outputs * weights).sum() + (after * state_weights).sum()
        results.append((outputs, after, *torch.autograd.grad(total, [inputs, state, *module.parameters()])))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert all(torch.equal(weight, before[name]) for name, weight in module.state_dict().items())
