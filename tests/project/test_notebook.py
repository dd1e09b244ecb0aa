"""The notebook for a class runs from its first cell to its last, and tells what its text says."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "pages" / "guides" / "inside.ipynb"


@pytest.mark.slow
def test_every_cell_of_the_notebook_runs() -> None:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    names: dict[str, Any] = {}
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        for cell in cells:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), names)
    assert names["reset"] > names["carried"] + 0.2
    assert min(names["reached"], key=names["reached"].get) > 2, "windows of two characters learn least"
    assert abs(names["neuron"].held_out_correlation) > 0.6
    assert written.getvalue().count(" held at ") == 2
    long, short = map(float, re.findall(r"lines have ([\d.]+) characters", written.getvalue()))
    assert long < short - 4, "a model that takes its lines for long ends them early"
