"""Speed of training steps, their memory, and where their time goes."""

import math
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

from benchmarks.common import CELLS, new_vocabulary, run_interleaved
from chargen import Corpus, ModelConfig, TrainConfig, Trainer
from chargen.model import layers
from chargen.model.device import pick_precision
from chargen.training.memory import keep_memory

PRECISION = pick_precision("auto", torch.device("cpu"))
KINDS = ("plain", "autocast", "chargen")
CLOZE_EVERY = 7
"""Every so many steps the cloze layer learns."""
OWN_LAYERS = {"core": ("_Layer", "_LayerBackward"), "dropout": ("_Drop", "_DropBackward")}
"""Names of chargen's compiled layers in torch's profiler."""


def plain_steps(
    config: ModelConfig,
    batch: tuple[int, int],
    corpus: Corpus,
    half: torch.dtype | None = None,
    device: str = "cpu",
    in_a_row: bool = False,
) -> Iterator[None]:
    """Run the plain training loop: AdamW, clipping, window after window with carried state.

    Args:
        config: sizes of the model.
        batch: rows and characters per row.
        corpus: what is learned.
        half: the type of autocast; in float16 gradients are scaled.
        device: "cpu" or "cuda".
        in_a_row: whether one-layer modules in a row, with dropout between them, replace one module of all layers.

    Yields:
        None after each step.
    """
    torch.manual_seed(0)
    rows, length = batch
    size, hidden, embedded = len(corpus.vocabulary), config.hidden_size, config.input_size
    kind = nn.LSTM if config.cell == "lstm" else nn.GRU
    if in_a_row:
        widths = [embedded] + [hidden] * (config.num_layers - 1)
        cores = [kind(width, hidden, batch_first=True) for width in widths]
    else:
        cores = [kind(embedded, hidden, config.num_layers, batch_first=True, dropout=0.1)]
    model = nn.ModuleList([nn.Embedding(size, embedded), *cores, nn.Linear(hidden, size)]).to(device)
    embedding, *layers, output = model
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, 2e-3, fused=device == "cuda")
    scaler = torch.amp.GradScaler(device, enabled=half == torch.float16)
    states: list[Any] = [None] * len(layers)
    text = torch.from_numpy(corpus.train.astype(np.int64)).to(device)
    ids = text[: rows * (len(text) // rows)].view(rows, -1)
    while True:
        for start in range(0, ids.shape[1] - length - 1, length):
            inputs, targets = ids[:, start : start + length], ids[:, start + 1 : start + length + 1]
            with torch.autocast(device, half, enabled=half is not None):
                values = embedding(inputs)
                for number, layer in enumerate(layers):
                    values, state = layer(values, states[number])
                    values = functional.dropout(values, 0.1)
                    is_gru = isinstance(state, torch.Tensor)
                    states[number] = state.detach() if is_gru else tuple(part.detach() for part in state)
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


def new_steps(kind: str, config: ModelConfig, batch: tuple[int, int], corpus: Corpus) -> Iterator[Any]:
    """Start a plain loop in fp32 or under autocast, or chargen's own trainer."""
    if kind != "chargen":
        return plain_steps(config, batch, corpus, torch.bfloat16 if kind == "autocast" else None)
    return chargen_steps(config, batch, corpus, PRECISION)


def chargen_steps(
    config: ModelConfig, batch: tuple[int, int], corpus: Corpus, precision: str, device: str = "cpu"
) -> Iterator[Any]:
    """Run chargen's own trainer with all it does."""
    settings = TrainConfig(
        steps=10**6, eval_every=10**9, batch_size=batch[0], seq_length=batch[1], precision=precision, device=device
    )
    return iter(Trainer(corpus, config, settings).run())


def speed_of_steps(steps: Iterator[Any], batch: tuple[int, int], number: int = 1) -> Callable[[], float]:
    """Make a job that takes `number` steps and returns characters per second."""

    def run() -> float:
        begun = time.perf_counter()
        for _ in range(number):
            next(steps)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return number * batch[0] * batch[1] / (time.perf_counter() - begun)

    return run


def peak_speed() -> float:
    """Measure floating-point operations a second of the fastest product of three sizes, in the chosen precision."""
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
    """Measure characters per second of training steps. All loops keep freed memory, as the command does."""
    keep_memory()
    rows = []
    corpus = random_text(size)
    kinds = KINDS if PRECISION == "bf16" else ("plain", "chargen")  # without instructions for bf16 it takes minutes
    click.echo(f"training, characters per second (ratio to plain fp32), {size} different characters")
    titles = "".join(f"{'bf16 autocast' if kind == 'autocast' else kind:>18}" for kind in kinds[1:])
    click.echo(f"{'':16}{'B x T':>10}{'plain fp32':>12}{titles}{f'of the {PRECISION} peak':>18}")
    for config in configs(shapes):
        batch = batch_of(config)
        jobs = {kind: speed_of_steps(new_steps(kind, config, batch, corpus), batch) for kind in kinds}
        jobs["peak"] = peak_speed
        for job in jobs.values():
            job()
            job()
        speeds = run_interleaved(jobs, repeats if config.hidden_size > 512 else 3 * repeats)
        weights = sum(weight.numel() for weight in recurrent_weights(config)) + config.hidden_size * size
        share = 6 * weights * speeds["chargen"] / speeds["peak"]
        rows.append({**shape_of(config), "vocabulary": size, "batch": batch, **speeds, "share": share})
        columns = "".join(f"{speeds[kind]:>11,.0f} ({speeds[kind] / speeds['plain']:4.2f})" for kind in kinds[1:])
        sizes = f"{batch[0]} x {batch[1]}"
        click.echo(f"{name_of(config):16}{sizes:>10}{speeds['plain']:>12,.0f}{columns}{share:>18.0%}")
    return rows


def directions(shapes: Any, repeats: int, size: int) -> list[dict[str, Any]]:
    """Measure how much longer a step takes that trains both directions, cloze steps included."""
    keep_memory()
    rows = []
    corpus = random_text(size)
    click.echo("training both directions, milliseconds a step (ratio to one direction), cloze steps included")
    for config in configs(shapes):
        batch = batch_of(config)
        both = ModelConfig(**shape_of(config), bidirectional=True)
        steps = {name: new_steps("chargen", kind, batch, corpus) for name, kind in (("one", config), ("both", both))}
        jobs = {name: speed_of_steps(iterator, batch, CLOZE_EVERY) for name, iterator in steps.items()}
        for job in jobs.values():
            job()
        times = {name: 1e3 * batch[0] * batch[1] / speed for name, speed in run_interleaved(jobs, repeats).items()}
        rows.append({**shape_of(config), "batch": batch, **times})
        ratio = times["both"] / times["one"]
        click.echo(f"{name_of(config):16}{times['one']:>10.1f}{times['both']:>10.1f} ({ratio:4.2f})")
    return rows


def records(shapes: Any, repeats: int, size: int) -> list[dict[str, Any]]:
    """Measure how much longer a step takes whose text consists of records of 36 characters."""
    keep_memory()
    rows = []
    corpora = text_and_records(size)
    click.echo("training records of 36 characters, milliseconds a step (ratio to running text)")
    for config in configs(shapes):
        batch = batch_of(config)
        steps = {name: new_steps("chargen", config, batch, corpus) for name, corpus in corpora.items()}
        jobs = {name: speed_of_steps(iterator, batch, 2) for name, iterator in steps.items()}
        for job in jobs.values():
            job()
        speeds = run_interleaved(jobs, 8 * repeats)
        times = {name: 1e3 * batch[0] * batch[1] / speed for name, speed in speeds.items()}
        rows.append({**shape_of(config), "batch": batch, **times})
        ratio = times["records"] / times["text"]
        click.echo(f"{name_of(config):16}{times['text']:>10.1f}{times['records']:>10.1f} ({ratio:5.3f})")
    return rows


def text_and_records(size: int) -> dict[str, Corpus]:
    """Make 20,000 lines of 36 random characters: as running text, and as records."""
    letters = [*new_vocabulary(size).characters]
    lines = ["".join(np.random.default_rng(seed).choice(letters, 36)) for seed in range(20_000)]
    text = "\n".join(lines) + "\n"
    return {"text": Corpus.from_text(text), "records": Corpus.from_text(text, records="line")}


def profile(shapes: Any, repeats: int, size: int) -> list[dict[str, Any]]:
    """Measure shares of a chargen step: recurrent layers, dropout, the rest; where compiled layers are used."""
    keep_memory()
    rows = []
    corpus = random_text(size)
    click.echo("shares of a step: recurrent layers, dropout, all the rest")
    for config in configs(shapes):
        steps = new_steps("chargen", config, batch_of(config), corpus)
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
        rows.append({**shape_of(config), "milliseconds": 1e3 * total / 5 / repeats, **shares})
        parts = "  ".join(f"{name} {share:.1%}" for name, share in shares.items())
        click.echo(f"{name_of(config):16}{parts}" if shares["core"] else "chargen's compiled layers are not used here")
    return rows


def memory(shapes: Any, repeats: int, size: int) -> list[dict[str, Any]]:
    """Measure peak megabytes before and after ten steps of training."""
    rows = []
    click.echo(f"training, megabytes at most (in brackets, before the first step), {size} different characters")
    click.echo(f"{'':16}{'plain fp32':>20}{'bf16 autocast':>20}{'chargen':>20}")
    for config in configs(shapes):
        row = shape_of(config) | {"vocabulary": size}
        for kind in KINDS:
            code = f"import benchmarks.training as b; b.train_a_little({kind!r}, {shape_of(config)!r}, {size})"
            output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
            row[f"{kind}_before"], row[kind] = map(float, output.split()[-2:])
        rows.append(row)
        columns = "".join(f"{row[kind]:>12,.0f} ({row[f'{kind}_before']:.0f})" for kind in KINDS)
        click.echo(f"{name_of(config):16}{columns}")
    return rows


def train_a_little(kind: str, sizes: dict[str, Any], size: int) -> None:
    """Take ten steps; print the process's peak memory before and after them, in megabytes."""
    corpus, config = random_text(size), ModelConfig(**sizes)
    if kind == "chargen":
        keep_memory()
    steps = new_steps(kind, config, batch_of(config), corpus)
    before = peak_memory()
    for _ in range(10):
        next(steps)
    print(before, peak_memory())


def peak_memory() -> float:
    """Read the peak memory of this process, in megabytes."""
    peak = math.nan
    if sys.platform == "linux":  # where a child's ru_maxrss counts what its parent had
        words = Path("/proc/self/status").read_text().split()
        peak = int(words[words.index("VmHWM:") + 1]) / 1024
    elif sys.platform == "darwin":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return peak


def random_text(size: int) -> Corpus:
    """Make a text of a million random characters to train on: which text makes no difference to speed."""
    letters = new_vocabulary(size).characters
    draws = np.random.default_rng(0).integers(0, size, 1_000_000)
    return Corpus.from_text("".join(letters[draw] for draw in draws), valid_fraction=0.1)


def configs(shapes: Any) -> list[ModelConfig]:
    """Both cells in every shape."""
    return [
        ModelConfig(cell=cell, num_layers=layers, hidden_size=hidden) for cell in CELLS for layers, hidden in shapes
    ]


def shape_of(config: ModelConfig) -> dict[str, Any]:
    """The settings in which models of the benchmark differ."""
    return {"cell": config.cell, "num_layers": config.num_layers, "hidden_size": config.hidden_size}


def name_of(config: ModelConfig) -> str:
    return f"{config.cell} {config.num_layers} x {config.hidden_size}"


def batch_of(config: ModelConfig) -> tuple[int, int]:
    """Rows and characters of a window: char-rnn's default for the smallest."""
    return (50, 50) if config.hidden_size == 128 else (64, 128)


def recurrent_weights(config: ModelConfig) -> list[torch.Tensor]:
    """The matrices of the recurrent layers."""
    modules = [layers.new_layer(config, layer) for layer in range(config.num_layers)]
    return [weight for module in modules for weight in module.parameters() if weight.dim() == 2]
