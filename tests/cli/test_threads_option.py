"""`--threads`, of every command that computes."""

from pathlib import Path

import pytest

from chargen.cli import threads_option
from chargen.kernels import threads
from tests.commands import Run

COMPUTING = ["train", "sample", "write", "fill", "eval", "score", "inspect", "check", "novelty"]


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of threads that are set, on two cores; nothing is changed."""
    numbers: list[int] = []
    monkeypatch.setattr(threads_option, "cores", lambda: 2)
    for module in (threads_option, threads):
        monkeypatch.setattr(module, "set_threads", numbers.append)
    return numbers


@pytest.mark.parametrize("name", COMPUTING)
@pytest.mark.parametrize("number", ["0", "-1", "1025", "two", "1.5"])
def test_a_number_of_threads_that_is_none_is_refused(name: str, number: str, run: Run, numbers: list[int]) -> None:
    result = run(name, "nothing", "--threads", number)
    assert result.code == 2
    assert result.one_line()
    assert f"--threads is '{number}': it must be a whole number, 1 to 1,024" in result.err
    assert numbers == []


@pytest.mark.parametrize("name", COMPUTING)
def test_more_threads_than_cores_are_taken_with_a_warning(name: str, run: Run, numbers: list[int]) -> None:
    warned = run(name, "nothing", "nothing", "--threads", "3", "--quiet").err.splitlines()
    assert warned[0] == "warning: --threads is 3: more than the 2 cores here compute no faster"
    assert "warning" not in run(name, "nothing", "nothing", "--threads", "2").err
    assert numbers == [3, 2]


def test_a_settings_file_may_say_how_many_threads(run: Run, numbers: list[int], tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("threads = 2\n")
    run("sample", "nothing", "--config", tmp_path / "settings.toml")
    assert numbers == [2]
    run("sample", "nothing", "--config", tmp_path / "settings.toml", "--threads", "1")
    assert numbers == [2, 1]


def test_commands_that_a_launcher_started_share_the_cores_unless_they_are_told_how_many(
    run: Run, numbers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    for name, value in launch.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(threads, "cores", lambda: 8)
    monkeypatch.setattr(threads, "_CHOSEN", [])
    run("sample", "nothing")
    assert numbers == [4]
    warned = run("sample", "nothing", "--threads", "2").err
    assert numbers == [4, 4, 2]
    assert "warning: --threads is 2 in each of 2 processes: more than the 2 cores here compute no faster" in warned
    monkeypatch.setenv("RANK", "x")
    assert run("sample", "nothing").err == "chargen: the environment's RANK is 'x': it must be a number; use torchrun\n"
