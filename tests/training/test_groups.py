"""Several processes train as one: the same batches, weights, figures and files; and they stop together."""

import contextlib
import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chargen.api import train as api
from chargen.data.corpus import Corpus
from chargen.errors import DataError, SettingError, WriteError
from chargen.model.config import ModelConfig
from chargen.model.weights import Arrays, weights_of
from chargen.storage.run_state import read_run_state
from chargen.training import setup
from chargen.training.group import ALONE, DIGIT, Group, from_digits, to_digits
from chargen.training.plan import RunPlan, check_incomplete, find_restarted
from chargen.training.train_step import TrainStep
from chargen.training.trainer import Trainer
from tests.groups import run_together
from tests.runs import TEXT, assert_same_runs, config, corpus, long_rows, metrics, model, run_until, two_ways


def records() -> Corpus:
    draws = random.Random(0)
    rows = ({"text": "xyz"[n % 3] * (n % 5 + 1) + str(n), "by": draws.choice("ab")} for n in range(120))
    return Corpus.from_text("\n".join(map(json.dumps, rows)), records="jsonl", text_field="text", label_field="by")


def train(group: Group, shape: ModelConfig, settings: Any, folder: Path, text: Corpus | None = None) -> Trainer:
    trainer = Trainer(text or corpus(), shape, settings, folder, group=group)
    for _ in trainer.run():
        pass
    return trainer


def assert_near(first: Arrays, second: Arrays) -> None:
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert np.linalg.norm(array - second[name]) <= 1e-6 * np.linalg.norm(array), name


USUAL = {"lr": 4e-3, "warmup": 50}
SHAPES = [
    (model("lstm"), config(steps=25, batch_size=9, **USUAL)),
    (model("gru", 1, input_dropout=0.1), config(steps=25, batch_size=9, batching="random", **USUAL)),
    (two_ways("lstm"), long_rows(steps=25, batch_size=8, **USUAL)),
    (two_ways("gru", 1), long_rows(steps=25, batch_size=8, batching="random", **USUAL)),
]


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(("shape", "settings"), SHAPES)
def test_processes_together_are_one(size: int, shape: ModelConfig, settings: Any, tmp_path: Path) -> None:
    alone = train(Group(), shape, settings, tmp_path / "alone")
    together = run_together(size, lambda group: train(group, shape, settings, tmp_path / "together"))
    for trainer in together:
        assert_near(weights_of(alone.model), weights_of(trainer.model))
        assert trainer.summary.keys() == alone.summary.keys()
        assert trainer.summary["valid_loss"] == pytest.approx(alone.summary["valid_loss"], rel=1e-6)
        assert trainer.summary["valid_characters"] == alone.summary["valid_characters"]
        assert trainer.counters.trained == alone.counters.trained
    for line, other in zip(metrics(tmp_path / "alone"), metrics(tmp_path / "together"), strict=True):
        assert line.keys() == other.keys()
        for name, value in line.items():
            assert other[name] == (value if value is None else pytest.approx(value, rel=2e-4)), name


def test_each_process_scores_its_share_of_a_split() -> None:
    """So the counts over all are those of one."""
    text = Corpus.from_text(TEXT * 40, valid_fraction=0.3)

    def score(group: Group) -> dict[str, int]:
        trainer = Trainer(text, two_ways("gru", 1), long_rows(), group=group)
        scoring = trainer.validator.score(trainer.model, text.valid, None)
        while True:
            try:
                next(scoring)
            except StopIteration as end:
                return {name: loss.characters for name, loss in end.value.items()}

    assert run_together(3, score) == [score(Group())] * 3


@pytest.mark.parametrize("shape", [model("gru"), two_ways("lstm", 1)])
def test_processes_together_learn_the_same_records(shape: ModelConfig, tmp_path: Path) -> None:
    settings = long_rows(steps=25, batch_size=5, **USUAL)
    alone = train(Group(), shape, settings, tmp_path / "alone", records())
    together = run_together(2, lambda group: train(group, shape, settings, tmp_path / "together", records()))
    assert_near(weights_of(alone.model), weights_of(together[0].model))
    assert together[1].summary["valid_loss"] == pytest.approx(alone.summary["valid_loss"], rel=1e-6)


def test_characters_and_unknown_symbols_are_counted_over_all_rows(tmp_path: Path) -> None:
    text = Corpus.from_text("naïve café, déjà vu – «où?» " * 60, min_count=70, valid_fraction=0.2)
    assert text.vocabulary.folded
    for name, learned in (("folded", text), ("bytes", Corpus.from_text("naïve café, déjà vu. " * 80, unit="byte"))):
        settings = config(steps=12, batch_size=7)
        alone = train(Group(), model(), settings, tmp_path / name, learned)
        run_together(3, lambda group: train(group, model(), settings, tmp_path / f"{name}-3", learned))  # noqa: B023
        whole, parts = metrics(tmp_path / name), metrics(tmp_path / f"{name}-3")
        for line, other in zip(whole[1:-1], parts[1:-1], strict=True):
            assert other["train_loss"] == pytest.approx(line["train_loss"], rel=1e-5)
        assert alone.counters.trained == 12 * 7 * 7


def test_two_runs_of_two_processes_have_the_same_bits(tmp_path: Path) -> None:
    for name in ("first", "second"):
        trainers = run_together(2, lambda group: train(group, two_ways(), long_rows(), tmp_path / name))  # noqa: B023
        for first, second in zip(*(weights_of(trainer.model).values() for trainer in trainers), strict=True):
            assert first.tobytes() == second.tobytes()
    assert_same_runs(tmp_path / "first", tmp_path / "second")


def stop_together(group: Group, trainer: Trainer, step: int, asked: int) -> None:
    """Run until the process with number `asked` is asked to stop after a step; all save there."""
    for progress in trainer.run():
        if trainer.group.stops(group.rank == asked and progress.step >= step and progress.doing == "training"):
            break
    trainer.save()


@pytest.mark.parametrize(("step", "asked"), [(1, 2), (7, 0), (8, 2), (23, 0)])
def test_a_request_to_stop_any_of_them_stops_all_at_a_step_from_which_they_go_on(
    asked: int, step: int, tmp_path: Path
) -> None:
    """Also where the step validates (8), and where the end is being scored (23 of 24)."""
    shape, settings = two_ways("gru"), long_rows()

    def stopped(group: Group) -> int:
        trainer = Trainer(corpus(), shape, settings, tmp_path / "run", group=group)
        stop_together(group, trainer, step, asked)
        return trainer.counters.step

    steps = run_together(3, stopped)
    assert steps == [step + 1] * 3
    assert read_run_state(tmp_path / "run").progress["step"] == step + 1

    def go_on(group: Group) -> None:
        for _ in Trainer.resume(tmp_path / "run", corpus(), group=group).run():
            pass

    run_together(3, go_on)
    run_together(3, lambda group: train(group, shape, settings, tmp_path / "whole"))
    assert_same_runs(tmp_path / "whole", tmp_path / "run")


def test_a_run_goes_on_with_other_numbers_of_processes(tmp_path: Path) -> None:
    """The batches stay the same."""
    shape, settings = model("lstm"), config(batch_size=8)
    alone = train(Group(), shape, settings, tmp_path / "alone")

    def begin(group: Group) -> None:
        run_until(Trainer(corpus(), shape, settings, tmp_path / "run", group=group), 8)

    def go_on(group: Group, step: int) -> Trainer:
        trainer = Trainer.resume(tmp_path / "run", corpus(), group=group)
        run_until(trainer, step)
        return trainer

    run_together(4, begin)
    run_together(2, lambda group: go_on(group, 16))
    (last,) = (go_on(group, 24) for group in [Group()])
    assert_near(weights_of(alone.model), weights_of(last.model))


def test_a_step_has_one_sum(tmp_path: Path) -> None:
    def count(group: Any) -> list[int]:
        settings = long_rows(steps=30, eval_every=1000, log_every=3)
        return [group.sums for _ in iter_steps(Trainer(corpus(), two_ways(), settings, tmp_path, group=group))]

    for sums in run_together(2, count):
        assert set(np.diff(sums)) == {1}


def test_the_gradients_are_of_all_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever each process has alone: one with more rows counts more."""
    seen = {}

    def update(self: TrainStep, state: Any, hidden: Any, finite: Any) -> None:
        seen.setdefault(self.group.size, [weight.grad.clone() for weight in state.model.parameters()])

    monkeypatch.setattr(TrainStep, "_update", update)
    for size in (1, 3):
        settings = config(steps=1, batch_size=7, clip_norm=0)
        run_together(size, lambda group: next(iter_steps(Trainer(corpus(), model(), settings, group=group))))  # noqa: B023
    for whole, parts in zip(seen[1], seen[3], strict=True):
        assert (whole - parts).norm() <= 1e-6 * whole.norm()


def iter_steps(trainer: Trainer) -> Any:
    for progress in trainer.run():
        if progress.doing == "training":
            yield progress


def test_each_process_needs_a_row() -> None:
    with pytest.raises(SettingError, match="batch_size is 2, but there are 3 processes"):
        run_together(3, lambda group: Trainer(corpus(), model(), config(batch_size=2), group=group))


def test_processes_do_not_share_a_device_that_cannot_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "pick_device", lambda name, number: torch.device("mps"))
    with pytest.raises(SettingError, match="several processes train on CPUs or CUDA devices"):
        run_together(2, lambda group: Trainer(corpus(), model(), config(), group=group))


def test_all_learn_the_same_text() -> None:
    def start(group: Group) -> None:
        text = Corpus.from_text("one text " * 50 if group.rank else "another text " * 50)
        Trainer(text, model(), config(), group=group)

    with pytest.raises(DataError, match="the text is not the same here as in the first process"):
        run_together(2, start)


@pytest.mark.parametrize("settings", [{"steps": 25}, {"seed": 1}])
def test_all_have_the_same_settings(settings: Any) -> None:
    with pytest.raises(DataError, match="model and training is not the same here"):
        run_together(2, lambda group: Trainer(corpus(), model(), config(**settings if group.rank else {}), group=group))


@pytest.mark.parametrize(
    ("name", "said"), [("model", "the new network, made by this torch,"), ("init", "the model to")]
)
def test_all_begin_with_the_same_weights(name: str, said: str) -> None:
    def start(group: Group) -> None:
        trainer = Trainer(corpus(), model())
        with torch.no_grad():
            trainer.model.output.bias += group.rank
        options: Any = {name: trainer.model if name == "model" else trainer.model_file(), "group": group}
        Trainer(corpus(), model(), config(), **options)

    with pytest.raises(DataError, match=f"{said}.* is not the same here"):
        run_together(2, start)


def test_a_save_that_fails_takes_as_long_for_all(tmp_path: Path) -> None:
    """For a budget in minutes ends where this time is left."""

    def save(group: Group) -> tuple[float, float]:
        trainer = Trainer(corpus(), model(), config(), tmp_path / "run", group=group)
        next(steps := trainer.run())

        def refuse(*_: Any) -> None:
            time.sleep(0.4)
            raise WriteError("disk full")

        trainer.checkpointer._write = refuse
        trainer.checkpointer.try_to_save(trainer.state, None)
        steps.close()
        return trainer.budget.save_seconds, trainer.checkpointer._last_save

    first, second = run_together(2, save)
    assert first == second
    assert first[0] >= 0.4


@given(st.lists(st.integers(0, 2**36 // 8), min_size=1, max_size=8))
def test_whole_numbers_are_summed_exactly_in_float32(numbers: list[int]) -> None:
    sums = np.sum([np.array(to_digits(number), np.float32) for number in numbers], 0, np.float32)
    assert from_digits(sums.tolist()) == sum(numbers)
    assert DIGIT**2 * 8 <= 2**36


@pytest.mark.parametrize("value", [None, 3, [1.5, "ä\n"], {"a": [0.1, None]}])
def test_what_the_first_process_has_is_shared(value: Any) -> None:
    assert run_together(3, lambda group: group.broadcast(value if group.leads else "nothing")) == [value] * 3


def test_arrays_and_rows_are_shared_bit_by_bit() -> None:
    array = np.array([[-0.0, 0.0, 1.5], [np.float32(1e-40), -2.0, 3.0]], np.float32)

    def share(group: Group) -> bytes:
        return group.broadcast_arrays({"a": array} if group.leads else {})["a"].tobytes()

    def gather(group: Group) -> bytes:
        rows = group.share_of(2)
        return group.gather(torch.from_numpy(array[rows.start : rows.stop].copy()), 2).numpy().tobytes()

    assert run_together(3, share) == [array.tobytes()] * 3
    assert run_together(2, gather) == [array.tobytes()] * 2


def test_sizes_are_those_that_the_first_process_chooses() -> None:
    plan = RunPlan("text", {"minutes": 1.0, "dropout": 0.15})
    sizes = run_together(2, lambda group: plan.choose_sizes(corpus(), group))
    assert sizes[0] == sizes[1]
    assert sizes[0].model.dropout == 0.15


@pytest.mark.parametrize("parts", [{"sources": "-"}, {"sources": "text.txt", "valid": ["-"]}])
def test_a_stream_is_not_read_by_several_processes(parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("a text")
    with pytest.raises(SettingError, match="cannot be read by several processes"):
        RunPlan(**parts, settings={}).read_corpus(group=Group(1, 2))


@pytest.fixture
def restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(name, value)


def test_a_job_that_is_started_again_resumes_its_run(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text, run, settings = tmp_path / "text.txt", tmp_path / "run", {"steps": 24, "hidden_size": 12}
    text.write_text(TEXT)

    def find(sources: Any = text, overwrite: bool = False, **changes: Any) -> Path | None:
        return find_restarted(run, sources, settings | changes, overwrite, ALONE)

    run_until(Trainer(Corpus.from_files(text), model(), config(), run), 3)
    assert find() is None, "nobody has started it again"
    request.getfixturevalue("restarted")
    assert find_restarted(None, text, settings, False, ALONE) is None
    assert find_restarted(tmp_path, text, settings, False, ALONE) is None
    assert find() == find([text]) == find(overwrite=True) == run
    assert find(tmp_path) is None, "it was there before"
    assert find(overwrite=True, hidden_size=13) is None, "it replaces another run"
    list(Trainer.resume(run).run())
    assert find(overwrite=True) is None, "which is complete"
    ended = metrics(run)
    assert find() == run
    check_incomplete(trainer := Trainer.resume(run))  # it had ended when another process was lost
    list(trainer.run())
    assert metrics(run) == ended


def test_one_call_trains_in_each_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = threading.local()
    monkeypatch.setattr(api, "join_group", lambda on_wait: contextlib.nullcontext(here.group))
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    size = {"hidden_size": 12, "num_layers": 1, "batch_size": 4, "precision": "fp32"}

    def call(group: Group, **options: Any) -> api.Run:
        here.group = group
        return api.train(progress=False, **options)

    runs = run_together(2, lambda group: call(group, sources=path, out=tmp_path / "run", steps=6, **size))
    assert runs[0].valid_loss == runs[1].valid_loss
    first, second = (run.model.arrays for run in runs)
    assert all(first[name].tobytes() == array.tobytes() for name, array in second.items())
    longer = run_together(2, lambda group: call(group, resume=tmp_path / "run", steps=9))
    assert [run.model.training["settings"]["steps"] for run in longer] == [9, 9]
    assert read_run_state(tmp_path / "run").settings["machine"]["processes"] == 2
