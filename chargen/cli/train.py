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
from chargen.cli.bars import ReadingBar, TrainingBar
from chargen.cli.options import (
    PATH,
    GroupedCommand,
    command_line_wins,
    config_option,
    given_settings,
    option,
    settings_options,
)
from chargen.cli.report import say, tell_corpus, tell_model, tell_origin, tell_result
from chargen.cli.signals import StopRequest, stop_on_signals
from chargen.cli.spent import Spent
from chargen.cli.terminal import as_argument, log_compiling
from chargen.data.corpus import Corpus, CorpusConfig
from chargen.durable import lock_folder, make_folder
from chargen.errors import DataError, ModelFileError, SettingError, WriteError, amount
from chargen.model.config import ModelConfig
from chargen.settings import make_settings
from chargen.storage.model_file import ModelFile, read_model
from chargen.storage.run_state import FILE_NAME as STATE_NAME
from chargen.storage.run_state import can_be_resumed
from chargen.suggestions import similar_path
from chargen.training.autosize import PRESETS, SMALL_TEXT, Sizes, Speed, choose, time_reference
from chargen.training.config import TrainConfig
from chargen.training.memory import keep_memory
from chargen.training.run_folder import check_free, recover

if TYPE_CHECKING:
    from chargen.training.trainer import Trainer

CHOSEN = ("hidden_size", "dropout", "weight_decay", "lr", "batch_size", "seq_length")
"""What is chosen to fit text and budget when a run begins."""


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
    started = process_started()
    spent = Spent(started)
    keep_memory()
    values |= {"valid": valid, "test": test}
    for group in (("minutes", "epochs", "steps"), ("valid", "valid_fraction"), ("test", "test_fraction")):
        command_line_wins(group, values)
    valid, test = values.pop("valid") or (), values.pop("test") or ()
    with stop_on_signals() as stop:
        if resume is not None:
            for name, value in {
                "--out": out,
                "--overwrite": overwrite,
                "--init-from": init_from,
                "--preset": preset,
            }.items():
                if value:
                    raise SettingError(f"{name} cannot be given with --resume: the run remembers its own")
            elsewhere = {"train": sources, "valid": valid, "test": test}
            with lock_folder(_existing(resume)):
                _train(_resumed(resume, values, elsewhere, started, spent), stop, preview, spent)
            return
        if not sources:
            raise SettingError("no text to learn: give a SOURCE, such as a file, a folder, - or python")
        for role, names in (("valid", valid), ("test", test)):
            if names and values[f"{role}_fraction"] is not None:
                raise SettingError(f"--{role} and --{role}-fraction are two ways to say one thing: give one")
        if out or overwrite:
            check_free(out or _free_folder(sources[0], overwrite), overwrite)
        init = read_model(init_from) if init_from is not None else None
        given_model = (asdict(init.config) if init else {}) | given_settings(ModelConfig, values)
        given_training = given_settings(TrainConfig, values)
        if preset and "hidden_size" in given_model:
            raise SettingError("--preset says how many hidden units there are: leave it out, or --hidden-size")
        device = _checked(given_model, given_training)
        usual = _as_in(init) if init else {}
        corpus_config = CorpusConfig(**(usual | given_settings(CorpusConfig, values)))
        spent.mark("starting")
        with ReadingBar() as bar:
            known = init.vocabulary if init else None
            corpus = Corpus.from_files(
                sources, valid=valid, test=test, config=corpus_config, progress=bar.show, known=known
            )
        if len(corpus.train) < 2:
            found = (
                f"{' '.join(sources)}: training needs at least 2 {corpus.vocabulary.unit}s, found {len(corpus.train)}"
            )
            raise DataError(f"{found}; give more text, or a smaller --valid-fraction")
        tell_corpus(corpus, " ".join(sources[:3]) + (f" and {len(sources) - 3} more" if len(sources) > 3 else ""))
        spent.mark("reading the text")
        if device == "cpu":
            spent.compiling = log_compiling()
        sizes = _sizes(corpus, given_model, given_training, preset)
        spent.mark("timing this machine")
        tell_model(corpus, sizes.model, sizes.training)
        from chargen.training.trainer import Trainer

        with _run_folder(out or _free_folder(sources[0], overwrite)) as folder:
            trainer = Trainer(
                corpus, sizes.model, sizes.training, folder, init=init, started=started, overwrite=overwrite
            )
            if init:
                tell_origin(trainer, init_from)
            _train(trainer, stop, preview, spent)


def process_started() -> float:
    """`time.monotonic()` at the start of this process, as far as the system tells; now elsewhere."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        age = 0.0
    return time.monotonic() - max(0.0, age)


def _existing(folder: Path) -> Path:
    if not can_be_resumed(folder):
        if not folder.exists():
            meant = similar_path(folder, CHECKPOINTS)
            raise ModelFileError(f"no run folder {folder}{meant or '; chargen train SOURCE makes one'}")
        raise ModelFileError(f"{folder} holds no {STATE_NAME} to resume; chargen train SOURCE makes a run folder")
    return folder


def _checked(model: dict[str, Any], training: dict[str, Any]) -> str:
    """What kind of device the run will be on; what is wrong with the settings is told before the text is read."""
    from chargen.model.device import pick_device

    make_settings(ModelConfig, model)
    return pick_device(make_settings(TrainConfig, training).device).type


@contextlib.contextmanager
def _run_folder(folder: Path) -> Iterator[Path]:
    """A folder for a new run, held while it lasts; gone again where the run never began."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
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
        _remove_if_empty(made)
        raise


def _remove_if_empty(folders: list[Path]) -> None:
    """Leave nothing behind of a run that never began. No folder is listed: there may be no memory left for that."""
    for folder in folders:
        for file in (folder / "metrics.jsonl", folder / ".lock"):
            with contextlib.suppress(OSError):
                if file.stat().st_size == 0 and not (folder / STATE_NAME).exists():
                    file.unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()


def _free_folder(source: str, overwrite: bool) -> Path:
    """checkpoints/NAME, or NAME-2, NAME-3 … where there is a run of that name that is not to be replaced."""
    name = "stdin" if source == "-" else Path(source).resolve().name.split(".")[0]
    name = "".join(sign for sign in name if sign.isalnum() or sign in "-_ ") or "run"
    number = 1
    while (folder := CHECKPOINTS / (name if number == 1 else f"{name}-{number}")).exists() and not overwrite:
        number += 1
    return folder


def _sizes(corpus: Corpus, model: dict[str, Any], training: dict[str, Any], preset: str | None) -> Sizes:
    """All settings, and a line for each that was chosen."""
    text, size, unit, speed = len(corpus.train), len(corpus.vocabulary), corpus.vocabulary.unit, Speed()
    if text < SMALL_TEXT:
        say(
            f"warning: {amount(text, unit)} to learn from are few: the model will rather learn them by heart; "
            f"{SMALL_TEXT:,} and more teach it better"
        )
    wanted = {"hidden_size", "dropout", "weight_decay"} - {*model, *training}
    timed = wanted and ("minutes" in training or not {"steps", "epochs"} & training.keys())
    if timed:
        speed = time_reference(size, training)
    sizes = choose(text, size, model, training, unit=unit, preset=preset, speed=speed)
    found = {name: getattr(sizes.training, name) for name in ("batch_size", "seq_length")}
    if timed and found["seq_length"] < training.get("seq_length", TrainConfig().seq_length):
        # Short windows take more time for each character.
        again = training | found
        sizes = choose(text, size, model, again, unit=unit, preset=preset, speed=time_reference(size, again))
    for number, reason in enumerate(sizes.reasons):
        say(f"{'' if number else 'chosen':9}{reason}")
    return sizes


def _as_in(file: ModelFile) -> dict[str, Any]:
    """How the text of a model was read, so that the next one is read alike."""
    raw = {"encoding": "raw"} if file.vocabulary.raw else {}
    return raw | {"unit": file.vocabulary.unit, "newline": file.reading.newline, "normalize": file.reading.normalize}


def _resumed(
    folder: Path, values: dict[str, Any], elsewhere: dict[str, tuple[str, ...]], started: float, spent: Spent
) -> "Trainer":
    """The run in a folder, ready to go on; what is not as it was is told.

    Args:
        values: what is given, by name.
        elsewhere: where the text of a role lies now, if not where it was.
    """
    from chargen.storage.run_state import read_run_state
    from chargen.training.trainer import Trainer

    recover(folder)
    changes: dict[str, Any] = {}
    for cls in (CorpusConfig, ModelConfig, TrainConfig):
        changes |= given_settings(cls, values)
    state = read_run_state(folder)
    spent.mark("starting")
    try:
        with ReadingBar() as bar:
            corpus = Corpus.from_description(state.settings["corpus"], bar.show, elsewhere)
    except DataError as error:
        if any(elsewhere.values()):
            raise
        raise DataError(
            f"{error}; where that lies elsewhere now: chargen train --resume {as_argument(folder)} SOURCE"
        ) from error
    spent.mark("reading the text")
    trainer = Trainer.resume(folder, corpus, changes=changes, started=started)
    if trainer.device.type == "cpu":
        spent.compiling = log_compiling()
    say(f"resume   {folder} at step {trainer.counters.step:,}, after {trainer.counters.seconds:,.0f} s")
    for role, names in elsewhere.items():
        if names:
            say(f"text     {role}: the same as before, now in {', '.join(names)}")
    _tell_changes(trainer, state.settings["training"])
    for name, now in trainer.checkpointer.machine(trainer.device).items():
        was = state.settings["machine"].get(name)
        if was != now:
            say(f"warning: {name} was {was} and is {now}: the run goes on, but not byte for byte as it would have")
    if trainer.finished and trainer.counters.complete:
        raise SettingError(_nothing_left(trainer))
    return trainer


def _tell_changes(trainer: "Trainer", before: dict[str, Any]) -> None:
    """Which training settings are others now; and with another budget, which stay though the first one chose them."""
    now = asdict(trainer.config)
    changed = {name for name in now if before.get(name) != now[name]}
    for name in now:
        if name in changed:
            was, new = ("none" if value is None else value for value in (before.get(name), now[name]))
            much = "in all" if name in ("minutes", "epochs", "steps") else "from here on"
            say(f"changed  {name}: {was} before, {new} {much}")
    if changed & {"minutes", "epochs", "steps"}:
        settings = asdict(trainer.model_config) | now
        kept = ", ".join(f"{name} {settings[name]:g}" for name in CHOSEN if name not in changed)
        say(f"kept     {kept}: chosen or given for the first budget; only a new run chooses anew")


def _nothing_left(trainer: "Trainer") -> str:
    config, counters = trainer.config, trainer.counters
    if trainer.validator.out_of_patience:
        validations = amount(config.patience, "validation")
        return f"{trainer.out} stopped early after {validations} without a best: raise --patience"
    if trainer.budget.steps is not None and counters.step >= trainer.budget.steps:
        unit, used = ("epoch", config.epochs) if config.epochs else ("step", counters.step)
        return (
            f"{trainer.out} is complete: its budget is used after {amount(used, unit)}; "
            f"give a larger --{unit}s to go on"
        )
    used, kept, least = (
        seconds / 60
        for seconds in (trainer.budget.seconds(), trainer.budget.end_seconds(), trainer.budget.used_seconds())
    )
    return (
        f"{trainer.out} is complete: its budget is used after {used:,.2f} of {amount(config.minutes or 0, 'minute')}, "
        f"as {kept:.2f} are kept back for its end (scoring the whole splits, saving); "
        f"give --minutes {math.ceil(100 * least + 1) / 100:g} or more to go on"
    )


def _train(trainer: "Trainer", stop: StopRequest, preview: int, spent: Spent) -> None:
    machine, out = trainer.checkpointer.machine(trainer.device), as_argument(trainer.out)
    threads = amount(machine["threads"], "thread")
    say(f"training {machine['precision']} on {machine['device']}, {threads}, into {trainer.out}")
    spent.mark("starting")
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
        kept = trainer.out is not None and (trainer.out / STATE_NAME).exists() and not trainer.checkpointer.replaces
        advice = f"make room and go on with: chargen train --resume {out}" if kept else "choose another --out"
        raise WriteError(f"{error}; {advice}") from error
    if stop and not trainer.counters.complete:
        raise stop.error(f" at step {trainer.counters.step:,}; go on with: chargen train --resume {out}")
    spent.mark("scoring, saving and previews", trainer.budget.train_seconds)
    tell_result(trainer, spent.told(60 * (trainer.config.minutes or math.inf)))
