"""A disk that fills harms nothing that is on it, says what it needs, and stops a run only after a while."""

import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chargen import durable
from chargen.data import encoder
from chargen.durable import write_durably
from chargen.errors import WriteError
from chargen.storage.model_file import read_model
from chargen.storage.run_state import read_run_state
from chargen.training import metrics as metrics_module
from chargen.training.checkpoint import MAX_FAILED_SAVES
from chargen.training.progress import Progress
from chargen.training.train_step import StepReport, TrainState, TrainStep
from chargen.training.trainer import Trainer
from tests.commands import TEXT, Run
from tests.runs import assert_same_runs, config, corpus, model, whole

SHAPE = model("gru", 1)
AT_EVERY_STEP = 1e-9


class Room:
    """Bytes that can still be written, by whoever opens a file; None is enough of them."""

    def __init__(self) -> None:
        self.left: int | None = None

    def open(self, path: Any, mode: str = "r", buffering: int = -1) -> Any:
        writes = bool(set(mode) & set("wax"))
        file = open(path, mode, buffering=0 if writes else buffering)  # noqa: SIM115
        return _Limited(file, self) if writes else file


class _Limited:
    """A file that is being written while there is room."""

    def __init__(self, file: Any, room: Room) -> None:
        self._file, self._room = file, room

    def write(self, data: Any) -> int:
        room = self._room.left
        if room is not None:
            self._room.left = max(0, room - len(data))
            if room < len(data):
                self._file.write(data[:room])  # a full disk takes what it can
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Limited":
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    found = Room()
    for module in (durable, metrics_module, encoder):
        monkeypatch.setattr(module, "open", found.open, raising=False)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "metrics.jsonl"}


@pytest.mark.parametrize("left", range(13))
def test_a_disk_that_is_full_at_any_byte_keeps_the_old_file(left: int, room: Room, tmp_path: Path) -> None:
    target = tmp_path / "f"
    write_durably(target, [b"the old one"])
    room.left = left
    with pytest.raises(WriteError) as caught:
        write_durably(target, [b"the ", b"new one", b"!", b"!"])
    message = str(caught.value)
    assert message.startswith(f"cannot write {target}: No space left on device (13 bytes needed, ")
    assert message.endswith(" free); the previous file is unchanged")
    assert contents(tmp_path) == {"f": b"the old one"}
    room.left = 13
    write_durably(target, [b"the ", b"new one", b"!", b"!"])
    assert contents(tmp_path) == {"f": b"the new one!!"}


def saving_always(**settings: Any) -> Any:
    return config(save_minutes=AT_EVERY_STEP, **settings)


def train(trainer: Trainer, room: Room, full: range) -> Iterator[Progress]:
    """Train while the disk is full behind some steps."""
    for progress in trainer.run():
        if progress.doing == "training":
            room.left = 100 if progress.step in full else None
        yield progress


def test_a_disk_that_is_full_before_the_first_step_stops_a_run_at_once(room: Room, tmp_path: Path) -> None:
    room.left = 1000
    with pytest.raises(WriteError, match="No space left"):
        next(Trainer(corpus(), SHAPE, config(), tmp_path / "run").run())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.jsonl"]


def test_a_run_outlives_a_disk_that_is_full_and_loses_no_line(room: Room, tmp_path: Path) -> None:
    whole(tmp_path / "whole", SHAPE, saving_always())
    trainer = Trainer(corpus(), SHAPE, saving_always(), tmp_path / "run")
    warnings: dict[int, str] = {}
    for progress in train(trainer, room, range(10, 12)):
        if progress.doing == "training":
            warnings[progress.step] = progress.warning
        if progress.step == 12 and progress.doing == "training":
            assert read_run_state(tmp_path / "run").progress["step"] == 10, "the last one that was saved"
    assert [step for step, warning in warnings.items() if warning] == [11, 12]
    for number, step in ((1, 11), (2, 12)):
        assert warnings[step].startswith(f"save {number} of 3 failed at step {step}, training goes on: cannot write ")
        assert "No space left on device (" in warnings[step]
        assert warnings[step].endswith("make room, or put the run folder back")
    assert_same_runs(tmp_path / "whole", tmp_path / "run")


def test_a_run_stops_after_three_failed_saves_and_can_go_on(room: Room, tmp_path: Path) -> None:
    whole(tmp_path / "whole", SHAPE, saving_always())
    trainer = Trainer(corpus(), SHAPE, saving_always(), tmp_path / "run")
    steps = train(trainer, room, range(13, 99))
    next(progress for progress in steps if progress.step == 13 and progress.doing == "training")
    before = contents(tmp_path / "run")
    with pytest.raises(WriteError, match=r"No space left .* that was save 3 in a row that failed"):
        list(steps)
    assert trainer.counters.step == 13 + MAX_FAILED_SAVES
    assert contents(tmp_path / "run") == before
    assert read_run_state(tmp_path / "run").progress["step"] == 13
    read_model(tmp_path / "run")
    room.left = None
    for _ in Trainer.resume(tmp_path / "run", corpus()).run():
        pass
    assert_same_runs(tmp_path / "whole", tmp_path / "run")


def test_a_failed_save_is_tried_again_when_the_next_one_is_due(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(corpus(), SHAPE, config(save_minutes=5.5 / 60), tmp_path)
    monkeypatch.setattr(time, "monotonic", lambda: float(trainer.counters.step))  # a second for a step
    trainer.checkpointer._last_save = 0.0
    tried = []
    save = trainer.checkpointer.save
    monkeypatch.setattr(
        trainer.checkpointer, "save", lambda *state: tried.append(trainer.counters.step) or save(*state)
    )
    for _ in train(trainer, room, range(9, 20)):
        pass
    assert [step for step in tried if 0 < step < 24] == [6, 12, 18]


def test_failed_saves_count_in_a_row_only(room: Room, tmp_path: Path) -> None:
    trainer = Trainer(corpus(), SHAPE, saving_always(), tmp_path)
    for progress in trainer.run():
        if progress.doing == "training":
            room.left = None if progress.step % 3 == 0 or progress.step >= 22 else 100
    assert trainer.counters.complete


def test_a_disk_that_is_full_at_the_end_keeps_the_run(room: Room, tmp_path: Path) -> None:
    whole(tmp_path / "whole", SHAPE, config())
    trainer = Trainer(corpus(), SHAPE, config(), tmp_path / "run")
    steps = trainer.run()
    next(progress for progress in steps if progress.doing == "finishing")
    room.left = 500
    with pytest.raises(WriteError, match="No space left"):
        list(steps)
    room.left = None
    assert read_run_state(tmp_path / "run").progress["step"] == 24
    for _ in Trainer.resume(tmp_path / "run", corpus()).run():
        pass
    assert_same_runs(tmp_path / "whole", tmp_path / "run")


def test_a_run_folder_that_is_taken_away_for_a_while_is_missed(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    whole(tmp_path / "whole", SHAPE, saving_always())
    trainer = Trainer(corpus(), SHAPE, saving_always(), run)
    for progress in trainer.run():
        if progress.doing != "training":
            continue
        assert bool(progress.warning) == (progress.step in (6, 7))
        if progress.step == 5:
            os.rename(run, elsewhere)
        elif progress.step == 7:
            assert progress.warning.startswith("save 2 of 3 failed at step 7, training goes on: cannot write")
            assert "No such file or directory" in progress.warning
            assert not run.exists(), "half a run in its place"
            os.rename(elsewhere, run)
    assert_same_runs(tmp_path / "whole", run)


@pytest.mark.parametrize("how", ["moved", "removed"])
def test_a_run_writes_nothing_into_another_folder_of_its_name(how: str, tmp_path: Path) -> None:
    """Somebody makes room for a new run, and forgets that the old one still goes on."""
    run = tmp_path / "run"
    trainer = Trainer(corpus(), SHAPE, saving_always(), run)
    steps = trainer.run()
    next(progress for progress in steps if progress.step == 5 and progress.doing == "training")
    if how == "moved":
        os.rename(run, tmp_path / "elsewhere")
    else:
        shutil.rmtree(run)
    whole(run, SHAPE, saving_always())
    before = contents(run), (run / "metrics.jsonl").read_bytes()
    with pytest.raises(WriteError, match="is another folder than the one that this run began in; that was save 3"):
        list(steps)
    assert (contents(run), (run / "metrics.jsonl").read_bytes()) == before
    assert how == "removed" or read_run_state(tmp_path / "elsewhere").progress["step"] == 5


def test_a_run_whose_folder_is_changed_at_its_end_writes_no_model_there(tmp_path: Path) -> None:
    run = tmp_path / "run"
    trainer = Trainer(corpus(), SHAPE, config(), run)
    steps = trainer.run()
    next(progress for progress in steps if progress.doing == "finishing")
    os.rename(run, tmp_path / "elsewhere")
    run.mkdir()
    with pytest.raises(WriteError, match="another folder"):
        list(steps)
    assert os.listdir(run) == []


def test_a_run_whose_folder_is_gone_stops_each_time_it_is_entered(tmp_path: Path) -> None:
    trainer = Trainer(corpus(), SHAPE, saving_always(), tmp_path / "run")
    steps = trainer.run()
    next(progress for progress in steps if progress.step == 5 and progress.doing == "training")
    os.rename(tmp_path / "run", tmp_path / "elsewhere")
    with pytest.raises(WriteError, match=r"No such file .* that was save 3 in a row that failed"):
        list(steps)
    for _ in range(2):
        with pytest.raises(WriteError, match="No such file"):
            list(trainer.run())
    assert trainer.counters.step <= 9
    assert read_run_state(tmp_path / "elsewhere").progress["step"] == 5


def test_a_good_save_takes_the_warning_back_and_brings_the_model(room: Room, tmp_path: Path) -> None:
    trainer = Trainer(corpus(), SHAPE, config(save_minutes=1e9, eval_every=6), tmp_path / "run")
    for progress in trainer.run():
        if progress.step == 6 and progress.doing == "training":
            trainer.save()
            room.left = 0
            trainer.checkpointer.try_to_save(trainer.state, trainer.validator.best)
            assert trainer.checkpointer.warning
            room.left = None
            os.unlink(tmp_path / "run" / "model.safetensors")
            trainer.save()
            assert trainer.checkpointer.warning == ""
            read_model(tmp_path / "run")
            break


SMALL = ["--hidden-size", "12", "--embedding-size", "6", "--batch-size", "3", "--seq-length", "7", "--preview", "0"]


def test_the_command_says_what_it_needs_and_how_to_go_on(room: Room, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real_step = TrainStep.__call__

    def fill(self: TrainStep, state: TrainState, *arguments: Any) -> StepReport:
        if state.step == 5:
            room.left = 100
        return real_step(self, state, *arguments)

    monkeypatch.setattr(TrainStep, "__call__", fill)
    arguments = ["train", "text.txt", "--steps", "50", "--save-minutes", "1e-9", "--out", "a run", *SMALL]
    refused = run(*arguments)
    lines = refused.err.splitlines()
    assert refused.code == 1
    assert sum(line.startswith("warning: save ") for line in lines) == MAX_FAILED_SAVES - 1
    assert lines[-1].startswith("chargen: cannot write ")
    assert " needed, " in lines[-1]
    assert lines[-1].endswith(
        " free); the previous file is unchanged; that was save 3 in a row that failed; "
        "make room and go on with: chargen train --resume 'a run'"
    )
    room.left = None
    monkeypatch.setattr(TrainStep, "__call__", real_step)
    assert run("train", "--resume", "a run", "--steps", 20, "--preview", 0).code == 0


def test_a_cache_without_room_says_what_it_needs(room: Room, run: Run) -> None:
    room.left = 100
    refused = run("train", "text.txt", "--out", "run")
    assert refused.code == 1
    assert f"No space left on device ({len(TEXT):,} bytes needed, " in refused.last
    assert refused.last.endswith("; make room, or set CHARGEN_CACHE to a folder with room")
    assert not Path("run").exists()
