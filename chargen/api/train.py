"""Learn a text in one call."""

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chargen.launch import read_launch
from chargen.settings import check_path
from chargen.storage.model_file import ModelFile, as_model_file
from chargen.training.join import join_group
from chargen.training.progress import as_table

if TYPE_CHECKING:
    from chargen.data.corpus import SourceNames
    from chargen.training.trainer import Trainer


@dataclass(frozen=True, eq=False)
class Run:
    """What `train` returns.

    Args:
        model: the best model, for `generate`, `evaluate`, `score`, `fill` and `save_model`.
        valid_loss: of that model on the whole validation part, in nats per character; None where there is none.
        test_loss: likewise on the test part.
        path: the run folder; None where nothing was written.
    """

    model: ModelFile
    valid_loss: float | None
    test_loss: float | None
    path: Path | None

    def _described(self) -> dict[str, str]:
        described = {"model": repr(self.model).removeprefix("ModelFile(").removesuffix(")").split(", step")[0]}
        for name, loss in (("valid", self.valid_loss), ("test", self.test_loss)):
            if loss is not None:
                described[name] = f"{loss:.4f} nats, {loss / math.log(2):.4f} bits per character"
        return described | {"in": str(self.path or "memory only")}

    def __repr__(self) -> str:
        return f"Run({'; '.join(f'{name} {value}' for name, value in self._described().items())})"

    def _repr_html_(self) -> str:
        return as_table(self._described())


def train(
    sources: "SourceNames" = (),
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    valid: "SourceNames" = (),
    test: "SourceNames" = (),
    resume: str | os.PathLike[str] | None = None,
    init_from: "ModelFile | str | os.PathLike[str] | None" = None,
    preset: str | None = None,
    offline: bool | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Run:
    """Learn a text, as `chargen train` does: what is not given is chosen to fit text, budget and machine.

    Ctrl-C lets the step under way end, saves the run where it has a folder, and is raised as KeyboardInterrupt; then
    `resume` goes on. Without a folder what was learned is lost: a `Trainer` keeps it.

    Args:
        sources: files, folders, patterns, `-` (standard input) or names of corpora, which are fetched where they are
            missing. With `resume`: where the text lies, if not where it was.
        out: the run folder, which gets the best model and metrics.jsonl; None writes nothing.
        overwrite: replace the run in `out`, once this one has saved what it has learned.
        valid: a text to validate on, instead of a part.
        test: a text to test on, instead of a part.
        resume: go on with the run in this folder; budget and intervals may change.
        init_from: start from this model: shape and characters are kept, and new characters get a place.
        preset: "small", "medium" or "large": how many hidden units.
        offline: fetch no corpus; None does so where the environment variable CHARGEN_OFFLINE is set, but to 0.
        progress: whether to show a bar; None shows one on a terminal and in a notebook.
        **settings: fields of CorpusConfig, ModelConfig and TrainConfig, such as `minutes=10`, `unit="byte"` or
            `hidden_size=256`.

    Returns:
        The best model, and its losses.

    Raises:
        SettingError: where a setting is unknown or out of range, or contradicts another.
        DataError: where a text cannot be read, or is too short.
        ModelFileError: where a model or a run is missing or damaged.
        ChargenError: where a corpus cannot be fetched.
        Diverged: where training did.
        KeyboardInterrupt: after Ctrl-C.
    """
    started = time.monotonic()
    from tqdm.auto import tqdm

    from chargen.api.corpora import get_corpus, missing_corpora
    from chargen.data.corpus import Corpus
    from chargen.training.plan import (
        RunPlan,
        check_incomplete,
        check_resumable_with,
        find_restarted,
        given_settings,
    )
    from chargen.training.run_folder import check_free, open_run

    shown = (sys.stderr.isatty() or "ipykernel" in sys.modules) if progress is None else progress
    row = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
    with (
        tqdm(total=100, desc="reading", bar_format=row, disable=not shown or read_launch().rank > 0) as bar,
        join_group(bar.set_description_str) as group,
    ):

        def get_missing() -> None:
            with group.once_per_machine():
                for missing in missing_corpora(sources, valid, test):
                    bar.set_description_str(f"getting {missing.name} from {missing.address}")
                    get_corpus(missing.name, offline=offline)

        folder = None if out is None else check_path("out", out)
        restarted, moved = find_restarted(folder, sources, given_settings(settings), overwrite, group), {}
        if resume is not None and restarted is None:
            check_resumable_with(out=out, overwrite=overwrite, init_from=init_from, preset=preset)
            moved = {"train": sources, "valid": valid, "test": test}
        old = restarted if resume is None else check_path("resume", resume)
        if old is not None:
            get_missing()
            with open_run(old, group) as state:
                from chargen.training.trainer import Trainer

                with group.once_per_machine():
                    corpus = Corpus.from_description(state.settings["corpus"], elsewhere=moved)
                options: dict[str, Any] = {"changes": given_settings(settings), "started": started, "group": group}
                trainer = Trainer.resume(old, corpus, **options)
                check_incomplete(trainer)
                return _run(trainer, bar)
        if folder and group.leads:
            check_free(folder, overwrite)
        init = None if init_from is None else as_model_file(init_from)
        plan = RunPlan(sources, settings, valid, test, preset, init)
        get_missing()
        corpus = plan.read_corpus(group=group)
        sizes = plan.choose_sizes(corpus, group)
        with plan.start(corpus, sizes, folder, started, overwrite, group) as trainer:
            return _run(trainer, bar)


def _run(trainer: "Trainer", bar: Any) -> Run:
    """Train to the end of the budget, with a bar of 100 per cent."""
    figures: dict[str, str] = {}
    with _interrupt_after_step() as interrupts:
        for progress in trainer.run():
            for name, loss in (("train", progress.train_loss), ("valid", progress.valid_loss)):
                if loss is not None and not math.isnan(loss):
                    figures[name] = f"{loss:.3f} ({loss / math.log(2):.3f} bits/char)"
            bar.set_description_str(progress.doing, refresh=False)
            bar.set_postfix({"step": f"{progress.step:,}", **figures}, refresh=False)
            bar.update(100 * progress.share - bar.n)
            if trainer.group.stops(bool(interrupts)):
                break
        stops = trainer.group.stops(bool(interrupts))
        if stops and trainer.out and not trainer.counters.complete:
            trainer.save()
    if stops:
        advice = f"; go on with resume={str(trainer.out)!r}" if trainer.out else "; without `out` nothing is saved"
        raise KeyboardInterrupt(f"stopped at step {trainer.counters.step:,}{advice}")
    assert trainer.best_model is not None
    return Run(trainer.best_model, trainer.summary.get("valid_loss"), trainer.summary.get("test_loss"), trainer.out)


@contextlib.contextmanager
def _interrupt_after_step() -> Iterator[list[int]]:
    """Collect the first Ctrl-C instead of raising it; a second one is raised. A program's own handler stays."""
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    replaces = is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if replaces:
        signal.signal(signal.SIGINT, handle)
    try:
        yield received
    finally:
        if replaces:
            signal.signal(signal.SIGINT, signal.default_int_handler)
