"""Which of several processes this is, as a launcher tells it."""

import pytest

from chargen.errors import SettingError
from chargen.launch import VARIABLES, Launch, read_launch


def _set(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("variables", [{}, {"RANK": "3"}, {"WORLD_SIZE": "4"}, {"RANK": "0", "WORLD_SIZE": "1"}])
def test_a_process_that_nobody_launched_is_alone(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    _set(monkeypatch, **variables)
    assert read_launch() == Launch()
    assert read_launch().alone


def test_what_torchrun_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, RANK="5", WORLD_SIZE="8", LOCAL_RANK="1", LOCAL_WORLD_SIZE="4")
    assert read_launch() == Launch(5, 8, 1, 4)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert read_launch().restarts == 2
    assert not read_launch().alone


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK is 'x': it must be a number"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is '-1': it must be a number"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK 2, WORLD_SIZE 2, LOCAL_RANK 0, LOCAL_WORLD_SIZE 1, .* contradict"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "3"}, "contradict"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, "contradict"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "contradict"),
    ],
)
def test_variables_that_contradict_each_other(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    _set(monkeypatch, **variables)
    with pytest.raises(SettingError, match=message):
        read_launch()
