"""Every recipe is one command, or two joined, that chargen understands."""

import shlex
from pathlib import Path

import pytest

from tests.commands import parse

RECIPES = sorted((Path(__file__).parents[2] / "benchmarks/recipes").glob("*.sh"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_understood(path: Path) -> None:
    title, *lines = path.read_text().splitlines()
    assert title.startswith("# ")
    assert len(lines) == 1
    for command in lines[0].split(" && "):
        program, name, *arguments = shlex.split(command)
        assert program == "chargen"
        parse(name, arguments)  # raises on what it does not know


def test_every_recipe_is_in_the_table() -> None:
    table = (Path(__file__).parents[2] / "docs/pages/recipes.md").read_text()
    assert RECIPES
    for path in RECIPES:
        assert f"`{path.stem}`" in table, path.stem
