"""Characters per second of training steps, their memory, and where their time goes."""

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.common import CELLS, interleaved, vocabulary
from chargen import Corpus, ModelConfig, TrainConfig, Trainer
from chargen.model import layers
from chargen.model.device import pick_precision
from chargen.training.memory import keep_memory

PRECISION = pick_precision("auto", torch.device("cpu"))
KINDS = ("plain", "autocast", "chargen")
CLOZE_EVERY = 7
"""Steps from one in which the cloze layer learns to the next."""
OWN_LAYERS = {"core": ("_Lstm", "_LstmBackward", "_Gru", "_GruBackward"), "dropout": ("_Drop", "_DropBackward")}
"""What torch's profiler calls chargen's compiled layers."""


def plain_steps(
    config: ModelConfig,
    batch: tuple[int, int],
    corpus: Corpus,
    half: torch.dtype | None = None,
    device: str = "cpu",
    in_a_row: bool = False,
) -> Iterator[None]:
    """The loop that everybody writes: AdamW, clipping, one window after the other with carried state.

    Args:
        half: the type of autocast; in float16 gradients are scaled.
        in_a_row: one-layer modules in a row, with dropout between them, instead of one module of all layers.
    """
    torch.manual_seed(0)
    rows, width = batch
    size, hidden, embedded = len(corpus.vocabulary), config.hidden_size, config.input_size
    kind = nn.LSTM if config.cell == "lstm" else nn.GRU
    if in_a_row:
        inputs = [embedded] + [hidden] * (config.num_layers - 1)
        cores = [kind(one, hidden, batch_first=True) for one in inputs]
    else:
        cores = [kind(embedded, hidden, config.num_layers, batch_first=True, dropout=0.1)]
    model = nn.ModuleList([nn.Embedding(size, embedded), *cores, nn.Linear(hidden, size)]).to(device)
    embedding, *layers, output = model
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, 2e-3, fused=device == "cuda")
    scaler = torch.amp.GradScaler(device, enabled=half == torch.float16)
    states: list[Any] = [None] * len(layers)
    text = torch.from_numpy(corpus.train.astype(np.int64)).to(device)
    stretch = text[: rows * (len(text) // rows)].view(rows, -1)
    while True:
        for at in range(0, stretch.shape[1] - width - 1, width):
            inputs, targets = stretch[:, at : at + width], stretch[:, at + 1 : at + width + 1]
            with torch.autocast(device, half, enabled=half is not None):
                values = embedding(inputs)
                for number, layer in enumerate(layers):
                    values, state = layer(values, states[number])
                    values = functional.dropout(values, 0.1)
                    states[number] = (
                        state.detach() if isinstance(state, torch.Tensor) else tuple(one.detach() for one in state)
                    )
                logits = output(values)
            loss = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(weights, 1.0)
            scaler.step(optimizer)
            scaler.update()
            loss.item()
            yield


def steps_of(kind: str, config: ModelConfig, batch: tuple[int, int], corpus: Corpus) -> Iterator[Any]:
    """Steps of the plain loop in fp32 or under autocast, or of chargen's own trainer with all it does."""
    if kind != "chargen":
        return plain_steps(config, batch, corpus, torch.bfloat16 if kind == "autocast" else None)
    return chargen_steps(config, batch, corpus, PRECISION)


def chargen_steps(
    config: ModelConfig, batch: tuple[int, int], corpus: Corpus, precision: str, device: str = "cpu"
) -> Iterator[Any]:
    """Steps of chargen's own trainer with all it does."""
    settings = TrainConfig(
        steps=10**6, eval_every=10**9, batch_size=batch[0], seq_length=batch[1], precision=precision, device=device
    )
    return iter(Trainer(corpus, config, settings).run())


def speed_of(steps: Iterator[Any], batch: tuple[int, int], number: int = 1) -> Callable[[], float]:
    """A job that takes so many steps and returns characters per second."""

    def run() -> float:
        begun = time.perf_counter()
        for _ in range(number):
            next(steps)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return number * batch[0] * batch[1] / (time.perf_counter() - begun)

    return run


def peak() -> float:
    """Floating-point operations a second of the fastest product of three sizes, in the chosen precision."""
    speeds, kind = [], torch.bfloat16 if PRECISION == "bf16" else torch.float32
    for rows, size in ((2048, 2048), (8192, 512), (1024, 4096)):
        left, right = (torch.randn(shape).to(kind) for shape in ((rows, size), (size, size)))
        out = left @ right
        begun = time.perf_counter()
        for _ in range(10):
            torch.mm(left, right, out=out)
        speeds.append(20 * rows * size * size / (time.perf_counter() - begun))
    return max(speeds)


def training(shapes: Any, repeats: int, size: int) -> list[dict[str, Any]]:
    """Characters per second of training steps. Memory is kept as the command keeps it, for all."""
    keep_memory()
    rows = []
    corpus = random_text(size)
    click.echo(f"training, characters per second (ratio to plain fp32), {size} different characters")
    click.echo(
        f"{'':16}{'B x T':>10}{'plain fp32':>12}{'bf16 autocast':>18}{'chargen':>18}{f'of the {PRECISION} peak':>18}"
    )
    for config in configs(shapes):
        batch = batch_of(config)
        jobs = {kind: speed_of(steps_of(kind, config, batch, corpus), batch) for kind in KINDS} | {"peak": peak}
        for job in jobs.values():
            job()
            job()
        found = interleaved(jobs, repeats if config.hidden_size > 512 else 3 * repeats)
        weights = sum(weight.numel() for weight in recurrent_weights(config)) + config.hidden_size * size
        found["share"] = 6 * weights * found["chargen"] / found["peak"]
        rows.append({**described(config), "vocabulary": size, "batch": batch, **found})
        speeds = "".join(
            f"{found[kind]:>11,.0f} ({found[kind] / found['plain']:4.2f})" for kind in ("autocast", "chargen")
        )
        sizes = f"{batch[0]} x {batch[1]}"
        click.echo(f"{name_of(config):16}{sizes:>10}{found['plain']:>12,.0f}{speeds}{found['share']:>18.0%}")
    return rows


def directions(shapes: Any, repeats: int, size: int) -> list[dict[str, Any]]:
    """How much longer a step takes that trains both directions, cloze steps included."""
    keep_memory()
    rows = []
    corpus = random_text(size)
    click.echo("training both directions, milliseconds a step (ratio to one direction), cloze steps included")
    for config in configs(shapes):
        batch = batch_of(config)
        both = ModelConfig(**described(config), bidirectional=True)
        steps = {name: steps_of("chargen", kind, batch, corpus) for name, kind in (("one", config), ("both", both))}
        jobs = {name: speed_of(taken, batch, CLOZE_EVERY) for name, taken in steps.items()}
        for job in jobs.values():
            job()
        found = {name: 1e3 * batch[0] * batch[1] / speed for name, speed in interleaved(jobs, repeats).items()}
        rows.append({**described(config), "batch": batch, **found})
        ratio = found["both"] / found["one"]
        click.echo(f"{name_of(config):16}{found['one']:>10.1f}{found['both']:>10.1f} ({ratio:4.2f})")
    return rows


def profile(shapes: Any, repeats: int, size: int) -> list[dict[str, Any]]:
    """Shares of chargen's steps: recurrent layers, dropout, all the rest; where its compiled layers are used."""
    keep_memory()
    rows = []
    corpus = random_text(size)
    click.echo("shares of a step: recurrent layers, dropout, all the rest")
    for config in configs(shapes):
        steps = steps_of("chargen", config, batch_of(config), corpus)
        for _ in range(6):
            next(steps)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            begun = time.perf_counter()
            for _ in range(5 * repeats):
                next(steps)
            total = time.perf_counter() - begun
        events = {event.key: event for event in profiler.key_averages()}
        shares = {
            part: sum(events[name].cpu_time_total for name in names if name in events) / 1e6 / total
            for part, names in OWN_LAYERS.items()
        }
        shares["rest"] = 1 - sum(shares.values())
        rows.append({**described(config), "milliseconds": 1e3 * total / 5 / repeats, **shares})
        parts = "  ".join(f"{name} {share:.1%}" for name, share in shares.items())
        click.echo(f"{name_of(config):16}{parts}" if shares["core"] else "chargen's compiled layers are not used here")
    return rows


def memory(shapes: Any, repeats: int, size: int) -> list[dict[str, Any]]:
    """Megabytes that ten steps of training take at most beside what was there before them."""
    rows = []
    click.echo(f"training, megabytes at most (in brackets, before the first step), {size} different characters")
    click.echo(f"{'':16}{'plain fp32':>20}{'bf16 autocast':>20}{'chargen':>20}")
    for config in configs(shapes):
        row = described(config) | {"vocabulary": size}
        for kind in KINDS:
            code = f"import benchmarks.training as b; b.train_a_little({kind!r}, {described(config)!r}, {size})"
            told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
            row[f"{kind}_before"], row[kind] = map(float, told.split()[-2:])
        rows.append(row)
        kinds = "".join(f"{row[kind]:>12,.0f} ({row[f'{kind}_before']:.0f})" for kind in KINDS)
        click.echo(f"{name_of(config):16}{kinds}")
    return rows


def train_a_little(kind: str, sizes: dict[str, Any], size: int) -> None:
    """Ten steps; print the process's peak before and after them, in megabytes."""
    corpus, config = random_text(size), ModelConfig(**sizes)
    if kind == "chargen":
        keep_memory()
    steps = steps_of(kind, config, batch_of(config), corpus)
    before = peak_of_process()
    for _ in range(10):
        next(steps)
    print(before, peak_of_process())


def peak_of_process() -> float:
    """The most memory that this process has had, in megabytes."""
    if sys.platform == "linux":  # where a child's ru_maxrss counts what its parent had
        words = Path("/proc/self/status").read_text().split()
        return int(words[words.index("VmHWM:") + 1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def random_text(size: int) -> Corpus:
    """A text of a million characters to train on: what it says makes no difference here."""
    letters = vocabulary(size).characters
    draws = np.random.default_rng(0).integers(0, size, 1_000_000)
    return Corpus.from_text("".join(letters[one] for one in draws), valid_fraction=0.1)


def configs(shapes: Any) -> list[ModelConfig]:
    """Both cells in every shape."""
    return [
        ModelConfig(cell=cell, num_layers=layers, hidden_size=hidden) for cell in CELLS for layers, hidden in shapes
    ]


def described(config: ModelConfig) -> dict[str, Any]:
    """What tells a model of the benchmark from the others."""
    return {"cell": config.cell, "num_layers": config.num_layers, "hidden_size": config.hidden_size}


def name_of(config: ModelConfig) -> str:
    return f"{config.cell} {config.num_layers} x {config.hidden_size}"


def batch_of(config: ModelConfig) -> tuple[int, int]:
    """Rows and characters of a window: char-rnn's default for the smallest."""
    return (50, 50) if config.hidden_size == 128 else (64, 128)


def recurrent_weights(config: ModelConfig) -> list[torch.Tensor]:
    """What every character is multiplied by in the recurrent layers."""
    made = [layers.new_layer(config, layer) for layer in range(config.num_layers)]
    return [weight for module in made for weight in module.parameters() if weight.dim() == 2]
