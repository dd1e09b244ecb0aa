"""Without memory a command ends with one line that says what to lower, and what was saved stays whole."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chargen.cli.main import main
from chargen.storage.model_file import save_model
from chargen.training.run_folder import holds_a_run
from tests.faults.fork_server import SMALL, Commands, commands, text
from tests.runs import assert_same_runs, check_whole
from tests.small_models import small_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork, and a limit that the system keeps to")
MB = 10**6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    folder = tmp_path_factory.mktemp("memory")
    (folder / "text.txt").write_text(text(20_000))
    save_model(folder / "model.safetensors", small_model())
    with commands(folder) as found:
        yield found


def ends_well(code: int, err: str) -> bool:
    """One line that says what to lower; or a library has ended the process."""
    last = err.splitlines()[-1] if err else ""
    if code < 0:
        return -code == signal.SIGABRT
    words = "chargen: out of memory; lower --batch-size", "chargen: a package cannot be loaded: "
    return code == 1 and "Traceback" not in err and last.startswith(words) and " memory" in last


@pytest.mark.parametrize(("room", "arguments"), [
    (4 * MB, ["train", "text.txt", *SMALL, "--steps", "3"]),
    (60 * MB, ["train", "text.txt", *SMALL, "--steps", "3", "--hidden-size", "3000"]),
    (60 * MB, ["train", "text.txt", *SMALL, "--steps", "3", "--batch-size", "500", "--seq-length", "3000"]),
    (60 * MB, ["sample", "model.safetensors", "--num", "300000", "--length", "5"]),
], ids=["preparation", "a model", "a step", "samples"])  # fmt: skip
def test_a_command_that_cannot_have_its_memory_says_what_to_lower(
    server: Commands, room: int, arguments: list[str]
) -> None:
    out = ["--out", "run", "--preview", "0"] if arguments[0] == "train" else []
    code, err, _ = server.run(*arguments, *out, room=room)
    run = server.folder / "run"
    holds, left = holds_a_run(run), [path.name for path in run.iterdir()] if run.exists() else []
    try:
        assert ends_well(code, err), (code, err)
        broken = code < 0 or "a package cannot be loaded" in err
        assert holds or not left or broken, f"only what a library ended could not put its folder away: {err}"
        if holds:
            check_whole(run)
    finally:
        shutil.rmtree(run, ignore_errors=True)


def test_a_run_that_is_short_of_memory_at_any_place_keeps_what_was_saved(server: Commands) -> None:
    settings = ["text.txt", *SMALL, "--steps", "60", "--eval-every", "20", "--save-minutes", "0.0001"]
    assert server.run("train", *settings, "--out", "whole")[0] == 0
    rooms = random.Random(0)
    short = 0
    for _ in range(6):
        run = server.folder / "broken"
        arguments = ["--resume", "broken"] if (run / "state.safetensors").exists() else [*settings, "--out", "broken"]
        code, err, _ = server.run("train", *arguments, room=int(rooms.uniform(0, 30) * MB))
        if code == 0 or "its budget is used" in err:
            break
        assert ends_well(code, err), (code, err)
        short += 1
        if (run / "state.safetensors").exists():
            check_whole(run)
    assert short
    if not (server.folder / "broken" / "state.safetensors").exists():
        assert server.run("train", *settings, "--out", "broken")[0] == 0
    else:
        code, err, _ = server.run("train", "--resume", "broken")
        assert code == 0 or "its budget is used" in err
    assert_same_runs(server.folder / "whole", server.folder / "broken")


def test_a_run_that_never_began_leaves_nothing_even_without_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **named: Any) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    def trainer(*given: Any, **named: Any) -> None:
        for call in ("listdir", "scandir"):
            monkeypatch.setattr(os, call, full)
        raise MemoryError

    (tmp_path / "text.txt").write_text(text(2000))
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("chargen.training.trainer.Trainer", trainer)
        with pytest.raises(SystemExit) as ended:
            main(["train", "text.txt", *SMALL, "--steps", "3", "--out", "new/run"])
    monkeypatch.undo()
    assert ended.value.code == 1
    assert os.listdir(tmp_path) == ["text.txt"]


def test_a_library_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    program = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ImportError("libtorch_cpu.so: " + sys.argv.pop())
sys.meta_path.insert(0, Finder())
sys.argv[0] = "chargen"
from chargen.__main__ import main
main()
"""
    (tmp_path / "text.txt").write_text("text " * 1000)
    for reason, words in (
        ("failed to map segment from shared object", "chargen: out of memory; lower --batch-size"),
        ("no such file", "chargen: a package cannot be loaded: libtorch_cpu.so: no such file; is it installed"),
    ):
        command = [sys.executable, "-c", program, "train", "text.txt", "--steps", "3", reason]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(words), done.stderr
        assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ["text.txt"]
