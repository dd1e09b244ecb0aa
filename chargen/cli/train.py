"""`chargen train`: learn a text and save a model."""

import contextlib
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chargen.cli import report
from chargen.cli.bars import TaskBar, TrainingBar
from chargen.cli.corpus_get import get_missing, offline_option
from chargen.cli.options import PATH, GroupedCommand, config_option, option, settings_options
from chargen.cli.signals import StopRequest, stop_on_signals
from chargen.cli.terminal import log, log_compiling, quote_path
from chargen.cli.threads_option import threads_option
from chargen.cli.time_spent import TimeSpent
from chargen.data.corpus import Corpus
from chargen.data.corpus_config import CorpusConfig
from chargen.errors import DataError, SettingError, WriteError, amount
from chargen.model.config import ModelConfig
from chargen.storage.model_file import read_model
from chargen.storage.run_state import RunState
from chargen.training.autosize import PRESETS
from chargen.training.config import TrainConfig
from chargen.training.group import Group
from chargen.training.join import join_group
from chargen.training.memory import keep_memory
from chargen.training.plan import RunPlan, check_incomplete, check_resumable_with, find_restarted, given_settings
from chargen.training.run_folder import check_free, free_folder, open_run

if TYPE_CHECKING:
    from chargen.training.trainer import Trainer


@click.command("train", cls=GroupedCommand, exclusive=[
    ("minutes", "epochs", "steps"), ("valid", "valid_fraction"), ("test", "test_fraction"),
])  # fmt: skip
@click.argument("sources", metavar="SOURCE...", nargs=-1)
@option("--out", group="Files", type=PATH, metavar="DIR",
        help="Run folder.", shown_default="checkpoints/NAME")  # fmt: skip
@option("--overwrite", group="Files", is_flag=True,
        help="Replace the run in DIR: it stays until the new one saves what it has learned.")  # fmt: skip
@option("--valid", group="Files", multiple=True, metavar="SOURCE", help="Validate on this text instead of a part.")
@option("--test", group="Files", multiple=True, metavar="SOURCE", help="Test on this text instead of a part.")
@option("--resume", group="Files", type=PATH, metavar="DIR",
        help="Go on with the run in DIR as if it had not stopped; budget and intervals may change. SOURCE, --valid and "
        "--test say where its text lies now, if not where it was.")  # fmt: skip
@option("--init-from", group="Files", type=PATH, metavar="MODEL",
        help="Start from this model: shape and characters are kept, and new characters get a place.")  # fmt: skip
@offline_option
@config_option
@option("--preview", group="Files", type=click.IntRange(0), default=200, metavar="N", show_default=True,
        help="Characters to write now and then while training; 0 for none.")  # fmt: skip
@option("--preset", group="Model", type=click.Choice(tuple(PRESETS)),
        help="Hidden units: " + ", ".join(f"{size} ({name})" for name, size in PRESETS.items()) + "; the rest is "
        "chosen to fit.", shown_default="all sizes chosen from text, budget and the machine's speed")  # fmt: skip
@settings_options(CorpusConfig, "Text", escapes=("between", "records"))
@settings_options(ModelConfig, "Model", chosen=("hidden_size", "tie_weights", "dropout"))
@settings_options(
    TrainConfig, "Training", chosen=("batch_size", "seq_length", "lr", "weight_decay", "members", "teachers", "counts")
)
@threads_option
def command(
    sources: tuple[str, ...],
    out: Path | None,
    overwrite: bool,
    valid: tuple[str, ...],
    test: tuple[str, ...],
    resume: Path | None,
    init_from: Path | None,
    preset: str | None,
    preview: int,
    offline: bool | None,
    **settings: Any,
) -> None:
    """Learn a text and save a model.

    SOURCE is a file (also .gz, .bz2, .xz, .zst, .tar, .zip; .docx, .epub, .pdf with chargen[documents]), a folder, a
    pattern, - for standard input, or the name of a corpus of `chargen corpus list`, which is fetched where it is
    missing. The run folder holds model.safetensors (the best model) and metrics.jsonl.

    \b
    chargen train novel.txt --minutes 10
    chargen train logs/ --unit byte --hidden-size 512 --epochs 3
    chargen train --resume checkpoints/novel --minutes 20
    torchrun --nproc-per-node 2 -m chargen train novel.txt
    """
    started = process_start_time()
    time_spent = TimeSpent(started)
    keep_memory()
    with stop_on_signals() as stop, join_group(log) as group:
        group.doing("reading the text")
        restarted, moved = find_restarted(out, sources, given_settings(settings), overwrite, group), {}
        if resume is not None and restarted is None:
            check_resumable_with(out=out, overwrite=overwrite, init_from=init_from, preset=preset)
            moved = {"train": sources, "valid": valid, "test": test}
        resume = restarted or resume
        if resume is not None:
            with group.once_per_machine():
                get_missing(offline, sources, valid, test)
            with open_run(resume, group) as state:
                time_spent.mark("starting")
                trainer = _resume(resume, state, settings, moved, started, time_spent, group)
                _train(trainer, stop, preview, time_spent)
            return
        if not sources:
            raise SettingError("no text to learn: give a SOURCE, such as a file, a folder, - or python")
        if group.leads and (out or overwrite):
            check_free(out or free_folder(sources[0], overwrite), overwrite)
        init = read_model(init_from) if init_from is not None else None
        plan = RunPlan(sources, settings, valid, test, preset, init)
        with group.once_per_machine():
            get_missing(offline, sources, valid, test)
        time_spent.mark("starting")
        with TaskBar("B") as bar:
            corpus = plan.read_corpus(bar.show, group)
        report.log_corpus(corpus, " ".join(sources[:3]) + (f" and {len(sources) - 3} more" if len(sources) > 3 else ""))
        time_spent.mark("reading the text")
        if plan.device() == "cpu":
            time_spent.compiling = log_compiling()
        report.log_small_text(corpus)
        group.doing("choosing sizes")
        sizes = plan.choose_sizes(corpus, group)
        time_spent.mark("timing this machine")
        report.log_sizes(corpus, sizes)
        folder = Path(group.broadcast(str((out or free_folder(sources[0], overwrite)) if group.leads else "")))
        with plan.start(corpus, sizes, folder, started, overwrite, group) as trainer:
            if init:
                report.log_initialization(trainer, init_from)
            _train(trainer, stop, preview, time_spent)


def process_start_time() -> float:
    """Find when this process started.

    Returns:
        What `time.monotonic()` was then; where the system is not Linux or does not tell, what it is at this moment.
    """
    age = 0.0
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError, IndexError):  # a sandbox may have no /proc
            ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
            age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - max(0.0, age)


def _resume(
    folder: Path,
    state: RunState,
    settings: dict[str, Any],
    moved: dict[str, tuple[str, ...]],
    started: float,
    time_spent: TimeSpent,
    group: Group,
) -> "Trainer":
    """Make the trainer of a saved run and log what has changed; `moved` has the new sources of each role, if any."""
    from chargen.training.trainer import Trainer

    try:
        with TaskBar("B") as bar, group.once_per_machine():
            corpus = Corpus.from_description(state.settings["corpus"], bar.show, moved)
    except DataError as error:
        if any(moved.values()):
            raise
        raise DataError(
            f"{error}; where that lies elsewhere now: chargen train --resume {quote_path(folder)} SOURCE"
        ) from error
    time_spent.mark("reading the text")
    changes = given_settings(settings)
    trainer = Trainer.resume(folder, corpus, changes=changes, started=started, group=group)
    if trainer.device.type == "cpu":
        time_spent.compiling = log_compiling()
    report.log_resumption(trainer, state, moved)
    check_incomplete(trainer)
    return trainer


def _train(trainer: "Trainer", stop: StopRequest, preview: int, time_spent: TimeSpent) -> None:
    """Run the training loop with a bar until its budget or a signal ends it; log the result."""
    machine, out, group = trainer.checkpointer.machine(trainer.device), quote_path(trainer.out), trainer.group
    threads = amount(machine["threads"], "thread")
    if not group.alone:
        threads = f"{group.size} processes of {threads}"
    log(f"training {machine['precision']} on {machine['device']}, {threads}, into {trainer.out}")
    time_spent.mark("starting")
    group.doing("training")
    stop.deferred = True
    try:
        with TrainingBar(trainer, preview) as bar:
            for progress in trainer.run():
                bar.show(progress)
                if group.stops(bool(stop)):
                    break
        stops = group.stops(bool(stop)) and not trainer.counters.complete
        if stops:
            trainer.save()
    except WriteError as error:
        go_on = f"make room and go on with: chargen train --resume {out}"
        advice = go_on if trainer.checkpointer.is_resumable else "choose another --out"
        raise WriteError(f"{error}; {advice}") from error
    if stops:
        stop.number = stop.number or signal.SIGTERM  # where another process was asked
        stopped = stop.error(f" at step {trainer.counters.step:,}; go on with: chargen train --resume {out}")
        if not group.leads:
            sys.exit(stopped.exit_code)
        raise stopped
    time_spent.mark("scoring, saving and previews", trainer.budget.train_seconds)
    report.log_result(trainer, time_spent.describe(60 * (trainer.config.minutes or math.inf)))
