"""Plain torch modules compute what chargen computes, learn, and need no chargen."""

import copy
import itertools
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import chargen
from chargen.errors import SettingError
from chargen.storage.model_file import build_model
from tests.exporting.models import CELLS, FEW, KINDS, every_id, exported_model, predict_both
from tests.new_models import new_model
from tests.small_models import small_model

SOME = [pytest.param(*case, marks=() if case in FEW else pytest.mark.slow) for case in itertools.product(CELLS, KINDS)]


def text_ids(file: chargen.ModelFile, rows: int, length: int) -> torch.Tensor:
    """Random ids (rows, length), of begin symbols only the first."""
    ids = every_id(file, rows, length)
    first_begin = len(file.vocabulary) - file.config.begin_symbols
    ids[:, 1:] %= first_begin
    ids[:, 0] = len(file.vocabulary) - 1
    return torch.from_numpy(ids)


@pytest.mark.parametrize(("cell", "kind"), SOME)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_logits_and_states_are_those_of_the_model(cell: str, kind: str, direction: str) -> None:
    file = exported_model(cell, kind)
    module, network, ids = chargen.to_torch(file, direction), build_model(file), text_ids(file, 3, 17)
    with torch.inference_mode():
        expected, states = network(ids, direction=direction)
        logits, state = module(ids)
        assert (logits - expected).abs().max() < 1e-6
        first, state = module(ids[:, :5])
        rest, state = module(ids[:, 5:], state)
        assert (torch.cat([first, rest], dim=1) - expected).abs().max() < 1e-6
    parts = (state,) if cell == "gru" else state
    assert [part.shape for part in parts] == [(file.config.num_layers, 3, file.config.hidden_size)] * len(parts)
    assert (torch.cat(parts, dim=2) - torch.stack(states)).abs().max() < 1e-6


@pytest.mark.parametrize(("cell", "kind"), SOME)
def test_a_text_is_predicted_from_both_sides(cell: str, kind: str) -> None:
    file = exported_model(cell, kind)
    ids = text_ids(file, 2, 12)
    with torch.inference_mode():
        predicted = chargen.to_torch(file, "both")(ids)
    for got, expected in zip(predicted, predict_both(file, ids.numpy()), strict=True):
        assert np.abs(got.numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("cell", CELLS)
def test_it_consists_of_torchs_own_layers(cell: str) -> None:
    module = chargen.to_torch(exported_model(cell, "three layers"))
    kinds = {type(part) for part in module.modules()} - {type(module)}
    assert kinds == {nn.Embedding, nn.Dropout, {"gru": nn.GRU, "lstm": nn.LSTM}[cell], nn.Linear}
    layers = [f"layers.{name}_l{n}" for n in range(3) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    assert [*module.state_dict()] == ["embedding.weight", *layers, "output.weight", "output.bias"]


def test_the_weights_are_copies_and_no_random_number_is_drawn() -> None:
    network = new_model("gru", bidirectional=True)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    generator = torch.get_rng_state()
    module = chargen.to_torch(network, "both")
    assert torch.equal(torch.get_rng_state(), generator)
    with torch.no_grad():
        for weight in module.parameters():
            weight.zero_()
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())
    file = exported_model("gru", "one layer")
    kept = {name: array.copy() for name, array in file.arrays.items()}
    with torch.no_grad():
        for weight in chargen.to_torch(file).parameters():
            weight.zero_()
    assert all(np.array_equal(array, kept[name]) for name, array in file.arrays.items())


@pytest.mark.parametrize("direction", ["forward", "both"])
@pytest.mark.parametrize("kind", ["tied", "three layers"])
def test_gradients_reach_every_weight(kind: str, direction: str) -> None:
    module = chargen.to_torch(exported_model("lstm", kind), direction).train()
    assert all(weight.requires_grad for weight in module.parameters())
    ids = torch.arange(20).remainder(7).view(2, 10)
    outputs = module(ids)
    loss = sum(
        output.logsumexp(-1).sum() - output.sum(-1).mean() for output in outputs if isinstance(output, torch.Tensor)
    )
    loss.backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in module.parameters())
    assert (module.output.weight is module.embedding.weight) == (kind == "tied")


def test_it_drops_out_as_the_config_says() -> None:
    cases = (1, {"input_dropout": 0.2, "dropout": 0.0}), (2, {"dropout": 0.3}), (3, {"output_dropout": 0.4})
    for layers, options in cases:
        network = new_model("gru", layers, **options)
        module, config = chargen.to_torch(network), network.config
        assert not module.training
        assert module.input_dropout.p == config.input_dropout
        assert module.layers.dropout == (config.dropout if layers > 1 else 0)
        assert module.output_dropout.p == config.layer_dropout(layers)
        ids = torch.zeros(1, 4, dtype=torch.long)
        assert torch.equal(module(ids)[0], module(ids)[0])
        torch.manual_seed(0)
        module.train()
        assert not torch.equal(module(ids)[0], module(ids)[0])


WITHOUT_CHARGEN = """
import pickle, sys
sys.modules["chargen"] = None
import torch
module = pickle.load(open("model.pickle", "rb"))
torch.save([module(ids) for ids in torch.load("ids.pt")], "logits.pt")
"""


def test_pickles_and_copies_need_no_chargen(tmp_path: Path) -> None:
    file = exported_model("lstm", "tied")
    module, ids = chargen.to_torch(file, "both"), text_ids(file, 2, 9)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(module))
    torch.save([ids], tmp_path / "ids.pt")
    subprocess.run([sys.executable, "-c", WITHOUT_CHARGEN], cwd=tmp_path, check=True)
    (outputs,) = torch.load(tmp_path / "logits.pt")
    for got, copied, expected in zip(outputs, copy.deepcopy(module)(ids), module(ids), strict=True):
        assert torch.equal(got, expected)
        assert torch.equal(copied, expected)


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # what torch says of its own layers
@pytest.mark.parametrize("kind", ["records", pytest.param("tied", marks=pytest.mark.slow)])
def test_torchs_own_tools_take_it(kind: str) -> None:
    file = exported_model("gru", kind)
    module, ids = chargen.to_torch(file), text_ids(file, 1, 6)
    with torch.no_grad():
        expected = module(ids)[0]
        for made in (
            torch.compile(module, backend="eager"),
            torch.export.export(module, (ids,)).module(),
        ):
            assert (made(ids)[0] - expected).abs().max() < 1e-6


def test_a_record_begins_a_row() -> None:
    file = exported_model("gru", "records")
    sea, end = file.vocabulary.begin_id("sea"), file.vocabulary.end_id
    module, both = chargen.to_torch(file), chargen.to_torch(file, "both")
    module(torch.tensor([[sea, 1, 2], [end, 0, 0]]))
    both(torch.tensor([[sea, 1, 2, end]]))
    for refuse, ids in ((module, [1, sea, 2]), (module, [end, 1, end]), (both, [end, 1, sea, end])):
        with pytest.raises(RuntimeError, match="a begin symbol stands behind other ids"):
            refuse(torch.tensor([ids]))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SettingError, match="reading both ways needs a model that reads both ways"):
        chargen.to_torch(small_model(), "both")
    with pytest.raises(SettingError, match="direction is 3: it must be one of forward, backward, both"):
        chargen.to_torch(small_model(), 3)
    with pytest.raises(SettingError, match="model is 3: it must be the path"):
        chargen.to_torch(3)
