"""Runs beside one another: one line for a run, or for all runs whose settings are equal but for the seed."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chargen.comparison.run_summary import SETTINGS, RunSummary, settings_as_json
from chargen.comparison.run_texts import RunText, number_texts
from chargen.errors import truncate

FIGURES = ("valid_loss", "test_loss", "seconds", "chars_per_second", "step", "parameters")
ORDERED = "train_text", "train_size", *SETTINGS, "init_from", "own_parts"
"""Settings as they stand in the table."""
OF_THE_TEXT = ("train_text", "train_size", "valid_fraction", "test_fraction")
"""Settings that are told where they differ among runs that were judged on the same text."""
NO_TEXT = RunText("", ())
NAMES = 4
"""Runs that a warning names."""


@dataclass(frozen=True)
class Figure:
    """A figure of a run, or of several.

    Args:
        mean: over the runs that have it.
        deviation: the sample standard deviation (the root of the sum of squares divided by n - 1); None of one run.
    """

    mean: float
    deviation: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class TableRow:
    """A line of the table: a run, or all finished runs whose settings are equal but for the seed.

    Args:
        name: what it is called.
        runs: by seed.
        settings: those that differ between lines, by name.
        text: the number of the validation text, from 0 for the one that most runs were judged on.
        figures: "valid_loss" and "test_loss" in nats per character, "seconds", "chars_per_second", "step",
            "parameters"; None where no run has it.
    """

    name: str
    runs: tuple[RunSummary, ...]
    settings: dict[str, Any]
    text: int
    figures: dict[str, Figure | None]

    @property
    def finished(self) -> bool:
        """Whether its runs are done: one that is not has a line of its own."""
        return self.runs[0].finished

    @property
    def judged_on(self) -> str:
        """What the validation text is called; "" where there is none."""
        return self.runs[0].texts.get("valid", NO_TEXT).name

    def __repr__(self) -> str:
        loss = self.figures["valid_loss"]
        return f"TableRow({truncate(self.name, 60, repr)}, {'no loss' if loss is None else f'{loss.mean:.4f} nats'})"

    def as_dict(self) -> dict[str, Any]:
        """The line as JSON data: losses in nats and in bits per character, deviations behind their means."""
        seeds = [run.settings.get("seed") for run in self.runs]
        row: dict[str, Any] = {"name": self.name, "runs": [run.name for run in self.runs], "seeds": seeds}
        row |= {"count": len(self.runs), "finished": self.finished, "whole": all(run.whole for run in self.runs)}
        row |= {"text": self.text, "judged_on": self.judged_on, "settings": settings_as_json(self.settings)}
        for name, figure in self.figures.items():
            units = {name: 1.0, name.replace("_loss", "_bits"): math.log(2)} if name.endswith("_loss") else {name: 1.0}
            for key, unit in units.items():
                mean, deviation = (None, None) if figure is None else (figure.mean, figure.deviation)
                row[key] = None if mean is None else mean / unit
                row[f"{key}_deviation"] = None if deviation is None else deviation / unit
        return row


def tabulate(runs: Sequence[RunSummary]) -> list[TableRow]:
    """Make the table of some runs, by text and validation loss; their order does not matter.

    Args:
        runs: with different names.
    """
    groups: dict[Any, list[RunSummary]] = {}
    for run, text in zip(runs, number_texts([run.texts.get("valid", NO_TEXT) for run in runs]), strict=True):
        settings = tuple(item for item in sorted(run.settings.items()) if item[0] != "seed")
        key = text, run.texts["train"].key, settings, "" if run.finished else run.name
        groups.setdefault(key, []).append(run)
    by_text = [(key[0], group) for key, group in groups.items()]
    differing = _differing([(text, group[0].settings) for text, group in by_text])
    rows = [_row(text, group, differing) for text, group in by_text]
    return sorted(rows, key=lambda row: (row.text, _rank(row.figures["valid_loss"]), row.name))


def _rank(figure: Figure | None) -> float:
    return math.inf if figure is None else figure.mean


def _differing(settings: list[tuple[int, Mapping[str, Any]]]) -> list[str]:
    """The settings that differ between lines, given as text and settings."""

    def differs(name: str) -> bool:
        texts = {text for text, _ in settings} if name in OF_THE_TEXT else {None}
        return any(len({each.get(name) for here, each in settings if text in (None, here)}) > 1 for text in texts)

    return [name for name in ORDERED if name != "seed" and differs(name)]


def format_large(number: float) -> str:
    """Write a number in little room, such as 20, 86.7k or 3.48M.

    Args:
        number: at least 0.
    """
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if number >= least:
            return f"{number / unit:.3g}{letter}"
    return f"{number:.4g}"


def _row(text: int, runs: list[RunSummary], differing: list[str]) -> TableRow:
    runs = sorted(runs, key=lambda run: (str(run.settings.get("seed")), run.name))
    figures = {name: _figure([value for run in runs if (value := getattr(run, name)) is not None]) for name in FIGURES}
    settings = {name: runs[0].settings.get(name) for name in differing}
    return TableRow(_name([run.name for run in runs]), tuple(runs), settings, text, figures)


def _figure(values: list[float]) -> Figure | None:
    if not values:
        return None
    mean = values[0] if len({*values}) == 1 else statistics.fmean(values)
    return Figure(mean, statistics.stdev(values) if len(values) > 1 else None)


def _name(names: list[str]) -> str:
    """What several runs have in common, such as lstm-*; or the name of the first, and how many more there are."""
    if len(names) == 1:
        return names[0]
    first, last = min(names), max(names)  # all others begin as these two do
    prefix = first[: next((at for at, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), None)]
    return f"{prefix}*" if len(prefix) > 2 else f"{min(names)} +{len(names) - 1}"


def warn_of_rows(rows: Sequence[TableRow]) -> Iterator[str]:
    """Say which losses do not compare with the others, and why.

    Args:
        rows: of the table.
    """
    for text in range(1, 1 + max((row.text for row in rows), default=0)):
        others = [row for row in rows if row.text == text]
        if not others[0].judged_on:
            yield f"{_list(others)} had no validation text"
        else:
            what = f"on {others[0].judged_on}, not on {rows[0].judged_on or 'the text'}"
            if others[0].judged_on == rows[0].judged_on:
                what = f"on another text, or another part of it, than {_list([rows[0]])}"
            yield f"{_list(others)} {_were(others)} judged {what}: losses of different texts do not compare"
    for text in {row.text: None for row in rows}:
        tested = [row for row in rows if row.text == text and row.figures["test_loss"]]
        numbers = number_texts([row.runs[0].texts.get("test", NO_TEXT) for row in tested])
        if others := [row for row, number in zip(tested, numbers, strict=True) if number]:
            yield f"{_list(others)} {_were(others)} tested on another text than the rest: test losses do not compare"
    if others := [row for row in rows if not row.finished]:
        yield f"{_list(others)} {_were(others, 'is', 'are')} not finished: losses so far, on part of the text"
    if others := [row for row in rows if row.finished and row.judged_on and not all(run.whole for run in row.runs)]:
        part = "a part of the validation text, as time was short"
        yield f"{_list(others)} {_were(others)} judged on {part}: `eval` scores all of it"


def _list(rows: Sequence[TableRow]) -> str:
    names = [truncate(run.name) for row in rows for run in row.runs]
    more = f" and {len(names) - NAMES:,} more" if len(names) > NAMES else ""
    return ", ".join(names[:NAMES]) + more


def _were(rows: Sequence[TableRow], singular: str = "was", plural: str = "were") -> str:
    return singular if sum(len(row.runs) for row in rows) == 1 else plural
