"""What teachers are worth to one network, and which parts of teaching matter.

    chargen train alice29.txt --epochs 120 --teachers off --members 3 --out runs/three
    python -m benchmarks.teachers alice29.txt runs/three --hidden-size 256 --epochs 53 --out teachers.json

Nats a character on the whole validation part (the last 10 %; carried state, no adaptation), with counts and without, of
networks that learn the same number of characters: from what TEACHERS write, in other shares, by characters instead of
probabilities, with dropout; and from the text alone.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

import chargen
from benchmarks.common import machine
from chargen import Corpus, ModelConfig, TrainConfig, Trainer
from chargen.data.batches import Batch, ConsecutiveBatches
from chargen.model.language_model import CharModel
from chargen.storage.model_file import build_networks
from chargen.training.autosize import fit_sizes
from chargen.training.counts import choose_order
from chargen.training.teachers import TaughtBatches, Teachers, weigh_begins


class Characters:
    """Batches without the probabilities that teachers had.

    Args:
        batches: theirs.
    """

    def __init__(self, batches: TaughtBatches) -> None:
        self.batches, self.steps_per_epoch = batches, batches.steps_per_epoch

    def batch(self, step: int) -> Batch:
        """The batch of a step.

        Args:
            step: counted from 0.
        """
        return replace(self.batches.batch(step), taught=None)


def learn(
    corpus: Corpus, shape: ModelConfig, config: TrainConfig, networks: list[CharModel], own_rows: int, by: str
) -> tuple[float, float]:  # fmt: skip
    """Train a network; return its loss, and with counts.

    Args:
        corpus: the text.
        shape: of the network.
        config: of its training.
        networks: its teachers.
        own_rows: of a minibatch, those that read the text.
        by: "probabilities" or "characters".
    """
    trainer = Trainer(corpus, shape, config)
    rows, length = config.batch_size - own_rows, config.seq_length
    if rows:
        begins = weigh_begins(corpus, "forward")
        teachers = Teachers(networks, begins, None, "forward", trainer.precision, config.seed)
        own = ConsecutiveBatches(np.asarray(corpus.train), own_rows, length, config.seed)
        steps = trainer.batches["forward"].steps_per_epoch
        taught = TaughtBatches(own, teachers, range(rows), rows, length, steps)
        trainer.batches["forward"] = Characters(taught) if by == "characters" else taught
    for _ in trainer.run():
        pass
    loss = trainer.summary["valid_loss"]
    return trainer.summary.get("valid_loss_network", loss), loss


def variations(rows: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is measured, by name.

    Args:
        rows: of a minibatch.
    """
    third = round(rows / 3)
    yield "the text alone", {"own_rows": rows, "dropout": None}
    for name, own_rows in (("a sixth", round(rows / 6)), ("a third", third), ("half", rows // 2)):
        yield f"{name} of the rows text", {"own_rows": own_rows}
    yield "a third, characters instead of probabilities", {"own_rows": third, "by": "characters"}
    yield "a third, dropout 0.15", {"own_rows": third, "dropout": 0.15}
    yield "a third, one teacher", {"own_rows": third, "number": 1}


@click.command()
@click.argument("text", type=click.Path(exists=True, path_type=Path))
@click.argument("teachers", type=click.Path(exists=True, path_type=Path))
@click.option("--hidden-size", type=int, required=True, help="Of the network.")
@click.option("--epochs", type=float, required=True, help="Passes over the text that are as many characters.")
@click.option("--out", type=click.Path(path_type=Path), help="Write all figures to this JSON file.")
def main(text: Path, teachers: Path, hidden_size: int, epochs: float, out: Path | None) -> None:
    """Let the networks of TEACHERS, which have learned TEXT, teach others."""
    corpus, file = Corpus.from_files(text, valid_fraction=0.1), chargen.read_model(teachers)
    networks = build_networks(file)
    sizes = fit_sizes(corpus, {"hidden_size": hidden_size}, {"epochs": epochs})
    config, figures = replace(sizes.training, counts=choose_order(corpus)), []
    click.echo(f"{'nats a character':>46}{'alone':>9}{'counts':>9}")
    for name, options in variations(config.batch_size):
        own_rows, dropout = options["own_rows"], options.get("dropout", 0.0)
        is_taught = own_rows < config.batch_size
        shape = sizes.model if dropout is None else replace(sizes.model, dropout=dropout)
        mine = replace(config, weight_decay=0.3) if is_taught else config
        chosen = networks[: options.get("number")]
        loss, counted = learn(corpus, shape, mine, chosen, own_rows, options.get("by", "probabilities"))
        figures.append({"what": name, "nats": loss, "counts": counted})
        click.echo(f"{name:>46}{loss:>9.4f}{counted:>9.4f}")
    if out:
        out.write_text(json.dumps({"text": text.name, **machine(), "rows": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
