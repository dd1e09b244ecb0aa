"""A crash after any write, sync or rename leaves a run that goes on byte for byte; and naive writers are caught."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chargen import durable
from chargen.errors import ChargenError
from chargen.storage import tensor_file
from chargen.storage.model_file import FILE_NAME as MODEL_NAME
from chargen.storage.model_file import read_model
from chargen.storage.run_state import FILE_NAME as STATE_NAME
from chargen.storage.run_state import read_run_state
from chargen.training.metrics import FILE_NAME as METRICS_NAME
from chargen.training.metrics import Metrics
from chargen.training.trainer import Trainer
from tests.faults.crashing_disk import Disk, put
from tests.pairs import some
from tests.runs import assert_same_runs, config, corpus, metrics, model, whole

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs to see which file is synced")

SHAPE = model("gru", 1)
SETTINGS = config(steps=9, eval_every=3, log_every=2)
SAVED_AT = (2, 4, 8)


def run_on(disk: Disk) -> list[int]:
    """Train on a disk that is watched, saving now and then; the steps that were promised to be on it."""
    promised: list[int] = []
    with disk.watch():
        trainer = Trainer(corpus(), SHAPE, SETTINGS, disk.root / "deep" / "run")
        save = trainer.checkpointer.save

        def save_and_promise(*arguments: Any) -> None:
            save(*arguments)
            promised.append(trainer.counters.step)
            disk.mark()

        trainer.checkpointer.save = save_and_promise
        for progress in trainer.run():
            if progress.step in SAVED_AT and progress.doing == "training":
                trainer.save()
        promised.append(SETTINGS.steps or 0)
        disk.mark()
    return promised


def check(files: dict[str, bytes | None], promised: int | None, reference: Path, place: Path) -> None:
    """Fails where what a crash left is not what was promised, or does not go on as the unbroken run."""
    put(place, files)
    folder = place / "deep" / "run"
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if STATE_NAME not in names:
        assert promised is None, "a run that was saved is gone"
        assert MODEL_NAME not in names, "a model of a run that cannot be resumed"
        return
    state = read_run_state(folder)
    assert promised is None or state.progress["step"] >= promised, "an older state than the one promised"
    if promised is not None:
        model, best = read_model(folder), state.progress["best_step"] or 0
        assert best <= model.training["step"] <= state.progress["step"] + 3, "a model of another time"
        if best == model.training["step"] and not state.progress["complete"]:
            part = "weights" if state.progress["best_step"] is None else "best"
            for name, array in model.arrays.items():
                assert np.array_equal(array, state.arrays[f"{part}.{name}"]), "weights of another time"
    assert promised != SETTINGS.steps or state.progress["step"] == SETTINGS.steps
    if not state.progress["complete"]:
        for _ in Trainer.resume(folder, corpus()).run():
            pass
    assert_same_runs(reference, folder)
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp") and not state.progress["complete"]]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole(tmp_path_factory.mktemp("unbroken"), SHAPE, SETTINGS)


def faults(disk: Disk, promised: list[int], reference: Path, place: Path, enough: int = 10**9) -> list[str]:
    """What is wrong with the folders that crashes could leave; the search ends at `enough` of them."""
    found: list[str] = []
    for number, (marks, files) in enumerate(reversed(disk.folders)):  # the last ones hold the most to be lost
        try:
            check(files, promised[marks - 1] if marks else None, reference, place / str(number))
        except (AssertionError, ChargenError, ValueError) as error:
            found.append(f"{sorted(files)} after {marks} saves: {error}")
            if len(found) == enough:
                break
    return found


def test_a_crash_at_any_moment_loses_nothing_that_was_saved(tmp_path: Path, reference: Path) -> None:
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk")
    promised = run_on(disk)
    assert promised == [0, *SAVED_AT, 9, 9]
    assert disk.operations > 80
    assert len(disk.folders) > 60
    assert faults(disk, promised, reference, tmp_path) == []


def straight(path: Any, blocks: Iterable[bytes], size: int | None = None) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        for block in blocks:
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    durable.sync_folder(Path(path).parent)


def unsynced(path: Any, blocks: Iterable[bytes], size: int | None = None) -> None:
    durable.make_folder(Path(path).parent)
    with open(f"{path}.tmp", "wb") as file:
        for block in blocks:
            file.write(block)
    os.replace(f"{path}.tmp", path)
    durable.sync_folder(Path(path).parent)


def nothing(*arguments: Any) -> None:
    pass


def unfinished(self: Metrics) -> int:
    self._append(sync=False)
    return self.size


@contextlib.contextmanager
def naive(what: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        if what == "straight to its name":
            patch.setattr(tensor_file, "write_durably", straight)
        elif what == "renamed before it is synced":
            patch.setattr(tensor_file, "write_durably", unsynced)
        elif what == "folder not synced":
            patch.setattr(durable, "sync_folder", nothing)
        elif what == "folders above not synced":
            patch.setattr(durable, "make_folder", lambda folder: folder.mkdir(parents=True, exist_ok=True))
            patch.setattr("chargen.training.setup.make_folder", durable.make_folder)
        elif what == "metrics not synced":
            patch.setattr(Metrics, "sync", unfinished)
        yield


@pytest.mark.parametrize(
    "what",
    some(
        [
            "straight to its name",
            "renamed before it is synced",
            "folder not synced",
            "folders above not synced",
            "metrics not synced",
        ],
        5,
    ),
)
def test_a_naive_writer_is_caught(what: str, tmp_path: Path, reference: Path) -> None:
    (tmp_path / "disk").mkdir()
    disk = Disk(tmp_path / "disk")
    with naive(what):
        promised = run_on(disk)
    assert faults(disk, promised, reference, tmp_path, enough=1)


def test_the_disk_shows_what_a_crash_leaves(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    with disk.watch():
        with open(tmp_path / "a", "wb") as file:
            file.write(b"1234")
        found = {files.get("a") for _, files in disk.folders}
        assert found == {None, b"", b"1234", b"12", b"\0\0\0\0", b"12\0\0"}
        before = len(disk.folders)
        with open(tmp_path / "a", "ab") as file:
            os.fsync(file.fileno())
        durable.sync_folder(tmp_path)
        disk.mark()
        assert {files["a"] for marks, files in disk.folders if marks} == {b"1234"}
        os.replace(tmp_path / "a", tmp_path / "b")
        late = [files for _, files in disk.folders[before:]]
        assert {"a": b"1234"} in late
        assert {"b": b"1234"} in late
        assert {} not in late
        assert {"a": b"1234", "b": b"1234"} not in late


def test_metrics_names_no_line_twice_after_a_crash(tmp_path: Path, reference: Path) -> None:
    """What belongs to the run is what its state says: the rest of the file is cut, whatever it holds."""
    trainer = Trainer(corpus(), SHAPE, SETTINGS, tmp_path)
    for progress in trainer.run():
        if progress.step == 4 and progress.doing == "training":
            break
    trainer.save()
    with open(tmp_path / METRICS_NAME, "ab") as file:
        file.write(b"\0" * 5000)
    for _ in Trainer.resume(tmp_path, corpus()).run():
        pass
    assert metrics(tmp_path) == metrics(reference)
