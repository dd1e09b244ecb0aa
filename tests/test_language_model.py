"""The model: causal, whole or in pieces, rows apart, first weights and dropout masks fixed by their addresses."""

import copy
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from yardstick import HANG

from chargen.errors import ArgumentError, ChargenError
from chargen.model import layers
from chargen.model.config import ModelConfig, parameter_count, parameter_shapes
from chargen.model.dropout import DropoutKey, drop
from chargen.model.language_model import CharModel
from chargen.model.layers import detach, new_layer, reset_rows, run_layer, run_torch
from chargen.model.loss import cross_entropy

V = 7
KINDS = [(cell, layers) for cell in ("lstm", "gru") for layers in (1, 2, 3)]
every_kind = pytest.mark.parametrize(("cell", "layers"), KINDS)
NOISE = DropoutKey(seed=5, step=9)


def new_model(cell="lstm", layers=2, *, seed=0, scale=2.5, hidden=6, **options):
    """A model whose weights are large enough that every input shows."""
    model = CharModel(ModelConfig(cell, layers, hidden, 5, **options), V, seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= scale
    return model


def some_ids(rows, length, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, V, (rows, length)))


@torch.inference_mode()
def logits_of(model, ids, state=None, masks=None):
    return model(ids, state, masks)[0]


@every_kind
def test_a_logit_depends_on_the_ids_up_to_its_own_and_on_no_later_one(cell, layers):
    model, ids = new_model(cell, layers), some_ids(2, 9)
    before = logits_of(model, ids)
    for at in range(9):
        changed = ids.clone()
        changed[:, at] = (changed[:, at] + 3) % V
        moved = (logits_of(model, changed) - before).abs().amax(2)
        assert (moved[:, :at] == 0).all()
        assert (moved[:, at:] > 1e-6).all()


@settings(max_examples=30)
@given(st.sampled_from(KINDS), st.integers(1, 3), st.integers(1, 12), st.data())
def test_whole_and_in_pieces_with_carried_state_agree(kind, rows, length, data):
    model, ids = new_model(*kind), some_ids(rows, length)
    with torch.inference_mode():
        expected, expected_state = model(ids)
        pieces, state, at = [], None, 0
        while at < length:
            size = data.draw(st.integers(1, length - at))
            logits, state = model(ids[:, at : at + size], state)
            pieces.append(logits)
            at += size
    assert (torch.cat(pieces, 1) - expected).abs().max() < 1e-6
    assert all((a - b).abs().max() < 1e-6 for a, b in zip(state, expected_state, strict=True))


@every_kind
def test_rows_never_mix(cell, layers):
    model, ids = new_model(cell, layers), some_ids(3, 8)
    together = logits_of(model, ids)
    for row in range(3):
        assert (logits_of(model, ids[row : row + 1])[0] - together[row]).abs().max() < 1e-6
    changed = ids.clone()
    changed[1] = (changed[1] + 1) % V
    after = logits_of(model, changed)
    assert torch.equal(after[[0, 2]], together[[0, 2]])
    assert (after[1] != together[1]).any()


@every_kind
def test_the_state_is_one_array_per_layer_for_either_cell(cell, layers):
    model = new_model(cell, layers)
    logits, state = model(some_ids(3, 4))
    width = {"lstm": 12, "gru": 6}[cell]
    assert logits.shape == (3, 4, V)
    assert isinstance(state, tuple)
    assert [tuple(layer.shape) for layer in state] == [(3, width)] * layers
    assert width == model.config.state_size
    assert all(layer.dtype == torch.float32 for layer in state)


@every_kind
def test_no_state_is_a_state_of_zeros(cell, layers):
    model, ids = new_model(cell, layers), some_ids(2, 4)
    zeros = tuple(torch.zeros(2, model.config.state_size) for _ in range(layers))
    assert torch.equal(logits_of(model, ids), logits_of(model, ids, zeros))
    ones = tuple(torch.ones_like(layer) for layer in zeros)
    assert not torch.equal(logits_of(model, ids), logits_of(model, ids, ones))


def test_rows_that_do_not_continue_start_fresh():
    model, ids = new_model(), some_ids(3, 4)
    _, state = model(ids)
    kept = reset_rows(state, torch.tensor([True, False, True]))
    fresh, carried, mixed = logits_of(model, ids), logits_of(model, ids, state), logits_of(model, ids, kept)
    assert torch.equal(mixed[[0, 2]], carried[[0, 2]])
    assert torch.equal(mixed[1], fresh[1])
    assert state[0].requires_grad
    assert not any(layer.requires_grad for layer in detach(state))


def test_an_lstm_starts_with_open_forget_gates_and_a_gru_is_left_alone():
    for layer in CharModel(ModelConfig("lstm", 2, 6, 5), V).forward_layers:
        assert (layer.bias_ih_l0[6:12] == 1).all()
        assert (layer.bias_hh_l0[6:12] == 0).all()
        others = torch.cat([layer.bias_ih_l0[:6], layer.bias_ih_l0[12:], layer.bias_hh_l0[:6], layer.bias_hh_l0[12:]])
        assert (others.abs() < 1).all()
        assert (others != 0).all()
    for layer in CharModel(ModelConfig("gru", 2, 6, 5), V).forward_layers:
        biases = torch.cat([layer.bias_ih_l0, layer.bias_hh_l0])
        assert (biases.abs() <= 6**-0.5).all()
        assert (biases != 0).all()


@settings(max_examples=20)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**31), st.sampled_from(["lstm", "gru"]))
def test_the_seed_alone_fixes_the_first_weights_and_torch_keeps_its_own_place(seed, other, cell):
    config = ModelConfig(cell, 1, 3, 2)
    torch.manual_seed(other)
    before = torch.random.get_rng_state()
    first = CharModel(config, V, seed).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(other + 1)
    again = CharModel(config, V, seed).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["output.weight"], CharModel(config, V, (seed + 1) % 2**64).output.weight)


@settings(max_examples=40)
@given(st.sampled_from(["lstm", "gru"]), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(1, 20))
def test_the_shapes_known_without_torch_are_those_of_the_model(cell, layers, hidden, embedding, vocabulary_size):
    config = ModelConfig(cell, layers, hidden, embedding)
    real = CharModel(config, vocabulary_size).state_dict()
    assert list(parameter_shapes(config, vocabulary_size).items()) == [(n, tuple(w.shape)) for n, w in real.items()]
    assert parameter_count(config, vocabulary_size) == sum(weight.numel() for weight in real.values())


def test_without_noise_nothing_is_dropped_even_in_training_mode():
    ids = some_ids(2, 6)
    for training in (True, False):
        heavy = new_model(dropout=0.9, input_dropout=0.9, output_dropout=0.9).train(training)
        assert torch.equal(logits_of(heavy, ids), logits_of(new_model(dropout=0.0), ids))
        assert not torch.equal(logits_of(heavy, ids, masks=NOISE), logits_of(heavy, ids))


def test_a_rate_of_zero_makes_noise_harmless():
    ids = some_ids(2, 6)
    quiet = new_model(dropout=0.0)
    assert torch.equal(logits_of(quiet, ids, masks=NOISE), logits_of(quiet, ids))


@settings(max_examples=40)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(0, 64))
def test_a_mask_is_fixed_by_seed_step_and_layer_and_by_nothing_else(seed, step, layer):
    values = torch.ones(4, 8, 16)
    torch.manual_seed(step % 1000)
    before = torch.random.get_rng_state()
    mask = drop(values, 0.5, DropoutKey(seed, step), layer)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(mask, drop(values * 3, 0.5, DropoutKey(seed, step), layer) / 3)
    others = [(DropoutKey((seed + 1) % 2**64, step), layer), (DropoutKey(seed, step + 1), layer)]
    others += [(DropoutKey(seed, step), layer + 1)]
    for masks, place in others:
        assert not torch.equal(mask, drop(values, 0.5, masks, place))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_rate_is_the_share_dropped_and_the_rest_is_scaled_up(rate):
    dropped = drop(torch.full((100, 10, 200), 2.0), rate, NOISE, 1)
    assert dropped.unique().tolist() == pytest.approx([0.0, 2 / (1 - rate)], rel=2e-4)  # a rate in 16 bits
    assert (dropped == 0).float().mean().item() == pytest.approx(rate, abs=0.015)
    assert dropped.mean().item() == pytest.approx(2, rel=0.07)


def test_every_character_has_a_mask_of_its_own():
    free = drop(torch.ones(5, 9, 40), 0.5, NOISE, 2)
    assert len({tuple(place) for place in free.reshape(-1, 40).tolist()}) == 45


@every_kind
def test_masks_keep_the_model_causal(cell, layers):
    model, ids = new_model(cell, layers, dropout=0.5), some_ids(2, 6)
    changed = ids.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % V
    same = logits_of(model, ids, masks=NOISE)[:, :4] == logits_of(model, changed, masks=NOISE)[:, :4]
    assert same.all()


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"dropout": 0.3}, [0.0, 0.3, 0.3, 0.3]),
        ({"dropout": 0.3, "input_dropout": 0.1}, [0.1, 0.3, 0.3, 0.3]),
        ({"dropout": 0.3, "output_dropout": 0.6}, [0.0, 0.3, 0.3, 0.6]),
        ({"dropout": 0.3, "output_dropout": 0.0}, [0.0, 0.3, 0.3, 0.0]),
        ({"dropout": 0.0, "input_dropout": 0.2, "output_dropout": 0.5}, [0.2, 0.0, 0.0, 0.5]),
    ],
)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_each_place_has_its_own_rate(options, rates, cell):
    """Rates are seen where they act: in what reaches the next layer, and the places run from input to output."""
    model = new_model(cell, 3, hidden=64, **options)
    seen = []

    def watch(module, inputs):
        seen.append((inputs[0] == 0).float().mean().item())

    for module in (*model.forward_layers, model.output):
        module.register_forward_pre_hook(watch)
    logits_of(model, some_ids(7, 230), masks=NOISE)  # rows too few for compiled layers, which call no hooks
    assert seen == pytest.approx(rates, abs=0.02)
    assert [model.config.layer_dropout(layer) for layer in range(4)] == rates


def test_one_layer_uses_the_output_rate_on_its_output():
    config = ModelConfig(num_layers=1, dropout=0.3, output_dropout=0.6)
    assert [config.layer_dropout(layer) for layer in (0, 1)] == [0.0, 0.6]


def test_layers_of_one_step_have_different_masks():
    model = new_model("gru", 2, hidden=64, dropout=0.5)
    seen = []
    for module in (model.forward_layers[1], model.output):
        module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0] == 0))
    logits_of(model, some_ids(4, 8), masks=NOISE)
    assert 0.4 < (seen[0] == seen[1]).float().mean() < 0.6


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_layers_in_narrow_numbers_are_near_the_reference(cell, monkeypatch):
    """The kernels of a GPU take weights in one stretch of memory; here they lie one behind the other."""
    module = layers.new_layer(ModelConfig(cell=cell, num_layers=1, hidden_size=20, embedding_size=12), 0)
    _, layout = layers._memory_layout(type(module), 12, 20, torch.device("cpu"))
    assert [place[0] for place in layout] == [weight.shape for weight in module.parameters()]
    offsets = np.cumsum([0, *(weight.numel() for weight in module.parameters())]).tolist()
    layout = tuple((place[0], place[1], offset) for place, offset in zip(layout, offsets[:-1], strict=True))
    monkeypatch.setattr(layers, "_memory_layout", lambda *arguments: (offsets[-1], layout))
    torch.manual_seed(0)
    inputs, state = torch.randn(5, 9, 12), torch.randn(5, 20 if cell == "gru" else 40) / 2
    results = []
    for run in (layers.run_torch, layers.run_cudnn_bf16):
        outputs, after = run(module, inputs, state)
        module.zero_grad()
        (outputs.float().square().sum() + after.sum()).backward()
        results.append([outputs.float(), after, *(weight.grad for weight in module.parameters())])
        with torch.no_grad():
            assert torch.allclose(run(module, inputs, state)[0], outputs, atol=1e-2)
    for expected, actual in zip(*results, strict=True):
        assert actual.dtype == torch.float32
        assert (expected - actual).norm() < 0.02 * expected.norm()


def test_a_processor_without_avx512_multiplies_bf16_too():
    code = """
import torch
from chargen import CharModel, ModelConfig
model = CharModel(ModelConfig(cell="lstm", hidden_size=8), 5)
results = []
for precise in (True, False):
    with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
        logits, _ = model(torch.arange(5).repeat(3, 2))
    model.zero_grad()
    logits.float().square().sum().backward()
    results.append([logits, *(weight.grad.clone() for weight in model.parameters())])
assert torch.backends.mkldnn.enabled
for expected, actual in zip(*results, strict=True):
    assert (expected - actual.float()).norm() <= 0.03 * expected.norm()
"""
    older = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    command = [sys.executable, "-W", "error", "-c", code]
    subprocess.run(command, env={**os.environ, **older}, check=True, timeout=HANG)


# What does not fit is refused in the same line for every number of rows; what fits works for every number of rows.

FEW, MANY = 3, 9
"""Rows that torch's own layers read, and rows that compiled ones read."""


def refused(call, rows=(FEW, MANY)):
    """The one line in which each number of rows is refused, shapes aside."""
    messages = set()
    for number in rows:
        with pytest.raises(ArgumentError) as error:
            call(number)
        line = str(error.value)
        assert "\n" not in line
        assert isinstance(error.value, ChargenError)
        messages.add(re.sub(r"\([\d, ]*\)", "(shape)", line))
    assert len(messages) == 1
    return messages.pop()


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("wrong", [V, -1, -100, 10**8, -(2**40)])
def test_an_id_that_the_model_does_not_have_is_refused(cell, direction, wrong):
    model = new_model(cell, bidirectional=True)
    for kind in (torch.int64, torch.int32):
        for place in ((0, 0), (-1, -1)):

            def call(rows, place=place, kind=kind):
                ids = some_ids(rows, 5)
                ids[place] = wrong
                return model(ids.to(kind), direction=direction)

            if abs(wrong) < 2**31 or kind == torch.int64:
                assert f"they must be 0 to {V - 1}" in refused(call)


@pytest.mark.parametrize("input_dropout", [0.0, 0.5])
def test_ids_are_refused_with_and_without_dropout_on_the_input(input_dropout):
    model = new_model(input_dropout=input_dropout)
    assert "0 to 6" in refused(lambda rows: model(torch.full((rows, 4), V), None, NOISE))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda ids: ids.float(), lambda ids: ids.bool(), lambda ids: ids.numpy(), lambda ids: ids.tolist(),
        lambda ids: ids[0], lambda ids: ids[None], lambda ids: ids[0, 0], lambda ids: None, lambda ids: ids.to("meta"),
        lambda ids: ids.to_sparse(),
    ],
)  # fmt: skip
def test_ids_of_another_type_shape_or_device_are_refused(wrong):
    model = new_model()
    assert refused(lambda rows: model(wrong(some_ids(rows, 5)))).startswith("ids ")


@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16])
def test_ids_may_be_whole_numbers_of_any_type(kind):
    model = new_model()
    for rows in (FEW, MANY):
        ids = some_ids(rows, 5)
        assert torch.equal(logits_of(model, ids.to(kind)), logits_of(model, ids))


@pytest.mark.parametrize("rows", [FEW, MANY])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_reading_nothing_changes_nothing(cell, rows):
    model = new_model(cell)
    _, state = model(some_ids(rows, 5))
    logits, after = model(some_ids(rows, 5)[:, :0], state)
    assert logits.shape == (rows, 0, V)
    assert all(map(torch.equal, state, after))
    logits, after = model(some_ids(rows, 5)[:0])
    assert logits.shape == (0, 5, V)
    assert [len(layer) for layer in after] == [0, 0]


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda state: tuple(layer[:-1] for layer in state),
        lambda state: tuple(torch.cat([layer, layer]) for layer in state),
        lambda state: tuple(layer[:1] for layer in state),
        lambda state: tuple(layer[:, :-1] for layer in state),
        lambda state: tuple(torch.cat([layer, layer], 1) for layer in state),
        lambda state: tuple(layer[None] for layer in state),
        lambda state: (torch.stack([layer[:, :6] for layer in state]),) * 2,  # torch's own (h, c)
        lambda state: state[:1],
        lambda state: (*state, state[0]),
        lambda state: (),
        lambda state: (state[0], None),
        lambda state: tuple(layer.numpy() for layer in state),
        lambda state: tuple(layer.long() for layer in state),
        lambda state: tuple(layer.to(torch.complex64) for layer in state),
        lambda state: tuple(layer.to("meta") for layer in state),
        lambda state: tuple(layer.to_sparse() for layer in state),
        lambda state: dict(enumerate(state)),
        lambda state: state[0],
        lambda state: 0,
    ],
)
def test_a_state_that_does_not_fit_is_refused(cell, direction, wrong):
    model = new_model(cell, bidirectional=True)

    def call(rows):
        ids = some_ids(rows, 5)
        with torch.no_grad():
            _, state = model(ids, direction=direction)
            return model(ids, wrong(state), direction=direction)

    assert refused(call).startswith("state")


def test_a_shorter_last_batch_does_not_take_the_state_of_the_batch_before():
    model = CharModel(ModelConfig(hidden_size=64), 62)
    _, state = model(torch.zeros(16, 32, dtype=torch.long))
    with pytest.raises(ArgumentError, match=r"^state\[0\] has shape \(16, 64\): needed is \(12, 64\)"):
        model(torch.zeros(12, 32, dtype=torch.long), state)


@every_kind
@pytest.mark.parametrize("rows", [FEW, MANY])
def test_a_state_in_any_layout_and_type_of_floats_is_read(cell, layers, rows):
    model, ids = new_model(cell, layers), some_ids(rows, 5)
    with torch.no_grad():
        _, state = model(ids)
        expected = model(ids, state)[0]
        for other in (
            list(state),
            tuple(layer.t().contiguous().t() for layer in state),
            tuple(torch.stack([layer, layer], 2)[:, :, 0] for layer in state),
            tuple(layer.double() for layer in state),
            torch.stack(state),
        ):
            assert (model(ids, other)[0] - expected).abs().max() < 1e-5


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
def test_a_model_in_another_type_reads_and_learns_alike_for_any_number_of_rows(cell, kind):
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
def test_a_second_gradient_and_a_gradient_of_a_gradient_do_not_depend_on_the_number_of_rows(cell, tie):
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
@pytest.mark.parametrize("rows", [FEW, MANY])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
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


def test_a_model_without_memory_tells_its_shapes():
    model = new_model().to("meta")
    for rows in (FEW, MANY):
        ids = some_ids(rows, 5).to("meta")
        values, state = model.read(ids, None, NOISE)
        loss = cross_entropy(values, model.output, ids)
        loss.backward()
        assert values.shape == (rows, 5, 6)
        assert loss.device.type == state[0].device.type == "meta"


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_layer_reads_only_what_fits_it(cell):
    module = new_layer(ModelConfig(cell, 1, 6, 5), 0)
    width = {"lstm": 12, "gru": 6}[cell]
    assert run_layer(module, torch.zeros(MANY, 4, 5), torch.zeros(MANY, width))[0].shape == (MANY, 4, 6)
    for inputs, state in (((4, 6), (width,)), ((4, 4), (width,)), ((4, 5), (width + 1,)), ((5,), (width,))):
        refused(lambda rows, inputs=inputs, state=state: run_layer(
            module, torch.zeros(rows, *inputs), torch.zeros(rows, *state)
        ))  # fmt: skip
    refused(lambda rows: run_layer(module, torch.zeros(rows, 4, 5), torch.zeros(rows - 1, width)))
    refused(lambda rows: run_layer(module, torch.zeros(rows, 4, 5, dtype=torch.int64), torch.zeros(rows, width)))
    kind = type(module)
    for other in (
        kind(5, 6), kind(5, 6, 2, batch_first=True), kind(5, 6, bias=False, batch_first=True),
        kind(5, 6, batch_first=True, bidirectional=True), torch.nn.RNN(5, 6, batch_first=True), torch.nn.Linear(5, 6),
    ):  # fmt: skip
        refused(lambda rows, other=other: run_layer(other, torch.zeros(rows, 4, 5), torch.zeros(rows, width)))
    module.weight_hh_l0 = torch.nn.Parameter(torch.zeros(3, 3))
    refused(lambda rows: run_layer(module, torch.zeros(rows, 4, 5), torch.zeros(rows, width)))


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "7", None, 2**40])
def test_a_vocabulary_size_that_is_none_is_refused(wrong):
    with pytest.raises(ChargenError, match="vocabulary_size"):
        CharModel(ModelConfig(), wrong)


def test_between_wants_two_directions_and_their_outputs():
    with pytest.raises(ChargenError, match="both ways"):
        new_model().cloze_logits(torch.zeros(2, 6), torch.zeros(2, 6))
    model = new_model(bidirectional=True)
    for left, right in (((2, 5), (2, 6)), ((2, 6), (1, 6)), ((2, 6), (6,))):
        with pytest.raises(ArgumentError):
            model.cloze_logits(torch.zeros(left), torch.zeros(right))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_parts_of_another_model_are_never_read_beyond_their_end(cell):
    """What does not fit into a model is torch's to refuse; compiled code does not read it."""
    other = CharModel(ModelConfig(cell, 2, 40, 5), V - 3)
    for place, rows in ((0, FEW), (0, MANY), (1, FEW), (1, MANY)):
        model = new_model(cell)
        model.forward_layers[place] = other.forward_layers[place]
        with pytest.raises(RuntimeError):
            model(some_ids(rows, 20))
    model = new_model(cell)
    model.embedding = other.embedding
    refused(lambda rows: model(torch.full((rows, 20), V - 1)))


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
