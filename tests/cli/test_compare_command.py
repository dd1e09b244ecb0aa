"""`chargen compare`: a table that fits, in any terminal, whatever runs are called."""

import csv
import io
import itertools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.cli import compare as module
from chargen.cli import terminal
from chargen.cli.compare import _fitting, _shorten, _two_lines
from chargen.cli.sparkline import ASCII, BLOCKS, resample, sparkline
from chargen.cli.terminal import display_width
from chargen.comparison.run_summary import SETTINGS
from tests.commands import Run
from tests.run_folders import model, write_run
from tests.terminals import harmful

HOSTILE = ["\x1b[2Jx", "\u202egnp", "two\nlines", "漢字" * 20, "$\\frac$", "_x", "=1+1", "x" * 200]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of runs: three seeds, other settings, another text, one that goes on."""
    folder = tmp_path / "runs"
    for seed, loss in enumerate((2.1, 2.2, 2.4)):
        write_run(folder / f"gru-{seed}", loss, seed=seed, test_loss=loss + 0.1)
    write_run(folder / "lstm", 1.9, file=model("lstm"), lr=0.003, batch_size=512, seq_length=100, weight_decay=0.1)
    write_run(folder / "going", 2.0, finished=False)
    write_run(folder / "letters", 1.2, file=model(counts=[5] * 10), sources={"train": ["letters.txt"]})
    return folder


def test_the_table_says_what_the_figures_are(runs: Path, run: Run) -> None:
    result = run("compare", runs)
    assert result.code == 0
    lines = result.out.splitlines()
    assert " ".join(lines[0].split()) == "batch seq weight valid valid test chars trained para- valid"
    assert lines[1].startswith("run      cell   size  length     lr   decay  nats              bits  nats    ")
    assert lines[2] == "judged on 0.1 of novel.txt:"
    assert [line.split()[0] for line in lines[3:6]] == ["lstm", "going", "gru-*"]
    assert "2.2333 ±0.1528  3.2220  2.3333 ±0.1528     3" in lines[5]
    assert "2.0000*  " in lines[4]
    assert lines[6] == "judged on 0.1 of letters.txt:"
    assert lines[8] == "* so far, or on a part of the validation text"
    assert "warning: letters was judged on 0.1 of letters.txt, not on 0.1 of novel.txt" in result.err
    assert "warning: going is not finished" in result.err


@pytest.mark.parametrize("width", [39, 59, 79, 99, 179])
def test_the_table_fits_and_says_what_it_leaves_out(
    width: int, runs: Path, on_terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(HOSTILE):
        write_run(runs / name, 2.3, lr=0.02 + number / 1_000)
    for place in (module, terminal):
        monkeypatch.setattr(place, "terminal_width", lambda stream=None: width)
    shown = on_terminal("compare", runs)
    table = shown[: shown.index("no room for")] if "no room for" in shown else shown
    assert max(map(display_width, table.splitlines())) <= width
    assert not harmful(shown)
    assert "bits" in shown
    assert ("no room for" in shown) == (width < 179)
    body = [line for line in table.splitlines()[2:] if not line.startswith(("judged", "*", " "))]
    assert len(body) == 4 + len(HOSTILE)
    columns = {display_width(re.split(r"\d\.\d{4}", line)[0]) for line in body}
    assert len(columns) == 1, "losses stand below one another"


def test_names_of_runs_steer_no_terminal(runs: Path, on_terminal: Callable[..., str]) -> None:
    for name in HOSTILE:
        write_run(runs / name, 2.3, lr=0.004, sources={"train": [name]}, valid_fraction=0.25)
    for form in ([], ["--csv"], ["--json"]):
        assert not harmful(on_terminal("compare", runs, *form).replace("\r\n", "\n"))


def test_csv_and_json_are_printed_whole(runs: Path, run: Run) -> None:
    write_run(runs / 'a,"b"\n\x1b', 2.3, lr=0.004)
    described = json.loads(run("compare", runs, "--json").out)
    read = list(csv.DictReader(io.StringIO(run("compare", runs, "--csv").out, newline="")))
    assert [line["name"] for line in read] == [row["name"] for row in described["rows"]]
    assert [float(line["valid_loss"]) for line in read] == [row["valid_loss"] for row in described["rows"]]
    assert len(described["runs"]) == 7
    assert len(described["warnings"]) == 2


def test_a_terminal_without_blocks_gets_ascii(runs: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    for encoding, marks in (("ascii", ASCII), ("latin-1", ASCII), ("utf-8", BLOCKS)):
        stream = io.TextIOWrapper(io.BytesIO(), encoding, errors="backslashreplace", write_through=True)
        assert run("compare", runs, stdout=stream).code == 0
        shown = stream.buffer.getvalue().decode(encoding)
        assert "\\" not in shown
        lstm = next(line for line in shown.splitlines() if line.startswith("lstm"))
        assert {*lstm.split()[-1]} <= {*marks}
        assert lstm.split()[-1][0] in marks[3:]
        assert lstm.split()[-1][-1] == marks[0]
        assert ("+-0.1528" in shown) == (encoding == "ascii")


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ([], 2, "no run to compare: give run folders"),
        (["runs", "--csv", "--json"], 2, "--csv and --json are two forms of one table: give one"),
        (["runs", "--by", "steps"], 2, "--by says how curves are drawn: give --out, too"),
        (["runs", "--out", "a.pdf"], 2, "a.pdf is no picture that is drawn: its name must end in .svg or .png"),
        (["run"], 4, "no model file or run folder run; did you mean runs"),
        (["runs", "--tensorboard", "runs"], 2, "--tensorboard is runs, where something is already: name a new folder"),
    ],
)
def test_what_is_wrong_is_one_line(words: list[str], code: int, line: str, runs: Path, run: Run) -> None:
    result = run("compare", *words)
    assert (result.code, result.one_line()) == (code, True)
    assert line in result.err


@pytest.mark.parametrize(
    ("package", "words"),
    [("matplotlib", ["--out", "a.svg"]), ("torch.utils.tensorboard", ["--tensorboard", "events"])],
)
def test_a_package_that_is_missing_is_named_with_the_way_to_it(
    package: str, words: list[str], runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    result = run("compare", "runs", *words)
    assert (result.code, result.one_line()) == (2, True)
    extra = {"matplotlib": "plots"}.get(package, "tensorboard")
    assert result.err.endswith(f"one more package: pip install 'chargen[{extra}]'\n")
    assert not Path(words[1]).exists()


def test_runs_are_drawn_and_told_at_once(runs: Path, run: Run) -> None:
    pytest.importorskip("matplotlib")
    result = run("compare", "runs", "--out", "curves.svg", "--by", "characters")
    assert result.code == 0
    assert re.match(r"curves\.svg: curves of \d runs\n", result.err)
    assert "characters read" in Path("curves.svg").read_text()
    assert "gru-*" in result.out


@given(st.lists(st.floats(0.1, 9) | st.just(float("nan")), max_size=40), st.integers(1, 30))
def test_a_sparkline_is_as_wide_as_asked_and_rises_with_its_values(values: list[float], width: int) -> None:
    means = resample(np.array(values), width)
    there = [value for value in values if value == value]
    assert len(means) == (width if there else 0)
    if len(there) >= width:
        assert min(there) - 1e-9 <= means.min() <= means.max() <= max(there) + 1e-9
    for marks in (BLOCKS, ASCII):
        row = sparkline(means.tolist(), 0.5, 4.0, marks)
        heights = [marks.index(mark) for mark in row]
        assert len(row) == len(means)
        for (low, first), (high, second) in itertools.combinations(sorted(zip(means, heights, strict=True)), 2):
            assert first <= second, (low, high)
    assert sparkline([0.5, 4.0, 0.1, 9.0], 0.5, 4.0) == "▁█▁█"
    assert sparkline([2.0], 2.0, 2.0) == "▁"


@given(st.text(st.sampled_from("ab漢e\u0301-"), max_size=30), st.integers(5, 20))
def test_a_name_that_is_too_wide_loses_its_middle(name: str, width: int) -> None:
    short = _shorten(name, width)
    assert display_width(short) <= max(width, 0)
    assert short == name or (display_width(name) > width and "…" in short and name.startswith(short.split("…")[0]))


@given(st.data())
def test_what_matters_most_is_shown_as_long_as_there_is_room(data: st.DataObject) -> None:
    def column(width: int) -> Any:
        return module._Column(("", "x" * width), ())

    settings = [f"s{number}" for number in range(data.draw(st.integers(0, 9)))]
    names = ["run", *settings, "valid", "bits", "runs", "time", "speed", "trained steps", "parameters", "curve"]
    columns = {name: column(data.draw(st.integers(1, 20))) for name in names}
    width = data.draw(st.integers(45, 150))
    shown = _fitting(columns, settings, width)
    used = sum(columns[name].width for name in shown) + 2 * (len(shown) - 1)
    assert used <= width
    assert shown == [name for name in names if name in shown]
    assert {"run", "valid"} <= {*shown}
    assert all(used + columns[name].width + 2 > width for name in names if name not in shown)
    assert _fitting(columns, settings, None) == names


@pytest.mark.parametrize("name", SETTINGS)
def test_headings_hold_the_whole_name_of_a_setting(name: str) -> None:
    assert "_".join(filter(None, _two_lines(name))) == name
    assert max(map(len, _two_lines(name))) <= 10 or "_" not in name
