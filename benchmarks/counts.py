"""What counts are worth beside a network, and what they do to what it writes.

    python -m benchmarks.counts tinyshakespeare.txt --minutes 3 --seeds 5 --out counts.json
    python -m benchmarks.counts tinyshakespeare.txt --model checkpoints/tinyshakespeare --orders 6,8,10,12 --copies

Nats a character on the whole validation part (10 % in order, or what --test leaves; carried state, no adaptation). The
weights of counts are fitted on that part: its own figures are cross-fitted, half of the blocks with weights of the
other half. With --test they are also those of a part that nothing was fitted on. Orders are compared on as much of it
as weights are fitted on.
"""

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import click
import numpy as np

import chargen
from benchmarks.common import machine
from benchmarks.rows import numbers
from chargen import Corpus
from chargen.counting.mixture import compile_tree, find_targets
from chargen.counting.recorder import Recorder
from chargen.evaluation.loss import evaluate_ids
from chargen.storage.model_file import ModelFile, build_model
from chargen.training.counts import AUTO_ORDER, count_contexts, fit_mixture, fitted_ids

LENGTHS = (5, 8, 10, 15, 20)
"""Of n-grams whose novelty is told."""
WRITTEN = 100_000
"""Characters that are written for each figure of copying."""


def train_seeds(text: Path, minutes: float, seeds: int, test: float, keep: Path | None) -> list[dict[str, Any]]:
    """Train as `chargen train` does; the figures of each run."""
    runs = []
    for seed in range(seeds):
        out = keep and keep / f"{text.stem}-{seed}"
        run = chargen.train(text, minutes=minutes, seed=seed, test_fraction=test, out=out, progress=False)
        summary = run.model.training
        losses = {name: value for name, value in summary.items() if "loss" in name}
        runs.append({"seed": seed, "model": repr(run.model), "steps": summary["step"], **losses})
        click.echo("  ".join(f"{name} {value:.4f}" for name, value in losses.items()) + f"  (seed {seed})")
    for name in runs[0].keys() & {"valid_loss", "valid_loss_network", "test_loss", "test_loss_network"}:
        click.echo(f"mean {name} {mean(run[name] for run in runs):.4f}")
    return runs


def compare_orders(file: ModelFile, corpus: Corpus, orders: list[int]) -> list[dict[str, Any]]:
    """What counts of some orders are worth beside one network."""
    rows, seen, model = [], Recorder(whole=True), build_model(file)
    loss = evaluate_ids(model, corpus.valid, mixture=seen, limit=fitted_ids(len(file.vocabulary)))
    places, log_probs = seen.in_order()
    click.echo(f"{'order':>5}{'MB':>8}{'network':>9}{'counts':>9}{'together':>10}")
    for order in orders:
        tree = count_contexts(corpus, order, ("forward",))["forward"]
        _, cross_fitted = fit_mixture(tree, seen)
        counted, _ = find_targets(tree, seen.ids, places, tree.order - 1, compile_tree(tree))
        row = {
            "order": order, "bytes": tree.nbytes, "network": loss.mean, "counts": -np.log(counted).mean(),
            "together": cross_fitted.nats(seen.ids, places, log_probs).mean(),
        }  # fmt: skip
        rows.append(row)
        click.echo(
            f"{order:>5}{tree.nbytes / 1e6:>8.2f}{row['network']:>9.4f}{row['counts']:>9.4f}{row['together']:>10.4f}"
        )
    return rows


def measure_copies(file: ModelFile, text: Path, seeds: int) -> list[dict[str, Any]]:
    """What a model copies with counts and without, beside held-out text."""
    rows = []
    models = {"network": replace(file, mixtures={})}
    settings = {"network": 31, **{f"counts, {longest} back": longest for longest in (4, 6, 7, 8, 31)}}
    click.echo(f"{'':>18}{'T':>6}{'copied':>8}{'longest':>9}  " + "".join(f"{f'novel {n}':>10}" for n in LENGTHS))
    for temperature in (0.8, 1.0):
        for name, longest in settings.items():
            figures = [
                chargen.novelty(
                    models.get(name, file), text, length=WRITTEN, num=1, seed=seed, show=0, temperature=temperature,
                    counts_max_copy=longest,
                )
                for seed in range(seeds)
            ]  # fmt: skip
            rows.append(_tell_copies(name, temperature, [figure.text for figure in figures]))
        held_out = figures[0].held_out
    if held_out:
        rows.append(_tell_copies("held-out text", 0.0, [held_out]))
    return rows


def _tell_copies(name: str, temperature: float, figures: list[Any]) -> dict[str, Any]:
    copied, longest = mean(each.copied for each in figures), max(each.longest for each in figures)
    novel = [mean(each.novel[n] for each in figures) for n in LENGTHS]
    shown = "".join(f"{share:>10.1%}" for share in novel)
    click.echo(f"{name:>18}{temperature or '':>6}{copied:>8.1%}{longest:>9}  {shown}")
    return {"of": name, "temperature": temperature, "copied": copied, "longest": longest, "novel": novel}


@click.command()
@click.argument("text", type=click.Path(exists=True, path_type=Path))
@click.option("--minutes", default=3.0, show_default=True, help="Budget of each run.")
@click.option("--seeds", default=5, show_default=True, help="Runs, or texts written for each figure of copying.")
@click.option("--test", default=0.0, show_default=True, help="Share of the text that nothing is fitted on.")
@click.option("--model", help="A model of TEXT, cut 90/10: compare orders of counts beside it instead of training.")
@click.option("--orders", default=f"4,6,8,9,{AUTO_ORDER},12", show_default=True)
@click.option("--copies", is_flag=True, help="Tell what the model copies too; it needs chargen[novelty].")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the runs in this folder.")
@click.option("--out", type=click.Path(path_type=Path), help="Write all figures to this JSON file.")
def main(
    text: Path, minutes: float, seeds: int, test: float, model: str | None, orders: str, copies: bool,
    keep: Path | None, out: Path | None,
) -> None:  # fmt: skip
    """Measure counts on TEXT."""
    figures: dict[str, Any] = {"text": text.name, **machine()}
    click.echo(json.dumps(figures))
    if model is None:
        figures["runs"] = train_seeds(text, minutes, seeds, test, keep)
    else:
        file, corpus = chargen.read_model(model), Corpus.from_files(text, valid_fraction=0.1)
        figures["orders"] = compare_orders(file, corpus, [int(order) for order in numbers(orders)])
        figures["copies"] = measure_copies(file, text, seeds) if copies else []
    if out:
        out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
