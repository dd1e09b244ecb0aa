"""What people see while they wait: a bar that nothing is written into, and why the first time takes longer."""

import math
from contextlib import redirect_stderr
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import pytest
from numba import float32, float64, int64
from numba import uint16 as Bits
from numba.core import event
from tqdm import tqdm

from chargen.cli import bars
from chargen.cli.terminal import STDERR, log_above_bar
from chargen.cli.time_spent import TimeSpent
from chargen.data.corpus import Corpus
from chargen.kernels.cross_entropy import loss_and_error
from chargen.kernels.dropout import drop
from chargen.kernels.jit import when_compiling
from chargen.kernels.sums import sums_over_time
from chargen.model.config import ModelConfig
from chargen.sampling.sampler import Sampler
from chargen.training.config import TrainConfig
from chargen.training.trainer import Trainer
from tests.record_models import record_model
from tests.small_models import small_model
from tests.terminals import Terminal


def shown(text: str) -> list[str]:
    """Lines as they stand on a terminal: a carriage return begins the line anew."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        cells: list[str] = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        lines.append("".join(cells).rstrip())
    return lines


def test_what_is_told_stands_above_the_bar_on_a_line_of_its_own() -> None:
    with (
        redirect_stderr(Terminal()) as terminal,
        tqdm(total=10, file=STDERR, desc="reading", bar_format="{desc} {percentage:.0f}", mininterval=0) as bar,
    ):
        bar.update(5)
        log_above_bar("something happened")
        bar.update(5)
        assert shown(terminal.getvalue()) == ["something happened", "reading 100"]


def test_previews_stand_above_the_bar_and_need_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bars, "PREVIEW_SECONDS", 0.0)
    monkeypatch.setattr("chargen.sampling.sampler.new_engine", lambda *_: pytest.fail("another engine was made"))
    corpus = Corpus.from_text("so it goes on and on. " * 40)
    small = ModelConfig(num_layers=1, hidden_size=8)
    trainer = Trainer(corpus, small, TrainConfig(steps=4, eval_every=2, batch_size=2, seq_length=8), tmp_path / "run")
    with redirect_stderr(Terminal()) as terminal, bars.TrainingBar(trainer, 12) as bar:
        for progress in trainer.run():
            bar.show(progress)
    lines = shown(terminal.getvalue())
    for step in (2, 4):
        at = lines.index(f"  step {step} writes:")
        written = lines[at + 1]
        assert written.startswith("  |")
        assert set(written[4:]) <= set(corpus.vocabulary.characters)


def test_a_preview_of_records_has_one_a_line() -> None:
    file = record_model()
    lines = bars._write_some(Sampler(file, seed=1), 40).split("\n")
    assert lines == [sample.text for sample in Sampler(file, seed=1, num=len(lines)).generate_all(40)]
    assert 40 <= sum(map(len, lines)) < 80
    assert sum(map(len, lines[:-1])) < 40
    plain = small_model()
    assert bars._write_some(Sampler(plain, seed=1), 40) == Sampler(plain, seed=1).generate(40)


@pytest.mark.parametrize("seconds", [0.0, 3.0, 30.0])
def test_what_is_not_training_is_told_from_a_fifth_of_a_budget_on(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    spent = TimeSpent(98.0)
    spent.mark("starting")
    spent.compiling = SimpleNamespace(seconds=0.0)
    now[0] += 4 + seconds
    spent.compiling.seconds = seconds
    spent.mark("timing this machine")
    now[0] += 44 + seconds
    spent.compiling.seconds += seconds
    spent.mark("scoring", 40 + seconds)
    whole = 50 + 2 * seconds
    assert sum(spent.seconds.values()) == pytest.approx(whole)
    assert spent.seconds["training"] == 40
    compiled = {0.0: "", 3.0: "6 s compiling (once per machine), ", 30.0: "60 s compiling (once per machine), "}[
        seconds
    ]
    line = f"40 s of {whole:.0f} were training; {compiled}4 s timing this machine, 4 s scoring, 2 s starting"
    assert spent.describe(5 * (whole - 40) + 1) == ""
    assert spent.describe(5 * (whole - 40) - 1) == line
    assert spent.describe(math.inf) == ""


def test_compiling_is_told_once_and_only_where_something_is_compiled() -> None:
    calls: list[int] = []
    with when_compiling(lambda: calls.append(1)) as compiling:
        twice = numba.njit(lambda x: 2 * x)
        assert calls == []
        assert twice(2) == 4
        assert calls == [1]
        assert twice(2.5) == 5
        assert calls == [1]
    assert compiling.seconds > 0
    with when_compiling(lambda: calls.append(2)) as compiling:
        assert twice(3) == 6
    assert compiling.seconds == 0
    assert numba.njit(lambda x: 3 * x)(1) == 3
    assert calls == [1]


@pytest.mark.parametrize(
    ("kernel", "types"),
    [
        (drop, (*[Bits[::1]] * 2, *[int64] * 9)),
        (
            loss_and_error,
            (Bits[:, ::1], float32[::1], int64[::1], float64, float64[::1], float32[:, ::1], *[int64] * 2),
        ),
        (sums_over_time, (Bits[:, :], *[int64] * 2, float32[::1])),
    ],
    ids=["drop", "loss_and_error", "sums_over_time"],
)
def test_a_kernel_of_training_compiles_nothing_to_format_errors_with(kernel: Any, types: tuple[Any, ...]) -> None:
    """NumPy's ways with slices bring messages, axes and text along: half of what a first run waited for."""
    names: list[str] = []

    class Listener(event.Listener):
        def on_start(self, event: Any) -> None:
            names.append(f"{event.data['dispatcher'].py_func.__module__}.{event.data['dispatcher'].__name__}")

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Listener()):
        numba.njit(kernel.py_func, nogil=True, error_model="numpy").compile(types)
    assert names
    assert not [name for name in names if "unicode" in name or "context" in name or "array_sum" in name]
    assert len(names) < 12
