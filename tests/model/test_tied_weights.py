"""One table for embedding and output layer: kept once, learning from both uses, read alike by everything."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chargen import Corpus, ModelConfig, Sampler, TrainConfig, Trainer, save_model
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.decoding.pick_engine import new_engine
from chargen.decoding.torch_engine import TorchEngine
from chargen.errors import SettingError
from chargen.model.config import parameter_count, parameter_shapes
from chargen.model.language_model import CharModel
from chargen.model.loss import cross_entropy
from chargen.storage.model_file import build_model, read_model
from chargen.storage.quantize import as_float32, quantize
from chargen.training.autosize import MANY_CHARACTERS, choose_sizes
from tests.commands import Run
from tests.runs import assert_same_runs, run_until
from tests.small_models import small_model

KINDS = [(cell, both) for cell in ("lstm", "gru") for both in (False, True)]
TEXT = "A tale of two tables, told by one: the table that reads is the table that writes. " * 40
TIED = ModelConfig(num_layers=1, hidden_size=16, tie_weights=True, dropout=0.1)


@pytest.mark.parametrize(("cell", "both"), KINDS)
def test_the_table_is_there_once_and_every_logit_comes_from_it(cell: str, both: bool) -> None:
    config = ModelConfig(cell, 2, 12, tie_weights=True, bidirectional=both)
    model = CharModel(config, 9, 1)
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    assert shapes == parameter_shapes(config, 9)
    assert list(shapes) == list(parameter_shapes(config, 9))
    assert sum(weight.numel() for weight in model.parameters()) == parameter_count(config, 9)
    untied = replace(config, tie_weights=False, embedding_size=12)
    assert parameter_count(untied, 9) - parameter_count(config, 9) == 9 * 12
    ids = torch.randint(0, 9, (3, 5))
    for direction in config.directions:
        values, _ = model.read(ids, direction=direction)
        logits, _ = model(ids, direction=direction)
        torch.testing.assert_close(logits, values @ model.embedding.weight.T + model.output.bias)


def test_the_gradient_is_that_of_both_uses() -> None:
    tied = CharModel(TIED, 9)
    apart = CharModel(replace(TIED, tie_weights=False, embedding_size=16), 9)
    with torch.no_grad():
        for name, weight in apart.named_parameters():
            weight.copy_(tied.embedding.weight if name == "output.weight" else dict(tied.named_parameters())[name])
    ids, targets = torch.randint(0, 9, (2, 4, 6))
    for model in (tied, apart):
        cross_entropy(model.read(ids)[0], model.output, targets).backward()
    gradients = [model.embedding.weight.grad for model in (tied, apart)]
    assert gradients[1] is not None
    assert apart.output.weight.grad is not None
    assert apart.output.weight.grad.abs().max() > 0.01
    torch.testing.assert_close(gradients[0], gradients[1] + apart.output.weight.grad)


def test_first_logits_are_of_the_size_of_untied_ones() -> None:
    ids = torch.arange(200)[None]
    spread = {}
    for tied in (False, True):
        logits, _ = CharModel(ModelConfig(hidden_size=64, tie_weights=tied), 200)(ids)
        spread[tied] = float(logits.detach().std())
    assert spread[True] < 3 * spread[False]


@pytest.mark.parametrize(("cell", "both"), KINDS)
@pytest.mark.parametrize("kind", ["", "int8", "bf16"])
def test_files_and_engines_agree(cell: str, both: bool, kind: str, tmp_path: Path) -> None:
    file = small_model(cell, tie_weights=True, bidirectional=both)
    file = replace(file, arrays=quantize(file.arrays, kind)) if kind else file
    save_model(tmp_path / "model", file)
    again = read_model(tmp_path / "model")
    assert again.config.tie_weights
    assert "output.weight" not in again.arrays
    model = build_model(again)
    assert model.output.weight is model.embedding.weight
    assert np.array_equal(model.output.weight.detach().numpy(), as_float32(file.arrays, "embedding.weight"))
    ids = np.random.default_rng(0).integers(0, len(file.vocabulary), (3, 11))
    for direction in file.config.directions:
        engines = (
            NumpyEngine(again.config, again.arrays, direction),
            new_engine(again, "cpu", direction),
            TorchEngine(model, direction),
        )
        logits = []
        for engine in engines:
            state = engine.start(3)
            for column in ids.T:
                step_logits, state = engine.step(column, state)
            logits.append(step_logits)
        expected, _ = model(torch.from_numpy(ids), direction=direction)
        for step_logits in logits:
            np.testing.assert_allclose(step_logits, expected[:, -1].detach().numpy(), atol=2e-5)


def test_a_model_in_training_writes_what_its_file_writes() -> None:
    file = small_model(tie_weights=True)
    assert Sampler(build_model(file), vocabulary=file.vocabulary, counts=file.counts, seed=3).generate(80) == Sampler(
        file, seed=3
    ).generate(80)


@pytest.mark.parametrize("both", [False, True])
def test_resume_is_exact(both: bool, tmp_path: Path) -> None:
    shape = replace(TIED, bidirectional=both)
    train = TrainConfig(steps=12, batch_size=4, seq_length=16, precision="fp32", eval_every=4, warmup=2)
    corpus = Corpus.from_text(TEXT)
    for _ in Trainer(corpus, shape, train, tmp_path / "whole").run():
        pass
    run_until(Trainer(corpus, shape, train, tmp_path / "parts"), 5)
    for _ in Trainer.resume(tmp_path / "parts", corpus).run():
        pass
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_a_size_that_is_not_the_tables_is_refused() -> None:
    assert ModelConfig(hidden_size=12, embedding_size=12, tie_weights=True).input_size == 12
    assert ModelConfig(hidden_size=12, tie_weights=True).input_size == 12
    assert ModelConfig(hidden_size=12).input_size == 128
    with pytest.raises(SettingError, match=r"embedding_size is 8 and `hidden_size` 12.*leave out `embedding_size`"):
        ModelConfig(hidden_size=12, embedding_size=8, tie_weights=True)


def test_many_different_characters_tie_the_weights() -> None:
    def chosen(vocabulary: int, **model: Any) -> ModelConfig:
        return choose_sizes(1_000_000, vocabulary, model, {"steps": 1000}).model

    assert chosen(MANY_CHARACTERS).tie_weights
    assert not chosen(MANY_CHARACTERS - 1).tie_weights
    assert chosen(65, tie_weights=True).tie_weights
    assert not chosen(MANY_CHARACTERS, tie_weights=False).tie_weights
    assert not chosen(MANY_CHARACTERS, embedding_size=30).tie_weights
    reasons = choose_sizes(1_000_000, 8753, {}, {"steps": 1000}).reasons
    assert len(reasons) == 3
    assert "tied weights: 8,753 different characters" in reasons[0]
    assert "tied" not in "".join(choose_sizes(1_000_000, 8753, {"tie_weights": True}, {"steps": 1000}).reasons)


def test_commands_train_tell_and_start_from_a_tied_model(run: Run) -> None:
    Path("text").write_text(TEXT)
    usual = ["--steps", 2, "--preview", 0, "--seq-length", 16, "--batch-size", 4]
    assert run("train", "text", "--out", "run", "--tie-weights", "--hidden-size", 16, *usual).code == 0
    told = run("info", "run")
    assert told.code == 0
    assert "embedding 16 (tied)" in told.out
    Path("text").write_text(TEXT + "XYZ")
    started = run("train", "text", "--out", "next", "--init-from", "run", *usual)
    assert started.code == 0
    assert "3 new: 'X', 'Y', 'Z'" in started.err
    before, after = read_model("run"), read_model("next")
    assert after.config.tie_weights
    assert len(after.vocabulary) == len(before.vocabulary) + 3
    told = run("info", "next", "--json")
    assert told.code == 0
    assert json.loads(told.out)["config"]["tie_weights"] is True
    for other in (["--no-tie-weights"], ["--embedding-size", 16, "--no-tie-weights"]):
        assert run("train", "text", "--out", "other", "--init-from", "run", *other, *usual).code == 2
    refused = run("train", "text", "--out", "other", "--tie-weights", "--embedding-size", 8, *usual)
    assert refused.code == 2
    assert "leave out --embedding-size" in refused.err
    assert not Path("other").exists()
