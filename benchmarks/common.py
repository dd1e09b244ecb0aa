"""What the benchmarks share: the machine, medians of interleaved jobs, untrained models."""

import os
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
"""Characters of the default vocabulary."""


def machine() -> dict[str, Any]:
    """Describe the machine and the code that are measured."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    flags = torch.cpu.get_capabilities()
    return {
        "commit": commit.stdout.strip(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "features": [name for name in ("avx2", "avx512_bf16", "amx_bf16") if flags.get(name)],
        "held_to": os.environ.get("ATEN_CPU_CAPABILITY"),
        "threads": threads(),
        "date": time.strftime("%Y-%m-%d"),
    }


def run_interleaved(jobs: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Run all jobs in rotation; return the median of what each returns."""
    results: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            results[name].append(job())
    return {name: statistics.median(values) for name, values in results.items()}


def speed_job(job: Callable[[int], Any], start: int, seconds: float = 0.5) -> Callable[[], float]:
    """Make a job that measures characters per second, with enough characters to fill about that many seconds."""
    length = start

    def run() -> float:
        nonlocal length
        while True:
            begun = time.perf_counter()
            job(length)
            duration = time.perf_counter() - begun
            if duration > seconds / 2:
                return length / duration
            length *= 2

    return run


def new_vocabulary(size: int) -> Vocabulary:
    """Make a vocabulary of that many characters; which ones makes no difference."""
    return Vocabulary("".join(map(chr, range(0x4E00, 0x4E00 + size))))


def untrained_model(cell: str, layers: int, hidden: int, size: int) -> ModelFile:
    """Make an untrained model: it is as fast as a trained one."""
    config = ModelConfig(cell=cell, num_layers=layers, hidden_size=hidden)
    model = CharModel(config, size)
    arrays = {name: weight.numpy() for name, weight in model.state_dict().items()}
    return ModelFile(config, new_vocabulary(size), arrays, np.ones(size, np.int64))
