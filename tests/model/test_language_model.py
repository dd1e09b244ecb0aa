"""The model: causal, whole or in pieces, rows apart, first weights and dropout masks fixed by their addresses."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chargen.model import layers
from chargen.model.config import ModelConfig, parameter_count, parameter_shapes
from chargen.model.dropout import DropoutKey, drop
from chargen.model.language_model import CharModel
from chargen.model.layers import detach
from tests.new_models import KINDS, NOISE, V, every_kind, logits_of, new_model, some_ids
from tests.yardstick import HANG


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
    starts = torch.zeros(3, 4, dtype=torch.bool)
    starts[1, 0] = True
    fresh, carried = logits_of(model, ids), logits_of(model, ids, state)
    with torch.inference_mode():
        mixed, _ = model(ids, state, fresh=starts)
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


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**31), st.sampled_from(["lstm", "gru"]))
def test_the_seed_alone_fixes_the_first_weights(seed, other, cell):
    config = ModelConfig(cell, 1, 3, 2)
    torch.manual_seed(other)
    before = torch.random.get_rng_state()
    first = CharModel(config, V, seed).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(other + 1)
    again = CharModel(config, V, seed).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["output.weight"], CharModel(config, V, (seed + 1) % 2**64).output.weight)


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
