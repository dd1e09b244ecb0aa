"""`chargen compare`: put runs beside one another."""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from chargen.api.compare import Comparison, compare
from chargen.cli.options import PATH, GroupedCommand, option
from chargen.cli.sparkline import ASCII, BLOCKS, resample, sparkline
from chargen.cli.terminal import TextWriter, display_width, escape_control, log, print_line, quote_path, terminal_width
from chargen.comparison.curves import AXES
from chargen.comparison.run_table import Figure, TableRow, format_large
from chargen.errors import SettingError, amount

GAP = "  "
LEAST_NAME, MOST_NAME, PIPE_CURVE = 8, 24, 16


@dataclass(frozen=True)
class _Column:
    """A column of the table: its two lines of heading, a cell a row, and whether cells stand at the right."""

    heading: tuple[str, str]
    cells: tuple[str, ...]
    right: bool = True

    @property
    def width(self) -> int:
        return max(map(display_width, (*self.heading, *self.cells)))

    def lines(self) -> list[str]:
        return [_pad(text, self.width, self.right) for text in (*self.heading, *self.cells)]


@click.command("compare", cls=GroupedCommand)
@click.argument("runs", metavar="RUN...", nargs=-1, type=PATH)
@option("--csv", "as_csv", group="Form", is_flag=True, help="Print the table as CSV, with all columns.")
@option("--json", "as_json", group="Form", is_flag=True, help="Print one JSON object: rows, runs, warnings.")
@option(
    "--out", group="Curves", type=PATH, help="Draw curves into this file, .svg or .png; needs the package matplotlib."
)
@option("--by", group="Curves", type=click.Choice([*AXES]), shown_default="seconds",
        help="What curves are drawn over.")  # fmt: skip
@option("--tensorboard", group="Curves", type=PATH, metavar="DIR",
        help="Write curves for TensorBoard into this new folder; needs that package.")  # fmt: skip
def command(
    runs: tuple[Path, ...], as_csv: bool, as_json: bool, out: Path | None, by: str | None, tensorboard: Path | None
) -> None:
    """Put runs beside one another: the settings that differ, what they reached, how long they took.

    RUN is a run folder, a folder of such, or a model file; runs that go on or were killed are told as far as they are.
    Runs of equal settings but for the seed are one row, with mean ± sample standard deviation. Losses are in nats per
    character of the validation text; rows are sorted by them, and a warning names runs that were judged on another.

    \b
    chargen compare checkpoints/small checkpoints/large
    chargen compare checkpoints --out curves.svg
    """
    if not runs:
        raise SettingError("no run to compare: give run folders, or a folder that holds some, such as checkpoints")
    if as_csv and as_json:
        raise SettingError("--csv and --json are two forms of one table: give one")
    if out is None and by is not None:
        raise SettingError("--by says how curves are drawn: give --out, too")
    comparison = compare(runs)
    if out is not None:
        comparison.plot(out, by or "seconds")
        drawn = sum(bool(len(run.curves.steps)) for run in comparison.runs)
        log(f"{quote_path(out)}: curves of {amount(drawn, 'run')}")
    if tensorboard is not None:
        comparison.to_tensorboard(tensorboard)
    if as_csv:
        writer = TextWriter()
        writer.write(comparison.as_csv())
        writer.close()
    elif as_json:
        click.echo(json.dumps(comparison.as_dict()))
    else:
        _print_table(comparison)
    for warning in comparison.warnings:
        log(f"warning: {warning}")


def _print_table(comparison: Comparison) -> None:
    """Print as many columns as fit, and say which do not."""
    rows, width = comparison.rows, terminal_width(sys.stdout)
    marks = BLOCKS if _can_write(BLOCKS) else ASCII
    columns = dict(_columns(rows, width, marks))
    chosen = _fitting(columns, [*rows[0].settings], width)
    lines = [GAP.join(cells).rstrip() for cells in zip(*(columns[name].lines() for name in chosen), strict=True)]
    for line in lines[:2]:
        click.echo(line)
    for number, row in enumerate(rows):
        if rows[-1].text and (number == 0 or row.text != rows[number - 1].text):
            print_line(f"judged on {escape_control(row.judged_on, newlines=True)}:" if row.judged_on else "not judged:")
        click.echo(lines[2 + number])
    if any("*" in cell for cell in columns["valid"].cells):
        print_line("* so far, or on a part of the validation text")
    if left_out := [name for name in columns if name not in chosen]:
        some = ", ".join(left_out[:5]) + f" and {len(left_out) - 5} more" * (len(left_out) > 5)
        print_line(f"no room for {some}: a wider terminal and --csv have all")


def _columns(rows: Sequence[TableRow], width: int | None, marks: str) -> Iterator[tuple[str, _Column]]:
    """All columns, by names that a person knows."""
    names = [escape_control(row.name, newlines=True) for row in rows]
    most = max(map(display_width, names)) if width is None else min(max(width // 4, LEAST_NAME), MOST_NAME)
    yield "run", _Column(("", "run"), tuple(_shorten(name, most) for name in names), right=False)
    for name in rows[0].settings:
        values = [row.settings[name] for row in rows]
        cells = tuple(_shorten(_format_setting(value), 16) for value in values)
        yield name, _Column(_two_lines(name), cells, right=all(map(_is_number, values)))
    valid, test, seconds, speed, step, parameters = (
        [row.figures[name] for row in rows]
        for name in ("valid_loss", "test_loss", "seconds", "chars_per_second", "step", "parameters")
    )
    part = ["" if row.finished and all(run.whole for run in row.runs) else "*" for row in rows]
    yield "valid", _Column(("valid", "nats"), _losses(valid, part), right=False)
    yield "bits", _Column(("valid", "bits"), _cells(valid, lambda loss: f"{loss / math.log(2):.4f}"))
    if any(test):
        yield "test", _Column(("test", "nats"), _losses(test, [""] * len(rows)), right=False)
    if len(rows) < sum(len(row.runs) for row in rows):
        yield "runs", _Column(("", "runs"), tuple(str(len(row.runs)) for row in rows))
    yield "time", _Column(("", "time"), _cells(seconds, _format_seconds))
    yield "speed", _Column(("chars", "/ s"), _cells(speed, format_large))
    yield "trained steps", _Column(("trained", "steps"), _cells(step, format_large))
    yield "parameters", _Column(("para-", "meters"), _cells(parameters, format_large))
    curves = _curves(rows, PIPE_CURVE if width is None else 12 if width >= 70 else 8, marks)
    yield "curve", _Column(("valid", "curve"), curves, right=False)


def _fitting(columns: Mapping[str, _Column], settings: Sequence[str], width: int | None) -> list[str]:
    """The names of the columns that are shown, in their order: what matters most first, as long as there is room."""
    if width is None:
        return [*columns]
    wanted = ["run", "valid", "bits", *settings[:2], "runs", "curve", *settings[2:4], "time", "test", *settings[4:6],
              "speed", "parameters", *settings[6:], "trained steps"]  # fmt: skip
    chosen, room = {"run", "valid"}, width + len(GAP)
    for name in wanted:
        size = columns[name].width + len(GAP) if name in columns else room + 1
        if size <= room or name in ("run", "valid"):
            chosen.add(name)
            room -= size
    return [name for name in columns if name in chosen]


def _can_write(text: str) -> bool:
    """Whether standard output has these characters."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _pad(text: str, width: int, right: bool) -> str:
    blanks = " " * (width - display_width(text))
    return blanks + text if right else text + blanks


def _shorten(text: str, width: int) -> str:
    """Leave out the middle of a text that is too wide: names of runs often differ at their ends."""
    if display_width(text) <= width:
        return text
    dots = "…" if _can_write("…") else ".."
    head, tail = text[: width // 2], text[-(width - width // 2) :]
    while display_width(head + dots + tail) > width:
        head, tail = (head, tail[1:]) if len(tail) > len(head) else (head[:-1], tail)
    return head + dots + tail


def _two_lines(name: str) -> tuple[str, str]:
    """The name of a setting as two lines of heading, the longer of which is as short as can be."""
    words = name.split("_")
    ways = [("_".join(words[:cut]), "_".join(words[cut:])) for cut in range(len(words))]
    return min(ways, key=lambda way: max(map(len, way)))


def _format_setting(value: Any) -> str:
    if value in (None, ()):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return escape_control(" ".join(map(str, value)), newlines=True)
    return f"{value:.4g}" if isinstance(value, float) else escape_control(str(value), newlines=True)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _losses(figures: Sequence[Figure | None], marks: Sequence[str]) -> tuple[str, ...]:
    """Losses with their deviations; a mark stands right behind a loss."""
    sign = "±" if _can_write("±") else "+-"
    cells = []
    for figure, mark in zip(figures, marks, strict=True):
        spread = "" if figure is None or figure.deviation is None else f" {sign}{figure.deviation:.4f}"
        cells.append("" if figure is None else f"{figure.mean:.4f}{mark}{spread}")
    return tuple(cells)


def _cells(figures: Sequence[Figure | None], write: Callable[[float], str]) -> tuple[str, ...]:
    return tuple("" if figure is None else write(figure.mean) for figure in figures)


def _format_seconds(seconds: float) -> str:
    for least, unit, name in ((48 * 3600, 24 * 3600, "d"), (100 * 60, 3600, "h"), (100, 60, "min")):
        if seconds >= least:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s"


def _curves(rows: Sequence[TableRow], width: int, marks: str) -> tuple[str, ...]:
    """The course of the validation loss, the mean over the runs of a row; all rows of a text have the same heights."""
    curves = []
    for row in rows:
        parts = [part for run in row.runs if len(part := resample(run.curves.valid_loss, width))]
        curves.append(np.mean(parts, 0) if parts else np.array([]))
    cells = []
    for row, curve in zip(rows, curves, strict=True):
        together = np.concatenate([other for each, other in zip(rows, curves, strict=True) if each.text == row.text])
        ends = (float(together.min()), float(together.max())) if len(together) else (1.0, 1.0)
        cells.append(sparkline(curve.tolist(), *ends, marks))
    return tuple(cells)
