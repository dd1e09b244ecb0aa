"""How fast a text is scored beside training the same model, and many short texts beside one long one, in one run.

    python -m benchmarks.judging --precision fp32 --precision bf16

Everything is interleaved, and what is printed are ratios of medians: machines are noisy.
"""

import time
from collections.abc import Callable

import click
import numpy as np

from benchmarks.common import CELLS, new_vocabulary, run_interleaved
from benchmarks.training import chargen_steps, speed_of_steps
from chargen import CharModel, Corpus, ModelConfig, TrainConfig, score
from chargen.training.memory import keep_memory

LINE = 60
"""Characters of a short text."""


@click.command()
@click.option("--shape", default="2x512", show_default=True)
@click.option("--cell", "cells", multiple=True, type=click.Choice(CELLS), help="Only these.")
@click.option("--precision", "precisions", multiple=True, default=("fp32",), show_default=True)
@click.option("--characters", default=1_000_000, show_default=True, help="Of the long text.")
@click.option("--steps", default=10, show_default=True, help="Training steps that are timed at once.")
@click.option("--repeats", default=3, show_default=True)
def main(
    shape: str, cells: tuple[str, ...], precisions: tuple[str, ...], characters: int, steps: int, repeats: int
) -> None:
    """Measure scoring in characters per second, beside training with the default batch."""
    keep_memory()
    layers, hidden = map(int, shape.split("x"))
    vocabulary = new_vocabulary(65)
    draws = np.random.default_rng(0).integers(0, len(vocabulary), characters)
    text = vocabulary.decode(draws)
    lines = [text[start : start + LINE] for start in range(0, min(len(text), 1000 * LINE), LINE)]
    corpus = Corpus.from_text(text, valid_fraction=0.1)
    batch = TrainConfig().batch_size, TrainConfig().seq_length
    for cell in cells or CELLS:
        config = ModelConfig(cell=cell, num_layers=layers, hidden_size=hidden)
        model = CharModel(config, len(corpus.vocabulary))
        for precision in precisions:

            def speed(texts: list[str], model: CharModel = model, precision: str = precision) -> Callable[[], float]:
                def run() -> float:
                    begun = time.perf_counter()
                    score(model, texts, vocabulary=corpus.vocabulary, precision=precision)
                    return sum(map(len, texts)) / (time.perf_counter() - begun)

                return run

            jobs = {
                "train": speed_of_steps(chargen_steps(config, batch, corpus, precision), batch, steps),
                "long": speed([text]),
                "as long as the lines": speed(["".join(lines)]),
                "lines": speed(lines),
            }
            jobs["train"]()  # the first step compiles
            speeds = run_interleaved(jobs, repeats)
            ratios = {
                "scoring / training": speeds["long"] / speeds["train"],
                "lines / long": speeds["lines"] / speeds["long"],
                "lines / one text of them": speeds["lines"] / speeds["as long as the lines"],
            }
            figures = "  ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
            click.echo(f"{cell} {shape} {precision}  {figures}")


if __name__ == "__main__":
    main()
