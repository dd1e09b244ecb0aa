"""A new run, decided before it begins: what can be checked first, then the text, then the sizes that fit it."""

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chargen.data.corpus import Corpus, SourceNames, absolute_names
from chargen.data.corpus_config import CorpusConfig
from chargen.data.encoder import ProgressCallback
from chargen.data.sources import find_sources
from chargen.errors import ChargenError, DataError, SettingError, amount
from chargen.launch import read_launch
from chargen.model.config import ModelConfig
from chargen.settings import drop_none, make_settings, read_words
from chargen.storage.model_file import ModelFile
from chargen.storage.run_state import can_be_resumed, read_run_state
from chargen.suggestions import did_you_mean
from chargen.training.autosize import PRESETS, Sizes, fit_sizes
from chargen.training.config import TrainConfig, changed_config
from chargen.training.counts import choose_order
from chargen.training.group import ALONE, Group
from chargen.training.run_folder import new_run_folder, recover

if TYPE_CHECKING:
    from chargen.training.trainer import Trainer

CONFIGS = CorpusConfig, ModelConfig, TrainConfig
"""What holds the settings of a run."""


@dataclass(frozen=True)
class RunPlan:
    """A new run: `read_corpus`, then `choose_sizes`, then `start`.

    Args:
        sources: the text to learn.
        settings: fields of CorpusConfig, ModelConfig and TrainConfig, by name; what is None is chosen.
        valid: a text to validate on instead of a part of `sources`.
        test: a text to test on instead of a part of `sources`.
        preset: how many hidden units: "small", "medium" or "large".
        init: a model to start from.

    Raises:
        SettingError: where settings are out of range or contradict each other.
    """

    sources: SourceNames
    settings: Mapping[str, Any]
    valid: SourceNames = ()
    test: SourceNames = ()
    preset: str | None = None
    init: ModelFile | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", given_settings(self.settings))
        check_parts(self.settings, self.valid, self.test)
        if self.preset is not None and self.preset not in tuple(PRESETS):
            raise SettingError(f"preset is {self.preset!r}: it must be one of {', '.join(PRESETS)}", "preset")
        if self.preset and "hidden_size" in self.model:
            raise SettingError("preset says how many hidden units there are: leave it out, or `hidden_size`", "preset")
        make_settings(ModelConfig, self.model)
        self.device()

    @property
    def model(self) -> dict[str, Any]:
        """The model's settings that are given, or are those of the model to start from."""
        inherited = asdict(replace(self.init.config, begin_symbols=0)) if self.init else {}
        return inherited | self._select(ModelConfig)

    @property
    def training(self) -> dict[str, Any]:
        """Settings of training that are given."""
        return self._select(TrainConfig)

    def _select(self, config: type) -> dict[str, Any]:
        names = {field.name for field in fields(config)}
        return {name: value for name, value in self.settings.items() if name in names}

    def device(self) -> str:
        """The type of the device that the run will be on: "cpu", "cuda" or "mps".

        Raises:
            SettingError: where this machine does not have the one that is given.
        """
        from chargen.model.device import pick_device

        return pick_device(make_settings(TrainConfig, self.training).device).type

    def read_corpus(self, progress: ProgressCallback | None = None, group: Group = ALONE) -> Corpus:
        """Read the text, once on each machine; with a model to start from, as the text of that was read.

        Args:
            progress: called as (activity, bytes done, bytes in total or None) after every block.
            group: the processes that train together.

        Raises:
            DataError: where the text cannot be read, or is too short.
            SettingError: where several processes would read one stream.
        """
        if not group.alone and any(source.is_stream for source in find_sources(self._names())[0]):
            raise SettingError("standard input or a pipe cannot be read by several processes: give a file")
        with group.once_per_machine():
            return self._read_corpus(progress)

    def _names(self) -> list[str]:
        """The sources of all parts."""
        parts = (
            [part] if isinstance(part, (str, os.PathLike)) else part for part in (self.sources, self.valid, self.test)
        )
        return [os.fspath(name) for part in parts for name in part]

    def _read_corpus(self, progress: ProgressCallback | None) -> Corpus:
        settings, known = self._select(CorpusConfig), None
        if self.init:
            known, reading = self.init.vocabulary, self.init.reading
            before: dict[str, Any] = {"unit": known.unit, "newline": reading.newline, "normalize": reading.normalize}
            if known.records:
                labels = () if {"label_field", "label_from"} & settings.keys() else ("label_field", "label_from")
                before |= drop_none({name: getattr(reading, name) for name in ("records", "text_field", *labels)})
            settings = before | ({"encoding": "raw"} if known.raw else {}) | settings
        corpus = Corpus.from_files(
            self.sources, valid=self.valid, test=self.test, progress=progress, known=known, **settings
        )
        if len(corpus.train) < 2:
            raise DataError(
                f"{' '.join(self._names())}: training needs at least 2 {corpus.vocabulary.unit}s, "
                f"found {len(corpus.train)}; give more text, or a smaller `valid_fraction`"
            )
        return corpus

    def choose_sizes(self, corpus: Corpus, group: Group = ALONE) -> Sizes:
        """Choose all settings that are not given; for a budget in minutes this machine is timed.

        Args:
            corpus: the text.
            group: the processes, the first of which chooses.
        """
        chosen = None
        if group.leads:
            training_settings = {"members": 1, "teachers": 0} | self.training if self.init else self.training
            sizes = fit_sizes(corpus, self.model, training_settings, self.preset, group.size)
            training = sizes.training
            if "counts" not in self.training:
                training = replace(training, counts=choose_order(corpus))
            chosen = [asdict(sizes.model), asdict(training), sizes.reasons]
        model, training_settings, reasons = group.broadcast(chosen)
        return Sizes(ModelConfig(**model), TrainConfig(**training_settings), tuple(reasons))

    @contextlib.contextmanager
    def start(
        self,
        corpus: Corpus,
        sizes: Sizes,
        out: Path | None,
        started: float,
        overwrite: bool = False,
        group: Group = ALONE,
    ) -> Iterator["Trainer"]:
        """Make and lock the run folder while the context lasts; the trainer there has yet to run.

        Args:
            corpus: the text.
            sizes: all settings.
            out: the run folder; None writes nothing.
            started: `time.monotonic()` when the clock of a time budget began.
            overwrite: whether the run in `out` may be replaced.
            group: the processes that train together.

        Raises:
            SettingError: where `out` cannot be made, or holds a run.
        """
        from chargen.training.trainer import Trainer

        options: dict[str, Any] = {"init": self.init, "started": started, "overwrite": overwrite, "group": group}
        with new_run_folder(out, group) if out else contextlib.nullcontext():
            yield Trainer(corpus, sizes.model, sizes.training, out, **options)


def given_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not None, each a field of CorpusConfig, ModelConfig or TrainConfig.

    Args:
        settings: by name.

    Raises:
        SettingError: where there is no setting of that name.
    """
    known = [field.name for config in CONFIGS for field in fields(config)]
    for name in settings:
        if name not in known:
            raise SettingError(f"there is no setting {name!r}{did_you_mean(name, known)}")
    return drop_none(read_words(TrainConfig, settings))


def check_parts(settings: Mapping[str, Any], valid: SourceNames, test: SourceNames) -> None:
    """Check that each part is said once.

    Args:
        settings: those that are given, by name.
        valid: a text to validate on.
        test: a text to test on.

    Raises:
        SettingError: where a part has both a text and a share.
    """
    for role, names in (("valid", valid), ("test", test)):
        if names and f"{role}_fraction" in settings:
            raise SettingError(f"{role} and `{role}_fraction` are two ways to say one thing: give one", role)


def find_restarted(
    out: Path | None, sources: SourceNames, settings: Mapping[str, Any], overwrite: bool, group: Group
) -> Path | None:
    """Find the run that a launcher has started again, after one of its processes had failed.

    Args:
        out: the folder of the run.
        sources: the text to learn: a run there that learned another one had been there before.
        settings: those that are given, by name.
        overwrite: whether the run may replace another one there: that is resumed only where it is the same run.
        group: the processes that train together.

    Returns:
        The folder where there is something to resume, in all processes.
    """
    goes_on = False
    (restarts,) = group.exchange([read_launch().restarts])  # which each machine counts by itself
    if group.leads and restarts and out is not None and can_be_resumed(out):
        goes_on = not overwrite
        with contextlib.suppress(ChargenError):
            recover(out)
            stored = read_run_state(out)
            if stored.settings["corpus"]["sources"]["train"] != absolute_names(sources):
                goes_on = False
            else:
                changed_config(stored.settings, dict(settings))
                goes_on |= not stored.progress["complete"]
    return out if group.broadcast(goes_on) else None


def check_resumable_with(**others: Any) -> None:
    """Check that nothing is given beside `resume` that the run itself remembers.

    Args:
        **others: of `train`, by name.

    Raises:
        SettingError: where one is.
    """
    for name, value in others.items():
        if value:
            raise SettingError(f"{name} cannot be given with `resume`: the run remembers its own", name)


def check_incomplete(trainer: "Trainer") -> None:
    """Check that a resumed run has something left to do; one that was started again ends again.

    Args:
        trainer: the run.

    Raises:
        SettingError: where its budget is used, or its patience, with the setting that lets it go on.
    """
    (restarts,) = trainer.group.exchange([read_launch().restarts])
    if restarts or not (trainer.finished and trainer.counters.complete):
        return
    config, counters, budget = trainer.config, trainer.counters, trainer.budget
    if trainer.validator.out_of_patience:
        validations = amount(config.patience, "validation")
        raise SettingError(f"{trainer.out} stopped early after {validations} without a best: raise `patience`")
    if budget.steps is not None and counters.step >= budget.steps:
        kind, used = ("epoch", config.epochs) if config.epochs else ("step", counters.step)
        raise SettingError(
            f"{trainer.out} is complete: its budget is used after {amount(used, kind)}; "
            f"give a larger `{kind}s` to go on"
        )
    used, kept, least = (seconds / 60 for seconds in (budget.seconds(), budget.end_seconds(), budget.used_seconds()))
    minutes = config.minutes or 0
    end = f", as {kept:.2f} are kept back for its end (scoring the whole splits, saving)" if used < minutes else ""
    raise SettingError(
        f"{trainer.out} is complete: its budget is used after {used:,.2f} of {amount(minutes, 'minute')}{end}; "
        f"give `minutes` {math.ceil(100 * least + 1) / 100:g} or more to go on"
    )
