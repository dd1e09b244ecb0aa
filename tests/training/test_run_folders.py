"""A run folder that is held, read-only, missing or filled by something else: one clear line, and nothing harmed."""

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chargen import durable
from chargen.data.corpus import Corpus
from chargen.errors import WriteError
from chargen.model.config import ModelConfig
from chargen.storage import tensor_file
from chargen.storage.model_file import FILE_NAME, read_model, save_model
from chargen.storage.run_state import read_run_state
from chargen.training import metrics
from chargen.training.config import TrainConfig
from chargen.training.run_folder import check_free, recover
from chargen.training.trainer import Trainer
from tests.commands import Result, Run
from tests.other_processes import HOLDER, kill, start

SMALL = ["--hidden-size", "12", "--embedding-size", "6", "--num-layers", "1", "--batch-size", "4", "--seq-length", "8"]
SMALL += ["--dropout", "0", "--weight-decay", "0.3", "--precision", "fp32", "--preview", "0"]
SHAPE = ModelConfig(num_layers=1, hidden_size=12, embedding_size=6)
QUICK = TrainConfig(steps=6, batch_size=4, seq_length=8, precision="fp32")
TEXT = "Whether I shall turn out to be the hero of my own life, these pages must show.\n" * 40


@pytest.fixture
def here(run: Run, tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path


def ended(result: Result) -> tuple[int, str]:
    """The exit code of a command, and the last line of what it says."""
    return result.code, result.last


def train(run: Run, *more: str, out: str = "run") -> tuple[int, str]:
    return ended(run("train", "text.txt", *SMALL, "--steps", "6", "--out", out, *more))


def contents(folder: Path) -> dict[str, Any]:
    """Everything there is below a folder; links as what they say."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.is_dir() or path.read_bytes()
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


def fill(folder: Path, what: str) -> None:
    """Put something where a run folder is wanted."""
    if what == "a file":
        folder.write_text("my thesis")
    elif what == "below a file":
        folder.parent.write_text("my thesis")
    elif what == "a dangling link":
        folder.symlink_to("nowhere/at/all")
        (folder.parent / "nowhere").write_text("my thesis")
    else:
        (folder / what).mkdir(parents=True)
        (folder / what / "thesis").write_text("my thesis")


@pytest.mark.parametrize(
    "what", ["a file", "below a file", "a dangling link", ".lock", FILE_NAME, "state.safetensors", "metrics.jsonl"]
)
def test_a_folder_filled_by_something_else_is_left_as_it_is(what: str, here: Path, run: Run) -> None:
    out = "above/run" if what == "below a file" else "run"
    fill(here / out, what)
    before = contents(here)
    code, last = train(run, out=out)
    assert code in (1, 2), last
    assert last.startswith("chargen: ")
    assert "run" in last
    assert contents(here) == before


@pytest.mark.parametrize("what", [FILE_NAME, "state.safetensors", "metrics.jsonl"])
def test_something_else_in_the_place_of_a_runs_file_stops_the_run(what: str, here: Path, run: Run) -> None:
    assert train(run)[0] == 0
    (here / "run" / what).unlink()
    fill(here / "run", what)
    before = contents(here)
    code, last = ended(run("train", "--resume", "run", "--steps", "9"))
    assert code in (1, 2, 4), last
    assert last.startswith("chargen: ")
    after = contents(here)
    assert after.pop("run/metrics.jsonl") is not None
    before.pop("run/metrics.jsonl")
    assert after == before


def test_a_folder_with_files_of_other_kinds_is_used_and_they_stay(here: Path, run: Run) -> None:
    (here / "run").mkdir()
    (here / "run" / "notes.txt").write_text("mine")
    (here / "run" / ".model.safetensors.tmp").write_text("mine too")
    assert train(run)[0] == 0
    assert (here / "run" / "notes.txt").read_text() == "mine"
    assert (here / "run" / ".model.safetensors.tmp").read_text() == "mine too"
    read_model(here / "run")


@pytest.mark.parametrize("arguments", [["text.txt", *SMALL, "--out", "run", "--overwrite"], ["--resume", "run"]])
def test_a_folder_that_another_process_holds_is_not_touched(arguments: list[str], here: Path, run: Run) -> None:
    assert train(run)[0] == 0
    before = contents(here)
    holder = start(HOLDER, here / "run")
    try:
        code, last = ended(run("train", *arguments))
    finally:
        kill(holder)
    assert code == 1
    assert "run is in use by another run; wait for it or choose another --out" in last
    assert contents(here) == before
    assert run("train", "--resume", "run", "--steps", "9")[0] == 0, "the lock has died with its process"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO])
def test_a_folder_that_takes_no_files_is_told_before_the_work(
    number: int, here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if set(mode) & set("wax") and "/run/" in str(path):
            raise OSError(number, os.strerror(number), str(path))
        return open(path, mode, *arguments, **named)

    for module in (durable, metrics):
        monkeypatch.setattr(module, "open", refuse, raising=False)
    code, last = train(run)
    assert code == 1
    assert last.startswith("chargen: cannot write ")
    assert os.strerror(number) in last
    assert last.endswith("choose another --out")
    assert sorted(os.listdir(here)) == ["text.txt"], "nothing is left of it"


def test_a_folder_that_is_missing_is_made_with_those_above_it(
    here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = [], durable.sync_folder

    def sync_and_note(folder: Path) -> None:
        sync(folder)
        synced.append(str(folder))

    monkeypatch.setattr(durable, "sync_folder", sync_and_note)
    assert train(run, out="a/b/c")[0] == 0
    read_model(here / "a" / "b" / "c")
    assert [folder for folder in synced if not folder.startswith("/")] == [".", "a", "a/b"], "a crash must not take it"


def test_a_folder_to_resume_that_is_missing_is_one_line(here: Path, run: Run) -> None:
    code, last = ended(run("train", "--resume", "gone"))
    assert code == 4
    assert "no run folder gone; training on a text makes one" in last
    assert sorted(os.listdir(here)) == ["text.txt"]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second device")
@pytest.mark.parametrize("what", ["the folder", "what is above it"])
def test_a_folder_on_another_device_is_written_and_resumed_there(what: str, here: Path, run: Run) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        if os.stat(other).st_dev == os.stat(here).st_dev:
            pytest.skip("both folders are on one device")
        out = "run" if what == "the folder" else "link/run"
        (here / Path(out).parts[0]).symlink_to(other)
        assert train(run, out=out)[0] == 0
        assert run("train", "--resume", out, "--steps", "9")[0] == 0
        there = Path(other) / "run" if what != "the folder" else Path(other)
        assert read_model(there).training["settings"]["steps"] == 9
        assert not [name for name in os.listdir(there) if name.endswith(".tmp")]


def test_files_that_are_links_to_another_place_stay_links(here: Path, run: Run) -> None:
    """A model that lies on another device, because there is more room: it is written there, beside its place."""
    assert train(run)[0] == 0
    (here / "elsewhere").mkdir()
    os.replace(here / "run" / FILE_NAME, here / "elsewhere" / "m")
    (here / "run" / FILE_NAME).symlink_to(here / "elsewhere" / "m")
    assert run("train", "--resume", "run", "--steps", "9")[0] == 0
    assert (here / "run" / FILE_NAME).is_symlink()
    assert read_model(here / "elsewhere" / "m").training["settings"]["steps"] == 9
    assert os.listdir(here / "elsewhere") == ["m"]


@pytest.mark.parametrize("what", ["text", "link", "dangling link", "pipe"])
def test_a_lock_that_chargen_did_not_make_is_left_alone(what: str, here: Path, run: Run) -> None:
    (here / "run").mkdir()
    (here / "precious").write_text("thesis")
    lock = here / "run" / ".lock"
    if what == "text":
        lock.write_text("thesis")
    elif what == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to(here / ("precious" if what == "link" else "nowhere"))
    code, last = train(run)
    assert code == 1
    assert "run/.lock is not a lock that chargen made; choose another --out" in last
    assert (here / "precious").read_text() == "thesis"
    assert what != "text" or lock.read_text() == "thesis"
    assert sorted(os.listdir(here)) == ["precious", "run", "text.txt"]
    assert os.listdir(here / "run") == [".lock"]


@pytest.mark.parametrize("name", [FILE_NAME, "state.safetensors", "metrics.jsonl"])
@pytest.mark.parametrize("what", ["a text", "nothing", "a pipe"])
def test_what_a_link_or_a_pipe_in_a_run_folder_leads_to_stays(what: str, name: str, here: Path, run: Run) -> None:
    """A run folder that comes from somebody else must not write over one's own files."""
    assert train(run)[0] == 0
    (here / "precious").write_text("thesis")
    place = here / "run" / name
    os.rename(place, here / "kept")
    if what == "a pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(here / ("precious" if what == "a text" else "nowhere"))
    code, last = ended(run("train", "--resume", "run", "--steps", "9"))
    assert code in (1, 4)
    assert name in last
    assert (here / "precious").read_text() == "thesis"
    assert sorted(os.listdir(here)) == ["kept", "precious", "run", "text.txt"]
    os.unlink(place)
    os.rename(here / "kept", place)
    assert run("train", "--resume", "run", "--steps", "9")[0] == 0


@pytest.mark.parametrize("what", ["damaged", "another run's", "gone"])
def test_a_model_that_is_not_this_runs_is_written_again(
    what: str, here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "other.txt").write_text("0123456789\n" * 40)
    assert run("train", "other.txt", *SMALL, "--steps", "3", "--out", "other")[0] == 0
    assert train(run, "--eval-every", "2")[0] == 0
    model = here / "run" / FILE_NAME
    if what == "another run's":
        os.replace(here / "other" / FILE_NAME, model)
    elif what == "damaged":
        model.write_bytes(model.read_bytes()[:-1])
    else:
        model.unlink()
    state = read_run_state(here / "run")
    resumed = Trainer.resume(here / "run", Corpus.from_description(state.settings["corpus"]), changes={"steps": 9})
    resumed.save()
    assert read_model(here / "run").vocabulary == resumed.corpus.vocabulary


def test_a_pipe_in_the_place_of_a_samplers_state_is_not_waited_for(here: Path, run: Run) -> None:
    assert train(run)[0] == 0
    os.mkfifo(here / "pipe")
    os.mkfifo(here / "pipe.safetensors")
    for option, code in (("--state-in", 4), ("--state-out", 1)):
        found, last = ended(run("sample", "run", "--length", "3", "--seed", "1", option, "pipe"))
        assert found == code
        assert "pipe" in last
    assert run("export", "run", "pipe.safetensors", "--quantize", "int8")[0] == 3


def test_too_many_characters_are_told_before_a_folder_is_made(here: Path, run: Run) -> None:
    characters = "".join(map(chr, range(0x20000, 0x20000 + 50_000)))
    (here / "text.txt").write_text(characters + characters[:40_000], encoding="utf-8")
    code, last = train(run)
    assert code == 2
    assert "the characters take" in last
    assert "fold some of the 50,000 characters with --min-count, or train with --unit byte" in last
    assert sorted(os.listdir(here)) == ["text.txt"]
    assert train(run, "--unit", "byte")[0] == 0


# Replacing a run


@pytest.fixture
def old(here: Path, run: Run) -> dict[str, Any]:
    """What a run folder holds that is to be replaced; the seed tells it from others."""
    assert train(run, "--seed", "5")[0] == 0
    (here / "run" / "notes.txt").write_text("mine")
    return contents(here / "run")


def seed_of(folder: Path) -> int:
    seed = read_model(folder).training["settings"]["seed"]
    assert read_run_state(folder).settings["training"]["seed"] == seed
    assert isinstance(seed, int)
    return seed


@pytest.mark.parametrize("text", ["text.txt", "nowhere.txt"])
def test_a_run_in_the_way_is_told_before_any_work(
    text: str, here: Path, old: dict[str, Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Corpus, "from_files", lambda *_, **__: pytest.fail("the text was read"))
    code, said = ended(run("train", text, "--steps", "3", "--out", "run"))
    assert code == 2
    assert said == (
        "chargen: run already holds a run: go on with --resume, choose another --out, or replace it with --overwrite"
    )
    assert contents(here / "run") == old


def test_what_cannot_be_resumed_is_not_advised_to_be(here: Path, old: dict[str, Any], run: Run) -> None:
    (here / "run" / "state.safetensors").unlink()
    code, said = train(run)
    assert (code, "already holds a run: choose another --out, or" in said) == (2, True)


def test_a_run_is_replaced_and_nothing_else(here: Path, old: dict[str, Any], run: Run) -> None:
    assert train(run, "--log-every", "2", "--seed", "1", out="other")[0] == 0
    assert train(run, "--log-every", "2", "--seed", "1", "--overwrite")[0] == 0
    new, other = contents(here / "run"), contents(here / "other")
    assert new.pop("notes.txt") == b"mine"
    assert new.keys() == other.keys()
    assert new["model.safetensors"] == other["model.safetensors"]
    assert new["metrics.jsonl"].count(b"\n") == other["metrics.jsonl"].count(b"\n") == 4
    assert run("train", "--resume", "run", "--steps", "8", "--preview", "0")[0] == 0


def test_without_a_name_the_run_of_the_usual_name_is_replaced(here: Path, run: Run) -> None:
    for seed in ("1", "2"):
        words = ["train", "text.txt", *SMALL, "--steps", "2", "--seed", seed, "--overwrite"]
        assert run(*words)[0] == 0
    assert [path.name for path in (here / "checkpoints").iterdir()] == ["text"]
    assert seed_of(here / "checkpoints/text") == 2


def refusing(*arguments: Any, **settings: Any) -> None:
    raise WriteError("the disk is full")


@pytest.mark.parametrize("what", ["reading", "diverging", "saving the model", "saving the state", "stopping early"])
def test_a_run_is_not_lost_before_the_new_one_has_something(
    what: str, here: Path, old: dict[str, Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "reading":
        (here / "text.txt").write_bytes(b"\xff")
    elif what == "diverging":
        monkeypatch.setattr("chargen.training.train_log.MAX_BAD_STEPS", 0)
    elif what == "saving the model":
        monkeypatch.setattr("chargen.training.checkpoint.save_model", refusing)
    elif what == "saving the state":
        monkeypatch.setattr("chargen.training.checkpoint.save_run_state", refusing)
    else:
        monkeypatch.setattr("chargen.training.trainer.learning_rate", refusing)
    code, said = train(run, "--overwrite", "--save-minutes", "1e-9", "--log-every", "1")
    assert code not in (0, None)
    assert "--resume" not in said
    assert "last good state" not in said
    assert contents(here / "run") == old


def test_a_save_that_fails_at_first_loses_no_line(
    here: Path, old: dict[str, Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = save_model, []

    def sometimes(*arguments: Any) -> None:
        calls.append(arguments)
        (refusing if len(calls) in (1, 2) else real)(*arguments)

    monkeypatch.setattr("chargen.training.checkpoint.save_model", sometimes)
    assert train(run, "--overwrite", "--save-minutes", "1e-9", "--log-every", "1")[0] == 0
    assert [json.loads(line)["step"] for line in (here / "run/metrics.jsonl").read_text().splitlines()] == [
        1,
        2,
        3,
        4,
        5,
        6,
        6,
    ]


@pytest.mark.parametrize("saved", [False, True])
def test_a_kill_in_the_midst_of_replacing_leaves_one_of_both_runs(
    saved: bool, here: Path, old: dict[str, Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder as it is at every moment of the first save, in place of what a killed process leaves."""
    moments: list[Path] = []

    def spying(real: Any) -> Any:
        def call(*arguments: Any, **settings: Any) -> None:
            real(*arguments, **settings)
            moments.append(here / f"moment-{len(moments)}")
            shutil.copytree(here / "run", moments[-1], ignore=shutil.ignore_patterns(".lock"))

        return call

    trainer = Trainer(Corpus.from_files("text.txt"), SHAPE, QUICK, "run", overwrite=True)
    with monkeypatch.context() as patch:
        for name in ("replace", "unlink", "rename", "rmdir"):
            patch.setattr(os, name, spying(getattr(os, name)))
        next(iter(trainer.run()))
        assert moments == []
        trainer.save()
    assert len(moments) >= 6
    for moment in moments:
        assert "already holds a run" in train(run, out=moment.name)[1]
        if saved:
            run("train", "--resume", moment.name, "--steps", "9", "--preview", "0")
        else:
            check_free(moment, overwrite=True)
            recover(moment)
        assert seed_of(moment) in (5, 0)
        assert not [path.name for path in moment.iterdir() if path.name.startswith(".repl")]
        assert (moment / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("command", ["info", "sample"])
@pytest.mark.parametrize("place", [".", ".replaced", ".replacing"])
def test_a_run_without_a_model_as_yet_is_called_so(
    place: str, command: str, here: Path, old: dict[str, Any], run: Run
) -> None:
    (here / "run" / place).mkdir(exist_ok=True)
    os.replace(here / "run/state.safetensors", here / "run" / place / "state.safetensors")
    os.replace(here / "run/model.safetensors", here / "run" / place / ("x" if place == "." else "model.safetensors"))
    code, said = ended(run(command, "run"))
    assert code == 4
    assert said == (
        "chargen: the run in run has no model yet: its first save writes one, so wait; resume it if it was stopped"
    )
    assert run("train", "--resume", "run", "--steps", "8", "--preview", "0")[0] == 0
    assert run(command, "run")[0] == 0


def test_a_run_of_an_earlier_version_without_a_model_is_replaced(here: Path, old: dict[str, Any]) -> None:
    state = read_run_state(here / "run")
    described = {"kind": "run", "format": 2, "progress": state.progress, "settings": state.settings}
    tensor_file.save(here / "run" / "state.safetensors", state.arrays, described)
    (here / "run" / FILE_NAME).unlink()
    check_free(here / "run", overwrite=True)


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "metrics.jsonl"])
@pytest.mark.parametrize("what", ["another program's file", "a folder"])
def test_what_is_no_run_is_never_replaced(name: str, what: str, here: Path, run: Run) -> None:
    (here / "run").mkdir()
    if what == "a folder":
        (here / "run" / name).mkdir()
        (here / "run" / name / "thesis.txt").write_text("mine")
    else:
        (here / "run" / name).write_bytes(tensor_file.pack({"x": np.zeros(3, np.float32)}, {"kind": "a bert"}))
    before = contents(here / "run")
    code, said = train(run, "--overwrite")
    assert code == 2
    assert said == f"chargen: run holds no run of chargen's, but {name}: choose another --out"
    assert contents(here / "run") == before
