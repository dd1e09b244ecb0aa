"""States that are reset inside a window: as if rows were cut there, in every layer, cell, precision and direction."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from chargen import CharModel, ModelConfig
from chargen.errors import ArgumentError
from chargen.kernels import threads
from chargen.kernels.sharing import Sharing
from chargen.kernels.threads import AutoTuner
from chargen.model import compiled_layers
from chargen.model.dropout import DropoutKey
from chargen.model.layers import new_layer, run_embedded, run_layer, run_torch
from chargen.model.pieces import Pieces
from tests import naive

V = 11
every_cell = pytest.mark.parametrize("cell", ["lstm", "gru"])
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def example(cell: str, rows: int, length: int, hidden: int, seed: int = 0):
    """A layer, inputs, a state, and resets: none in row 0, everywhere in row 1, at both ends in row 2."""
    torch.manual_seed(seed)
    module = new_layer(ModelConfig(cell, 1, hidden), 1)
    inputs = torch.randn(rows, length, hidden, requires_grad=True)
    state = torch.randn(rows, hidden * (1 + (cell == "lstm")), requires_grad=True)
    fresh = torch.rand(rows, length) < 0.2
    fresh[0], fresh[1], fresh[2, 0], fresh[2, -1] = False, True, True, True
    return module, inputs, state, fresh


def everything(run, module: nn.RNNBase, inputs: Tensor, state: Tensor) -> list[Tensor]:
    """Outputs, the state after, and all gradients of a cost of both."""
    outputs, after = run(module, inputs, state)
    torch.manual_seed(1)
    cost = (outputs.float() * torch.randn(outputs.shape)).sum() + (after * torch.randn(after.shape)).sum()
    return [outputs.detach().float(), after.detach(), *torch.autograd.grad(cost, [inputs, state, *module.parameters()])]


def worst(values: list[Tensor], expected: list[Tensor]) -> float:
    return max(((a - b).norm() / b.norm().clamp(min=1e-9)).item() for a, b in zip(values, expected, strict=True))


@every_cell
@pytest.mark.parametrize(("rows", "length", "hidden"), [(3, 7, 12), (9, 5, 12), (33, 20, 64), (40, 9, 96)])
def test_every_way_computes_what_single_steps_compute(cell, rows, length, hidden):
    module, inputs, state, fresh = example(cell, rows, length, hidden)
    expected = everything(partial(naive.layer_with_resets, fresh=fresh), module, inputs, state)
    ways = {
        "torch": partial(run_torch, fresh=fresh),
        "chosen": partial(run_layer, fresh=fresh),
        "fp32": partial(compiled_layers.run, dtype=torch.float32, fresh=fresh),
        "bf16": partial(compiled_layers.run, dtype=torch.bfloat16, fresh=fresh),
    }
    for name, way in ways.items():
        assert worst(everything(way, module, inputs, state), expected) < (0.02 if name == "bf16" else 2e-6), name


@every_cell
@pytest.mark.parametrize("precision", DTYPES)
def test_a_fresh_state_is_a_state_of_zeros_bit_for_bit(cell, precision):
    """A window that is cut in two, with zeros between, has the bits of one window with resets there."""
    module, inputs, state, _ = example(cell, 33, 12, 64)
    fresh = torch.zeros(33, 12, dtype=torch.bool)
    fresh[:, 5] = True

    def in_two(module: nn.RNNBase, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        first, _ = compiled_layers.run(module, inputs[:, :5], state, DTYPES[precision])
        second, after = compiled_layers.run(module, inputs[:, 5:], torch.zeros_like(state), DTYPES[precision])
        return torch.cat([first, second], 1), after

    in_one = partial(compiled_layers.run, dtype=DTYPES[precision], fresh=fresh)
    one, two = (everything(way, module, inputs, state) for way in (in_one, in_two))
    for a, b in zip(one[:4], two[:4], strict=True):  # sums over time of weights' gradients have another order
        assert torch.equal(a, b)
    assert worst(one, two) < (1e-2 if precision == "bf16" else 1e-6)


@every_cell
@pytest.mark.parametrize("precision", DTYPES)
def test_no_resets_are_the_bits_of_a_layer_without(cell, precision):
    module, inputs, state, _ = example(cell, 33, 9, 64)
    fresh = torch.zeros(33, 9, dtype=torch.bool)
    ways = [partial(compiled_layers.run, dtype=DTYPES[precision], fresh=resets) for resets in (None, fresh)]
    plain, masked = (everything(way, module, inputs, state) for way in ways)
    assert all(torch.equal(a, b) for a, b in zip(plain, masked, strict=True))


@every_cell
@pytest.mark.parametrize("precision", DTYPES)
def test_hidden_units_shared_out_among_threads_have_the_same_bits(cell, precision, monkeypatch):
    module, inputs, state, fresh = example(cell, 16, 9, 96)
    monkeypatch.setattr(threads, "threads", lambda: 2)
    monkeypatch.setattr(threads, "start_time", lambda number: 0.0)
    results = []
    for sharing in (Sharing(2, 1), Sharing(1, 2)):
        monkeypatch.setattr(compiled_layers, "_tuner", lambda *_, sharing=sharing: AutoTuner({sharing: 0.0}))
        way = partial(compiled_layers.run, dtype=DTYPES[precision], fresh=fresh)
        results.append(everything(way, module, inputs, state))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("rows", [1, 4, 33])
def test_what_is_before_a_reset_changes_nothing_behind_it(cell, precision, rows):
    """Neither predictions nor gradients, not by a bit: of inputs, of states, and in other rows."""
    model = CharModel(ModelConfig(cell, 2, 40, 8, bidirectional=True), V, 3)
    rng = np.random.default_rng(rows)
    ids = torch.from_numpy(rng.integers(0, V, (rows, 14)))
    fresh = torch.from_numpy(rng.random((rows, 14)) < 0.2)
    row, place = rows // 2, 6
    fresh[row, place] = True
    changed, behind = ids.clone(), torch.zeros(rows, 14, dtype=torch.bool)
    changed[row, :place] = (changed[row, :place] + 1 + torch.arange(place) % (V - 1)) % V
    behind[:], behind[row, :place] = True, False
    for direction in ("forward", "backward"):
        results = []
        for values in (ids, changed):
            inputs = model.embedding(values).detach().requires_grad_()
            with torch.autocast("cpu", enabled=precision == "bf16"):
                layer = inputs
                for module in model.stack(direction):
                    layer, _ = run_layer(module, layer, torch.zeros(rows, model.config.state_size), fresh)
                costs = layer.float()[behind].square().sum()
            (gradient,) = torch.autograd.grad(costs, inputs)
            results.append((layer.detach()[behind], gradient[behind], gradient[~behind]))
        first, second = results
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])
        assert not first[2].any()
        assert not second[2].any()


@every_cell
@pytest.mark.parametrize("rows", [2, 9])
def test_a_model_cut_at_resets_predicts_as_one_that_reads_each_piece_alone(cell, rows):
    model = CharModel(ModelConfig(cell, 2, 24, 8), V, 1)
    rng = np.random.default_rng(0)
    ids, fresh = torch.from_numpy(rng.integers(0, V, (rows, 13))), torch.from_numpy(rng.random((rows, 13)) < 0.25)
    state = tuple(torch.from_numpy(rng.normal(size=(rows, model.config.state_size)).astype("f")) for _ in range(2))
    with torch.no_grad():
        logits, after = model(ids, state, fresh=fresh)
        for row in range(rows):
            cuts = [0, *(t for t in range(1, 13) if fresh[row, t]), 13]
            carried = None if fresh[row, 0] else tuple(layer[row : row + 1] for layer in state)
            for begin, end in itertools.pairwise(cuts):
                alone, carried = model(ids[row : row + 1, begin:end], carried)
                assert (alone[0] - logits[row, begin:end]).abs().max() < 1e-5
                last, carried = carried, None
            assert all((a[0] - b[row]).abs().max() < 1e-5 for a, b in zip(last, after, strict=True))


@every_cell
@pytest.mark.parametrize("table", [False, True])
def test_a_gradient_of_a_gradient_is_that_of_single_steps(cell, table):
    module, inputs, state, fresh = example(cell, 9, 6, 32)
    ids = torch.randint(5, (9, 6)) if table else None
    values = torch.randn(5, 32, requires_grad=True) if table else inputs

    def second(run) -> list[Tensor]:
        outputs, after = run()
        leaves = [values, state, *module.parameters()]
        first = torch.autograd.grad(outputs.square().sum() + after.sum(), leaves, create_graph=True)
        return list(torch.autograd.grad(sum(gradient.square().sum() for gradient in first), leaves))

    fast = second(lambda: compiled_layers.run(module, values, state, torch.float32, ids, fresh))
    slow = second(lambda: naive.layer_with_resets(module, values if ids is None else values[ids], state, fresh))
    assert worst(fast, slow) < 1e-5


@given(st.integers(1, 6), st.integers(1, 9), st.data())
def test_pieces_go_together_again(rows, length, data):
    flags = data.draw(st.lists(st.booleans(), min_size=rows * length, max_size=rows * length))
    fresh = torch.tensor(flags).view(rows, length)
    pieces, values = Pieces(fresh, torch.device("cpu")), torch.randn(rows, length, 2)
    packed = PackedSequence(pieces.pack(values), pieces.batch_sizes)
    assert torch.equal(pieces.unpack(packed.data), values)
    before = pieces.before(torch.arange(1.0, rows + 1)[:, None])
    cuts = fresh.clone()
    cuts[:, 0] = True
    assert len(before) == int(cuts.sum()) == int(pieces.batch_sizes[0])
    assert sorted(before[before > 0].tolist()) == [row + 1 for row in range(rows) if not fresh[row, 0]]
    assert (pieces.batch_sizes.diff() <= 0).all()
    sequences, sizes = torch.nn.utils.rnn.pad_packed_sequence(packed)
    ends = torch.stack([sequences[size - 1, number] for number, size in enumerate(sizes)])
    assert torch.equal(pieces.after(ends), values[:, -1])


def test_dropout_masks_do_not_depend_on_resets():
    model = CharModel(ModelConfig("gru", 2, 24, dropout=0.5), V, 1)
    ids = torch.randint(V, (9, 8), generator=torch.Generator().manual_seed(0))
    fresh = torch.zeros(9, 8, dtype=torch.bool)
    plain, _ = model.read(ids, None, DropoutKey(1, 2))
    fresh[0, 4] = True
    reset, _ = model.read(ids, None, DropoutKey(1, 2), fresh=fresh)
    assert torch.equal(plain[1:], reset[1:])
    assert torch.equal(plain[0] == 0, reset[0] == 0)


@pytest.mark.parametrize("length", [1, 4])
def test_a_mask_of_inference_mode_is_read_where_gradients_are_needed(length):
    model = CharModel(ModelConfig("gru", 1, 24, 8), V, 1)
    with torch.inference_mode():
        fresh = torch.ones(9, length, dtype=torch.bool)
    ids, state = torch.zeros(9, length, dtype=torch.long), torch.randn(9, 24)
    for mask in (fresh, fresh.clone()):
        layer = run_layer(model.forward_layers[0], model.embedding(ids), state, mask)[0]
        by_table = run_embedded(model.forward_layers[0], model.embedding, ids, state, mask)[0]
        for outputs in (layer, by_table, model(ids, (state,), fresh=mask)[0]):
            assert torch.autograd.grad(outputs.sum(), model.embedding.weight)[0].any()


@pytest.mark.parametrize(
    ("fresh", "message"),
    [
        (torch.zeros(2, 3), r"fresh has shape \(2, 3\) and type torch.float32: needed is .* of true or false"),
        (torch.zeros(2, 4, dtype=torch.bool), r"fresh has shape \(2, 4\): needed is \(2, 3\)"),
        (torch.zeros(2, 3, dtype=torch.bool, device="meta"), "fresh is on meta"),
        (True, "fresh is of type bool"),
    ],
)
def test_what_is_no_mask_is_refused(fresh, message):
    with pytest.raises(ArgumentError, match=message):
        CharModel(ModelConfig(hidden_size=8), V)(torch.zeros(2, 3, dtype=torch.long), fresh=fresh)
