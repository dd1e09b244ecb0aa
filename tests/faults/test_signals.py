"""Signals at any moment: a kill leaves whole files, and a request to stop is followed soon, with all of it saved."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from chargen.cache_folder import cache_folder
from chargen.cli.main import main
from chargen.cli.signals import StopRequest, is_importing, stop_on_signals
from chargen.data import encoder, reading
from chargen.errors import Stopped
from chargen.storage import tensor_file
from chargen.storage.model_file import save_model
from chargen.storage.run_state import FILE_NAME as STATE_NAME
from chargen.storage.run_state import read_run_state
from chargen.training import trainer, validator
from tests.commands import Run
from tests.faults.fork_server import SMALL, commands, text
from tests.runs import assert_same_runs, check_whole
from tests.small_models import small_model
from tests.yardstick import HANG

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
OFTEN = ["--eval-every", "40", "--save-minutes", "0.0002"]


@pytest.mark.parametrize("kills", [2, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_leave_a_run_that_goes_on_byte_for_byte(kills: int, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(text(4000))
    moments, places, killed, tries = random.Random(kills), set(), 0, 0
    settings = [*SMALL, *OFTEN, "--steps", "300"]
    run = tmp_path / "run"
    with commands(tmp_path, warm=True) as server:
        code, err, longest = server.run("train", "text.txt", *settings, "--out", "whole")
        assert code == 0, err
        while killed < kills or len(places) <= kills / 10:
            assert (tries := tries + 1) < 100 * kills, "too few kills come while there is something to lose"
            resumes = (run / STATE_NAME).exists()
            arguments = ["--resume", "run"] if resumes else ["text.txt", *settings, "--out", "run"]
            code, err, _ = server.run("train", *arguments, after=longest * moments.random(), signal=signal.SIGKILL)
            assert code in (-signal.SIGKILL, 0) or "its budget is used" in err, err
            killed += code == -signal.SIGKILL
            if (run / STATE_NAME).exists():
                places.add(check_whole(run))
            if code != -signal.SIGKILL:
                assert_same_runs(tmp_path / "whole", run)
                shutil.rmtree(run)


class Interrupting:
    """Counts the Python calls of a command while it catches signals, and may send one in the middle of them.

    Args:
        at: the call at which a signal comes.
    """

    def __init__(self, at: int | None = None, kind: int = 0) -> None:
        self.at, self.kind, self.calls = at, kind, 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and getattr(signal.getsignal(signal.SIGTERM), "__name__", "") == "handle":
            self.calls += 1
            if self.calls == self.at and is_importing(frame):
                self.at += 1  # there the process would end at once, and this is the tests' own
            elif self.calls == self.at:
                os.kill(os.getpid(), self.kind)

    def run(self, *arguments: str) -> object:
        """The exit code of a command."""
        sys.setprofile(self)
        try:
            main(list(arguments))
        except SystemExit as error:
            return error.code
        finally:
            sys.setprofile(None)
        raise AssertionError("a command exits")


@pytest.mark.slow
@pytest.mark.parametrize("signals", [100])
def test_a_request_to_stop_is_followed_soon_with_all_saved(
    signals: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text(text(20_000))
    monkeypatch.chdir(tmp_path)
    settings = ["train", "text.txt", *SMALL, "--steps", "200", "--eval-every", "50", "--valid-fraction", "0.3"]
    moments, whole = random.Random(signals), Interrupting()
    assert Interrupting().run(*settings, "--steps", "2") == 0  # what is loaded now is loaded no more
    assert whole.run(*settings, "--out", "whole") == 0
    for number in range(signals):
        shutil.rmtree(cache_folder(), ignore_errors=True)
        shutil.rmtree("run", ignore_errors=True)
        capsys.readouterr()
        kind, code, word = ((signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"))[number % 2]
        # Even shares of the calls, in random places, so that each part of a run meets some.
        broken = Interrupting(1 + int(whole.calls * (number + moments.random()) / signals), kind)
        ended, err = broken.run(*settings, "--out", "run"), capsys.readouterr().err
        assert broken.calls - broken.at < whole.calls / 20, f"it went on after call {broken.at:,}: {err}"
        if ended == 0:
            continue  # it came too late
        assert ended == code
        assert "Traceback" not in err
        assert err.splitlines()[-1].startswith(f"chargen: {word}")
        if Path("run").exists():
            assert f"{word} at step {check_whole(Path('run')):,}; go on with: chargen train --resume run" in err
            if number % 4 < 2:
                assert Interrupting().run("train", "--resume", "run") == 0
                assert_same_runs(tmp_path / "whole", tmp_path / "run")


PLACES = {
    "reading": (reading, "text_files"),
    "encoding": (encoder, "count_code_points"),
    "a step": (trainer, "learning_rate"),
    "a window": (validator, "loss_windows"),
    "a save": (tensor_file, "pack"),
}


@pytest.mark.parametrize(("place", "call", "saved"), [
    ("reading", 1, None), ("encoding", 1, None), ("a step", 1, 1), ("a step", 23, 23), ("a save", 1, 1),
    ("a save", 4, 30), ("a window", 1, 12), ("a window", 2, 24), ("a window", 3, 30),
])  # fmt: skip
def test_a_request_to_stop_in_the_middle_of_something_is_heard_there(
    place: str, call: int, saved: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    Path("text.txt").write_text(text(4000))
    settings = ["train", "text.txt", *SMALL, "--steps", "30", "--eval-every", "12"]
    module, name = PLACES[place]
    real, calls = getattr(module, name), 0

    def interrupted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, interrupted)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    stopped = run(*settings, "--out", "run")
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert calls == call or (place == "a save" and calls <= call + 4), "it went on"
    assert stopped.code == 143
    monkeypatch.setattr(module, name, real)
    if saved is None:
        assert stopped.last == "chargen: terminated"
        assert not (tmp_path / "run").exists()
        return
    assert stopped.last == f"chargen: terminated at step {saved}; go on with: chargen train --resume run"
    assert check_whole(tmp_path / "run") == saved
    for arguments in (["train", "--resume", "run"], [*settings, "--out", "whole"]):
        assert run(*arguments).code == 0
    assert_same_runs(tmp_path / "whole", tmp_path / "run")
    refused = run("train", "--resume", "run")
    assert refused.code == 2
    assert "give a larger --steps" in refused.err


TRAIN = ["train", "text.txt", *SMALL, "--steps", "3", "--out", "run"]
EVAL = ["eval", "model.safetensors", "text.txt"]


def test_a_finished_run_that_goes_on_is_saved_when_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    Path("text.txt").write_text(text(4000))
    settings = ["train", "text.txt", *SMALL, "--eval-every", "12"]
    for arguments, code in (
        ([*settings, "--out", "whole", "--steps", "30"], 0), ([*settings, "--out", "run", "--steps", "10"], 0),
        (["train", "--resume", "run", "--steps", "30"], 143), (["train", "--resume", "run"], 0),
    ):  # fmt: skip
        real = trainer.learning_rate

        def rate(config: Any, step: int, share: float) -> float:
            if step == 20 and code == 143:  # noqa: B023
                os.kill(os.getpid(), signal.SIGTERM)
            return real(config, step, share)  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(trainer, "learning_rate", rate)
            ended = run(*arguments)
        assert ended.code == code, ended.err
        if code == 143:
            assert check_whole(tmp_path / "run") == 21
    assert read_run_state(tmp_path / "run").progress["step"] == 30


@pytest.mark.parametrize(("arguments", "kind", "module"), [
    *((TRAIN, signal.SIGINT, module) for module in ("click", "chargen.cli.terminal", "torch", "numpy")),
    (TRAIN, signal.SIGTERM, "torch"), (TRAIN, signal.SIGINT, "chargen.training.trainer"),
    (EVAL, signal.SIGINT, "torch"), (EVAL, signal.SIGINT, "torch._C"),
])  # fmt: skip
def test_a_request_to_stop_while_loading_is_one_line(
    arguments: list[str], kind: signal.Signals, module: str, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("abc " * 1000)
    save_model(tmp_path / "model.safetensors", small_model())
    program = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started this may ignore it
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            try:
                os.kill(os.getpid(), {int(kind)})
            except BaseException as error:
                raise RuntimeError("initialization failed") from error  # as compiled libraries do
sys.meta_path.insert(0, Finder())
from chargen.__main__ import main
main()
"""
    words = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + kind, done.stderr
    word = "interrupted" if kind == signal.SIGINT else "terminated"
    assert done.stderr.splitlines()[-1] == f"chargen: {word}"
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_run_whose_terminal_is_closed_is_saved(tmp_path: Path) -> None:
    import pty  # where there is fork

    (tmp_path / "text.txt").write_text(text(4000))
    words = [sys.executable, "-m", "chargen", "train", "text.txt", *SMALL, "--steps", "1000000", "--out", "run"]
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever started this may ignore it
        os.execv(sys.executable, words)
    shown = b""
    while not re.search(rb"step [1-9][0-9]", shown):
        shown += os.read(terminal, 10_000)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 129
    assert check_whole(tmp_path / "run") >= 10


def test_a_request_that_comes_while_a_generator_is_closed_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    def numbers() -> Iterator[int]:
        try:
            yield 1
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    def go_on(seconds: float) -> StopRequest:
        with stop_on_signals() as stop:
            assert next(numbers()) == 1  # closed at once: nothing holds it
            time.sleep(seconds)
        return stop

    before = sys.unraisablehook
    with pytest.raises(Stopped):
        go_on(HANG)
    assert go_on(0).number == signal.SIGTERM, "also where the block ends before"
    assert sys.unraisablehook is before
    assert capsys.readouterr().err == ""


def test_a_second_hang_up_is_not_impatience() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with stop_on_signals() as stop:
            stop.deferred = True
            for _ in range(3):  # the system sends one, and the shell that ends another
                os.kill(os.getpid(), signal.SIGHUP)
            assert stop.number == signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, before)


def test_nohup_goes_on_being_heard(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_program_that_ignores_interruptions_goes_on_ignoring_them(tmp_path: Path) -> None:
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nfrom chargen.__main__ import main\ntry:\n    "
    )
    program += "main()\nfinally:\n    print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    done = subprocess.run([sys.executable, "-c", program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"
