"""`chargen train`: learn a text and save a model."""

import contextlib
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chargen.cache_folder import CHECKPOINTS
from chargen.cli.bars import TaskBar, TrainingBar
from chargen.cli.options import (
    PATH,
    GroupedCommand,
    config_option,
    option,
    prefer_command_line,
    select_settings,
    settings_options,
)
from chargen.cli.report import log_corpus, log_initialization, log_model, log_result
from chargen.cli.signals import StopRequest, stop_on_signals
from chargen.cli.terminal import log, log_compiling, quote_path
from chargen.cli.time_spent import TimeSpent
from chargen.data.corpus import Corpus, CorpusConfig
from chargen.durable import lock_folder, make_folder
from chargen.errors import DataError, ModelFileError, SettingError, WriteError, amount
from chargen.model.config import ModelConfig
from chargen.settings import make_settings
from chargen.storage.model_file import ModelFile, read_model
from chargen.storage.run_state import FILE_NAME as STATE_NAME
from chargen.storage.run_state import can_be_resumed
from chargen.suggestions import similar_path
from chargen.training.autosize import PRESETS, SMALL_TEXT, Sizes, Speed, choose_sizes, time_reference
from chargen.training.config import TrainConfig
from chargen.training.memory import keep_memory
from chargen.training.run_folder import check_free, recover

if TYPE_CHECKING:
    from chargen.training.trainer import Trainer

CHOSEN_SETTINGS = ("hidden_size", "dropout", "weight_decay", "lr", "batch_size", "seq_length")
"""Settings that are chosen to fit text and budget when a run begins."""


@click.command("train", cls=GroupedCommand, short_help="Learn a text and save a model.")
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
@config_option
@option("--preview", group="Files", type=click.IntRange(0), default=200, metavar="N", show_default=True,
        help="Characters to write now and then while training; 0 for none.")  # fmt: skip
@option("--preset", group="Model", type=click.Choice(tuple(PRESETS)),
        help="Hidden units: " + ", ".join(f"{size} ({name})" for name, size in PRESETS.items()) + "; the rest is "
        "chosen to fit.", shown_default="all sizes chosen from text, budget and the machine's speed")  # fmt: skip
@settings_options(CorpusConfig, "Text", escapes=("between",))
@settings_options(ModelConfig, "Model", chosen=("hidden_size", "tie_weights", "dropout"))
@settings_options(TrainConfig, "Training", chosen=("batch_size", "seq_length", "lr", "weight_decay"))
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
    **values: Any,
) -> None:
    """Learn a text and save a model.

    SOURCE is a file (also .gz, .bz2, .xz, .zst, .tar, .zip), a folder, a pattern, - for standard input, or a corpus
    name: python is the standard library's own source code. The run folder holds model.safetensors (the best model) and
    metrics.jsonl.

    \b
    chargen train novel.txt --minutes 10
    chargen train logs/ --unit byte --hidden-size 512 --epochs 3
    chargen train --resume checkpoints/novel --minutes 20
    """
    started = process_start_time()
    time_spent = TimeSpent(started)
    keep_memory()
    values |= {"valid": valid, "test": test}
    for group in (("minutes", "epochs", "steps"), ("valid", "valid_fraction"), ("test", "test_fraction")):
        prefer_command_line(group, values)
    valid, test = values.pop("valid") or (), values.pop("test") or ()
    with stop_on_signals() as stop:
        if resume is not None:
            fixed = {"--out": out, "--overwrite": overwrite, "--init-from": init_from, "--preset": preset}
            for name, value in fixed.items():
                if value:
                    raise SettingError(f"{name} cannot be given with --resume: the run remembers its own")
            moved = {"train": sources, "valid": valid, "test": test}
            with lock_folder(_check_resumable(resume)):
                _train(_resume(resume, values, moved, started, time_spent), stop, preview, time_spent)
            return
        if not sources:
            raise SettingError("no text to learn: give a SOURCE, such as a file, a folder, - or python")
        for role, names in (("valid", valid), ("test", test)):
            if names and values[f"{role}_fraction"] is not None:
                raise SettingError(f"--{role} and --{role}-fraction are two ways to say one thing: give one")
        if out or overwrite:
            check_free(out or _free_folder(sources[0], overwrite), overwrite)
        init = read_model(init_from) if init_from is not None else None
        model_settings = (asdict(init.config) if init else {}) | select_settings(ModelConfig, values)
        train_settings = select_settings(TrainConfig, values)
        if preset and "hidden_size" in model_settings:
            raise SettingError("--preset says how many hidden units there are: leave it out, or --hidden-size")
        device = _check_settings(model_settings, train_settings)
        defaults = _corpus_settings_of(init) if init else {}
        corpus_config = CorpusConfig(**(defaults | select_settings(CorpusConfig, values)))
        time_spent.mark("starting")
        with TaskBar("B") as bar:
            known = init.vocabulary if init else None
            corpus = Corpus.from_files(
                sources, valid=valid, test=test, config=corpus_config, progress=bar.show, known=known
            )
        if len(corpus.train) < 2:
            raise DataError(
                f"{' '.join(sources)}: training needs at least 2 {corpus.vocabulary.unit}s, found {len(corpus.train)}; "
                "give more text, or a smaller --valid-fraction"
            )
        log_corpus(corpus, " ".join(sources[:3]) + (f" and {len(sources) - 3} more" if len(sources) > 3 else ""))
        time_spent.mark("reading the text")
        if device == "cpu":
            time_spent.compiling = log_compiling()
        sizes = _choose_sizes(corpus, model_settings, train_settings, preset)
        time_spent.mark("timing this machine")
        log_model(corpus, sizes.model, sizes.training)
        from chargen.training.trainer import Trainer

        with _new_run_folder(out or _free_folder(sources[0], overwrite)) as folder:
            trainer = Trainer(
                corpus, sizes.model, sizes.training, folder, init=init, started=started, overwrite=overwrite
            )
            if init:
                log_initialization(trainer, init_from)
            _train(trainer, stop, preview, time_spent)


def process_start_time() -> float:
    """Find when this process started.

    Returns:
        What `time.monotonic()` was then; where the system does not tell, what it is at this moment.
    """
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        age = 0.0
    return time.monotonic() - max(0.0, age)


def _check_resumable(folder: Path) -> Path:
    """Return the folder of a run that can be resumed; raise ModelFileError for any other path."""
    if not can_be_resumed(folder):
        if not folder.exists():
            advice = similar_path(folder, CHECKPOINTS)
            raise ModelFileError(f"no run folder {folder}{advice or '; chargen train SOURCE makes one'}")
        raise ModelFileError(f"{folder} holds no {STATE_NAME} to resume; chargen train SOURCE makes a run folder")
    return folder


def _check_settings(model: dict[str, Any], training: dict[str, Any]) -> str:
    """Check settings before the text is read, and return the type of the device that the run will be on."""
    from chargen.model.device import pick_device

    make_settings(ModelConfig, model)
    return pick_device(make_settings(TrainConfig, training).device).type


@contextlib.contextmanager
def _new_run_folder(folder: Path) -> Iterator[Path]:
    """Make and lock the folder of a new run; remove it where the run fails before it has saved anything."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            make_folder(folder)
        except OSError as error:
            raise SettingError(
                f"cannot make the run folder {folder}: {error.strerror}; choose another --out"
            ) from error
        with lock_folder(folder):
            yield folder
    except BaseException:
        _remove_if_empty(new)
        raise


def _remove_if_empty(folders: list[Path]) -> None:
    """Remove what a run without saved files left behind. No folder is listed: that takes memory, which may be full."""
    for folder in folders:
        for file in (folder / "metrics.jsonl", folder / ".lock"):
            with contextlib.suppress(OSError):
                if file.stat().st_size == 0 and not (folder / STATE_NAME).exists():
                    file.unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()


def _free_folder(source: str, overwrite: bool) -> Path:
    """Choose checkpoints/NAME, or NAME-2, NAME-3 … where there is a run of that name that must stay."""
    name = "stdin" if source == "-" else Path(source).resolve().name.split(".")[0]
    name = "".join(character for character in name if character.isalnum() or character in "-_ ") or "run"
    number = 1
    while (folder := CHECKPOINTS / (name if number == 1 else f"{name}-{number}")).exists() and not overwrite:
        number += 1
    return folder


def _choose_sizes(corpus: Corpus, model: dict[str, Any], training: dict[str, Any], preset: str | None) -> Sizes:
    """Choose the settings that are open, and log a line for each."""
    length, size, unit, speed = len(corpus.train), len(corpus.vocabulary), corpus.vocabulary.unit, Speed()
    if length < SMALL_TEXT:
        log(
            f"warning: {amount(length, unit)} to learn from are few: the model will rather learn them by heart; "
            f"{SMALL_TEXT:,} and more teach it better"
        )
    open_settings = {"hidden_size", "dropout", "weight_decay"} - {*model, *training}
    timed = open_settings and ("minutes" in training or not {"steps", "epochs"} & training.keys())
    if timed:
        speed = time_reference(size, training)
    sizes = choose_sizes(length, size, model, training, unit=unit, preset=preset, speed=speed)
    shape = {name: getattr(sizes.training, name) for name in ("batch_size", "seq_length")}
    if timed and shape["seq_length"] < training.get("seq_length", TrainConfig().seq_length):
        # Shorter windows take more time for each character, so the speed is measured again.
        training = training | shape
        speed = time_reference(size, training)
        sizes = choose_sizes(length, size, model, training, unit=unit, preset=preset, speed=speed)
    for number, reason in enumerate(sizes.reasons):
        log(f"{'' if number else 'chosen':9}{reason}")
    return sizes


def _corpus_settings_of(file: ModelFile) -> dict[str, Any]:
    """Return the settings that read a text as the model's training text was read."""
    raw = {"encoding": "raw"} if file.vocabulary.raw else {}
    return raw | {"unit": file.vocabulary.unit, "newline": file.reading.newline, "normalize": file.reading.normalize}


def _resume(
    folder: Path, values: dict[str, Any], moved: dict[str, tuple[str, ...]], started: float, time_spent: TimeSpent
) -> "Trainer":
    """Load the run in a folder and log what has changed; `moved` has the new sources of each role, if any."""
    from chargen.storage.run_state import read_run_state
    from chargen.training.trainer import Trainer

    recover(folder)
    changes: dict[str, Any] = {}
    for cls in (CorpusConfig, ModelConfig, TrainConfig):
        changes |= select_settings(cls, values)
    state = read_run_state(folder)
    time_spent.mark("starting")
    try:
        with TaskBar("B") as bar:
            corpus = Corpus.from_description(state.settings["corpus"], bar.show, moved)
    except DataError as error:
        if any(moved.values()):
            raise
        raise DataError(
            f"{error}; where that lies elsewhere now: chargen train --resume {quote_path(folder)} SOURCE"
        ) from error
    time_spent.mark("reading the text")
    trainer = Trainer.resume(folder, corpus, changes=changes, started=started)
    if trainer.device.type == "cpu":
        time_spent.compiling = log_compiling()
    log(f"resume   {folder} at step {trainer.counters.step:,}, after {trainer.counters.seconds:,.0f} s")
    for role, names in moved.items():
        if names:
            log(f"text     {role}: the same as before, now in {', '.join(names)}")
    _log_changes(trainer, state.settings["training"])
    for name, new in trainer.checkpointer.machine(trainer.device).items():
        old = state.settings["machine"].get(name)
        if old != new:
            log(f"warning: {name} was {old} and is {new}: the run goes on, but not byte for byte as it would have")
    if trainer.finished and trainer.counters.complete:
        raise SettingError(_describe_completion(trainer))
    return trainer


def _log_changes(trainer: "Trainer", old_settings: dict[str, Any]) -> None:
    """Log which training settings change; with a new budget also which stay that were chosen for the old one."""
    new_settings = asdict(trainer.config)
    changed = {name for name in new_settings if old_settings.get(name) != new_settings[name]}
    for name in new_settings:
        if name in changed:
            old, new = ("none" if value is None else value for value in (old_settings.get(name), new_settings[name]))
            extent = "in all" if name in ("minutes", "epochs", "steps") else "from here on"
            log(f"changed  {name}: {old} before, {new} {extent}")
    if changed & {"minutes", "epochs", "steps"}:
        settings = asdict(trainer.model_config) | new_settings
        kept = ", ".join(f"{name} {settings[name]:g}" for name in CHOSEN_SETTINGS if name not in changed)
        log(f"kept     {kept}: chosen or given for the first budget; only a new run chooses anew")


def _describe_completion(trainer: "Trainer") -> str:
    """Say why a run is complete, and which option lets it go on."""
    config, counters = trainer.config, trainer.counters
    if trainer.validator.out_of_patience:
        validations = amount(config.patience, "validation")
        return f"{trainer.out} stopped early after {validations} without a best: raise --patience"
    if trainer.budget.steps is not None and counters.step >= trainer.budget.steps:
        kind, used = ("epoch", config.epochs) if config.epochs else ("step", counters.step)
        return (
            f"{trainer.out} is complete: its budget is used after {amount(used, kind)}; "
            f"give a larger --{kind}s to go on"
        )
    budget = trainer.budget
    used, kept, least = (seconds / 60 for seconds in (budget.seconds(), budget.end_seconds(), budget.used_seconds()))
    return (
        f"{trainer.out} is complete: its budget is used after {used:,.2f} of {amount(config.minutes or 0, 'minute')}, "
        f"as {kept:.2f} are kept back for its end (scoring the whole splits, saving); "
        f"give --minutes {math.ceil(100 * least + 1) / 100:g} or more to go on"
    )


def _train(trainer: "Trainer", stop: StopRequest, preview: int, time_spent: TimeSpent) -> None:
    """Run the training loop with a bar until its budget or a signal ends it; log the result."""
    machine, out = trainer.checkpointer.machine(trainer.device), quote_path(trainer.out)
    threads = amount(machine["threads"], "thread")
    log(f"training {machine['precision']} on {machine['device']}, {threads}, into {trainer.out}")
    time_spent.mark("starting")
    stop.deferred = True
    try:
        with TrainingBar(trainer, preview) as bar:
            for progress in trainer.run():
                bar.show(progress)
                if stop:
                    break
        if stop and not trainer.counters.complete:
            trainer.save()
    except WriteError as error:
        resumable = (
            trainer.out is not None and (trainer.out / STATE_NAME).exists() and not trainer.checkpointer.replaces
        )
        advice = f"make room and go on with: chargen train --resume {out}" if resumable else "choose another --out"
        raise WriteError(f"{error}; {advice}") from error
    if stop and not trainer.counters.complete:
        raise stop.error(f" at step {trainer.counters.step:,}; go on with: chargen train --resume {out}")
    time_spent.mark("scoring, saving and previews", trainer.budget.train_seconds)
    log_result(trainer, time_spent.describe(60 * (trainer.config.minutes or math.inf)))
