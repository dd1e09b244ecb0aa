"""What does not fit a model is refused in the same line for every number of rows; what fits works for every number."""

import re
from typing import Any

import pytest
import torch

from chargen.errors import ArgumentError, ChargenError
from chargen.model.config import ModelConfig
from chargen.model.language_model import CharModel
from chargen.model.layers import new_layer, run_layer
from chargen.model.loss import cross_entropy
from tests.new_models import FEW, MANY, NOISE, V, every_kind, logits_of, new_model, some_ids


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
    kind: Any = type(module)
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
