"""The classic questions, answered by measurement: is state worth carrying, how long a window, is a prime needed?

    python -m benchmarks.questions tinyshakespeare.txt --out questions.json

For both cells, short windows and long ones, a model is trained on the first 90 % of the text, always on the same number
of characters: with state carried from minibatch to minibatch, with state reset at every minibatch, or on random
windows. Each is scored on the whole last 10 % with carried state; from a fresh state at every window; and on the 20
characters after an unknown context against the same characters after a prime of 500.
"""

import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.common import CELLS, machine
from chargen import Corpus, ModelConfig, TrainConfig, Trainer
from chargen.model.device import autocast
from chargen.model.loss import nats_per_target

POLICIES: dict[str, dict[str, Any]] = {
    "carried": {"state_reset": 0.05},
    "reset": {"state_reset": 1.0},
    "random": {"batching": "random"},
}
PRIME, FIRST = 500, 20
"""Characters of a prime, and characters scored behind it."""
BATCH = 4096
"""Characters of a minibatch: rows times window length."""


@click.command()
@click.argument("text", type=click.Path(exists=True, path_type=Path))
@click.option("--characters", default=8_000_000, show_default=True, help="Characters to train on.")
@click.option("--hidden-size", default=256, show_default=True)
@click.option("--windows", default="32,256", show_default=True, help="Characters of a window.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write all figures to this JSON file.")
def main(text: Path, characters: int, hidden_size: int, windows: str, seed: int, out: Path | None) -> None:
    """Answer the questions on TEXT."""
    figures: dict[str, Any] = {"text": text.name, "split": "90/10, in order", "characters": characters, **machine()}
    click.echo(json.dumps(figures))
    corpus = Corpus.from_files(text, valid_fraction=0.1)
    click.echo(
        f"{'cell':6}{'window':>8}{'state':>10}{'carried':>10}{'fresh':>10}{'unprimed':>10}{'primed':>10}{'seconds':>9}"
    )
    rows = figures["rows"] = []
    for cell in CELLS:
        for width in map(int, windows.split(",")):
            for policy, settings in POLICIES.items():
                row = {"cell": cell, "window": width, "state": policy}
                config = ModelConfig(cell=cell, hidden_size=hidden_size)
                row |= train_and_score(corpus, config, width, characters, seed, settings)
                rows.append(row)
                click.echo(
                    f"{cell:6}{width:>8}{policy:>10}{row['carried']:>10.4f}{row['fresh']:>10.4f}"
                    f"{row['unprimed']:>10.4f}{row['primed']:>10.4f}{row['seconds']:>9.0f}"
                )
                if out:
                    out.write_text(json.dumps(figures, indent=1) + "\n")


def train_and_score(
    corpus: Corpus, config: ModelConfig, width: int, characters: int, seed: int, settings: dict[str, Any]
) -> dict[str, float]:
    """Train one model and score it in every way."""
    rows = BATCH // width
    steps = characters // (rows * width)
    train_config = TrainConfig(steps=steps, batch_size=rows, seq_length=width, eval_every=10**9, seed=seed, **settings)
    begun = time.monotonic()
    trainer = Trainer(corpus, config, train_config)
    for _ in trainer.run():
        pass
    seconds = time.monotonic() - begun
    valid = corpus.valid
    starts = np.arange(PRIME, len(valid) - FIRST, 200)
    return {
        "carried": trainer.summary["valid_loss"],
        "fresh": mean_cost(trainer, cut_windows(valid, np.arange(0, len(valid) - width - 1, width), width)),
        "unprimed": mean_cost(trainer, cut_windows(valid, starts, FIRST)),
        "primed": mean_cost(trainer, cut_windows(valid, starts - PRIME, PRIME + FIRST), PRIME),
        "seconds": seconds,
    }


def cut_windows(ids: np.ndarray, starts: np.ndarray, width: int) -> np.ndarray:
    """Cut windows of ids, shape (N, width + 1), from each start."""
    return ids[starts[:, None] + np.arange(width + 1)].astype(np.int64)


@torch.inference_mode()
def mean_cost(trainer: Trainer, windows: np.ndarray, skipped: int = 0) -> float:
    """Score windows from a fresh state, in nats a character, without the first `skipped` targets of each."""
    total = 0.0
    for part in np.array_split(windows, max(1, len(windows) // 64)):
        ids = torch.from_numpy(part)
        with autocast(trainer.precision, trainer.device):
            values, _ = trainer.model.read(ids[:, :-1])
            nats = nats_per_target(values[:, skipped:], trainer.model.output, ids[:, skipped + 1 :])
            total += nats.double().sum().item()
    return total / (len(windows) * (windows.shape[1] - 1 - skipped))


if __name__ == "__main__":
    main()
