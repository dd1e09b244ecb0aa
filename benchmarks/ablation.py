"""Which methods are worth having: the same model, text and steps with each of them, some seeds each.

    python -m benchmarks.ablation tinyshakespeare.txt --out ablation.json

Nats a character on the whole last 10 % with carried state, no adaptation, last weights, in training as `chargen train`
does it; beside it the loss on 100,000 characters of the training part. `benchmarks/methods.py` has the methods.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.common import machine
from benchmarks.methods import METHODS, make_trainer, summary
from chargen import Corpus, TrainConfig

TRAIN = 100_000
"""Characters of the training part that are scored."""


@click.command()
@click.argument("text", type=click.Path(exists=True, path_type=Path))
@click.option("--method", "methods", multiple=True, type=click.Choice(list(METHODS)), help="Only these.")
@click.option("--steps", default=4_400, show_default=True)
@click.option("--hidden-size", default=512, show_default=True)
@click.option("--dropout", default=0.2, show_default=True)
@click.option("--weight-decay", default=0.6, show_default=True)
@click.option("--lr", default=3e-3, show_default=True)
@click.option("--seeds", default="0,1", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write all figures to this JSON file.")
def main(
    text: Path, methods: tuple[str, ...], steps: int, hidden_size: int, dropout: float, weight_decay: float, lr: float,
    seeds: str, out: Path | None,
) -> None:  # fmt: skip
    """Compare methods on TEXT."""
    model = {"hidden_size": hidden_size, "dropout": dropout}
    training: dict[str, Any] = {"steps": steps, "weight_decay": weight_decay, "lr": lr}
    figures: dict[str, Any] = {"text": text.name, "split": "90/10, in order", **model, **training, **machine()}
    click.echo(json.dumps(figures))
    corpus = Corpus.from_files(text, valid_fraction=0.1)
    click.echo(f"{'changed':28}{'valid':>9}  seeds{'':17}{'train':>9}{'seconds':>9}")
    rows = figures["rows"] = []
    for name in methods or METHODS:
        runs: list[dict[str, float]] = []
        for seed in map(int, seeds.split(",")):
            kind, begun = METHODS[name], time.monotonic()
            config = TrainConfig(**training, seed=seed, eval_every=10**9)
            trainer = make_trainer(kind, corpus, model, config)
            for _ in trainer.run():
                pass
            seconds = time.monotonic() - begun
            runs.append({**summary(trainer, corpus.train[:TRAIN]), "seconds": seconds})
        for key in (key for key in runs[0] if key.startswith("valid")):
            losses = [run[key] for run in runs]
            row: dict[str, Any] = {"changed": name + key.removeprefix("valid"), "valid": losses}
            row |= {figure: statistics.mean(run[figure] for run in runs) for figure in ("train", "seconds")}
            rows.append(row)
            by_seed = " ".join(f"{loss:.4f}" for loss in losses)
            click.echo(
                f"{row['changed']:28}{statistics.mean(losses):>9.4f}  {by_seed:22}{row['train']:>9.3f}"
                f"{row['seconds']:>9.0f}"
            )
        if out:
            out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
