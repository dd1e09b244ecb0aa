"""What the README and the other documents say is so; `test_guides` runs their code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from chargen import evaluate
from chargen.cli.main import NAMES, import_command
from docs import house

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = ROOT / "docs/pages"


def block(name: str) -> str:
    """The fenced block that follows the comment `name`."""
    return re.search(rf"<!-- {name} -->\n```\w*\n(.*?)```", README, re.DOTALL)[1]


def test_the_python_example_runs(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text(
        "It was a bright cold day in April, and the clocks were striking thirteen.\n" * 50
    )
    program = block("python").replace("minutes=10", "steps=3, hidden_size=8")
    assert "steps=3" in program
    assert len(re.findall(r"^\S", program, re.MULTILINE)) <= 7, "about six lines"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "checkpoints/mine/model.safetensors").exists()


def test_the_sample_is_one_that_the_model_writes() -> None:
    """Not byte for byte: on other processors rounding may lead elsewhere."""
    command = re.search(r"^chargen sample shakespeare .*--length (\d+)$", README, re.MULTILINE)
    sample = block("sample").removesuffix("\n")
    assert len(sample) == len("ROMEO:") + int(command[1])
    assert evaluate("shakespeare", sample).nats_per_character < 1.1


def test_the_readme_is_short() -> None:
    assert README.count("\n") <= 150
    assert len(README.split()) <= 1_100


@pytest.mark.parametrize("name", ["quick start", "test command"])
def test_each_of_the_two_commands_is_one_line(name: str) -> None:
    assert block(name).strip().count("\n") == 0
    assert block(name).startswith("python3 -m venv .venv && .venv/bin/pip install -c constraints.txt ")


def test_every_option_named_is_one_that_exists() -> None:
    params = [param for name in NAMES for param in import_command(name).params]
    flags = {flag for param in params for flag in (*param.opts, *param.secondary_opts)} | {"--help", "--version"}
    flags |= {"--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-endpoint", "--max-restarts"}  # of torchrun
    pages = [path for room in ("guides", "concepts", "reference") for path in (PAGES / room).glob("*.md")]
    text = "\n".join([README, *(path.read_text("utf-8") for path in pages)]).replace(block("test command"), "")
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= flags


def test_the_file_map_names_every_module() -> None:
    """The map in the documents, by rooms; and nothing that is not there."""
    sections = (PAGES / "architecture.md").read_text("utf-8").split("\n**")[1:]
    named = {
        section.split("**")[0].strip("`/"): set(re.findall(r"^\| `(\w+)` \|", section, re.M)) for section in sections
    }
    there: dict[str, set[str]] = {}
    for path in (ROOT / "chargen").rglob("*.py"):
        if path.stem not in ("__init__", "__main__") and path.parent.name != "cli":
            there.setdefault(path.parent.name.replace("chargen", "The ground"), set()).add(path.stem)
    assert named == there


def test_every_link_leads_somewhere() -> None:
    """Also outside the site, which mkdocs checks: pages are read as they are, in the repository."""
    for page in [ROOT / "README.md", *ROOT.glob("*/*.md"), *ROOT.glob(".github/*.md"), *PAGES.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[)#]", page.read_text("utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page}: {target}"


def test_the_house_is_drawn_from_the_imports() -> None:
    assert (PAGES / "house.svg").read_text("utf-8") == house.draw(), "python -m docs.house draws it anew"


def test_pages_fetch_nothing() -> None:
    """No picture, script or font comes from a network."""
    for path in [README, *(path.read_text("utf-8") for path in PAGES.rglob("*.md"))]:
        assert not re.search(r"!\[[^]]*\]\(http|<script|<img|<link", path)
    assert "font: false" in (ROOT / "docs/mkdocs.yml").read_text()


def test_the_tested_versions_are_pinned() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    assert "torch==2.13.0\n" in constraints
    needed = re.findall(r"^    ([a-z][a-z-]+)(?:>=.*)?$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert {"torch", "mkdocs-material"} <= set(needed)
    for name in needed:
        assert re.search(rf"^{name}==", constraints, re.MULTILINE), name
    assert (ROOT / "pyproject.toml").read_text().startswith("[build-system]\n")
    assert (ROOT / "pyproject.toml").read_text().count("[") == 2
