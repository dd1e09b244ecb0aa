"""metrics.jsonl grows with the logarithm of a run's length, and holds whole lines of its run only."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.errors import WriteError
from chargen.training import metrics as module
from chargen.training.metrics import MAX_LINES, Metrics, is_logged_step
from chargen.training.trainer import Trainer
from tests.runs import config, corpus, metrics, model


def lines(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("every", [1, 3, 20])
def test_at_first_every_multiple_has_a_line(every: int) -> None:
    steps = [step for step in range(every * MAX_LINES) if is_logged_step(step, every)]
    assert steps == list(range(0, every * MAX_LINES, every))


@given(st.integers(1, 1000), st.integers(1, 40), st.integers(0, MAX_LINES - 1), st.data())
def test_each_doubling_of_the_steps_brings_as_many_lines(
    every: int, doublings: int, line: int, data: st.DataObject
) -> None:
    first, interval = every * MAX_LINES << (doublings - 1), every << doublings
    step = first + (line % (MAX_LINES // 2)) * interval
    assert first <= step < 2 * first
    assert is_logged_step(step, every)
    assert not is_logged_step(step + data.draw(st.integers(1, interval - 1)), every)


def test_a_day_of_tiny_steps_has_few_lines() -> None:
    steps = 86_400_000
    assert sum(is_logged_step(step, 20) for step in range(0, steps, 20)) < 35_000


def test_a_long_run_is_thinned_and_still_validates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINES", 4)
    trainer = Trainer(corpus(), model(num_layers=1), config(steps=48, log_every=1, eval_every=3, patience=0), tmp_path)
    validated = {progress.step for progress in trainer.run() if progress.doing == "validating"}
    found = metrics(tmp_path)[:-1]
    at_every = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48}
    at_validations = {3, 6, 9, 12, 18, 24, 36, 48}
    assert [line["step"] for line in found] == sorted(at_every | at_validations)
    assert validated == set(range(3, 49, 3))
    assert all((line["valid_loss"] is not None) == (line["step"] in validated) for line in found)
    losses = [line["train_loss"] for line in found if line["train_loss"] is not None]
    assert len(losses) == len(found)


def test_lines_wait_while_the_disk_refuses_and_none_is_lost(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    file = Metrics(tmp_path / "run")
    file.write({"step": 0})
    (tmp_path / "run").rename(tmp_path / "away")
    (tmp_path / "run").write_text("something else")
    file.write({"step": 1})
    with pytest.raises(WriteError, match="cannot write"):
        file.sync()
    (tmp_path / "run").unlink()
    (tmp_path / "away").rename(tmp_path / "run")
    file.write({"step": 2})
    assert lines(tmp_path / "run" / "metrics.jsonl") == [0, 1, 2]
    assert file.sync() == (tmp_path / "run" / "metrics.jsonl").stat().st_size


def test_what_another_writer_left_behind_a_runs_lines_is_cut(tmp_path: Path) -> None:
    file = Metrics(tmp_path)
    file.write({"step": 0})
    with open(tmp_path / "metrics.jsonl", "ab") as other:
        other.write(b"\0\0\0")
    file.write({"step": 1})
    assert lines(tmp_path / "metrics.jsonl") == [0, 1]


def test_without_a_folder_nothing_is_written() -> None:
    file = Metrics(None)
    file.cut()
    file.write({"step": 0})
    assert file.sync() == 0
