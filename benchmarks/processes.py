"""Training in one process and in several on the cores of this machine, and how long a sum of gradients takes.

    python -m benchmarks.processes [--shape 2x512] [--steps 20] [--repeats 3]

Prints thousands of characters a second with one thread, with two threads, and with two processes of one thread, medians
of interleaved runs, and the bytes that each process adds to a step's sum.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time

from benchmarks.common import machine

WAYS = {"1 process x 1 thread": (1, 1), "1 process x 2 threads": (1, 2), "2 processes x 1 thread": (2, 1)}
TEXT = 2_000_000
"""Characters of the made text that is learned."""


def train_here(cell: str, layers: int, hidden: int, rows: int, steps: int) -> dict[str, float]:
    """Train as one of the processes, and tell how fast; the first steps are not counted."""
    import numpy as np

    from chargen.data.corpus import Corpus
    from chargen.model.config import ModelConfig
    from chargen.training.config import TrainConfig
    from chargen.training.join import join_group
    from chargen.training.trainer import Trainer

    letters = np.random.default_rng(0).integers(97, 97 + 26, TEXT, np.uint8)
    text = Corpus.from_text(letters.tobytes().decode(), valid_fraction=0.0)
    shape = ModelConfig(cell=cell, num_layers=layers, hidden_size=hidden)
    settings = TrainConfig(steps=steps + 5, batch_size=rows, eval_every=10**9, log_every=10**9)
    with join_group() as group:
        trainer = Trainer(text, shape, settings, group=group)
        times, summed, began = [], group.reduced_bytes, time.perf_counter()
        for progress in trainer.run():
            if progress.doing == "training":
                times.append(time.perf_counter() - began)
                summed, before, began = group.reduced_bytes, summed, time.perf_counter()
        return {"seconds": statistics.median(times[5:]), "bytes": summed - before}


def run(processes: int, threads: int, arguments: list[str]) -> dict[str, float]:
    """Start processes that train together; what the first of them tells."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    shared |= {"LOCAL_WORLD_SIZE": str(processes), "OMP_NUM_THREADS": str(threads)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.processes", "--inside", *arguments], stdout=subprocess.PIPE, text=True,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(processes)
    ]  # fmt: skip
    words = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("a process has failed")
    measured: dict[str, float] = json.loads(words[0].splitlines()[-1])
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="2x512", help="layers x hidden units")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--cells", default="lstm,gru")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    layers, hidden = map(int, options.shape.split("x"))
    if options.inside:
        print(json.dumps(train_here(options.cells, layers, hidden, options.rows, options.steps)))
        return
    print(json.dumps(machine()))
    print(f"{options.shape}, {options.rows} rows of 128, thousands of characters a second, and MB summed a step")
    for cell in options.cells.split(","):
        arguments = ["--shape", options.shape, "--rows", str(options.rows), "--cells", cell]
        arguments += ["--steps", str(options.steps)]
        measured: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(options.repeats):
            for way, (processes, threads) in WAYS.items():
                measured[way].append(run(processes, threads, arguments))
        for way, runs in measured.items():
            speed = options.rows * 128 / statistics.median(each["seconds"] for each in runs) / 1000
            print(f"{cell:4}  {way:22}  {speed:6.1f}   {runs[0]['bytes'] / 1e6:5.1f} MB")


if __name__ == "__main__":
    main()
