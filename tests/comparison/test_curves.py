"""Pictures of runs: every file the same for the same runs, legible whatever runs are called."""

import itertools
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import chargen
from chargen.errors import SettingError
from tests.run_folders import model, write_run

pytest.importorskip("matplotlib")
from matplotlib import rc_context
from matplotlib.figure import Figure

from chargen.comparison import curves
from chargen.comparison.run_table import TableRow

NAMES = ["plain", "_hidden", "$\\frac{$", "\x1b[2J\u202e", "漢字", "<script>&", "a\nb", "x" * 200, "e\udcff"]


def compared(folder: Path, names: list[str]) -> chargen.Comparison:
    for number, name in enumerate(names):
        write_run(folder / name, 2 + number / 9, lr=0.001 * (number + 1))
    return chargen.compare(folder)


@pytest.mark.parametrize(("ending", "by"), [*zip(["svg", "png", "SVG"], curves.AXES, strict=True)])
def test_equal_runs_give_equal_files(ending: str, by: str, tmp_path: Path) -> None:
    comparison = compared(tmp_path / "runs", NAMES[:2])
    pictures = []
    for name in ("first", "second"):
        path = tmp_path / f"{name}.{ending}"
        comparison.plot(path, by=by)
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG" if ending == "png" else b"<?xml")
    for word in (b"date", b"Date", bytes(tmp_path)):
        assert word not in pictures[0]


def test_every_name_stands_in_the_picture_as_text_and_does_nothing(tmp_path: Path) -> None:
    comparison = compared(tmp_path / "runs", NAMES)
    comparison.plot(tmp_path / "a.svg")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    for row in comparison.rows:
        assert curves._label(row) in texts
    assert {"validation", "training", "seconds of training", "gradient norm"} <= {*texts}
    assert not [element for element in root.iter() if "script" in element.tag]


def panels_of(rows: tuple[TableRow, ...], by: str = "steps") -> Figure:
    with rc_context(curves.STYLE):
        figure = Figure(figsize=(9.6, 6.4), layout="constrained")
        curves._draw(figure, rows, by)
        figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("many", [1, 8, 30])
def test_the_legend_covers_no_panel_and_names_all_that_fit(many: int, tmp_path: Path) -> None:
    figure = panels_of(compared(tmp_path, [f"run-{number:02}" + "x" * 30 for number in range(many)]).rows)
    (legend,), box = figure.legends, figure.legends[0].get_window_extent()
    assert not [panel for panel in figure.axes if panel.get_tightbbox().overlaps(box)]
    assert all(panel.get_window_extent().width > 100 for panel in figure.axes)
    assert box.y0 >= 0
    assert len(legend.get_texts()) == min(many, curves.MOST_NAMES) + 3
    if many > curves.MOST_NAMES:
        assert legend.get_texts()[curves.MOST_NAMES - 1].get_text() == f"and {many - curves.MOST_NAMES + 1} more"


def test_numbers_at_the_axes_do_not_overlap(tmp_path: Path) -> None:
    for panel in panels_of(compared(tmp_path, ["a", "b"]).rows).axes:
        boxes = [label.get_window_extent() for label in panel.get_xticklabels() if label.get_text()]
        assert len(boxes) > 2
        assert all(first.x1 < second.x0 for first, second in itertools.pairwise(boxes))


def test_lines_are_the_figures_of_the_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 2.0)
    write_run(tmp_path / "b", 2.1, seed=1)
    write_run(tmp_path / "c", 2.2, file=model(counts=[5] * 10))
    comparison = chargen.compare(tmp_path)
    panels = panels_of(comparison.rows).axes
    lines = [line for line in panels[0].lines if len(line.get_xdata()) > 1]
    for run, (training, validation) in zip(comparison.runs, zip(lines[::2], lines[1::2], strict=True), strict=True):
        there = np.isfinite(run.curves.valid_loss)
        np.testing.assert_array_equal(training.get_ydata(), run.curves.train_loss)
        np.testing.assert_array_equal(validation.get_xdata(), run.curves.steps[there])
        np.testing.assert_array_equal(validation.get_ydata(), run.curves.valid_loss[there])
    colors = [line.get_color() for line in lines[::2]]
    assert colors[0] == colors[1] != colors[2], "a colour for each row, and so for all its seeds"
    low, high = panels[0].get_ylim()
    assert low < 2.0 < high < 2.65, "what an untrained model loses is above the picture"


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    comparison = compared(tmp_path / "runs", ["a"])
    for wrong in ("a.pdf", "a", "", 3):
        with pytest.raises(SettingError):
            comparison.plot(wrong)
    with pytest.raises(SettingError, match="by is 'hours': it must be one of seconds, characters, steps"):
        comparison.plot(tmp_path / "a.svg", by="hours")
    with pytest.raises(SettingError, match="nothing to draw"):
        chargen.compare("shakespeare").plot(tmp_path / "a.svg")
    assert not (tmp_path / "a.svg").exists()


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    comparison = compared(tmp_path / "runs", ["a", "b"])
    comparison.to_tensorboard(tmp_path / "events")
    for run in comparison.runs:
        events = EventAccumulator(str(tmp_path / "events" / run.name))
        events.Reload()
        assert {*events.Tags()["scalars"]} == {"loss/train", "loss/valid", "lr", "grad_norm", "chars_per_second"}
        losses = run.curves.valid_loss[np.isfinite(run.curves.valid_loss)]
        np.testing.assert_allclose([event.value for event in events.Scalars("loss/valid")], losses, rtol=1e-6)
        assert [event.step for event in events.Scalars("lr")] == run.curves.steps.tolist()
    with pytest.raises(SettingError, match="something is already"):
        comparison.to_tensorboard(tmp_path / "events")
