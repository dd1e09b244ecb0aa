"""Two ways to tell a recurrent network of whom a text is: once, as first state, or at each character.

    python -m benchmarks.labels alice29.txt timemachine.txt warpeace.txt

Documents of 2,000 characters by several authors, the same number of each, the last tenth of each held out. Three
networks learn them from the same batches: one is told nothing, one reads the author's begin symbol before a document,
and one has besides a row of numbers for each author, added to the embedding of every character, so that the first
layer's gates get other biases. Printed: nats per character of the held-out documents, by how far they have gone.
"""

import json
import time
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common import machine
from chargen import CharModel, ModelConfig, TrainConfig
from chargen.data.record_batches import RecordBatches
from chargen.model.dropout import DropoutKey
from chargen.model.layers import detach
from chargen.model.loss import cross_entropy, nats_per_target

LENGTH = 2_000
"""Characters of a document."""
BORDERS = (0, 200, 1_000, LENGTH + 1)
"""Characters since the beginning between which losses are told."""
WAYS = ("nothing", "first state", "each character")
Ids = NDArray[np.int64]


class AuthorEmbedding(nn.Module):
    """An embedding of V ids for each of A authors, then of begin symbols: a character's row, and its author's added.

    Args:
        characters: V.
        authors: A.
        size: E.
    """

    def __init__(self, characters: int, authors: int, size: int) -> None:
        super().__init__()
        self.of_character, self.of_author = nn.Embedding(characters, size), nn.Parameter(torch.zeros(authors, 1, size))
        self.of_begin = nn.Embedding(authors + 1, size)

    @property
    def weight(self) -> Tensor:
        """The table of all ids."""
        of_both = (self.of_character.weight + self.of_author).flatten(0, 1)
        return torch.cat([of_both, self.of_begin.weight])

    def forward(self, ids: Tensor) -> Tensor:
        return functional.embedding(ids, self.weight)


class Network:
    """A model, and what it reads of a document.

    Args:
        way: one of `WAYS`.
        characters: V, all of them.
        authors: how many.
        hidden_size: H.
    """

    def __init__(self, way: str, characters: str, authors: int, hidden_size: int) -> None:
        self.way, self.characters = way, characters
        self.size = len(characters)
        self.first_begin = self.size * (authors if way == "each character" else 1)
        config = ModelConfig(hidden_size=hidden_size, dropout=0.2, begin_symbols=authors + 1)
        self.model = CharModel(config, self.first_begin + authors + 1, seed=1)
        if way == "each character":
            self.model.embedding = AuthorEmbedding(self.size, authors, config.input_size)  # type: ignore[assignment]
        self.model.output = nn.Linear(hidden_size, self.size + 1)  # a character, or the end

    def encode(self, author: int, text: str) -> Ids:
        """A document behind its begin symbol."""
        ids = np.array([self.characters.index(character) for character in text])
        ids += author * self.size * (self.way == "each character")
        return np.append(self.first_begin + (0 if self.way == "nothing" else author + 1), ids)

    def targets(self, ids: Ids) -> Tensor:
        """Ids as they are predicted."""
        return torch.from_numpy(np.where(ids >= self.first_begin, self.size, ids % self.size))

    def learn(self, documents: list[tuple[int, str]], steps: int, seed: int) -> None:
        """Train with a cosine schedule."""
        config, state = TrainConfig(steps=steps, seed=seed), None
        ids = np.concatenate([self.encode(*document) for document in documents])
        batches = RecordBatches(ids, self.first_begin, config.batch_size, config.seq_length, seed)
        spared = [weight for name, weight in self.model.named_parameters() if weight.ndim == 1 or "embedding" in name]
        decayed = [weight for weight in self.model.parameters() if all(weight is not other for other in spared)]
        groups = {"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}
        optimizer = torch.optim.AdamW(groups)
        for step in range(steps):
            batch = batches.batch(step)
            for group in optimizer.param_groups:
                group["lr"] = config.lr * min(1, step / config.warmup) * (1 + np.cos(np.pi * step / steps)) / 2
            inputs, fresh = torch.from_numpy(batch.inputs), torch.from_numpy(batch.fresh)
            values, state = self.model.read(inputs, state, DropoutKey(seed, step), fresh=fresh)
            optimizer.zero_grad()
            cross_entropy(values, self.model.output, self.targets(batch.targets)).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
            optimizer.step()
            state = detach(state)

    @torch.inference_mode()
    def score(self, documents: list[tuple[int, str]]) -> NDArray[np.float64]:
        """The nats of each character of documents and of their ends, (N, LENGTH + 1)."""
        rows = []
        for author, text in documents:
            ids = np.append(self.encode(author, text), self.first_begin)[None]
            values, _ = self.model.read(torch.from_numpy(ids[:, :-1]))
            rows.append(nats_per_target(values, self.model.output, self.targets(ids[:, 1:])).double().numpy().ravel())
        return np.stack(rows)


@click.command()
@click.argument("texts", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--steps", default=2_000, show_default=True)
@click.option("--hidden-size", default=256, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(texts: tuple[Path, ...], steps: int, hidden_size: int, seed: int) -> None:
    """Learn TEXTS, one of each author."""
    click.echo(json.dumps(machine()))
    contents = [path.read_text("utf-8") for path in texts]
    number = min(map(len, contents)) // LENGTH
    train: list[tuple[int, str]] = []
    valid: list[tuple[int, str]] = []
    for author, text in enumerate(contents):
        documents = [(author, text[LENGTH * at : LENGTH * (at + 1)]) for at in range(number)]
        train, valid = train + documents[: number * 9 // 10], valid + documents[number * 9 // 10 :]
    characters = "".join(sorted({character for _, text in train + valid for character in text}))
    click.echo(f"{len(train)} documents to learn, {len(valid)} held out, {len(characters)} different characters")
    spans = list(pairwise(BORDERS))
    click.echo(f"{'told':16}" + "".join(f"{f'{a}-{b - 1}':>11}" for a, b in spans) + f"{'all':>11}{'seconds':>9}")
    for way in WAYS:
        begun, network = time.monotonic(), Network(way, characters, len(texts), hidden_size)
        network.learn(train, steps, seed)
        nats = network.score(valid)
        means = [nats[:, a:b].mean() for a, b in spans] + [nats.mean()]
        click.echo(f"{way:16}" + "".join(f"{mean:>11.4f}" for mean in means) + f"{time.monotonic() - begun:>9.0f}")


if __name__ == "__main__":
    main()
