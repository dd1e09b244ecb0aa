"""What the README says is so."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def block(name: str) -> str:
    """The fenced block that follows the comment `name`."""
    return re.search(rf"<!-- {name} -->\n```\w*\n(.*?)```", README, re.DOTALL)[1]


def test_the_python_example_runs(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text(
        "It was a bright cold day in April, and the clocks were striking thirteen.\n" * 50
    )
    program = block("python").replace("minutes=10", "steps=3, hidden_size=8")
    assert len(re.findall(r"^\S", program, re.MULTILINE)) <= 7, "about six lines"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "checkpoints/novel/model.safetensors").exists()


@pytest.mark.parametrize("name", ["quick start", "test command"])
def test_each_of_the_two_commands_is_one_line(name: str) -> None:
    assert block(name).strip().count("\n") == 0
    assert block(name).startswith("python3 -m venv .venv && .venv/bin/pip install -c constraints.txt ")


def test_every_option_named_is_one_that_exists() -> None:
    helped = ""
    for command in ("train", "sample", "fill", "eval", "score", "check", "info"):
        done = subprocess.run([sys.executable, "-m", "chargen", command, "--help"], capture_output=True, check=True)
        helped += done.stdout.decode()
    text = README.replace(block("test command"), "")
    for option in sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))):
        assert re.search(rf"{option}(?![\w-])", helped), option


def test_the_file_map_names_every_module() -> None:
    """The map in the documents, by rooms; and nothing that is not there."""
    sections = (ROOT / "docs/pages/architecture.md").read_text("utf-8").split("\n**")[1:]
    named = {
        section.split("**")[0].strip("`/"): set(re.findall(r"^\| `(\w+)` \|", section, re.M)) for section in sections
    }
    there: dict[str, set[str]] = {}
    for path in (ROOT / "chargen").rglob("*.py"):
        if path.stem not in ("__init__", "__main__") and path.parent.name != "cli":
            there.setdefault(path.parent.name.replace("chargen", "The ground"), set()).add(path.stem)
    assert named == there


def test_the_tested_versions_are_pinned() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    assert "torch==2.13.0\n" in constraints
    needed = re.findall(r"^    ([a-z-]+)>=", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert needed
    for name in needed:
        assert re.search(rf"^{name}==", constraints, re.MULTILINE), name
    assert (ROOT / "pyproject.toml").read_text().startswith("[build-system]\n")
    assert (ROOT / "pyproject.toml").read_text().count("[") == 2
