"""What n-grams cost on the held-out parts of a text, beside its networks.

python -m benchmarks.ngrams warpeace.txt --unit byte --valid-fraction 0.1 --test-fraction 0.1 --order 21
"""

import time
from pathlib import Path

import click
import numpy as np

from chargen import Corpus, NGram


@click.command()
@click.argument("text", type=click.Path(exists=True, path_type=Path))
@click.option("--unit", default="character", show_default=True)
@click.option("--valid-fraction", default=0.1, show_default=True)
@click.option("--test-fraction", default=0.0, show_default=True)
@click.option("--order", default=8, show_default=True)
def main(text: Path, unit: str, valid_fraction: float, test_fraction: float, order: int) -> None:
    """Nats an id of every order up to one, on whole parts; the first id of each is context."""
    corpus = Corpus.from_files(text, unit=unit, valid_fraction=valid_fraction, test_fraction=test_fraction)
    began = time.process_time()
    model = NGram(corpus.train, len(corpus.vocabulary), order)
    click.echo(f"counted in {time.process_time() - began:.1f} s")
    columns = []
    for ids in (corpus.valid, corpus.test):
        began = time.process_time()
        log_probs = np.concatenate([np.empty((order, 0)), *model.log_probs_by_order(ids)], axis=1)
        columns.append(-log_probs[:, 1:].sum(1) / max(len(ids) - 1, 1))
        click.echo(f"scored {len(ids):,} ids in {time.process_time() - began:.1f} s")
    click.echo(f"{'order':>5}{'valid':>9}{'test':>9}")
    for number, (valid, test) in enumerate(zip(*columns, strict=True), 1):
        click.echo(f"{number:>5}{valid:>9.4f}{test:>9.4f}")


if __name__ == "__main__":
    main()
