"""Runs beside one another in one call."""

import csv
import html
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chargen.comparison.find_runs import find_runs
from chargen.comparison.run_summary import RunSummary
from chargen.comparison.run_table import TableRow, tabulate, warn_of_rows
from chargen.errors import SettingError, amount, repr_short
from chargen.settings import check_path

if TYPE_CHECKING:
    from chargen.api.train import Run


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """What `compare` returns.

    Args:
        rows: the table, by validation loss; of runs that were judged on different texts, one text behind the other.
        warnings: which losses do not compare with the others, and which runs are left out, each with the reason.
    """

    rows: tuple[TableRow, ...]
    warnings: tuple[str, ...]

    @property
    def runs(self) -> tuple[RunSummary, ...]:
        """All runs, in the order of the table; their `curves` are arrays."""
        return tuple(run for row in self.rows for run in row.runs)

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON data, but for the curves."""
        rows, runs = [row.as_dict() for row in self.rows], [run.as_dict() for run in self.runs]
        return {"rows": rows, "runs": runs, "warnings": list(self.warnings)}

    def as_csv(self) -> str:
        """The table as CSV, a line a row; a setting that does not differ has no column."""
        file = io.StringIO(newline="")
        writer = csv.writer(file, lineterminator="\n")
        lines = []
        for row in self.rows:
            line = row.as_dict()
            settings = line.pop("settings")
            lines.append(line | {name: "; ".join(map(str, line[name])) for name in ("runs", "seeds")} | settings)
        writer.writerows([[*lines[0]], *(line.values() for line in lines)])
        return file.getvalue()

    def plot(self, path: str | os.PathLike[str], by: str = "seconds") -> None:
        """Draw losses, learning rate, gradient norm and speed over the course of the runs.

        Args:
            path: the picture, whose name ends in .svg or .png; equal runs give equal files.
            by: what they are drawn over: "seconds", "characters" or "steps".

        Raises:
            SettingError: for another ending, another `by`, or where matplotlib is not installed.
            WriteError: where the disk refuses.
        """
        from chargen.comparison.curves import draw_curves

        draw_curves(self.rows, check_path("path", path), by)

    def to_tensorboard(self, folder: str | os.PathLike[str]) -> None:
        """Write the curves as TensorBoard reads them, a folder in `folder` for each run.

        Args:
            folder: new, or empty.

        Raises:
            SettingError: where the folder holds something, or tensorboard is not installed.
        """
        from chargen.comparison.tensorboard import write_events

        write_events(self.runs, check_path("tensorboard", folder))

    def __repr__(self) -> str:
        return f"Comparison({amount(len(self.runs), 'run')} in {amount(len(self.rows), 'row')})"

    def _repr_html_(self) -> str:
        table = [dict(_described(row)) for row in self.rows]
        names = list(dict.fromkeys(name for row in table for name in row))
        lines = [_line("th", names)] + [_line("td", [row.get(name, "") for name in names]) for row in table]
        notes = "".join(f"<p>{html.escape(warning)}</p>" for warning in self.warnings)
        return f"<table>{''.join(lines)}</table>{notes}"


def _described(row: TableRow) -> Iterator[tuple[str, str]]:
    """The cells of a line, by their headings."""
    data = row.as_dict()
    yield "run", row.name
    for name, value in row.settings.items():
        yield name, "" if value is None else str(value)
    for key, form in (("valid_loss", ".4f"), ("valid_bits", ".4f"), ("test_loss", ".4f"), ("seconds", ",.0f"),
                      ("chars_per_second", ",.0f"), ("step", ",.0f"), ("parameters", ",.0f")):  # fmt: skip
        mean, deviation = data[key], data[f"{key}_deviation"]
        spread = f" ± {deviation:{form}}" if deviation and key.endswith(("loss", "bits")) else ""
        yield key, "" if mean is None else f"{mean:{form}}{spread}"
    yield "runs", str(len(row.runs))
    yield "judged on", row.judged_on + " (not finished)" * (not row.finished)


def _line(tag: str, cells: list[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"


def compare(runs: "Iterable[Run | str | os.PathLike[str]] | Run | str | os.PathLike[str]") -> Comparison:
    """Put runs beside one another: the settings that differ, what they reached, how long they took.

    Runs of equal settings but for the seed are one row, with mean and sample standard deviation. Nothing is trained or
    scored: figures are those that the runs have written, finished or not.

    Args:
        runs: run folders, folders of run folders, model files, or what `train` returned; one or several.

    Raises:
        ModelFileError: where there is no run, or one that is named is damaged.
        SettingError: where something is no path.
    """
    from chargen.api.train import Run

    listed = [runs] if isinstance(runs, (str, os.PathLike, Run)) or not isinstance(runs, Iterable) else list(runs)
    paths = []
    for run in listed:
        path = run.path if isinstance(run, Run) else run
        if path is None:
            raise SettingError(f"{repr_short(run)} has no folder: train with `out`", "runs")
        paths.append(check_path("runs", path))
    summaries, left_out = find_runs(paths)
    rows = tabulate(summaries)
    return Comparison(tuple(rows), (*warn_of_rows(rows), *left_out))
