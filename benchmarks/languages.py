"""How near a model comes to languages whose entropy is known, and how far it remembers.

    python -m benchmarks.languages                              # three languages, LSTM and GRU, state carried and reset
    python -m benchmarks.languages brackets --cell lstm --steps 4000

Each model learns strings of one seed and is judged on those of another: as running text, whose state is carried from
line to line, and as records, before each of which it is reset. Losses stand beside the entropy, and beside what the
very strings that are scored cost the process that made them: what is lost beyond that is the model's. By distance:
how much of that is lost where something has to be remembered for so many characters, and how often the model gives
what is right more than half of the probability that it has.
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import chargen
from benchmarks.common import CELLS, machine
from chargen.data.made_languages import LANGUAGES
from chargen.storage.model_file import ModelFile

WAYS: dict[str, dict[str, Any]] = {"carried": {}, "reset": {"records": "line"}}
BORDERS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Distances, in characters, between which losses are told."""
REMEMBERED = {
    "embedded-reber": "the outer T or P before the end",
    "counter": "the end, behind as many b",
    "brackets": "which bracket closes, and whether one does",
}


def distances(name: str, text: str) -> Iterator[tuple[int, int]]:
    """Find what can be predicted from something further back only: its place, and how many characters back that is."""
    if name == "embedded-reber":
        yield len(text) - 2, len(text) - 3
    elif name == "counter":
        yield len(text), len(text) // 2
    else:
        opened = []
        for place, symbol in enumerate(text):
            if symbol in "([":
                opened.append(place)
            else:
                yield place, place - opened.pop()


def log_probs(model: ModelFile, way: str, strings: list[str]) -> list[NDArray[np.float64]]:
    """The log-probability that a model gives each character of each string, the end being the last."""
    settings: dict[str, Any] = {"by": "forward", "num_alternatives": 0, "threshold": 0.0}
    if way == "reset":
        scores = chargen.score(model, strings, **settings)
        return [np.array([score.forward for score in (*record, record.end)], np.float64) for record in scores]
    running = chargen.score(model, "".join(f"{text}\n" for text in strings), **settings)
    values = np.array([score.forward for score in running], np.float64)
    return np.split(values, np.cumsum([len(text) + 1 for text in strings])[:-1])


def learn(name: str, cell: str, way: str, folder: Path, **settings: Any) -> ModelFile:
    """Train a model on the strings of a file."""
    run = chargen.train(
        folder / f"{name}.txt", valid_fraction=0.02, cell=cell, num_layers=1, dropout=0.0, weight_decay=0.0,
        progress=False, **WAYS[way], **settings,
    )  # fmt: skip
    return run.model


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*LANGUAGES]))
@click.option("--cell", "cells", multiple=True, type=click.Choice(CELLS), default=CELLS)
@click.option("--way", "ways", multiple=True, type=click.Choice([*WAYS]), default=tuple(WAYS))
@click.option("--strings", default=50_000, show_default=True, help="To learn.")
@click.option("--test-strings", default=3_000, show_default=True)
@click.option("--hidden-size", default=64, show_default=True)
@click.option("--steps", default=2_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(
    names: tuple[str, ...],
    cells: tuple[str, ...],
    ways: tuple[str, ...],
    strings: int,
    test_strings: int,
    **settings: Any,
) -> None:  # fmt: skip
    """Learn the languages NAMES; all of them without any."""
    click.echo(json.dumps(machine()))
    for name in names or LANGUAGES:
        language = LANGUAGES[name]
        test = language.draw(test_strings, settings["seed"] + 1)
        exact = [language.log_probs(text) for text in test]
        cost, size = -sum(nats.sum() for nats in exact), sum(map(len, exact))
        click.echo(f"\n{name}: {language.nats_per_character:.4f} nats per character; these strings {cost / size:.4f}")
        spans = [f"{low}-{high - 1}" if high > low + 1 else str(low) for low, high in pairwise(BORDERS)]
        click.echo(f"beyond that, and right, by distance: {REMEMBERED[name]}")
        click.echo(f"{'':13}{'nats':>8}{'beyond':>8}" + "".join(f"{span:>14}" for span in spans))
        with tempfile.TemporaryDirectory() as folder:
            chargen.make_corpus(name, num=strings, seed=settings["seed"], out=Path(folder) / f"{name}.txt")
            for cell in cells:
                for way in ways:
                    model = learn(name, cell, way, Path(folder), **settings)
                    scored = log_probs(model, way, test)
                    loss = -sum(nats.sum() for nats in scored)
                    row = f"{cell:5}{way:8}{loss / size:>8.4f}{loss / cost - 1:>8.2%}"
                    click.echo(row + by_distance(name, test, exact, scored))


def by_distance(name: str, test: list[str], exact: list[NDArray[np.float64]], scored: list[NDArray[np.float64]]) -> str:
    """What is lost at each distance in nats, and how often the model is right there."""
    lost: dict[int, list[float]] = defaultdict(list)
    for text, true, of_model in zip(test, exact, scored, strict=True):
        for place, distance in distances(name, text):
            lost[int(np.searchsorted(BORDERS, distance, side="right"))].append(true[place] - of_model[place])
    cells = []
    for bin_number in range(1, len(BORDERS)):
        values = np.array(lost[bin_number])
        right = float(np.mean(values < np.log(2))) if len(values) else 0.0
        cells.append(f"{values.mean():>8.4f}{right:>6.0%}" if len(values) else f"{'-':>14}")
    return "".join(cells)


if __name__ == "__main__":
    main()
