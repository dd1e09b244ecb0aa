"""What two directions cost and bring: losses, cloze accuracy, and filled gaps against sampling from the left alone.

    python -m benchmarks.two_directions tinyshakespeare.txt --out two_directions.json

Trains a one-way and a bidirectional model for the same number of steps on the first 90 % of the text, then compares
them on the last 10 %. Gaps are cut from that part. Sampling from the left may read as many characters with the forward
stack as `fill` has read for gaps and guesses with both stacks, and reads common prefixes once as `fill` does.
The texts around the gap (300 characters on either side) are read once by each and not counted, nor is the cloze layer's
work; seconds count both.
"""

import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from tqdm import tqdm

from benchmarks.common import machine
from chargen import Corpus, Filler, ModelConfig, TrainConfig, Trainer, read_model
from chargen.evaluation.rows import predict, read_rows
from chargen.infill.fill import AFTER
from chargen.infill.lookahead import GUESSES, HORIZON
from chargen.infill.particles import run_smc
from chargen.infill.prefixes import Grower
from chargen.storage.model_file import build_model

CONTEXT = 300
"""Characters on either side of a gap."""
MAX_PARTICLES = 4_000


@click.command()
@click.argument("text", type=click.Path(exists=True, path_type=Path))
@click.option("--steps", default=1500, show_default=True, help="Optimizer steps of both models.")
@click.option("--hidden-size", default=256, show_default=True)
@click.option("--gaps", default=500, show_default=True, help="Gaps of each length.")
@click.option("--lengths", default="1,3,5,10,20,40", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--jobs", default=os.cpu_count(), show_default=True, help="Processes that fill gaps.")
@click.option("--models", type=click.Path(path_type=Path), help="Keep the models here, and take those that are here.")
@click.option("--out", type=click.Path(path_type=Path), help="Write all figures to this JSON file.")
def main(
    text: Path,
    steps: int,
    hidden_size: int,
    gaps: int,
    lengths: str,
    seed: int,
    jobs: int,
    models: Path | None,
    out: Path | None,
) -> None:
    """Compare one direction with two on TEXT."""
    figures: dict[str, Any] = {"text": text.name, "split": "90/10, in order", "steps": steps, "seed": seed, **machine()}
    click.echo(json.dumps(figures))
    with tempfile.TemporaryDirectory() as temporary:
        folder = models or Path(temporary)
        corpus = Corpus.from_files(text, valid_fraction=0.1)
        for name, both in (("one way", False), ("both ways", True)):
            figures[name] = train(
                corpus, ModelConfig("lstm", hidden_size=hidden_size, bidirectional=both), steps, seed, folder
            )
            click.echo(f"{name:10} {json.dumps(figures[name])}")
        difference = figures["both ways"]["valid_loss_forward"] - figures["one way"]["valid_loss"]
        click.echo(f"forward loss of the bidirectional model minus that of the one-way model: {difference:+.4f} nats")
        figures["accuracy"] = accuracy(corpus, folder)
        click.echo(f"accuracy   {json.dumps(figures['accuracy'])}")
        os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # of the processes that fill
        path = folder / "both/model.safetensors"
        valid = corpus.vocabulary.decode(corpus.valid)
        figures["fill"] = {}
        for length in map(int, lengths.split(",")):
            rng = np.random.default_rng((seed, length))
            starts = rng.integers(CONTEXT, len(valid) - length - CONTEXT, gaps).tolist()
            texts = [valid[start - CONTEXT : start + length + CONTEXT] for start in starts]
            tasks = [(str(path), text, length, number) for number, text in enumerate(texts)]
            with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
                rows = list(tqdm(pool.map(compare, tasks, chunksize=5), total=gaps, disable=None, leave=False))
            figures["fill"][length] = summary(rows)
            click.echo(f"gap {length:3} {json.dumps(figures['fill'][length])}")
    click.echo(table(figures["fill"]))
    if out:
        out.write_text(json.dumps(figures, indent=1) + "\n")


def train(corpus: Corpus, config: ModelConfig, steps: int, seed: int, folder: Path) -> dict[str, Any]:
    """Train a model, or read it where it exists; return its losses on the whole validation part."""
    out = folder / ("both" if config.bidirectional else "one")
    begun = time.monotonic()
    if not (out / "model.safetensors").exists():
        for _ in Trainer(corpus, config, TrainConfig(steps=steps, seed=seed), out).run():
            pass
    training = read_model(out).training
    names = ("valid_loss", "valid_loss_forward", "valid_loss_backward", "valid_characters", "valid_whole", "precision")
    return {"seconds": round(time.monotonic() - begun, 1), **{n: training[n] for n in names if n in training}}


def accuracy(corpus: Corpus, folder: Path) -> dict[str, Any]:
    """Measure how often the likeliest prediction is right in the validation part, and nats, with carried state."""
    figures = {}
    for name, folder_name in (("one way", "one"), ("both ways", "both")):
        file = read_model(folder / folder_name)
        network, first = build_model(file), torch.from_numpy(file.first_logits).float()
        judges = ("forward", "backward", "cloze") if file.config.bidirectional else ("forward",)
        right: dict[str, list[Any]] = {}
        nats: dict[str, list[Any]] = {}
        for window in read_rows(network, [corpus.valid], direction="both" if len(judges) > 1 else "forward"):
            for judge in judges:
                log_probs = predict(network, window, judge, first).log_softmax(1).numpy()
                right.setdefault(judge, []).append(log_probs.argmax(axis=1) == window.ids)
                nats.setdefault(judge, []).append(-log_probs[np.arange(len(window.ids)), window.ids])
        for judge in right:
            figures[f"{name}, {judge}"] = {
                "top_1": round(float(np.concatenate(right[judge]).mean()), 4),
                "nats": round(float(np.concatenate(nats[judge]).mean()), 4),
            }
    return figures


FILLERS: dict[str, Filler] = {}


def compare(task: tuple[str, str, int, int]) -> dict[str, float]:
    """Fill one gap by `fill`, and by sampling from the left with as many characters read."""
    path, text, length, number = task
    if path not in FILLERS:
        FILLERS[path] = Filler(read_model(path), seed=1)
    filler = FILLERS[path]
    before, gap, after = text[:CONTEXT], text[CONTEXT : CONTEXT + length], text[CONTEXT + length :]
    begun = time.monotonic()
    filled = filler.fill(before, after, length, number=number)
    seconds = time.monotonic() - begun
    draw, most_likely = filled.alternatives[0], filled.most_likely
    backward_steps = 0 if filled.exact else GUESSES * (min(length, HORIZON) - 1)
    particles, steps = 64, filled.steps + backward_steps
    while True:
        begun = time.monotonic()
        grower = Grower(filler.model, filler.forward, filler.config)
        ids = filler.vocabulary.encode(after[:AFTER])
        root = filler.read_before(before)
        plain = run_smc(grower, root, None, ids, range(length, length + 1), particles, number)
        if grower.steps >= steps or particles >= MAX_PARTICLES:
            break
        particles = min(MAX_PARTICLES, int(particles * np.clip(steps / grower.steps, 1.1, 4)) + 1)
    plain_seconds = time.monotonic() - begun
    best = int(plain.log_after.argmax())
    best_score = int((plain.gaps.log_probs + plain.log_after).argmax())
    return {
        "fill": draw.log_prob_after,
        "most_likely": most_likely.log_prob_after,
        "plain": float(plain.log_after[plain.gap].mean()),
        "best": float(plain.log_after[best]),
        "recovered": most_likely.text == gap,
        "recovered_draw": draw.text == gap,
        "recovered_plain": plain.gaps.texts[plain.gap[0]] == gap,
        "recovered_best": plain.gaps.texts[best] == gap,
        "recovered_best_score": plain.gaps.texts[best_score] == gap,
        "particles": particles,
        "steps": filled.steps,
        "backward_steps": backward_steps,
        "plain_steps": grower.steps,
        "ess": filled.effective_sample_size,
        "seconds": seconds,
        "plain_seconds": plain_seconds,
    }


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Average over the gaps; add the standard errors of best-of-K and of differences to it."""
    columns = {name: np.array([row[name] for row in rows], float) for name in rows[0]}
    figures = {name: round(float(values.mean()), 4) for name, values in columns.items()}
    for name in ("fill", "most_likely"):
        difference = columns[name] - columns["best"]
        figures[f"{name}_minus_best"] = round(float(difference.mean()), 4)
        figures[f"{name}_minus_best_error"] = round(float(difference.std() / np.sqrt(len(rows))), 4)
    figures["best_error"] = round(float(columns["best"].std() / np.sqrt(len(rows))), 4)
    return figures


def table(figures: dict[int, dict[str, float]]) -> str:
    """Format the figures as a table for people."""
    lines = [
        "log p(after[:40] | before, gap) of the fills, nats; share of gaps recovered",
        f"{'gap':>4} {'fill':>8} {'likeliest':>9} {'plain':>8} {'best of K':>9} {'fill - best':>15} {'K':>6}"
        f" {'likeliest':>9} {'best of K':>9} {'plain':>7}",
    ]
    for length, row in figures.items():
        difference = f"{row['fill_minus_best']:+.2f} ± {row['fill_minus_best_error']:.2f}"
        lines.append(
            f"{length:>4} {row['fill']:8.2f} {row['most_likely']:9.2f} {row['plain']:8.2f} {row['best']:9.2f}"
            f" {difference:>15} {row['particles']:6.0f} {row['recovered']:9.3f} {row['recovered_best']:9.3f}"
            f" {row['recovered_plain']:7.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
