"""Begin symbols in the ids: the state is reset before each, so that no record sees another, or teaches it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from chargen import CharModel, ModelConfig
from chargen.model.device import autocast
from chargen.model.loss import cross_entropy
from tests.pairs import all_pairs

V, BEGINS = 11, 2
FIRST = V - BEGINS
CASES = all_pairs(["lstm", "gru"], ["forward", "backward"], ["fp32", "bf16"], [(3, 17), (9, 12), (33, 20)], [1, 2])


def new_model(cell: str, layers: int, begins: int = BEGINS) -> CharModel:
    config = ModelConfig(cell, layers, 32, 16, dropout=0, bidirectional=True, begin_symbols=begins)
    return CharModel(config, V, seed=1)


def new_ids(rows: int, length: int) -> Tensor:
    """Records of a few characters, of which one begins at the third place of the first row."""
    generator = torch.Generator().manual_seed(rows)
    ids = torch.randint(0, FIRST, (rows, length), generator=generator)
    begins = torch.rand(rows, length, generator=generator) < 0.2
    begins[0, 2], begins[0, 7] = True, True
    begins[0, 3:7] = False
    return torch.where(begins, torch.randint(FIRST, V, (rows, length), generator=generator), ids)


def new_state(model: CharModel, rows: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    size = model.config.state_size
    return tuple(torch.randn(rows, size, generator=generator) for _ in range(model.config.num_layers))


@pytest.mark.parametrize(("cell", "direction", "precision", "size", "layers"), CASES)
def test_a_begin_symbol_is_read_as_if_a_mask_said_so(cell, direction, precision, size, layers):
    ids, plain, model = new_ids(*size), new_model(cell, layers, 0), new_model(cell, layers)
    state = new_state(model, len(ids))
    with torch.no_grad(), autocast(precision, model.device):
        logits, after = model(ids, state, direction=direction)
        expected, expected_after = plain(ids, state, direction=direction, fresh=ids >= FIRST)
        carried, _ = plain(ids, state, direction=direction)
    assert torch.equal(logits, expected)
    assert all(map(torch.equal, after, expected_after))
    assert not torch.equal(logits, carried)


@pytest.mark.parametrize(("cell", "direction", "precision", "size", "layers"), CASES)
def test_a_record_changes_neither_predictions_nor_gradients_of_others(cell, direction, precision, size, layers):
    model, ids = new_model(cell, layers), new_ids(*size)
    changed = ids.clone()
    changed[0, 3:7] = (ids[0, 3:7] + 1) % FIRST
    mine = torch.zeros(ids.shape, dtype=torch.bool)
    mine[0, 2:7] = True  # what reads the record

    def values_and_gradients(read: Tensor, of: Tensor) -> tuple[Tensor, list[Tensor]]:
        with autocast(precision, model.device):
            values, _ = model.read(read, new_state(model, len(ids)), direction=direction)
            loss = cross_entropy(values[of][None], model.output, ids[of][None])
        names = ("embedding", f"{direction}_layers", "output")
        weights = [weight for name, weight in model.named_parameters() if name.startswith(names)]
        return values.detach(), list(torch.autograd.grad(loss, weights))

    (values, gradients), (other_values, other_gradients) = (
        values_and_gradients(read, ~mine) for read in (ids, changed)
    )
    assert torch.equal(values[~mine], other_values[~mine])
    assert not torch.equal(values[mine], other_values[mine])
    assert all(map(torch.equal, gradients, other_gradients))
    own, other_own = (values_and_gradients(read, mine)[1] for read in (ids, changed))
    assert not all(map(torch.equal, own, other_own))


def test_a_begin_symbol_and_a_mask_may_both_reset():
    ids, model, plain = new_ids(9, 12), new_model("gru", 1), new_model("gru", 1, 0)
    fresh = torch.rand(ids.shape, generator=torch.Generator().manual_seed(3)) < 0.2
    with torch.no_grad():
        logits, _ = model(ids, new_state(model, 9), fresh=fresh)
        expected, _ = plain(ids, new_state(model, 9), fresh=fresh | (ids >= FIRST))
    assert torch.equal(logits, expected)


def test_ids_of_any_type_begin_records():
    ids, model = new_ids(3, 17), new_model("lstm", 1)
    with torch.no_grad():
        expected, _ = model(ids, new_state(model, 3))
        for dtype in (np.uint8, np.int16, np.uint64):
            logits, _ = model(torch.from_numpy(ids.numpy().astype(dtype)), new_state(model, 3))
            assert torch.equal(logits, expected)
