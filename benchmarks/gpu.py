"""Whether chargen is right on a card, and how fast: one command, under nine minutes.

    bash benchmarks/gpu.sh OUT tinyshakespeare.txt

Parts run one after the other, each in a process and a time limit of its own; each writes OUT/PART.json as its figures
come, and what it says to OUT/log.txt. A part that fails stops no other. Figures that are compared are medians of
interleaved runs.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np
import torch

from benchmarks.common import CELLS, LETTERS, machine, run_interleaved, speed_job, untrained_model
from benchmarks.sampling import PlainSampler
from benchmarks.training import chargen_steps, plain_steps, random_text, speed_of_steps, text_and_records
from chargen import Corpus, ModelConfig, Sampler, TrainConfig, Trainer
from chargen.decoding.torch_engine import TorchEngine
from chargen.kernels import fast_bf16
from chargen.kernels.amx import SIDE
from chargen.kernels.sharing import Work, costs_of, microseconds, ways
from chargen.kernels.threads import AutoTuner, cores, threads
from chargen.kernels.train_rnn import pad
from chargen.model import compiled_layers
from chargen.storage.model_file import build_model
from chargen.training.autosize import time_reference
from chargen.training.memory import keep_memory

Row = dict[str, Any]
PRECISIONS = "fp32", "bf16"


@dataclass(frozen=True)
class Task:
    """What a part measures on and with.

    Args:
        device: "cuda" or "cpu".
        small: whether this is a rehearsal: everything, tiny.
        text: a file to learn, or the name of a corpus.
        more: whether the longer parts are wanted.
    """

    device: str
    small: bool
    text: str
    more: bool

    @property
    def seconds(self) -> float:
        """Seconds of one measurement."""
        return 0.02 if self.small else 0.25

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Numbers of layers and of hidden units."""
        return ((2, 16),) if self.small else ((2, 512), (3, 1024))


def correctness(task: Task) -> Iterator[Row]:
    """Run the tests that need a card."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "--durations=5"]
    # Other versions may warn of other things: shown, and no failure.
    words += ["-o", "filterwarnings=default", "tests/project/test_gpu.py"]
    environment = os.environ | {"CHARGEN_TEST_DEVICE": task.device}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout[-200_000:], done.stderr[-20_000:])
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    yield {"exit": done.returncode, "result": lines[-1] if lines else "", "failed": failed}


def quality(task: Task) -> Iterator[Row]:
    """Train by the command for a minute, sizes chosen by itself; with `--more`, also for three."""
    minutes = [0.05] if task.small else [1, 3] if task.more else [1]
    for budget in minutes:
        yield train_by_command(task, "--minutes", str(budget))
    if task.more:
        for rows in (16,) if task.small else (64, 128, 256, 512):
            yield train_by_command(task, "--minutes", str(minutes[0]), "--batch-size", str(rows))


def train_by_command(task: Task, *options: str) -> Row:
    """Train by the command; return loss on the whole validation part (a tenth), steps, settings, seconds."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "chargen", "train", task.text, "--out", f"{folder}/run", "--preview", "0"]
        words += ["--device", task.device, *options]
        begun = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begun
        print(done.stdout, done.stderr)
        if done.returncode:
            return {"options": options, "exit": done.returncode, "error": done.stderr[-2000:]}
        lines = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
        words = [sys.executable, "-m", "chargen", "info", f"{folder}/run", "--json"]
        info = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    speeds = [line["chars_per_second"] for line in lines[:-1] if line["chars_per_second"]]
    final = {name: lines[-1][name] for name in ("valid_loss", "step", "epoch")}
    return {"options": options, "wall_seconds": seconds, **final, "chars_per_second": speeds[-1:], "model": info}


def precisions(task: Task) -> Iterator[Row]:
    """Measure what rounding costs: losses on the whole validation part after equally many steps, and their seconds."""
    corpus = Corpus.from_files(task.text)
    size, steps, rows = (16, 20, 4) if task.small else (384, 1000, 64)
    for precision, cell in itertools.product(PRECISIONS, CELLS):
        settings = TrainConfig(
            steps=steps, eval_every=10**9, batch_size=rows, precision=precision, device=task.device, weight_decay=0.5
        )
        labels = {"cell": cell, "precision": precision}
        yield attempt(labels, train_by_api, corpus, ModelConfig(cell, 2, size), settings)


def train_by_api(corpus: Corpus, config: ModelConfig, settings: TrainConfig) -> Row:
    """Train a model; return its loss, its steps, and the seconds that went into them."""
    trainer = Trainer(corpus, config, settings)
    for _ in trainer.run():
        pass
    counters, seconds = trainer.counters, trainer.budget.train_seconds
    loss = {name: value for name, value in trainer.summary.items() if name.startswith("valid")}
    return loss | {"steps": counters.step, "applied": counters.applied, "seconds": seconds}


def attempt(labels: Row, job: Callable[..., Row], *arguments: Any) -> Row:
    """Run a job; return its figures, or its traceback: a failure must not stop the next job."""
    try:
        return labels | job(*arguments)
    except Exception:
        return labels | {"error": traceback.format_exc()}


def sampling(task: Task) -> Iterator[Row]:
    """Measure characters per second of the plain loop and of chargen, and chargen's share of the bandwidth."""
    bandwidth = measure_bandwidth(task)
    for cell, (layers, hidden) in itertools.product(CELLS, task.shapes[:1]):
        file = untrained_model(cell, layers, hidden, LETTERS)
        network = build_model(file, task.device)
        for streams in (1, 64) if task.small else (1, 64, 4096):
            sampler = Sampler(file, seed=1, num=streams, engine=TorchEngine(network))
            jobs = {
                "plain": speed_job(PlainSampler(file, streams, task.device).write, 2, task.seconds),
                "chargen": speed_job(sampler.generate_all, 16 if task.small else 512, task.seconds),
            }
            for job in jobs.values():
                job()
            speeds = {name: speed * streams for name, speed in run_interleaved(jobs, 3).items()}
            weights = [array for name, array in file.arrays.items() if "weight" in name and "embed" not in name]
            share = sum(array.nbytes for array in weights) * speeds["chargen"] / streams / bandwidth
            yield {"cell": cell, "layers": layers, "hidden": hidden, "streams": streams, **speeds, "bandwidth": share}


def measure_bandwidth(task: Task) -> float:
    """Measure the bytes that the device reads in a second."""
    values = torch.ones(10**6 if task.small else 10**9, dtype=torch.float32, device=task.device)
    job = speed_job(lambda times: [values.sum() for _ in range(times)][-1].item(), 2, task.seconds)
    job()
    return statistics.median(job() for _ in range(3)) * values.nbytes


def training(task: Task) -> Iterator[Row]:
    """Measure characters per second of training steps: plain loops, of one module and of several, and chargen."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # the plain loops in "TF32"
    corpus = random_text(LETTERS)
    yield {"reference": vars(time_reference(LETTERS, {"device": task.device}, 4 * task.seconds))}
    length = 16 if task.small else 128
    corpora = text_and_records(LETTERS)
    steps: dict[str, Callable[[], Iterator[Any]]]
    for (layers, hidden), cell in itertools.product(task.shapes[:1], CELLS):
        config, batch = ModelConfig(cell, layers, hidden), (4 if task.small else 128, length)
        steps = {name: partial(chargen_steps, config, batch, corpora[name], "bf16", task.device) for name in corpora}
        labels = {"cell": cell, "layers": layers, "hidden": hidden, "rows": batch[0]}
        yield attempt(labels, measure_speeds, steps, batch, task)
    batches = (4,) if task.small else (64, 128, 256, 512)
    half = torch.float16 if task.device == "cuda" else torch.bfloat16
    for (layers, hidden), rows, cell in itertools.product(task.shapes, batches, CELLS):
        if rows == 512 and hidden > 512 and not task.more:
            continue
        config, batch = ModelConfig(cell, layers, hidden), (rows, length)
        steps = {
            "plain tf32": partial(plain_steps, config, batch, corpus, None, task.device),
            "plain half": partial(plain_steps, config, batch, corpus, half, task.device),
            "in a row half": partial(plain_steps, config, batch, corpus, half, task.device, in_a_row=True),
        }
        steps |= {name: partial(chargen_steps, config, batch, corpus, name, task.device) for name in PRECISIONS}
        labels = {"cell": cell, "layers": layers, "hidden": hidden, "rows": rows}
        yield attempt(labels, measure_speeds, steps, batch, task)
        if rows == 128 and task.device == "cuda":
            yield attempt(labels, lambda steps=steps: {"kernels": slowest_parts(steps["bf16"](), task.device)})


def measure_speeds(steps: dict[str, Callable[[], Iterator[Any]]], batch: tuple[int, int], task: Task) -> Row:
    """Measure characters per second of steps, all loops in rotation."""
    number = {name: 2 if task.small else 16 if name in PRECISIONS else 6 for name in steps}
    jobs = {name: speed_of_steps(start(), batch, number[name]) for name, start in steps.items()}
    for job in jobs.values():
        job()
    return run_interleaved(jobs, 2)


def slowest_parts(steps: Iterator[Any], device: str) -> list[tuple[str, float]]:
    """Name the kernels, or on a CPU the operations, in which a step spends most time, with their milliseconds."""
    on_card, number = device == "cuda", 16 if device == "cuda" else 4
    for _ in range(number):
        next(steps)
    activities = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activities.CUDA if on_card else activities.CPU]) as profiler:
        for _ in range(number):
            next(steps)
        if on_card:
            torch.cuda.synchronize()
    times = [
        (event.key[:120], event.self_device_time_total if on_card else event.self_cpu_time_total)
        for event in profiler.key_averages()
    ]
    return [(name, time / number / 1e3) for name, time in sorted(times, key=lambda pair: -pair[1])[:8]]


def processor(task: Task) -> Iterator[Row]:
    """Measure training and sampling on the machine's processor, with several numbers of threads."""
    for number in (1, 2) if task.small else (16, 1, 4, 8, 2):
        words = [sys.executable, "-m", "benchmarks.gpu", "--cores", *(["--rehearse"] if task.small else [])]
        environment = os.environ | {"OMP_NUM_THREADS": str(number)}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        print(done.stderr)
        for line in done.stdout.splitlines():
            yield {"threads": number, **json.loads(line)}


def measure_cores(task: Task) -> Iterator[Row]:
    """Measure training and sampling with this process's threads, beside the plain loop."""
    keep_memory()
    corpus = random_text(LETTERS)
    hidden, length = (16, 16) if task.small else (384, 128)
    config = ModelConfig(cell="gru", num_layers=2, hidden_size=hidden)
    for rows in (32, 128):
        batch = rows, length
        steps = {
            "plain bf16": plain_steps(config, batch, corpus, torch.bfloat16),
            "chargen": chargen_steps(config, batch, corpus, "auto"),
        }
        jobs = {name: speed_of_steps(iterator, batch) for name, iterator in steps.items()}
        for job in jobs.values():
            job()
        yield {"training": rows, **run_interleaved(jobs, 5)}
        yield {"training": rows, "operations": slowest_parts(steps["chargen"], "cpu")}
        yield from measure_sharings(rows, hidden, length)
    file = untrained_model("gru", 2, hidden, LETTERS)
    for streams in (1, 64):
        jobs = {
            "plain": speed_job(PlainSampler(file, streams).write, 2, task.seconds),
            "chargen": speed_job(Sampler(file, seed=1, num=streams).generate_all, 32, task.seconds),
        }
        for job in jobs.values():
            job()
        yield {"streams": streams, **{name: speed * streams for name, speed in run_interleaved(jobs, 3).items()}}


def measure_sharings(rows: int, hidden: int, length: int) -> Iterator[Row]:
    """Measure a GRU layer's forward pass by every way that its threads may share it out, beside what is predicted."""
    dtype = torch.bfloat16 if fast_bf16() else torch.float32
    costs = costs_of(np.dtype(np.uint16 if dtype == torch.bfloat16 else np.float32))
    layer, inputs = torch.nn.GRU(hidden, hidden, batch_first=True), torch.randn(rows, length, hidden)
    work = Work(rows, pad(hidden) // SIDE, 3, length)
    for sharing in ways(work, costs, threads(), cores()):
        tuner = AutoTuner({sharing: 0.0})
        with torch.no_grad(), mock.patch.object(compiled_layers, "_tuner", lambda *_, tuner=tuner: tuner):
            for _ in range(6):  # the first one may compile
                compiled_layers.run(layer, inputs, torch.zeros(rows, hidden), dtype)
        predicted = microseconds(sharing, work, costs, cores())
        yield {"layer": rows, "sharing": sharing, "ms": 1e3 * tuner.seconds[sharing], "predicted": predicted / 1e3}


PARTS: dict[str, tuple[Callable[[Task], Iterator[Row]], int, int]] = {
    "correctness": (correctness, 120, 120),
    "quality": (quality, 90, 510),
    "precisions": (precisions, 60, 60),
    "sampling": (sampling, 40, 40),
    "training": (training, 130, 190),
    "cores": (processor, 150, 150),
}
"""Each with its time limit in seconds, and that with `--more`; the most valuable first."""


def run_part(name: str, task: Task, out: Path) -> None:
    """Run a part, and write its figures as they come."""
    rows: list[Row] = []
    for row in PARTS[name][0](task):
        rows.append(row)
        figures = {"machine": describe_machine(task), "rows": rows}
        (out / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
        print(name, json.dumps(row)[:1500])


def describe_machine(task: Task) -> Row:
    """Describe the machine, its card and the task."""
    description = machine() | {"device": task.device, "cores": os.cpu_count(), "rehearsal": task.small}
    if task.device == "cuda":
        description |= {"card": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        description |= {"cudnn": torch.backends.cudnn.version()}
    return description


@click.command()
@click.argument("out", type=click.Path(path_type=Path), default=Path("build/gpu/out"))
@click.argument("text", default="python")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--rehearse", is_flag=True, help="Everything, tiny: to see that it would run.")
@click.option("--more", is_flag=True, help="The longer figures too.")
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Only this; may be given several times.")
@click.option("--inside", is_flag=True, hidden=True)
@click.option("--cores", "inside_cores", is_flag=True, hidden=True)
def main(
    out: Path,
    text: str,
    device: str,
    rehearse: bool,
    more: bool,
    parts: tuple[str, ...],
    inside: bool,
    inside_cores: bool,
) -> None:
    """Measure into OUT what a card makes of chargen; TEXT is what it learns."""
    task = Task(device, rehearse, text, more)
    if inside_cores:
        for row in measure_cores(task):
            print(json.dumps(row), flush=True)
        return
    out.mkdir(parents=True, exist_ok=True)
    if inside:
        run_part(parts[0], task, out)
        return
    failed = []
    with open(out / "log.txt", "w") as log:
        for name in parts or PARTS:
            words = [sys.executable, "-m", "benchmarks.gpu", str(out), text, "--device", device, "--part", name]
            words += ["--inside"] + ["--rehearse"] * rehearse + ["--more"] * more
            begun = time.perf_counter()
            _, limit, longer = PARTS[name]
            try:
                code: int | str = subprocess.run(
                    words, stdout=log, stderr=log, timeout=longer if more else limit, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                code = "out of time"
            failed += [name] * (code != 0)
            click.echo(f"{name}: {code or 'done'}, {time.perf_counter() - begun:.0f} s")
    click.echo(f"figures in {out}")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
