"""The training loop: what it promises about losses, best weights, budgets, broken steps, and small texts."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chargen import evaluate
from chargen.data.corpus import Corpus
from chargen.errors import DataError, Diverged, SettingError
from chargen.evaluation.loss import evaluate_ids
from chargen.model.config import ModelConfig
from chargen.model.layers import start_fresh
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import load_model, read_model
from chargen.training.config import TrainConfig
from chargen.training.loss_parts import Counts, LossPart
from chargen.training.memory import estimate_memory
from chargen.training.train_step import TrainState, TrainStep
from chargen.training.trainer import Trainer
from tests.runs import lines

SMALL = ModelConfig(num_layers=1, hidden_size=16, embedding_size=8, dropout=0.0)
TEXT = "the quick brown fox jumps over the lazy dog. " * 60


def corpus(text: str = TEXT, **settings: Any) -> Corpus:
    return Corpus.from_text(text, **settings)


def config(**settings: Any) -> TrainConfig:
    chosen = {
        "steps": 20,
        "batch_size": 4,
        "seq_length": 8,
        "lr": 0.01,
        "warmup": 2,
        "precision": "fp32",
        "eval_every": 5,
    }
    return TrainConfig(**{**chosen, **settings})


def test_training_learns(tmp_path: Path) -> None:
    trainer = Trainer(corpus(), SMALL, config(steps=150), tmp_path / "run")
    first = next(iter(trainer.run())).train_loss
    for _ in trainer.run():
        pass
    assert first == pytest.approx(math.log(len(trainer.corpus.vocabulary)), abs=0.3)
    assert trainer.summary["valid_loss"] < 1.5
    assert "the" in Sampler.from_file(tmp_path / "run", seed=0, temperature=0.5).generate(200)


def test_weight_decay_shrinks_matrices_and_characters_that_were_read() -> None:
    both = corpus(TEXT + "Z" * 100, valid_fraction=0.03)
    place = both.vocabulary.characters.index("Z")
    found = []
    for decay in (0.0, 5.0):
        trainer = Trainer(both, SMALL, config(steps=10, weight_decay=decay, lr=0.01))
        row = trainer.model.embedding.weight[place].tolist()
        for _ in trainer.run():
            pass
        assert trainer.model.embedding.weight[place].tolist() == row
        layer = trainer.model.forward_layers[0]
        found.append([float(one.detach().norm()) for one in (layer.weight_hh_l0, trainer.model.output.weight)])
    free, decayed = np.array(found)
    assert (decayed < 0.9 * free).all()
    groups = trainer.state.optimizer.param_groups
    assert sorted(len(group["params"]) for group in groups) == [3, 4]
    assert {weight.ndim for group in groups if group["weight_decay"] for weight in group["params"]} == {2}


def test_the_loss_of_a_step_is_the_mean_over_its_targets() -> None:
    trainer = Trainer(corpus(), SMALL, config(steps=1))
    batch = trainer.batches["forward"].batch(0)
    logits, _ = trainer.model(torch.from_numpy(batch.inputs))
    p = torch.log_softmax(logits.double(), -1)
    expected = -np.mean([p[i, j, batch.targets[i, j]].item() for i in range(4) for j in range(8)])
    assert next(iter(trainer.run())).train_loss == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_state_reset_is_the_share_of_rows_that_begin_afresh(share: float) -> None:
    trainer = Trainer(corpus(), SMALL, config(steps=3, state_reset=share))
    run = iter(trainer.run())
    next(run)
    batch, carried = trainer.batches["forward"].batch(1), trainer.state.hidden["forward"] if share == 0 else None
    logits, _ = trainer.model(torch.from_numpy(batch.inputs), carried)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.targets).flatten()).item()
    assert next(run).train_loss == pytest.approx(expected, abs=1e-6)


def test_state_reset_begins_some_rows_afresh_and_only_those() -> None:
    text = TEXT.replace("\n", " ")
    trainer = Trainer(corpus(text), SMALL, config(steps=2, batch_size=64, state_reset=0.25))
    next(iter(trainer.run()))
    batches = {"forward": trainer.batches["forward"].batch(1)}
    _, _, starts, _ = trainer.train_step.minibatches(trainer.state, batches)["forward"]
    state, _ = start_fresh(trainer.state.hidden["forward"], starts)
    before = trainer.state.hidden["forward"][0]
    fresh = [not bool(row.any()) for row in state[0]]
    assert 6 <= sum(fresh) <= 28
    assert all(torch.equal(row, old) for row, old, new in zip(state[0], before, fresh, strict=True) if not new)


def test_metrics_hold_the_promised_keys_and_no_step_twice(tmp_path: Path) -> None:
    for _ in Trainer(corpus(), SMALL, config(log_every=4), tmp_path).run():
        pass
    found = lines(tmp_path)
    assert all(
        {"step", "epoch", "seconds", "train_loss", "valid_loss", "lr", "grad_norm", "chars_per_second"} <= line.keys()
        for line in found
    )
    assert [line["step"] for line in found if "final" not in line] == [4, 5, 8, 10, 12, 15, 16, 20]
    assert [line["step"] for line in found if line["valid_loss"] is not None] == [5, 10, 15, 20, 20]


def test_a_line_of_metrics_is_the_mean_since_the_line_before(tmp_path: Path) -> None:
    trainer = Trainer(corpus(), SMALL, config(steps=8, log_every=4, eval_every=100), tmp_path)
    losses = [progress.train_loss for progress in trainer.run() if progress.doing == "training"]
    found = [line for line in lines(tmp_path) if "final" not in line]
    assert [line["train_loss"] for line in found] == pytest.approx([np.mean(losses[:4]), np.mean(losses[4:])])


def test_the_saved_model_is_the_best_and_its_loss_that_of_the_whole_split(tmp_path: Path) -> None:
    """A learning rate that grows worse: the best weights are not the last."""
    data = corpus("ab" * 200 + "".join(np.random.default_rng(0).choice(list("abcdefgh"), 400)), valid_fraction=0.5)
    trainer = Trainer(data, SMALL, config(steps=120, lr=0.05, schedule="constant"), tmp_path)
    for _ in trainer.run():
        pass
    best = trainer.counters.best_step
    assert best is not None
    assert best < 120
    file = read_model(tmp_path)
    assert file.training["step"] == best
    loss = evaluate_ids(load_model(tmp_path), data.valid)
    assert file.training["valid_characters"] == loss.characters == len(data.valid) - 1
    assert file.training["valid_loss"] == pytest.approx(loss.mean, abs=1e-5)
    last = evaluate_ids(trainer.model, data.valid)
    assert loss.mean < last.mean


def test_validation_changes_nothing_in_training(tmp_path: Path) -> None:
    seen = []
    for every in (1, 1000):
        trainer = Trainer(corpus(), ModelConfig(hidden_size=12, num_layers=2, dropout=0.3), config(eval_every=every))
        for progress in trainer.run():
            if progress.doing == "training" and progress.step == 12:
                seen.append({name: weight.clone() for name, weight in trainer.model.state_dict().items()})
                break
    assert all(torch.equal(seen[0][name], seen[1][name]) for name in seen[0])


def test_patience_stops(tmp_path: Path) -> None:
    data = corpus("ab" * 200 + "ba" * 200, valid_fraction=0.5)
    trainer = Trainer(data, SMALL, config(steps=5000, lr=0.05, schedule="constant", patience=3), tmp_path)
    for _ in trainer.run():
        pass
    assert trainer.counters.evaluations_since_best == 3
    assert trainer.counters.step < 5000
    assert trainer.counters.step == trainer.counters.best_step + 3 * 5


def test_the_test_part_is_scored_once_with_the_best_weights(tmp_path: Path) -> None:
    data = corpus(valid_fraction=0.1, test_fraction=0.1)
    trainer = Trainer(data, SMALL, config(), tmp_path)
    scored = []
    score = trainer.validator.score
    trainer.validator.score = lambda model, ids, *rest: scored.append(ids) or score(model, ids, *rest)
    for _ in trainer.run():
        pass
    assert sum(ids is data.test for ids in scored) == 1
    loss = evaluate_ids(load_model(tmp_path), data.test)
    assert trainer.summary["test_loss"] == pytest.approx(loss.mean, abs=1e-5)
    assert trainer.summary["test_characters"] == len(data.test) - 1


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_not_applied(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(corpus(), SMALL, config(steps=6))
    run = iter(trainer.run())
    next(run)
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    hidden = trainer.state.hidden
    break_once(trainer, where, monkeypatch, times=1)
    progress = next(run)
    assert math.isnan(progress.train_loss)
    assert trainer.counters.step == 2
    assert trainer.counters.applied == 1
    assert all(torch.equal(before[name], weight) for name, weight in trainer.model.state_dict().items())
    assert trainer.state.hidden is hidden
    for progress in run:
        assert math.isfinite(progress.train_loss)
    assert trainer.counters.applied == 5


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_three_broken_steps_in_a_row_stop(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(corpus(), SMALL, config(steps=50), tmp_path)
    run = iter(trainer.run())
    next(run)
    trainer.save()
    saved = (tmp_path / "model.safetensors").read_bytes()
    break_once(trainer, where, monkeypatch, times=99)
    with pytest.raises(Diverged, match=r"step 4: .* 3 times in a row; the last good state is in .*`lr` than 0.01"):
        list(run)
    assert (tmp_path / "model.safetensors").read_bytes() == saved


def break_once(trainer: Trainer, where: str, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Make the next `times` losses, or gradients, not a number."""
    left = [times]
    read = type(trainer.model).read

    def broken(self: Any, *args: Any, **options: Any) -> object:
        values, state = read(self, *args, **options)
        if left[0] and torch.is_grad_enabled():
            left[0] -= 1
            if where == "loss":
                values = values * math.nan
            else:
                values.register_hook(lambda gradient: gradient * math.inf)
        return values, state

    monkeypatch.setattr(type(trainer.model), "read", broken)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    trainer = Trainer(corpus(), SMALL, config(), tmp_path)
    next(iter(trainer.run()))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with torch.no_grad():
        trainer.model.output.bias[0] = math.nan
    with pytest.raises(Diverged):
        trainer.save()
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


@pytest.mark.parametrize("batching", ["consecutive", "random"])
@pytest.mark.parametrize(("rows", "length"), [(2, 3), (1, 1), (3, 4)])
def test_every_length_of_text_trains_or_says_what_it_needs(batching: str, rows: int, length: int) -> None:
    for size in range(rows * length + 2):
        text = ("abcde" * 10)[:size]
        settings = config(steps=2, batch_size=rows, seq_length=length, batching=batching, eval_every=1)
        needed = 2 if batching == "consecutive" else length + 1
        data = corpus(text, valid_fraction=0)
        if size < needed:
            with pytest.raises(DataError, match=rf"^[^\n]*at least {needed} characters[^\n]*, found {size};[^\n]*$"):
                Trainer(data, SMALL, settings)
        else:
            assert all(math.isfinite(progress.train_loss) for progress in Trainer(data, SMALL, settings).run())


def test_a_text_too_short_to_validate_still_trains(tmp_path: Path) -> None:
    trainer = Trainer(corpus("abcabcab", valid_fraction=0.1), SMALL, config(steps=3), tmp_path)
    for _ in trainer.run():
        pass
    assert "valid_loss" not in trainer.summary
    assert read_model(tmp_path).training["step"] == 3


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    for _ in Trainer(corpus(), SMALL, config(steps=1), tmp_path).run():
        pass
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(SettingError, match="already holds a run"):
        Trainer(corpus(), SMALL, config(steps=1), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.jsonl", "state.safetensors"])
def test_what_an_older_run_left_is_never_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(SettingError, match="already holds a run"):
        Trainer(corpus(), SMALL, config(steps=1), tmp_path)
    assert (tmp_path / name).read_bytes() == b"precious"


def test_epochs_are_counted_in_characters() -> None:
    data = corpus(valid_fraction=0)
    trainer = Trainer(data, SMALL, config(steps=None, epochs=1.5))
    for _ in trainer.run():
        pass
    assert trainer.counters.step == math.ceil(1.5 * len(data.train) / (4 * 8))
    assert trainer.counters.trained == trainer.counters.step * 32


def test_minutes_end_a_run_and_reserve_time_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of our own: every step and every window of a validation takes a second."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    trainer = Trainer(corpus(TEXT * 40), SMALL, config(steps=None, minutes=2, eval_every=40), started=0.0)
    read = trainer.model.read

    def slow(*arguments: Any, **options: Any) -> object:
        now[0] += 1
        return read(*arguments, **options)

    monkeypatch.setattr(trainer.model, "read", slow)
    last = 0
    for progress in trainer.run():
        if progress.doing == "training":
            last = progress.step
    assert 60 < last < 118
    assert 105 < now[0] <= 121
    assert trainer.summary["valid_characters"] > 1000


@pytest.mark.parametrize("every", [None, 10])
def test_minutes_hold_where_validating_becomes_slow(monkeypatch: pytest.MonkeyPatch, every: int | None) -> None:
    """On a clock of our own: a step takes a second, a window of a validation too, and ten when other programs begin."""
    now, validated = [0.0], [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    settings = config(steps=None, minutes=10, eval_every=every, batch_size=32, seq_length=16)
    trainer = Trainer(corpus(), SMALL, settings, started=0.0)
    read = trainer.model.read

    def slow(*arguments: Any, **options: Any) -> object:
        validates = torch.is_inference_mode_enabled()
        seconds = 10 if validates and now[0] > 300 else 1
        now[0] += seconds
        validated[0] += seconds * validates
        return read(*arguments, **options)

    monkeypatch.setattr(trainer.model, "read", slow)
    steps = [progress.step for progress in trainer.run() if progress.doing == "training" and progress.valid_loss]
    assert all(step % trainer.validator.every == 0 for step in steps)
    assert len(steps) > 5
    assert 500 < now[0] <= 601
    if every is None:
        assert validated[0] / now[0] < 0.3
    else:
        assert steps == list(range(10, steps[-1] + 1, 10)), "who says how often is obeyed"


@pytest.mark.parametrize(("minutes", "steps", "last"), [(2, 20, 20), (2, 10**6, None), (10**6, 20, 20)])
def test_of_two_budgets_the_one_that_is_used_first_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, minutes: float, steps: int, last: int | None
) -> None:
    """On a clock of our own, as above; the schedule ends with the run."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    trainer = Trainer(corpus(TEXT * 40), SMALL, config(steps=steps, minutes=minutes, eval_every=40), started=0.0)
    read = trainer.model.read

    def slow(*arguments: Any, **options: Any) -> object:
        now[0] += 1
        return read(*arguments, **options)

    monkeypatch.setattr(trainer.model, "read", slow)
    shares = [progress.share for progress in trainer.run() if progress.doing == "training"]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert now[0] <= 121
    assert trainer.counters.step == last if last else 60 < trainer.counters.step < 118
    assert trainer.counters.lr < 0.02 * trainer.config.lr


def test_the_loss_of_folded_characters_is_the_one_that_evaluate_finds(tmp_path: Path) -> None:
    rare = "".join(chr(0x400 + number) + "abcabc" for number in range(200))
    data = corpus(rare, min_count=3)
    trainer = Trainer(data, SMALL, config(steps=3), tmp_path)
    first = next(iter(trainer.run())).train_loss
    for _ in trainer.run():
        pass
    text = rare[len(data.train) :]
    found = evaluate(load_model(tmp_path), data.vocabulary, text)
    assert found.folded == sum(character not in "abc" for character in text[1:]) > 10
    assert trainer.summary["valid_loss"] == pytest.approx(found.nats_per_character, abs=1e-5)
    plain = evaluate_ids(load_model(tmp_path), data.valid)  # without a vocabulary, nothing is charged
    charged = plain.nats + found.folded * math.log(201)
    assert trainer.summary["valid_loss"] == pytest.approx(charged / plain.characters, abs=1e-5)
    assert first == pytest.approx(math.log(4) + math.log(201) / 7, rel=0.2)


def test_a_run_of_bytes_counts_characters(tmp_path: Path) -> None:
    """In bytes a loss is still per character: twice as large where every character has two bytes."""
    data = corpus("éàüößñ" * 200, unit="byte")
    trainer = Trainer(data, SMALL, config(steps=1), tmp_path)
    progress = next(iter(trainer.run()))
    assert progress.train_loss == pytest.approx(2 * math.log(256), rel=0.1)


def test_the_estimate_of_memory_grows_with_what_costs_memory() -> None:
    small = estimate_memory(SMALL, 50, config())
    assert estimate_memory(SMALL, 5000, config()) > small
    assert estimate_memory(SMALL, 50, config(batch_size=400)) > small
    assert estimate_memory(ModelConfig(hidden_size=512), 50, config()) > small


@pytest.mark.parametrize(("cell", "broken"), [("gru", ()), ("gru", (0,)), ("lstm", (4, 5, 9)), ("gru", (17,))])
def test_steps_that_are_counted_later_are_the_same_steps(
    cell: str, broken: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, which is given more steps before it says how the first ones went."""
    small = ModelConfig(cell=cell, num_layers=2, hidden_size=8, embedding_size=4, bidirectional=cell == "gru")
    plain = TrainStep._backward

    def spoiled(self: TrainStep, state: TrainState, loss: torch.Tensor, name: str, counts: Counts) -> LossPart:
        spoils = state.step in broken and name == "forward"
        return plain(self, state, loss * math.nan if spoils else loss, name, counts)

    monkeypatch.setattr(TrainStep, "_backward", spoiled)
    found = {}
    for ahead in (1, 4):
        trainer = Trainer(corpus(), small, config(steps=19, eval_every=6, log_every=7), tmp_path / str(ahead))
        trainer.max_pending, trainer.train_step.on_device = ahead, ahead > 1
        outstanding = 0
        for _ in trainer.run():
            outstanding = max(outstanding, len(trainer.pending))
        assert outstanding == ahead - 1
        files = [(tmp_path / str(ahead) / name).read_bytes() for name in ("model.safetensors", "state.safetensors")]
        lines = [json.loads(line) for line in (tmp_path / str(ahead) / "metrics.jsonl").read_text().splitlines()]
        for line in lines:
            del line["seconds"], line["chars_per_second"]
        assert trainer.counters.applied == 19 - len(broken)
        found[ahead] = files[0], lines, {name: weight.tolist() for name, weight in trainer.model.state_dict().items()}
    assert found[1] == found[4]


def test_three_broken_steps_stop_a_run_that_counts_later_too() -> None:
    trainer = Trainer(corpus(), SMALL, config(steps=50))
    trainer.max_pending, trainer.train_step.on_device = 8, True
    with torch.no_grad():
        trainer.model.output.bias[0] = math.nan
    with pytest.raises(Diverged, match="3 times in a row"):
        list(trainer.run())
    assert trainer.counters.step == 5  # where it validates


def test_a_step_that_is_counted_later_asks_the_host_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(corpus(), SMALL, config(steps=50))
    trainer.max_pending, trainer.train_step.on_device = 100, True
    run = trainer.run()
    next(run)
    # What the CPU alone asks: whether a gradient is one.
    monkeypatch.setattr(
        "chargen.model.loss._Loss.backward", staticmethod(lambda ctx, _: (*ctx.saved_tensors[:3], None, None))
    )
    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "nonzero"):

        def refuse(*_: Any, name: str = name) -> None:
            raise AssertionError(f"asked the host: {name}")

        monkeypatch.setattr(torch.Tensor, name, refuse)
    next(run)
    monkeypatch.undo()
    assert trainer.counters.step == 2
    assert len(trainer.pending) == 1  # the first one was counted at once


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("novel.txt",), "corpus is of type str: it must be a Corpus"),
        ((None,), "corpus is of type NoneType: it must be a Corpus"),
        ((corpus(), TrainConfig(steps=3)), "model_config is of type TrainConfig: it must be a ModelConfig"),
        ((corpus(), SMALL, {"steps": 3}), "config is of type dict: it must be a TrainConfig"),
        ((corpus(), SMALL, config(), 3), "out is of type int: it must be a path"),
    ],
)
def test_what_is_no_part_of_a_run_is_named(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(SettingError, match=f"^{words}$"):
        Trainer(*arguments)


def test_a_run_that_has_ended_does_nothing_more(tmp_path: Path) -> None:
    trainer = Trainer(corpus(), SMALL, config(), tmp_path)
    assert [progress.doing for progress in trainer.run()][-1] == "finishing"
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert list(trainer.run()) == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert ["final" in line for line in lines(tmp_path)].count(True) == 1


def test_a_step_that_fails_leaves_no_gradient_to_the_next() -> None:
    """A step that is made again learns what it would have learned at first."""
    whole, broken = (Trainer(corpus(), SMALL, config(steps=3)) for _ in range(2))
    move = broken.state.optimizer.step

    def fail() -> None:
        broken.state.optimizer.step = move
        raise RuntimeError("out of memory")

    broken.state.optimizer.step = fail
    with pytest.raises(RuntimeError, match="out of memory"):
        list(broken.run())
    for trainer in (whole, broken):
        list(trainer.run())
    for left, right in zip(whole.model.parameters(), broken.model.parameters(), strict=True):
        assert torch.equal(left, right)
