"""What records, labels and beginnings are worth, on names, poems and authors.

    python -m benchmarks.records names names.jsonl --minutes 1    # {"name": …, "sex": …} a line: beside n-grams
    python -m benchmarks.records poems poems.txt --minutes 10     # poems between blank lines: beside the running text
    python -m benchmarks.records authors a.txt b.txt c.txt        # one labelled model, an unlabelled one, one for each

Every figure is on the held-out records of the split by hash, in nats; the end of a record counts as a character.
"""

import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

import chargen
from benchmarks.common import machine
from chargen import Corpus, NGram
from chargen.data.code_points import END_MARK

ORDERS = 3, 5
"""Of n-grams."""
POEMS, SAMPLES = 500, 200
"""Poems that are written and looked at, and paragraphs of each author."""


@click.group()
def main() -> None:
    """Records, measured."""
    click.echo(json.dumps(machine()))


@main.command()
@click.argument("table", type=click.Path(exists=True, path_type=Path))
@click.option("--minutes", default=1.0, show_default=True)
@click.option("--seeds", default=3, show_default=True, help="Splits.")
def names(table: Path, minutes: float, seeds: int) -> None:
    """Nats a name of a model with labels, one without, and of n-grams of characters, on the same splits."""
    columns = ["labelled", "plain", *(f"{order}-gram" for order in ORDERS)]
    click.echo(f"{'split':>5}{''.join(f'{name:>10}' for name in columns)}  nats a name")
    for seed in range(seeds):
        settings: dict[str, Any] = {"records": "jsonl", "text_field": "name", "split_seed": seed}
        corpus = Corpus.from_files(table, **settings)
        losses = []
        for label_field in ("sex", None):
            run = chargen.train(table, minutes=minutes, label_field=label_field, **settings)
            losses.append(chargen.evaluate(run.model, sources=table, part="valid"))
        figures = [loss.nats_per_record or math.nan for loss in losses] + [
            ngram_nats(corpus, order) for order in ORDERS
        ]
        click.echo(f"{seed:>5}" + "".join(f"{value:>10.3f}" for value in figures))


def ngram_nats(corpus: Corpus, order: int) -> float:
    """The nats of a held-out record, its end included, by n-grams of characters."""
    end = corpus.vocabulary.end_id
    train, valid = (np.append(ids, ids.dtype.type(end)) for ids in (corpus.train, corpus.valid))
    log_probs = NGram(train, len(corpus.vocabulary), order, end_id=end).log_probs(valid)
    return float(-log_probs[1:].sum()) / corpus.count_records("valid")


@main.command()
@click.argument("text", type=click.Path(exists=True, path_type=Path))
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--temperature", default=0.8, show_default=True)
def poems(text: Path, minutes: float, temperature: float) -> None:
    """Nats a poem of records and of running text, and how many poems written are regular."""
    settings: dict[str, Any] = {"records": "blank-line"}
    choice: dict[str, Any] = {"temperature": temperature, "seed": 0}
    corpus = Corpus.from_files(text, **settings)
    train, valid = (corpus.vocabulary.decode(ids).split(END_MARK)[1:] for ids in (corpus.train, corpus.valid))
    with tempfile.TemporaryDirectory() as folder:
        plain = [Path(folder) / "train.txt", Path(folder) / "valid.txt"]
        for file, part in zip(plain, (train, valid), strict=True):
            file.write_text("\n\n".join(part) + "\n\n", "utf-8")
        running = chargen.train(plain[0], valid=plain[1], minutes=minutes)
        of_running = chargen.evaluate(running.model, plain[1]).nats / len(valid)
        written = chargen.generate(
            running.model, "\n\n", length=100 * POEMS, temperature=temperature, seed=0, echo=False
        )
    records = chargen.train(text, minutes=minutes, **settings)
    of_records = chargen.evaluate(records.model, sources=text, part="valid").nats_per_record
    whole = chargen.generate(records.model, num=POEMS, **choice)
    click.echo(f"nats a poem: records {of_records:.2f}, running text {of_running:.2f}")
    shares = {"real": valid, "records": whole, "running text": written.split("\n\n")[:-1]}
    for name, poem_texts in shares.items():
        regular = sum(map(is_regular, poem_texts))
        click.echo(f"{name}: {regular / len(poem_texts):.1%} of {len(poem_texts)} have four or eight equal lines")


def is_regular(poem: str) -> bool:
    """Whether a poem has four or eight lines of one length; a line ends with a punctuation mark or a line end."""
    lines = [line for line in re.split(r"[\W_]+", poem) if line]
    return len(lines) in (4, 8) and len(set(map(len, lines))) == 1


@main.command()
@click.argument("texts", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--minutes", default=6.0, show_default=True, help="For each way; three models share them.")
@click.option("--characters", default=150_000, show_default=True, help="Of each author.")
def authors(texts: tuple[Path, ...], minutes: float, characters: int) -> None:
    """Paragraphs of TEXTS, one of each author: a labelled model, an unlabelled one, and one for each author."""
    settings: dict[str, Any] = {"records": "blank-line"}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / text.name for text in texts]
        held_out = [Path(folder) / "held-out" / text.name for text in texts]
        held_out[0].parent.mkdir()
        for text, file, held in zip(texts, files, held_out, strict=True):
            file.write_text(text.read_text("utf-8")[:characters], "utf-8")
            corpus = Corpus.from_files(file, **settings)
            held.write_text("\n\n".join(corpus.vocabulary.decode(corpus.valid).split(END_MARK)[1:]), "utf-8")
        labelled = chargen.train(files, minutes=minutes, label_from="file", **settings).model
        unlabelled = chargen.train(files, minutes=minutes, **settings).model
        click.echo(f"{'nats a character':20}{'labelled':>10}{'unlabelled':>12}{'alone':>10}")
        for file, held in zip(files, held_out, strict=True):
            alone = chargen.train(file, minutes=minutes / len(files), **settings).model
            losses = [
                chargen.evaluate(model, sources=held).nats_per_character for model in (labelled, unlabelled, alone)
            ]
            click.echo(f"{file.stem:20}{losses[0]:>10.4f}{losses[1]:>12.4f}{losses[2]:>10.4f}")
        scores = chargen.score_records(labelled, sources=list(held_out), guess_label=True)
        lengths = [len(score.text) for score in scores]
        totals = scores.totals
        click.echo(
            f"held-out paragraphs given their author: {totals.right} of {totals.labelled} ({sum(lengths):,} characters)"
        )
        right = {}
        for file in files:
            written = chargen.generate(labelled, num=SAMPLES, label=file.stem, temperature=1.0, seed=0)
            guesses = [score.guess for score in chargen.score_records(labelled, written, guess_label=True)]
            right[file.stem] = guesses.count(file.stem)
        click.echo(f"of {SAMPLES} written paragraphs each: {right}")


if __name__ == "__main__":
    main()
