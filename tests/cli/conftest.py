"""Models for commands to read, and a terminal for them to write to."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from chargen.storage.model_file import FILE_NAME, ModelFile, save_model
from tests.commands import Run
from tests.small_models import small_model
from tests.terminals import Terminal


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A run folder with a model that writes characters of all kinds."""
    save_model(tmp_path / "model" / FILE_NAME, small_model(characters="abcdefgh \n\x1b\u202eé"))
    return tmp_path / "model"


@cache
def made(letters: str, both: bool) -> ModelFile:
    """A model, made once for all tests."""
    return small_model(characters=letters, scale=1.5, bidirectional=both, cloze=1.0 * both)


@pytest.fixture
def three_models(tmp_path: Path) -> None:
    """Three models: "two" and "hostile" read both ways, "one" reads forward."""
    for name, letters in (
        ("two", "abcdefgh \n"),
        ("one", "abcdefgh \n"),
        ("hostile", "abcde[2J \n\x1b\x07\x9b\u202eé"),
    ):
        save_model(tmp_path / name / FILE_NAME, made(letters, name != "one"))


@pytest.fixture
def on_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command whose standard output is a terminal, and return what that gets."""
    monkeypatch.delenv("NO_COLOR", raising=False)

    def run_command(*arguments: Any) -> str:
        screen = Terminal()
        assert run(*arguments, stdout=screen).code == 0
        return screen.getvalue()

    return run_command
