"""The workflow names commands, options, extras and tests that there are."""

import configparser
import shlex

import pytest

from tests.commands import parse
from tests.project.test_floors import ROOT

yaml = pytest.importorskip("yaml")
REPOSITORY = ROOT.parent
JOBS = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]
WORDS = [shlex.split(step["run"]) for step in JOBS["other-systems"]["steps"] if "run" in step]


def words_after(*start: str) -> list[list[str]]:
    """What follows these words, of the lines of the job that begin with them."""
    return [words[len(start) :] for words in WORDS if words[: len(start)] == list(start)]


def test_the_other_systems_are_tried_with_the_pythons_that_linux_has() -> None:
    matrix = JOBS["other-systems"]["strategy"]["matrix"]
    assert matrix.pop("system") == ["windows-latest", "macos-latest"]
    assert matrix == JOBS["run"]["strategy"]["matrix"]
    assert (REPOSITORY / ".ci/run").stat().st_mode & 0o100
    assert [step["run"] for step in JOBS["run"]["steps"] if "run" in step] == [".ci/run"]


def test_no_line_is_for_one_shell_only() -> None:
    """Windows runs them in PowerShell: no $, no single quotes, no `&&`, no backslash."""
    assert all(words[0] == "python" for words in WORDS)
    for step in JOBS["other-systems"]["steps"]:
        assert not set(step.get("run", "")) & set("$'&|;\\`<>*")


def test_its_commands_parse() -> None:
    names = ["corpus make", "train", "train", "sample", "score", "export", "train", "corpus cache"]
    for name, words in zip(names, words_after("python", "-m", "chargen"), strict=True):
        assert words[: len(name.split())] == name.split()
        assert parse(name, words[len(name.split()) :]).params


def test_it_installs_and_tests_what_there_is() -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg", "utf-8")
    (installed,) = words_after("python", "-m", "pip", "install")
    assert installed == ["-c", "constraints.txt", "-e", ".[test]"]
    assert "test" in setup["options.extras_require"]
    (tests,) = words_after("python", "-X", "utf8", "-m", "pytest")
    assert tests[:2] == ["-n", "2"]
    assert tests[2:]
    assert all((REPOSITORY / name).exists() for name in tests[2:]), tests
