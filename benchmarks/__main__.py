"""How fast chargen is beside the plain PyTorch loop and beside the machine's limits, in one run.

    python -m benchmarks sampling training memory start --out speed.json

Everything is interleaved and repeated, and medians are given, because machines are noisy: trust the ratios. Baselines:
(a) the loop that everybody writes, `nn.LSTM` or `nn.GRU` in fp32; (b) the same under bf16 autocast; (c) the machine's
limit, measured in the same run: for training the peak of bf16 matrix products, at 6 floating-point operations for each
weight and character; for sampling the speed at which the same bytes are read by as many threads.
"""

import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import click
import numba
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from chargen import CharModel, Corpus, ModelConfig, Sampler, TrainConfig, Trainer
from chargen.kernels.threads import threads
from chargen.model import recurrent
from chargen.storage.model_file import FILE_NAME, ModelFile, save_model
from chargen.storage.quantize import quantize
from chargen.text.vocabulary import Vocabulary
from chargen.training.memory import keep_memory

SHAPES = ((2, 128), (2, 512), (3, 1024))
CELLS = ("lstm", "gru")
LETTERS = "".join(map(chr, range(32, 97)))
KINDS = ("plain", "autocast", "chargen")
PARTS = ("sampling", "training", "memory", "start")


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--repeats", default=5, show_default=True)
@click.option("--shape", "shapes", multiple=True, help="Only these, as 2x512.")
@click.option("--out", type=click.Path(path_type=Path), help="Write all figures to this JSON file.")
def main(parts: tuple[str, ...], repeats: int, shapes: tuple[str, ...], out: Path | None) -> None:
    """Measure PARTS (all of them without any): sampling, training, memory, start."""
    figures: dict[str, Any] = {"machine": machine()}
    click.echo(json.dumps(figures["machine"]))
    wanted = [tuple(map(int, shape.split("x"))) for shape in shapes] or SHAPES
    for part in (one for one in PARTS if not parts or one in parts):  # training changes how the process gets memory
        figures[part] = {"sampling": sampling, "training": training, "memory": memory, "start": start}[part](
            wanted, repeats
        )
    if out:
        out.write_text(json.dumps(figures, indent=1))


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


def new_file(cell: str, layers: int, hidden: int) -> ModelFile:
    """A model that nobody trained: it is as fast as any."""
    config = ModelConfig(cell=cell, num_layers=layers, hidden_size=hidden)
    vocabulary = Vocabulary(LETTERS)
    model = CharModel(config, len(vocabulary))
    arrays = {name: weight.numpy() for name, weight in model.state_dict().items()}
    return ModelFile(config, vocabulary, arrays, np.ones(len(vocabulary), np.int64))


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


class PlainSampler:
    """One character a step through PyTorch's own modules, as everybody does it."""

    def __init__(self, file: ModelFile, rows: int) -> None:
        config, size = file.config, len(file.vocabulary)
        self.embedding = nn.Embedding(size, config.embedding_size)
        kind = nn.LSTM if config.cell == "lstm" else nn.GRU
        self.core = kind(config.embedding_size, config.hidden_size, config.num_layers, batch_first=True)
        self.output = nn.Linear(config.hidden_size, size)
        self.ids, self.state = torch.zeros(rows, 1, dtype=torch.long), None

    @torch.inference_mode()
    def write(self, length: int) -> None:
        """Write `length` characters in every row."""
        for _ in range(length):
            values, self.state = self.core(self.embedding(self.ids), self.state)
            self.ids = torch.multinomial(torch.softmax(self.output(values[:, 0]), -1), 1)


@numba.njit(nogil=True, fastmath=True)
def _read(values: Any, times: int) -> float:
    total = np.float32(0)
    for _ in range(times):
        for at in range(len(values)):
            total += values[at]
    return total


def streaming(size: int, number: int) -> Callable[[], float]:
    """How many times a second `number` threads read `size` bytes together, each its share."""
    share = [np.ones(size // 4 // number, np.float32) for _ in range(number)]

    def read(part: Any, times: int) -> None:
        for _ in range(times):
            _read(part, 1)

    def job(times: int) -> None:
        workers = [threading.Thread(target=read, args=(part, times)) for part in share]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return timed(job, 16)


def sampling(shapes: Any, repeats: int) -> list[dict[str, Any]]:
    """Characters per second of one stream and of 64."""
    rows = []
    click.echo("sampling, characters per second (ratio to plain stepping)")
    click.echo(f"{'':16}{'streams':>8}{'plain':>10}{'fp32':>18}{'bf16':>18}{'int8':>18}{'of the limit':>14}")
    for cell in CELLS:
        for layers, hidden in shapes:
            file = new_file(cell, layers, hidden)
            kinds = {"fp32": file.arrays} | {kind: quantize(file.arrays, kind) for kind in ("bf16", "int8")}
            for number in (1, 64):
                jobs = {"plain": timed(PlainSampler(file, number).write, 2)}
                for kind, arrays in kinds.items():
                    stored = ModelFile(file.config, file.vocabulary, arrays, file.counts)
                    jobs[kind] = timed(Sampler(stored, seed=1, num=number).generate_all, 32)
                # What is read for a character: all weights but those of the first layer's input, a table.
                read = sum(array.nbytes for name, array in file.arrays.items() if array.ndim == 2)
                read -= file.arrays["embedding.weight"].nbytes
                read -= file.arrays["forward_layers.0.weight_ih_l0"].nbytes
                jobs["limit"] = streaming(read, threads())
                for job in jobs.values():
                    job()
                found = interleaved(jobs, repeats)
                found = {name: speed * (number if name != "limit" else 1) for name, speed in found.items()}
                row = {"cell": cell, "layers": layers, "hidden": hidden, "streams": number, **found}
                rows.append(row)
                speeds = "".join(f"{found[kind]:>10,.0f} ({found[kind] / found['plain']:4.1f})" for kind in kinds)
                share = f"{found['fp32'] / found['limit']:.0%}" if number == 1 else ""
                name = f"{cell} {layers} x {hidden}"
                click.echo(f"{name:16}{number:>8}{found['plain']:>10,.0f} {speeds}{share:>14}")
    return rows


def plain_step(
    cell: str, layers: int, hidden: int, batch: tuple[int, int], text: torch.Tensor, bf16: bool
) -> Callable[[], float]:
    """The loop that everybody writes: AdamW, clipping, one window after the other with carried state."""
    torch.manual_seed(0)
    rows, width = batch
    embedding, output = nn.Embedding(len(LETTERS), 128), nn.Linear(hidden, len(LETTERS))
    core = (nn.LSTM if cell == "lstm" else nn.GRU)(128, hidden, layers, batch_first=True, dropout=0.1)
    weights = [*embedding.parameters(), *core.parameters(), *output.parameters()]
    optimizer = torch.optim.AdamW(weights, 2e-3)
    state: Any = None
    at = 0

    def step() -> float:
        nonlocal state, at
        begun = time.perf_counter()
        stretch = text[: rows * (len(text) // rows)].view(rows, -1)
        at = at + width if at + 2 * width + 1 < stretch.shape[1] else 0
        inputs, targets = stretch[:, at : at + width], stretch[:, at + 1 : at + width + 1]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            values, state = core(embedding(inputs), state)
            logits = output(functional.dropout(values, 0.1))
        state = tuple(one.detach() for one in state) if cell == "lstm" else state.detach()
        loss = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        loss.item()
        return rows * width / (time.perf_counter() - begun)

    return step


def chargen_step(cell: str, layers: int, hidden: int, batch: tuple[int, int], corpus: Corpus) -> Callable[[], float]:
    """A step of chargen's own trainer, with all it does: carried state, dropout, metrics."""
    model = ModelConfig(cell=cell, num_layers=layers, hidden_size=hidden)
    settings = TrainConfig(steps=10**6, eval_every=10**9, batch_size=batch[0], seq_length=batch[1], precision="auto")
    steps = Trainer(corpus, model, settings).run()

    def step() -> float:
        begun = time.perf_counter()
        next(steps)
        return batch[0] * batch[1] / (time.perf_counter() - begun)

    return step


def peak() -> float:
    """Floating-point operations a second of the fastest bf16 product of three sizes."""
    speeds = []
    for rows, size in ((2048, 2048), (8192, 512), (1024, 4096)):
        left, right = (torch.randn(shape).bfloat16() for shape in ((rows, size), (size, size)))
        out = left @ right
        begun = time.perf_counter()
        for _ in range(10):
            torch.mm(left, right, out=out)
        speeds.append(20 * rows * size * size / (time.perf_counter() - begun))
    return max(speeds)


def training(shapes: Any, repeats: int) -> list[dict[str, Any]]:
    """Characters per second of training steps. Memory is kept as the command keeps it, for all."""
    keep_memory()
    rows = []
    corpus, text = random_text()
    click.echo("training, characters per second (ratio to plain fp32)")
    click.echo(f"{'':16}{'B x T':>10}{'plain fp32':>12}{'bf16 autocast':>18}{'chargen':>18}{'of the bf16 peak':>18}")
    for cell in CELLS:
        for layers, hidden in shapes:
            batch = batch_of(hidden)
            arguments = cell, layers, hidden, batch
            jobs = {
                "plain": plain_step(*arguments, text, bf16=False),
                "autocast": plain_step(*arguments, text, bf16=True),
                "chargen": chargen_step(*arguments, corpus),
                "peak": peak,
            }
            for job in jobs.values():
                job()
                job()
            found = interleaved(jobs, repeats if hidden > 512 else 3 * repeats)
            weights = sum(weight.numel() for weight in recurrent_weights(cell, layers, hidden)) + hidden * len(LETTERS)
            found["share"] = 6 * weights * found["chargen"] / found["peak"]
            rows.append({"cell": cell, "layers": layers, "hidden": hidden, "batch": batch, **found})
            speeds = "".join(
                f"{found[kind]:>11,.0f} ({found[kind] / found['plain']:4.2f})" for kind in ("autocast", "chargen")
            )
            name, sizes = f"{cell} {layers} x {hidden}", f"{batch[0]} x {batch[1]}"
            click.echo(f"{name:16}{sizes:>10}{found['plain']:>12,.0f}{speeds}{found['share']:>18.0%}")
    return rows


def random_text() -> tuple[Corpus, torch.Tensor]:
    """A text to train on: what it says makes no difference here."""
    draws = np.random.default_rng(0).integers(0, len(LETTERS), 1_000_000)
    corpus = Corpus.from_text("".join(LETTERS[one] for one in draws), valid_fraction=0.1)
    return corpus, torch.from_numpy(draws)


def batch_of(hidden: int) -> tuple[int, int]:
    """Rows and characters of a window: char-rnn's default for the smallest."""
    return (50, 50) if hidden == 128 else (64, 128)


def memory(shapes: Any, repeats: int) -> list[dict[str, Any]]:
    """Megabytes that ten steps of training take at most beside what was there before them."""
    rows = []
    click.echo("training, megabytes at most (in brackets, of these before the first step)")
    click.echo(f"{'':16}{'plain fp32':>20}{'bf16 autocast':>20}{'chargen':>20}")
    for cell in CELLS:
        for layers, hidden in shapes:
            row: dict[str, Any] = {"cell": cell, "layers": layers, "hidden": hidden}
            for kind in KINDS:
                code = f"import benchmarks.__main__ as b; b.train_a_little({kind!r}, {cell!r}, {layers}, {hidden})"
                told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
                row[f"{kind}_before"], row[kind] = map(float, told.split()[-2:])
            rows.append(row)
            kinds = "".join(
                f"{row[kind]:>12,.0f} ({row[f'{kind}_before']:.0f})" for kind in ("plain", "autocast", "chargen")
            )
            click.echo(f"{f'{cell} {layers} x {hidden}':16}{kinds}")
    return rows


def train_a_little(kind: str, cell: str, layers: int, hidden: int) -> None:
    """Ten steps; print the process's peak before and after them, in megabytes."""
    corpus, text = random_text()
    arguments = cell, layers, hidden, batch_of(hidden)
    if kind == "chargen":
        keep_memory()
        step = chargen_step(*arguments, corpus)
    else:
        step = plain_step(*arguments, text, bf16=kind == "autocast")
    before = peak_of_process()
    for _ in range(10):
        step()
    print(before, peak_of_process())


def peak_of_process() -> float:
    """The most memory that this process has had, in megabytes."""
    if sys.platform == "linux":  # where a child's ru_maxrss counts what its parent had
        words = Path("/proc/self/status").read_text().split()
        return int(words[words.index("VmHWM:") + 1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def recurrent_weights(cell: str, layers: int, hidden: int) -> list[torch.Tensor]:
    """What every character is multiplied by in the recurrent layers."""
    config = ModelConfig(cell=cell, num_layers=layers, hidden_size=hidden)
    made = [recurrent.new_layer(config, layer) for layer in range(layers)]
    return [weight for module in made for weight in module.parameters() if weight.dim() == 2]


def start(shapes: Any, repeats: int) -> list[dict[str, Any]]:
    """Seconds from typing `chargen sample` to its first character, with a warm disk and cache; and peak memory."""
    rows = []
    click.echo("chargen sample: seconds to the first character, and peak memory")
    for cell in CELLS:
        for layers, hidden in shapes:
            with tempfile.TemporaryDirectory() as folder:
                save_model(Path(folder) / FILE_NAME, new_file(cell, layers, hidden))
                jobs = {"seconds": lambda folder=folder: first_character(folder)}
                jobs["seconds"]()
                found = interleaved(jobs, repeats)
                found["megabytes"] = peak_memory(folder)
            rows.append({"cell": cell, "layers": layers, "hidden": hidden, **found})
            click.echo(f"{cell} {layers} x {hidden:<8}{found['seconds']:8.2f} s{found['megabytes']:10,.0f} MB")
    return rows


def first_character(folder: str) -> float:
    """Seconds until the command writes something."""
    begun = time.perf_counter()
    words = [sys.executable, "-m", "chargen", "sample", folder, "--seed", "1", "--length", "10"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    assert process.stdout.read(1)
    seconds = time.perf_counter() - begun
    process.communicate()
    return seconds


def peak_memory(folder: str) -> float:
    """Megabytes that the command takes at most."""
    code = (
        "import sys; from chargen.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print(open('/proc/self/status').read(), file=sys.stderr)"
    )
    if sys.platform != "linux":
        return math.nan
    words = [sys.executable, "-c", code, "sample", folder, "--seed", "1", "--length", "1000"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stderr.split()
    return int(told[told.index("VmHWM:") + 1]) / 1024


if __name__ == "__main__":
    main()
