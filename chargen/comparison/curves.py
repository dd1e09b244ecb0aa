"""The course of runs as a picture: losses, learning rate, gradient norm and speed, by matplotlib."""

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chargen.comparison.run_table import TableRow, format_large
from chargen.durable import write_durably
from chargen.errors import SettingError, amount, repr_short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = {"seconds": "seconds of training", "characters": "characters read", "steps": "steps"}
"""What curves are drawn over, and what the axis says."""
PANELS = {"lr": "learning rate", "grad_norm": "gradient norm", "chars_per_second": "characters a second"}
FORMATS = ("svg", "png")
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5b4a9e", "#8a6d1a")
"""Of rows, told apart by eyes that see no red or no green, too; then again with other dashes."""
DASHES = ("-", "--", ":", "-.")
STYLE = {
    "svg.hashsalt": "chargen", "svg.fonttype": "none", "text.parse_math": False, "text.usetex": False,
    "font.family": "sans-serif", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.6, "axes.axisbelow": True,
    "axes.formatter.useoffset": False, "path.simplify": True,
}  # fmt: skip
"""The same salt gives the same file; `parse_math` would take a $ in a name for a formula."""
VALIDATION: dict[str, Any] = {"linewidth": 1.8}
TRAINING: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.5}
BEST: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 5}
MAX_NAME, MOST_NAMES = 32, 20
"""Characters of a name in the legend, and names."""


def draw_curves(rows: Sequence[TableRow], path: Path, by: str) -> None:
    """Draw runs into a file, a colour for each row of their table. Equal runs give equal files.

    Args:
        rows: of the table.
        path: the picture; its name ends in .svg or .png.
        by: "seconds", "characters" or "steps".

    Raises:
        SettingError: for another ending or another `by`, where matplotlib is not installed, or where no run has lines
            of metrics.
        WriteError: where the disk refuses.
    """
    if by not in AXES:
        raise SettingError(f"by is {repr_short(by)}: it must be one of {', '.join(AXES)}", "by")
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise SettingError(f"{path} is no picture that is drawn: its name must end in .svg or .png")
    if not any(len(run.curves.steps) for row in rows for run in row.runs):
        raise SettingError("there is nothing to draw: of these runs there are model files, but no lines of metrics")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SettingError("curves are drawn by one more package: pip install 'chargen[plots]'") from error
    data = io.BytesIO()
    # A glyph that no font of this machine has is told by a warning, and drawn as a box.
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(figsize=(9.6, 6.4), layout="constrained")
        _draw(figure, rows, by)
        figure.savefig(data, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {"Software": None})
    write_durably(path, [data.getvalue()])


def _draw(figure: "Figure", rows: Sequence[TableRow], by: str) -> None:
    panels: Mapping[str, Axes] = figure.subplot_mosaic([["loss"] * 3, [*PANELS]], height_ratios=(2, 1))
    for number, row in enumerate(rows):
        style = _style(number)
        for run in row.runs:
            x = getattr(run.curves, by)
            _line(panels["loss"], x, run.curves.train_loss, **style, **TRAINING)
            _line(panels["loss"], x, run.curves.valid_loss, **style, **VALIDATION)
            if run.finished and run.valid_loss is not None and len(x):
                panels["loss"].plot(x[-1:], [run.valid_loss], color=style["color"], **BEST)
            for name in PANELS:
                _line(panels[name], x, getattr(run.curves, name), **style, linewidth=1)
    panels["loss"].set_ylim(*_loss_limits(rows))
    panels["loss"].set_ylabel("nats per character")
    for name, label in PANELS.items():
        panels[name].set_title(label, fontsize="medium")
        panels[name].set_ylim(bottom=0)
    _format_axes(panels, max(panel.get_xlim()[1] for panel in panels.values()))
    figure.supxlabel(AXES[by], fontsize="medium")
    _add_legend(figure, panels["loss"], rows)


def _style(number: int) -> dict[str, Any]:
    return {"color": COLORS[number % len(COLORS)], "linestyle": DASHES[number // len(COLORS) % len(DASHES)]}


def _format_axes(panels: "Mapping[str, Axes]", right: float) -> None:
    """Let all panels have the same width in seconds, characters or steps, and few numbers that do not overlap."""
    from matplotlib.ticker import MaxNLocator

    for name, panel in panels.items():
        panel.set_xlim(0, right)
        for axis in panel.xaxis, panel.yaxis:
            axis.set_major_locator(MaxNLocator(8 if name == "loss" else 4, steps=[1, 2, 2.5, 5, 10]))
        panel.xaxis.set_major_formatter(lambda value, _: format_large(value))
    panels["chars_per_second"].yaxis.set_major_formatter(lambda value, _: format_large(value))


def _add_legend(figure: "Figure", panel: "Axes", rows: Sequence[TableRow]) -> None:
    """Say beside the panels what the lines are; matplotlib would leave out names that begin with an underscore."""
    named = rows if len(rows) <= MOST_NAMES else rows[: MOST_NAMES - 1]
    kinds = {"validation": VALIDATION, "training": TRAINING, "best model, whole part": BEST}
    labels = [_label(row) for row in named] + [f"and {len(rows) - len(named):,} more"] * (len(named) < len(rows))
    styles = [{**_style(number), "linewidth": 2} for number in range(len(named))]
    styles += [{"linestyle": ""}] * (len(labels) - len(named))
    styles += [{"linestyle": "-", "color": "#333333", **style} for style in kinds.values()]
    handles = [panel.plot([], [], **style)[0] for style in styles]
    legend = figure.legend(handles, ["name"] * len(handles), loc="outside right upper", frameon=False)
    for text, label in zip(legend.get_texts(), [*labels, *kinds], strict=True):
        text.set_text(label)


def _line(panel: "Axes", x: NDArray[np.float64], y: NDArray[np.float64], **style: Any) -> None:
    """A line through the figures that are there; a single one is a point."""
    there = np.isfinite(x) & np.isfinite(y)
    panel.plot(x[there], y[there], marker="." if there.sum() == 1 else None, **style)


def _loss_limits(rows: Sequence[TableRow]) -> tuple[float, float]:
    """From the least loss to the largest after a fifth of each run: what an untrained model loses tells nothing."""
    losses = []
    for run in (run for row in rows for run in row.runs):
        late = run.curves.steps >= 0.2 * run.curves.steps[-1:].sum()
        both = np.concatenate([run.curves.train_loss[late], run.curves.valid_loss[late], [run.valid_loss or np.nan]])
        losses += both[np.isfinite(both)].tolist()
    low, high = (min(losses), max(losses)) if losses else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin


def _label(row: TableRow) -> str:
    name = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in row.name)
    name = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
    return name + f" ({amount(len(row.runs), 'run')})" * (len(row.runs) > 1) + " (another text)" * (row.text > 0)
