"""What a CUDA device computes is what a CPU computes. Skipped where there is none.

`CHARGEN_TEST_DEVICE=cpu` runs the same tests without one, to see that they would run.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chargen import Corpus, evaluate, score_records
from chargen.decoding import torch_engine
from chargen.decoding.choose import SampleConfig
from chargen.decoding.torch_engine import TorchEngine
from chargen.evaluation.dynamic import DynamicEvaluator, Rates, rms_gradients
from chargen.evaluation.loss import sum_losses
from chargen.model.config import ModelConfig
from chargen.model.device import autocast
from chargen.model.dropout import DropoutKey, drop
from chargen.model.language_model import CharModel
from chargen.model.loss import cross_entropy
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import ModelFile, build_model
from chargen.storage.quantize import quantize
from chargen.training.cuda_graph import CapturedStep
from chargen.training.trainer import Trainer
from tests.record_models import LABELS, record_model
from tests.runs import assert_same_runs, config, corpus, model, run_until, two_ways
from tests.small_models import small_model
from tests.texts import names

NAME = os.environ.get("CHARGEN_TEST_DEVICE", "cuda")
DEVICE = torch.device(NAME)
PRECISIONS = "fp32", "bf16"
CELLS = "lstm", "gru"
TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom.\n" * 3
pytestmark = pytest.mark.skipif(NAME == "cuda" and not torch.cuda.is_available(), reason="no CUDA device")


def file_of(cell: str, layers: int = 2, **settings: Any) -> ModelFile:
    return small_model(cell, num_layers=layers, characters="".join(sorted(set(TEXT))), scale=2.0, **settings)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("rows", [1, 32])
def test_logits_and_states_are_those_of_a_cpu(rows: int, cell: str, layers: int, direction: str) -> None:
    here = CharModel(ModelConfig(cell, layers, 256, bidirectional=True), 65)
    there = CharModel(here.config, 65).to(DEVICE)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 65, (rows, 200)))
    with torch.inference_mode(), autocast("fp32", DEVICE):
        expected, found, states = None, [], None
        expected, state = here(ids, direction=direction)
        for part in ids.to(DEVICE).split(60, 1):
            logits, states = there(part, states, direction=direction)
            found.append(logits)
    assert (torch.cat(found, 1).cpu() - expected).abs().max() < 1e-4
    assert all((one.cpu() - other).abs().max() < 1e-4 for one, other in zip(states, state, strict=True))


@pytest.mark.parametrize("cell", CELLS)
def test_losses_and_gradients_are_those_of_a_cpu(cell: str) -> None:
    found = []
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 65, (16, 101)))
    for device in (torch.device("cpu"), DEVICE):
        network = CharModel(ModelConfig(cell, 2, 128), 65).to(device)
        inputs, targets = ids[:, :-1].to(device), ids[:, 1:].to(device)
        with autocast("fp32", device):
            values, _ = network.read(inputs)
            loss = cross_entropy(values, network.output, targets)
            loss.backward()
        found.append([loss.detach(), *(weight.grad for weight in network.parameters())])
    for one, other in zip(*found, strict=True):
        assert (one - other.cpu()).abs().max() < 1e-4 * max(1, float(one.abs().max()))


@pytest.mark.parametrize("cell", CELLS)
def test_products_in_bf16_are_near_those_of_fp32(cell: str) -> None:
    found = []
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 65, (16, 101))).to(DEVICE)
    for name in PRECISIONS:
        network = CharModel(ModelConfig(cell, 2, 128), 65).to(DEVICE)
        with autocast(name, DEVICE):
            values, _ = network.read(ids[:, :-1])
            loss = cross_entropy(values, network.output, ids[:, 1:])
        loss.backward()
        found.append([loss.detach(), *(weight.grad for weight in network.parameters())])
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert (one - other).norm() < 0.02 * one.norm()


def test_a_captured_step_is_the_step() -> None:
    """Losses and weights of a run whose steps are replayed are those of one whose steps are not, to rounding."""
    found = []
    for captured in (True, False):
        settings = config(device=NAME, batch_size=8, seq_length=16, steps=30)
        trainer = Trainer(corpus(), model("lstm", 2), settings)
        if not captured and NAME != "cpu":
            trainer.train_step = trainer.train_step.step
        list(trainer.run())
        assert captured == isinstance(trainer.train_step, CapturedStep) or NAME == "cpu"
        found.append(torch.cat([weight.detach().flatten() for weight in trainer.model.parameters()]).cpu())
    assert (found[0] - found[1]).abs().max() < 1e-4


def test_a_dropout_mask_repeats_for_one_address_and_for_no_other() -> None:
    values = torch.ones(8, 50, 64, device=DEVICE)
    one = drop(values, 0.3, DropoutKey(1, 2), 3)
    assert torch.equal(one, drop(values, 0.3, DropoutKey(1, 2), 3))
    others = [(DropoutKey(2, 2), 3), (DropoutKey(1, 3), 3), (DropoutKey(1, 2, 5), 3)]
    assert not any(torch.equal(one, drop(values, 0.3, *other)) for other in others)
    assert not torch.equal(one, drop(values, 0.3, DropoutKey(1, 2), 4))
    assert abs(float((one == 0).float().mean()) - 0.3) < 0.02


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [model("lstm", 2), model("gru", 3), two_ways("gru", 1)], ids=["lstm", "gru", "both"])
def test_a_run_repeats_and_resumes_bit_for_bit(shape: object, precision: str, tmp_path: Path) -> None:
    settings = config(device=NAME, precision=precision, batch_size=8, seq_length=16, steps=40, log_every=7)
    folders = [tmp_path / name for name in ("first", "again", "resumed")]
    for folder in folders:
        trainer = Trainer(corpus(), shape, settings, folder)
        if folder.name == "resumed":
            run_until(trainer, 19)
            trainer = Trainer.resume(folder, corpus())
        list(trainer.run())
    assert_same_runs(*folders[:2])
    assert_same_runs(folders[0], folders[2])


@pytest.mark.parametrize("cell", CELLS)
def test_training_goes_as_on_a_cpu(cell: str) -> None:
    losses = []
    for name in ("cpu", NAME):
        settings = config(device=name, batch_size=8, seq_length=16, steps=30)
        trainer = Trainer(corpus(), model(cell, 2, dropout=0.0), settings)
        list(trainer.run())
        losses.append(trainer.summary["valid_loss"])
    assert abs(losses[0] - losses[1]) < 1e-3


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_every_precision_learns(cell: str, precision: str) -> None:
    settings = config(device=NAME, precision=precision, batch_size=8, seq_length=16, steps=60)
    trainer = Trainer(corpus(), ModelConfig(cell, 2, 64, dropout=0.0), settings)
    list(trainer.run())
    assert trainer.summary["valid_loss"] < 2.5 < np.log(len(corpus().vocabulary))
    assert trainer.counters.applied == 60


@pytest.mark.parametrize("captured", [True, False])
def test_a_step_that_is_not_finite_never_happened(captured: bool) -> None:
    trainer = Trainer(corpus(), model("gru", 1), config(device=NAME, steps=9))
    trainer.max_pending = 16
    if NAME == "cpu":
        trainer.train_step.on_device = True
    elif not captured:
        trainer.train_step = trainer.train_step.step
    weight, kept = trainer.model.get_parameter("output.bias"), {}
    for progress in trainer.run():
        if progress.doing != "training":
            continue
        if progress.step == 3:
            whole = weight.detach().clone()
            weight.data[2] = float("nan")  # so are the losses of the next two steps
        if progress.step == 5:
            weight.data.copy_(whole)
        kept[progress.step] = [
            one.detach().clone() for one in (*trainer.model.parameters(), *trainer.state.hidden["forward"])
        ]
    assert all(torch.equal(*pair) for pair in zip(kept[3], kept[5], strict=True) if not pair[0].isnan().any())
    assert not any(torch.equal(*pair) for pair in zip(kept[5], kept[6], strict=True))
    assert trainer.counters.applied == 7


@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"top_p": 0.9, "temperature": 0.7}, {"min_p": 0.05}])
@pytest.mark.parametrize("cell", CELLS)
def test_a_captured_graph_writes_what_the_loop_writes(cell: str, settings: dict, monkeypatch) -> None:
    network = build_model(file_of(cell), NAME)
    rows, length, size = 5, 90, network.vocabulary_size
    random = np.random.default_rng(0)
    chunks = []
    for captured in (True, False):
        if not captured:
            monkeypatch.setattr(torch_engine._Writer, "_capture", lambda self: None)
        engine = TorchEngine(network)
        sampler = Sampler(network, SampleConfig(**settings), vocabulary=file_of(cell).vocabulary, engine=engine)
        rules, mask_index = sampler.writer.rule_table.rules_for(sampler._streams)
        random = np.random.default_rng(0)
        logits = random.normal(size=(rows, size)).astype(np.float32)
        uniforms = random.random((rows, length))
        chunk = engine.write(logits, engine.start(rows), uniforms, rules, np.repeat(mask_index, rows), sampler.config)
        assert captured == (engine._writer.graph is not None) or NAME == "cpu"
        chunks.append(chunk)
    assert np.array_equal(chunks[0].ids, chunks[1].ids)
    assert np.array_equal(chunks[0].logits, chunks[1].logits)


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("cell", CELLS)
def test_files_of_all_kinds_are_read_as_on_a_cpu(cell: str, kind: str) -> None:
    file = file_of(cell)
    if kind != "fp32":
        file = ModelFile(file.config, file.vocabulary, quantize(file.arrays, kind), file.counts)
    found = []
    for name in ("cpu", NAME):
        sampler = Sampler(file, seed=3, num=4, device=name)
        sampler.feed(TEXT)
        found.append(sampler._logits)
        assert [len(sample.text) for sample in sampler.generate_all(300)] == [300] * 4
    assert np.abs(found[0] - found[1]).max() < 1e-4


@pytest.mark.parametrize("cell", CELLS)
def test_a_text_is_worth_as_much_as_on_a_cpu(cell: str) -> None:
    file = file_of(cell)
    ids = file.vocabulary.encode(TEXT)
    found = []
    for name in ("cpu", NAME):
        network = build_model(file, name)
        usual = rms_gradients(network, file.vocabulary, ids)
        reader = DynamicEvaluator(network, file.vocabulary, usual, Rates(1e-3, 2e-3))
        found.append([evaluate(network, file.vocabulary, TEXT).nats, sum_losses(reader.losses(ids)).nats])
    assert np.abs(np.subtract(*found)).max() < 1e-4 * len(TEXT)


def labelled_names() -> Corpus:
    """Names, each labelled by its last letter."""
    rows = [{"text": name, "by": name[-1]} for name in names(1, 200)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return Corpus.from_text(text, records="jsonl", label_field="by", valid_fraction=0.2)


@pytest.mark.parametrize("shape", [model("lstm", 2), two_ways("gru", 1)], ids=["lstm", "both"])
def test_records_are_learned_as_on_a_cpu_and_resumed_bit_for_bit(shape: ModelConfig, tmp_path: Path) -> None:
    losses = []
    for name, folder in (("cpu", "cpu"), (NAME, "first"), (NAME, "again"), (NAME, "resumed")):
        settings = config(device=name, batch_size=8, seq_length=16, steps=20, log_every=7)
        trainer = Trainer(labelled_names(), replace(shape, dropout=0.0), settings, tmp_path / folder)
        if folder == "resumed":
            run_until(trainer, 11)
            trainer = Trainer.resume(tmp_path / folder, labelled_names())
        list(trainer.run())
        losses += [value for key, value in trainer.summary.items() if key.startswith("valid_loss")]
    assert_same_runs(tmp_path / "first", tmp_path / "again")
    assert_same_runs(tmp_path / "first", tmp_path / "resumed")
    assert np.abs(np.reshape(losses, (4, -1)) - losses[0 : len(losses) // 4]).max() < 1e-3


@pytest.mark.parametrize("unit", ["character", "byte"])
@pytest.mark.parametrize("cell", CELLS)
def test_records_are_written_and_judged_as_on_a_cpu(cell: str, unit: str) -> None:
    file = record_model(cell, unit)
    results: list[Any] = []
    for name in ("cpu", NAME):
        for direction in ("forward", "backward"):
            sampler = Sampler(file, seed=3, num=50, label=LABELS[1], device=name, direction=direction)
            results.append([sample.text for sample in sampler.generate_all(30)])
        judged = score_records(file, ["abc", "fed a", "f"], guess_label=True, device=name)
        results.append([[record.log_prob, *(record.label_probs or {}).values()] for record in judged])
    assert results[:2] == results[3:5]
    assert np.abs(np.subtract(results[2], results[5])).max() < 1e-4


@pytest.mark.parametrize("cell", CELLS)
def test_states_that_are_fresh_inside_a_window_are_those_of_a_cpu(cell: str) -> None:
    results = []
    random = np.random.default_rng(0)
    ids, fresh = torch.from_numpy(random.integers(0, 65, (16, 101))), torch.from_numpy(random.random((16, 100)) < 0.1)
    for device in (torch.device("cpu"), DEVICE):
        network = CharModel(ModelConfig(cell, 2, 128, dropout=0.0), 65).to(device)
        with autocast("fp32", device):
            values, state = network.read(ids[:, :-1].to(device), fresh=fresh)
            cross_entropy(values, network.output, ids[:, 1:].to(device)).backward()
        gradients = [weight.grad for weight in network.parameters()]
        tensors = values, *state, *gradients
        results.append([tensor.detach() for tensor in tensors if tensor is not None])
    for expected, result in zip(*results, strict=True):
        assert (expected - result.cpu()).abs().max() < 1e-4 * max(1, float(expected.abs().max()))
