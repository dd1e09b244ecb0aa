"""What more rows in a minibatch cost, or gain: the loss after equally many characters, by rows, windows and rates.

    python -m benchmarks.rows tinyshakespeare.txt --out rows.json
    python -m benchmarks.rows tinyshakespeare.txt --rows 128 --length 32 --rates 1,2,2.8

The same model reads equally many characters in minibatches of B rows, so more rows make fewer steps. Nats a character
on the whole last 10 % with carried state, no adaptation, last weights. Dropout, weight decay and the rate that others
are multiples of are what `chargen train` chooses for 32 rows.
"""

import json
from pathlib import Path
from typing import Any

import click

from benchmarks.common import machine
from chargen import Corpus, TrainConfig, Trainer
from chargen.training.autosize import choose_sizes

ROWS = 32
"""Rows that settings are chosen for."""
WARMUP = 50 * ROWS * 128
"""Characters over which the rate rises, where that is not a number of steps."""


def numbers(words: str) -> list[float]:
    """Split numbers at commas."""
    return [float(word) for word in words.split(",")]


@click.command()
@click.argument("text", type=click.Path(exists=True, path_type=Path))
@click.option("--rows", default="16,32,64,128,256,512", show_default=True, help="Rows of a minibatch.")
@click.option("--rates", default="1,1.4,2,2.8", show_default=True, help="Peak rates, as multiples of what is chosen.")
@click.option("--decays", default="1", show_default=True, help="Weight decays, as multiples of what is chosen.")
@click.option("--length", default=128, show_default=True, help="Characters of a window.")
@click.option("--warmup", type=int, help="Steps over which the rate rises; 204,800 characters by default.")
@click.option("--characters", default=4_096_000, show_default=True, help="Characters that each run trains.")
@click.option("--hidden-size", default=128, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--precision", default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write all figures to this JSON file.")
def main(
    text: Path, rows: str, rates: str, decays: str, length: int, warmup: int | None, characters: int, hidden_size: int,
    seed: int, precision: str, out: Path | None,
) -> None:  # fmt: skip
    """Compare minibatches on TEXT."""
    corpus = Corpus.from_files(text, valid_fraction=0.1)
    minibatch = {"batch_size": ROWS, "seq_length": length, "epochs": characters / len(corpus.train)}
    sizes = choose_sizes(len(corpus.train), len(corpus.vocabulary), {"hidden_size": hidden_size}, minibatch)
    figures: dict[str, Any] = {"text": text.name, "split": "90/10, in order", "characters": characters, "seed": seed}
    figures |= {"model": repr(sizes.model), "training": repr(sizes.training), **machine()}
    click.echo(json.dumps(figures))
    click.echo(f"{'rows':>5}{'length':>8}{'steps':>8}{'warmup':>8}{'rate':>9}{'decay':>8}{'valid':>9}")
    runs = figures["runs"] = []
    for count in map(int, numbers(rows)):
        steps = max(1, round(characters / (count * length)))
        rise = round(WARMUP / (count * length)) if warmup is None else warmup
        for rate in numbers(rates):
            for decay in numbers(decays):
                settings: dict[str, Any] = {"batch_size": count, "seq_length": length, "steps": steps, "warmup": rise}
                settings |= {"lr": rate * sizes.training.lr, "weight_decay": decay * sizes.training.weight_decay}
                config = TrainConfig(**settings, precision=precision, seed=seed, eval_every=10**9)
                trainer = Trainer(corpus, sizes.model, config)
                for _ in trainer.run():
                    pass
                valid = float(trainer.summary["valid_loss"])
                runs.append({**settings, "valid": valid})
                click.echo(
                    f"{count:>5}{length:>8}{steps:>8}{rise:>8}{config.lr:>9.4g}{config.weight_decay:>8.3g}{valid:>9.4f}"
                )
                if out:
                    out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
