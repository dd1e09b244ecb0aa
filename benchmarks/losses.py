"""What bf16 kernels cost in quality: losses after the same characters, beside plain fp32.

    python -m benchmarks.losses tinyshakespeare.txt --out losses.json

Models of both cells, 2 x 128, B 50, T 50, are trained from several seeds on the first 90 % of the text, by PyTorch's
own layers in fp32 and by chargen's in bf16, and scored on the whole last 10 % with carried state.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import click

from benchmarks.common import CELLS, machine
from chargen import Corpus, ModelConfig, TrainConfig, Trainer


@click.command()
@click.argument("text", type=click.Path(exists=True, path_type=Path))
@click.option("--steps", default=300, show_default=True, help="Optimizer steps, of 2,500 characters each.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write all figures to this JSON file.")
def main(text: Path, steps: int, seeds: int, out: Path | None) -> None:
    """Compare precisions on TEXT."""
    figures: dict[str, Any] = {"text": text.name, "split": "90/10, in order", "steps": steps, **machine()}
    click.echo(json.dumps(figures))
    corpus = Corpus.from_files(text, valid_fraction=0.1)
    for cell in CELLS:
        losses: dict[str, list[float]] = {"fp32": [], "bf16": []}
        for seed in range(seeds):
            for precision, by_seed in losses.items():
                by_seed.append(loss_after(corpus, cell, steps, seed, precision))
            click.echo(
                f"{cell} seed {seed}: " + ", ".join(f"{name} {by_seed[-1]:.4f}" for name, by_seed in losses.items())
            )
        difference = statistics.mean(losses["bf16"]) - statistics.mean(losses["fp32"])
        figures[cell] = losses | {"difference": difference}
        click.echo(f"{cell}: bf16 minus fp32, mean of {seeds} seeds: {difference:+.4f} nats")
    if out:
        out.write_text(json.dumps(figures, indent=1) + "\n")


def loss_after(corpus: Corpus, cell: str, steps: int, seed: int, precision: str) -> float:
    """Train a model; return its loss on the whole validation part, in nats a character."""
    config = ModelConfig(cell=cell, hidden_size=128)
    settings = TrainConfig(steps=steps, eval_every=10**9, batch_size=50, seq_length=50, precision=precision, seed=seed)
    trainer = Trainer(corpus, config, settings)
    for _ in trainer.run():
        pass
    return float(trainer.summary["valid_loss"])


if __name__ == "__main__":
    main()
