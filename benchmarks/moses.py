"""Molecules: a model of SMILES as records, measured as in MOSES beside the CharRNN of its paper.

    python -m benchmarks.moses train.txt --minutes 120 --out moses          # trains, writes moses/samples.txt
    python -m benchmarks.moses --metrics moses/samples.txt train.txt        # fills the table
    python -m benchmarks.moses train.txt --plain --minutes 10 --out plain   # running text: first lines, and others
    python -m benchmarks.moses --metrics plain/first.txt --valid-only train.txt

After Polykovskiy et al., "Molecular Sets (MOSES): a benchmarking platform for molecular generation models" (Frontiers
in Pharmacology, 2020). TRAIN is the training set, one SMILES a line. The metrics are those of the package `molsets`,
which needs `rdkit`, `fcd-torch`, `pandas`, `scipy` and `matplotlib`; install it with --no-deps, into an environment of
its own: that one needs no chargen.
"""

import importlib
import json
import sys
import time
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

NUMBER, FIRST_LINES = 30_000, 3_000
"""Molecules that are judged, and lines that begin a text."""
PAPER = {
    "valid": 0.9748, "unique@1000": 1.0, "unique@10000": 0.9994, "FCD/Test": 0.0732, "FCD/TestSF": 0.5204,
    "SNN/Test": 0.6015, "SNN/TestSF": 0.5649, "Frag/Test": 0.9998, "Frag/TestSF": 0.9983, "Scaf/Test": 0.9242,
    "Scaf/TestSF": 0.1101, "IntDiv": 0.8562, "IntDiv2": 0.8503, "Filters": 0.9943, "Novelty": 0.8419,
}  # fmt: skip
"""The paper's CharRNN, an LSTM of 3 x 768 trained for 80 epochs on a GPU: means of three runs."""


@click.command()
@click.argument("train_file", metavar="TRAIN", type=click.Path(exists=True, path_type=Path))
@click.option("--minutes", default=120.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", default="moses", show_default=True, type=click.Path(path_type=Path), help="Run folder.")
@click.option("--plain", is_flag=True, help="Learn running text, and write first lines and others.")
@click.option("--valid-only", is_flag=True, help="Of the metrics only the share that is valid: that takes seconds.")
@click.option("--metrics", type=click.Path(exists=True, path_type=Path), help="Judge these samples; train nothing.")
def main(
    train_file: Path, minutes: float, seed: int, out: Path, plain: bool, valid_only: bool, metrics: Path | None
) -> None:
    """Learn the SMILES of TRAIN and write 30,000 more, or judge those of an earlier run."""
    if metrics and valid_only:
        print_valid(metrics.read_text().splitlines())
        return
    if metrics:
        print_table(metrics.read_text().splitlines(), train_file.read_text().split())
        return
    import chargen
    from benchmarks.common import machine

    click.echo(json.dumps(machine()))
    records = None if plain else "line"
    run = chargen.train(train_file, records=records, valid_fraction=0.01, minutes=minutes, seed=seed, out=out)
    click.echo(repr(run))
    if plain:
        write_lines(run.model, out, seed)
        return
    begun = time.perf_counter()
    written = chargen.generate(run.model, num=NUMBER, temperature=1.0, seed=seed)
    click.echo(f"{NUMBER:,} molecules in {time.perf_counter() - begun:.1f} s")
    (out / "samples.txt").write_text("\n".join(written) + "\n")


def write_lines(model: Any, out: Path, seed: int) -> None:
    """Write first.txt, lines that each begin a text, and middle.txt, lines that follow on others."""
    from chargen import SampleConfig, Sampler

    stop = SampleConfig(temperature=1.0, stop=("\n",))
    samples = Sampler(model, stop, num=FIRST_LINES, seed=seed).generate_all(200)
    firsts = [sample.text.removesuffix("\n") for sample in samples]
    (out / "first.txt").write_text("\n".join(firsts) + "\n")
    middle = Sampler(model, replace(stop, stop=()), seed=seed).generate(40 * FIRST_LINES).split("\n")[1:-1]
    (out / "middle.txt").write_text("\n".join(middle) + "\n")


def print_valid(written: list[str]) -> None:
    """Print how many lines are molecules."""
    chem, log = (importlib.import_module(f"rdkit.{name}") for name in ("Chem", "RDLogger"))
    log.DisableLog("rdApp.*")
    valid = sum(bool(line) and chem.MolFromSmiles(line) is not None for line in written)
    click.echo(f"{valid / len(written):.1%} of {len(written):,} lines are molecules")


def print_table(written: list[str], train: list[str]) -> None:
    """Print every metric of the samples beside the paper's."""
    judge = metrics_of_moses()
    figures = judge(written, k=[1000, 10000], n_jobs=2, device="cpu", train=train)
    click.echo(f"{'':14}{'chargen':>10}{'CharRNN':>10}")
    for name, value in figures.items():
        click.echo(f"{name:14}{value:>10.4f}" + (f"{PAPER[name]:>10.4f}" if name in PAPER else ""))


def metrics_of_moses() -> Any:
    """The metrics' function; the package was written for older versions of what it needs."""
    pandas, rdkit = (importlib.import_module(name) for name in ("pandas", "rdkit"))
    six: Any = types.ModuleType("rdkit.six")
    six.iteritems = lambda table: iter(table.items())
    sys.modules["rdkit.six"] = vars(rdkit)["six"] = six
    pandas.DataFrame.append = lambda self, other, sort=False: pandas.concat([self, other], sort=sort)
    metrics: Any = importlib.import_module("moses.metrics.metrics")
    cosine = metrics.cos_distance  # of counts, whose squares do not fit into whole numbers
    metrics.cos_distance = lambda left, right: cosine(left.astype(float), right.astype(float))
    return metrics.get_all_metrics


if __name__ == "__main__":
    main()
