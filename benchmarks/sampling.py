"""Characters per second that are written, and seconds to the first one."""

import math
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numba
import numpy as np
import torch
from torch import nn

from benchmarks.common import CELLS, run_interleaved, speed_job, untrained_model
from chargen import Sampler
from chargen.kernels.threads import threads
from chargen.storage.model_file import FILE_NAME, ModelFile, save_model
from chargen.storage.quantize import quantize


class PlainSampler:
    """Writes a character at a time through PyTorch's own modules."""

    def __init__(self, file: ModelFile, rows: int, device: str = "cpu") -> None:
        config, size = file.config, len(file.vocabulary)
        self.embedding = nn.Embedding(size, config.input_size, device=device)
        kind = nn.LSTM if config.cell == "lstm" else nn.GRU
        self.core = kind(config.input_size, config.hidden_size, config.num_layers, batch_first=True, device=device)
        self.output = nn.Linear(config.hidden_size, size, device=device)
        self.ids, self.state = torch.zeros(rows, 1, dtype=torch.long, device=device), None

    @torch.inference_mode()
    def write(self, length: int) -> None:
        """Write `length` characters in every row."""
        for _ in range(length):
            values, self.state = self.core(self.embedding(self.ids), self.state)
            self.ids = torch.multinomial(torch.softmax(self.output(values[:, 0]), -1), 1)
        self.ids.cpu()  # waits for a GPU


@numba.njit(nogil=True, fastmath=True)
def _read(values: Any, times: int) -> float:
    total: Any = np.float32(0)
    for _ in range(times):
        for index in range(len(values)):
            total += values[index]
    return total


def bandwidth_job(size: int, number: int) -> Callable[[], float]:
    """Make a job that measures how many times a second `number` threads read `size` bytes together."""
    parts = [np.ones(size // 4 // number, np.float32) for _ in range(number)]

    def read(part: Any, times: int) -> None:
        for _ in range(times):
            _read(part, 1)

    def job(times: int) -> None:
        workers = [threading.Thread(target=read, args=(part, times)) for part in parts]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return speed_job(job, 16)


def sampling(shapes: Any, repeats: int, size: int) -> list[dict[str, Any]]:
    """Measure characters per second with 1 stream and with 64."""
    rows = []
    click.echo("sampling, characters per second (ratio to plain stepping)")
    click.echo(f"{'':16}{'streams':>8}{'plain':>10}{'fp32':>18}{'bf16':>18}{'int8':>18}{'of the limit':>14}")
    for cell in CELLS:
        for layers, hidden in shapes:
            file = untrained_model(cell, layers, hidden, size)
            kinds = {"fp32": file.arrays} | {kind: quantize(file.arrays, kind) for kind in ("bf16", "int8")}
            for number in (1, 64):
                jobs = {"plain": speed_job(PlainSampler(file, number).write, 2)}
                for kind, arrays in kinds.items():
                    stored = ModelFile(file.config, file.vocabulary, arrays, file.counts)
                    jobs[kind] = speed_job(Sampler(stored, seed=1, num=number).generate_all, 32)
                # A character reads all weights but those of the first layer's input, which are a table.
                bytes_read = sum(array.nbytes for name, array in file.arrays.items() if array.ndim == 2)
                bytes_read -= file.arrays["embedding.weight"].nbytes
                bytes_read -= file.arrays["forward_layers.0.weight_ih_l0"].nbytes
                jobs["limit"] = bandwidth_job(bytes_read, threads())
                for job in jobs.values():
                    job()
                speeds = run_interleaved(jobs, repeats)
                speeds = {name: speed * (number if name != "limit" else 1) for name, speed in speeds.items()}
                rows.append({"cell": cell, "layers": layers, "hidden": hidden, "streams": number, **speeds})
                columns = "".join(f"{speeds[kind]:>10,.0f} ({speeds[kind] / speeds['plain']:4.1f})" for kind in kinds)
                share = f"{speeds['fp32'] / speeds['limit']:.0%}" if number == 1 else ""
                name = f"{cell} {layers} x {hidden}"
                click.echo(f"{name:16}{number:>8}{speeds['plain']:>10,.0f} {columns}{share:>14}")
    return rows


def start(shapes: Any, repeats: int, size: int) -> list[dict[str, Any]]:
    """Measure seconds from typing `chargen sample` to its first character, disk and cache warm; and peak memory."""
    rows = []
    click.echo("chargen sample: seconds to the first character, and peak memory")
    for cell in CELLS:
        for layers, hidden in shapes:
            with tempfile.TemporaryDirectory() as folder:
                save_model(Path(folder) / FILE_NAME, untrained_model(cell, layers, hidden, size))
                jobs: dict[str, Callable[[], float]] = {"seconds": partial(first_character, folder)}
                jobs["seconds"]()
                figures = run_interleaved(jobs, repeats)
                figures["megabytes"] = peak_memory(folder)
            rows.append({"cell": cell, "layers": layers, "hidden": hidden, **figures})
            click.echo(f"{cell} {layers} x {hidden:<8}{figures['seconds']:8.2f} s{figures['megabytes']:10,.0f} MB")
    return rows


def first_character(folder: str) -> float:
    """Measure seconds until the command writes its first character."""
    begun = time.perf_counter()
    words = [sys.executable, "-m", "chargen", "sample", folder, "--seed", "1", "--length", "10"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    assert process.stdout.read(1)
    seconds = time.perf_counter() - begun
    process.communicate()
    return seconds


def peak_memory(folder: str) -> float:
    """Measure the command's peak memory in megabytes."""
    code = (
        "import sys; from chargen.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print(open('/proc/self/status').read(), file=sys.stderr)"
    )
    peak = math.nan
    if sys.platform == "linux":
        words = [sys.executable, "-c", code, "sample", folder, "--seed", "1", "--length", "1000"]
        status = subprocess.run(words, capture_output=True, text=True, check=True).stderr.split()
        peak = int(status[status.index("VmHWM:") + 1]) / 1024
    return peak
