"""What the benchmarks share: where they run, medians of interleaved jobs, models that nobody trained."""

import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from chargen import CharModel, ModelConfig
from chargen.data.vocabulary import Vocabulary
from chargen.kernels.threads import threads
from chargen.storage.model_file import ModelFile

CELLS = ("lstm", "gru")
LETTERS = 65


def machine() -> dict[str, Any]:
    """Where this was measured."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    flags = torch.cpu.get_capabilities()
    return {
        "commit": commit.stdout.strip(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "features": [name for name in ("avx2", "avx512_bf16", "amx_bf16") if flags.get(name)],
        "threads": threads(),
        "date": time.strftime("%Y-%m-%d"),
    }


def interleaved(jobs: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median of what each job returns, all jobs by turns."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            found[name].append(job())
    return {name: statistics.median(values) for name, values in found.items()}


def timed(job: Callable[[int], Any], start: int, seconds: float = 0.5) -> Callable[[], float]:
    """A job that returns characters per second, for so many characters that it takes a while."""
    number = start

    def run() -> float:
        nonlocal number
        while True:
            begun = time.perf_counter()
            job(number)
            spent = time.perf_counter() - begun
            if spent > seconds / 2:
                return number / spent
            number *= 2

    return run


def vocabulary(size: int) -> Vocabulary:
    """So many characters, whatever they say."""
    return Vocabulary("".join(map(chr, range(0x4E00, 0x4E00 + size))))


def new_file(cell: str, layers: int, hidden: int, size: int) -> ModelFile:
    """A model that nobody trained: it is as fast as any."""
    config = ModelConfig(cell=cell, num_layers=layers, hidden_size=hidden)
    model = CharModel(config, size)
    arrays = {name: weight.numpy() for name, weight in model.state_dict().items()}
    return ModelFile(config, vocabulary(size), arrays, np.ones(size, np.int64))
