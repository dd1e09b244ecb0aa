"""Two stacks that never mix: what each reads, what each learns from, and the layer that stands between them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chargen.errors import SettingError
from chargen.evaluation.loss import evaluate_ids
from chargen.model.config import DIRECTIONS, ModelConfig, parameter_count, parameter_shapes
from chargen.model.dropout import DropoutKey
from chargen.model.language_model import CharModel
from tests import naive
from tests.new_models import KINDS, V, every_kind, new_two_way_model, some_ids

NOISE = DropoutKey(seed=5, step=9)
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)


@torch.inference_mode()
def logits_of(model, ids, direction, masks=None):
    return model(ids, None, masks, direction)[0]


def own_layers(model, direction):
    return model.forward_layers if direction == "forward" else model.backward_layers


@given(st.sampled_from(["lstm", "gru"]), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(1, 20))
def test_the_shapes_known_without_torch_are_those_of_the_model(cell, layers, hidden, embedding, size):
    shape = ModelConfig(cell, layers, hidden, embedding, bidirectional=True)
    real = CharModel(shape, size).state_dict()
    assert list(parameter_shapes(shape, size).items()) == [(name, tuple(w.shape)) for name, w in real.items()]
    assert parameter_count(shape, size) == sum(weight.numel() for weight in real.values())


@pytest.mark.parametrize("hidden", [3, 128, 200])
@every_kind
def test_a_second_stack_and_the_cloze_layer_are_all_that_is_added(cell, layers, hidden):
    one, two = (ModelConfig(cell, layers, hidden, 4, bidirectional=both) for both in (False, True))
    stack = sum(weight.numel() for weight in CharModel(one, V).forward_layers.parameters())
    units = min(hidden, 128)
    cloze = 2 * units * hidden + units + V * units + V
    assert parameter_count(two, V) - parameter_count(one, V) == stack + cloze
    names = list(parameter_shapes(two, V))
    assert names[: len(parameter_shapes(one, V))] == list(parameter_shapes(one, V))


@every_kind
def test_what_both_kinds_of_model_have_starts_with_the_same_weights(cell, layers):
    one, two = (CharModel(ModelConfig(cell, layers, 6, 5, bidirectional=both), V, seed=3) for both in (False, True))
    started = two.state_dict()
    assert all(torch.equal(started[name], weight) for name, weight in one.state_dict().items())
    for ahead, behind in zip(two.forward_layers.parameters(), two.backward_layers.parameters(), strict=True):
        assert ahead.shape == behind.shape
        assert ahead.ndim == 1 or not torch.equal(ahead, behind)


def test_both_stacks_of_an_lstm_start_with_open_forget_gates():
    for layer in CharModel(ModelConfig("lstm", 2, 6, 5, bidirectional=True), V).backward_layers:
        assert (layer.bias_ih_l0[6:12] == 1).all()
        assert (layer.bias_hh_l0[6:12] == 0).all()


@pytest.mark.parametrize("masks", [None, NOISE])
@every_direction
@every_kind
def test_a_direction_does_not_depend_on_the_weights_of_others(cell, layers, direction, masks):
    model, ids = new_two_way_model(cell, layers, dropout=0.3), some_ids(2, 9)
    other = DIRECTIONS[direction == "forward"]
    before = logits_of(model, ids, direction, masks)
    with torch.no_grad():
        for weight in (*own_layers(model, other).parameters(), *model.cloze.parameters()):
            weight += 1
    assert torch.equal(logits_of(model, ids, direction, masks), before)
    for name, weight in model.named_parameters():
        if name.startswith(("embedding.", "output.", f"{direction}_layers.")) and weight.ndim > 1:
            kept = weight.detach().clone()
            with torch.no_grad():
                weight *= -2
                assert not torch.equal(logits_of(model, ids, direction, masks), before), name
                weight.copy_(kept)


@every_kind
def test_backward_is_a_one_way_model_with_the_same_weights(cell, layers):
    model, ids = new_two_way_model(cell, layers), some_ids(2, 9)
    one_way = CharModel(ModelConfig(cell, layers, 6, 5), V)
    started = model.state_dict()
    one_way.load_state_dict(
        {name: started[name.replace("forward_layers", "backward_layers")] for name in one_way.state_dict()}
    )
    assert torch.equal(logits_of(model, ids, "backward"), logits_of(one_way, ids, "forward"))
    assert not torch.equal(logits_of(model, ids, "backward"), logits_of(model, ids, "forward"))


@given(st.sampled_from(KINDS), st.sampled_from(DIRECTIONS), st.integers(1, 3), st.integers(1, 12), st.data())
def test_whole_and_in_pieces_with_carried_state_agree(kind, direction, rows, length, data):
    model, ids = new_two_way_model(*kind), some_ids(rows, length)
    with torch.inference_mode():
        whole, end = model(ids, direction=direction)
        pieces, state, at = [], None, 0
        while at < length:
            size = data.draw(st.integers(1, length - at))
            logits, state = model(ids[:, at : at + size], state, direction=direction)
            pieces.append(logits)
            at += size
    assert (torch.cat(pieces, 1) - whole).abs().max() < 1e-6
    assert all((one - other).abs().max() < 1e-6 for one, other in zip(state, end, strict=True))


@pytest.mark.parametrize("direction", ["sideways", "", "Forward", None])
def test_a_direction_that_is_none_is_named(direction):
    for both in (True, False):
        model = CharModel(ModelConfig(num_layers=1, hidden_size=3, embedding_size=2, bidirectional=both), V)
        with pytest.raises(SettingError, match=r"^direction is .*: it must be one of forward, backward$") as caught:
            model(some_ids(1, 3), direction=direction)
        assert caught.value.setting == "direction"


def test_a_one_way_model_says_how_to_get_one_that_reads_backward():
    model = CharModel(ModelConfig(num_layers=1, hidden_size=3, embedding_size=2), V)
    refused = [
        lambda: model(some_ids(1, 3), direction="backward"),
        lambda: model.read(some_ids(1, 3), direction="backward"),
        lambda: evaluate_ids(model, np.arange(5), direction="backward"),
    ]
    for ask in refused:
        with pytest.raises(SettingError, match=r"^[^\n]*reading backward[^\n]*`bidirectional=True`[^\n]*$"):
            ask()
    assert not hasattr(model, "backward_layers")
    assert not hasattr(model, "cloze")


def dropped_in(model, direction, masks):
    """Which units each place of a stack lacks, from input to output."""
    seen = []

    def watch(module, inputs):
        seen.append(inputs[0] == 0)

    modules = (*own_layers(model, direction), model.output)
    handles = [module.register_forward_pre_hook(watch) for module in modules]
    logits_of(model, some_ids(6, 20), direction, masks)
    for handle in handles:
        handle.remove()
    return seen


def test_no_mask_of_one_direction_is_a_mask_of_the_other():
    shape = ModelConfig("gru", 3, 64, 64, 0.5, 0.5, bidirectional=True)
    model = CharModel(shape, V)
    masks = [mask for direction in DIRECTIONS for mask in dropped_in(model, direction, NOISE)]
    assert len(masks) == 8
    for at, one in enumerate(masks):
        assert 0.4 < one.float().mean() < 0.6
        for other in masks[:at]:
            assert 0.4 < (one == other).float().mean() < 0.6


@every_direction
def test_masks_are_addressed_and_leave_torchs_generator_alone(direction):
    model, ids = new_two_way_model(dropout=0.5), some_ids(2, 6)
    torch.manual_seed(1)
    place = torch.random.get_rng_state()
    before = logits_of(model, ids, direction, NOISE)
    assert torch.equal(torch.random.get_rng_state(), place)
    torch.manual_seed(2)
    assert torch.equal(logits_of(model, ids, direction, NOISE), before)
    for other in (DropoutKey(5, 10), DropoutKey(6, 9), None):
        assert not torch.equal(logits_of(model, ids, direction, other), before)


def test_the_cloze_layer_starts_as_the_product_of_the_two_predictions():
    model = CharModel(ModelConfig(num_layers=1, hidden_size=6, embedding_size=5, bidirectional=True), V)
    left, right = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.cloze_logits(left, right), model.output(left) + model.output(right))


@every_kind
def test_the_cloze_layer_is_its_formula(cell, layers):
    model = new_two_way_model(cell, layers)
    left, right = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    found = model.cloze_logits(left, right).detach().numpy()
    assert found == pytest.approx(naive.cloze_logits(model, left, right), abs=1e-4)
