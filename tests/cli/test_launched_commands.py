"""Commands that several processes were launched for, and that have nothing to share."""

from typing import Any

import pytest

from chargen.cli.main import NAMES

COMMANDS = sorted({name.split()[0] for name in NAMES} - {"train"})


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let this be one of several processes."""

    def set_rank(rank: int, world_size: int) -> None:
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world_size))

    return set_rank


def test_the_first_process_does_what_it_would_do_alone(run: Any, launch: Any) -> None:
    words = ["sample", "shakespeare", "--length", 9, "--seed", 1]
    alone = run(*words)
    launch(0, 4)
    said = "has nothing to share: of 4 processes, the first works alone"
    assert run(*words) == (0, alone.out, f"warning: sample {said}; give each a part by --first instead\n")
    counted = run("corpus", "make", "counter", "--num", 3, "--quiet")
    assert (counted.code, counted.err) == (0, f"warning: corpus {said}\n")
    assert counted.out
    launch(0, 1)
    assert run(*words) == alone


@pytest.mark.parametrize("command", COMMANDS)
def test_the_others_end_without_a_word(run: Any, launch: Any, command: str) -> None:
    launch(3, 4)
    assert run(command, "--whatever") == (0, "", "")


def test_what_a_launcher_cannot_have_said_is_one_line(run: Any, launch: Any) -> None:
    launch(4, 4)
    refused = run("info", "shakespeare")
    assert refused.one_line()
    assert refused.code == 2
