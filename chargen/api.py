"""One call each: train a model, write with it, fill the gaps of a text. The commands take the same steps."""

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chargen.data.reading import ReadingConfig, clean, find_sources, read_like
from chargen.data.vocabulary import Vocabulary
from chargen.decoding.choose import WRITING_DEFAULTS, SampleConfig
from chargen.errors import SettingError
from chargen.infill.fill import PARTICLES, Filler, gap_lengths
from chargen.infill.template import MARKER, Filled, Template, fill_gaps
from chargen.model.config import require_bidirectional
from chargen.sampling.rounding import DEFAULT_LENGTH
from chargen.sampling.sample import Character, Sample
from chargen.sampling.sampler import Sampler
from chargen.settings import check_int, drop_none, make_settings
from chargen.storage.model_file import ModelFile, as_model_file
from chargen.storage.quantize import quantize as quantize_arrays
from chargen.training.progress import as_table

if TYPE_CHECKING:
    from chargen.data.corpus import SourceNames
    from chargen.model.language_model import CharModel
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
    progress: bool | None = None,
    **settings: Any,
) -> Run:
    """Learn a text, as `chargen train` does: what is not given is chosen to fit text, budget and machine.

    Ctrl-C lets the step under way end, saves the run where it has a folder, and is raised as KeyboardInterrupt; then
    `resume` goes on. Without a folder what was learned is lost: a `Trainer` keeps it.

    Args:
        sources: files, folders, patterns, `-` (standard input) or names of corpora. With `resume`: where the text lies,
            if not where it was.
        out: the run folder, which gets the best model and metrics.jsonl; None writes nothing.
        overwrite: replace the run in `out`, once this one has saved what it has learned.
        valid: a text to validate on, instead of a part.
        test: a text to test on, instead of a part.
        resume: go on with the run in this folder; budget and intervals may change.
        init_from: start from this model: shape and characters are kept, and new characters get a place.
        preset: "small", "medium" or "large": how many hidden units.
        progress: whether to show a bar; None shows one on a terminal and in a notebook.
        **settings: fields of CorpusConfig, ModelConfig and TrainConfig, such as `minutes=10`, `unit="byte"` or
            `hidden_size=256`.

    Returns:
        The best model, and its losses.

    Raises:
        SettingError: where a setting is unknown or out of range, or contradicts another.
        DataError: where a text cannot be read, or is too short.
        ModelFileError: where a model or a run is missing or damaged.
        Diverged: where training did.
        KeyboardInterrupt: after Ctrl-C.
    """
    started = time.monotonic()
    from tqdm.auto import tqdm

    from chargen.data.corpus import Corpus
    from chargen.training.plan import RunPlan, check_incomplete, check_resumable_with, given_settings
    from chargen.training.run_folder import check_free, open_run

    shown = (sys.stderr.isatty() or "ipykernel" in sys.modules) if progress is None else progress
    row = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
    with tqdm(total=100, desc="reading", bar_format=row, disable=not shown) as bar:
        if resume is not None:
            check_resumable_with(out=out, overwrite=overwrite, init_from=init_from, preset=preset)
            moved = {"train": sources, "valid": valid, "test": test}
            with open_run(Path(resume)) as state:
                from chargen.training.trainer import Trainer

                corpus = Corpus.from_description(state.settings["corpus"], elsewhere=moved)
                trainer = Trainer.resume(Path(resume), corpus, changes=given_settings(settings), started=started)
                check_incomplete(trainer)
                return _run(trainer, bar)
        folder = Path(out) if out is not None else None
        if folder:
            check_free(folder, overwrite)
        init = None if init_from is None else as_model_file(init_from)
        plan = RunPlan(sources, settings, valid, test, preset, init)
        corpus = plan.read_corpus()
        sizes = plan.choose_sizes(corpus)
        with plan.start(corpus, sizes, folder, started, overwrite) as trainer:
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
            if interrupts:
                break
        if interrupts and trainer.out and not trainer.counters.complete:
            trainer.save()
    if interrupts:
        raise KeyboardInterrupt
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


def generate(
    model: "ModelFile | CharModel | str | os.PathLike[str]",
    prime: str | Path = "",
    *,
    length: int | None = None,
    num: int | None = None,
    seed: int | None = None,
    reverse: bool = False,
    echo: bool = True,
    adapt: int = 0,
    encoding: str | None = None,
    errors: str = "strict",
    unknown: str = "error",
    quantize: str | None = None,
    state_in: str | os.PathLike[str] | None = None,
    state_out: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    vocabulary: Vocabulary | None = None,
    **settings: Any,
) -> str | Any:
    """Write text, as `chargen sample` does. A `Sampler` goes on where it stopped, and writes character by character.

    Args:
        model: the path of a model file or a run folder, what `read_model` returned, or a CharModel.
        prime: text to go on from; or the Path of a file that holds it.
        length: characters to write beside the prime; None: 500, and on to the end of the line or word.
        num: how many texts, as a list; None: one, as a str.
        seed: 0 to 2**64 - 1, for the same text again; drawn by the system where None.
        reverse: write what comes before the prime, with a bidirectional model.
        echo: whether the prime, cleaned as the text that the model learned, is part of what is returned.
        adapt: learn from the prime first, so many times over, in a copy of the model.
        encoding: of the prime's file; None: that of the training text.
        errors: what to do with bytes that do not fit it, "strict" or "replace".
        unknown: what to do with characters of the prime that the model does not know: "error", "skip" or "replace".
        quantize: round the weights first, to "int8" or "bf16".
        state_in: go on from a saved state, with its seed unless one is given.
        state_out: save the state to this file at the end.
        device: "cpu", "cuda" or "mps".
        vocabulary: of a CharModel, which has none.
        **settings: fields of SampleConfig, such as `temperature` (0.8 by default) and `stop`.

    Returns:
        The text, a str; with `num` a list of them.

    Raises:
        SettingError: a setting is unknown or out of range, or contradicts another.
        ModelFileError: the model file is missing or damaged.
        DataError: the model does not know some characters of the prime.
        ChargenError: bans and no_repeat leave no character to write, or the model's numbers overflow.
    """
    sampler, text = prepare_sampler(
        as_model_file(model, vocabulary), prime, num=1 if num is None else num, seed=seed, reverse=reverse, adapt=adapt,
        encoding=encoding, errors=errors, quantize=quantize, state_in=state_in, state_out=state_out, device=device,
        **settings,
    )  # fmt: skip
    sampler.feed(text, unknown)
    written: list[list[Character]] = [[] for _ in range(sampler.num)]
    for characters in sampler.write(DEFAULT_LENGTH if length is None else length, rounded=length is None):
        for character in characters:
            written[character.stream].append(character)
    if state_out is not None:
        sampler.save_state(state_out)
    reverse = sampler.direction == "backward"
    texts = [Sample.of(stream, reverse).text for stream in written]
    if echo:
        texts = [new + text if reverse else text + new for new in texts]
    return texts[0] if num is None else texts


def prepare_sampler(
    file: ModelFile,
    prime: str | Path,
    *,
    num: int,
    seed: int | None,
    reverse: bool,
    adapt: int,
    encoding: str | None,
    errors: str,
    quantize: str | None,
    state_in: str | os.PathLike[str] | None,
    state_out: str | os.PathLike[str] | None,
    device: str,
    **settings: Any,
) -> tuple[Sampler, str]:
    """Make the sampler of `generate`, where its arguments are described, and clean the prime that it is to be fed."""
    config = make_settings(SampleConfig, WRITING_DEFAULTS | drop_none(settings))
    if device not in ("cpu", "cuda", "mps"):
        raise SettingError(f"device is {device!r}: it must be cpu, cuda or mps", "device")
    text = _read(prime, file.reading, encoding, errors)
    if reverse:
        require_bidirectional(file.config, "`reverse`")
    direction = "backward" if reverse else "forward"
    if check_int("adapt", adapt, 0):
        if not text:
            raise SettingError("adapt learns from the prime: give `prime`", "adapt")
        from chargen.evaluation.dynamic import adapt_model

        file = adapt_model(file, text, adapt, direction=direction)
    if quantize:
        file = replace(file, arrays=quantize_arrays(file.arrays, quantize))
    sampler = Sampler(file, config, num=num, seed=seed, device=device, direction=direction)
    if state_out is not None:
        sampler.check_state_path(state_out)
    if state_in is not None:
        sampler.load_state(state_in)
        if seed is not None:
            sampler.reseed(seed)
    return sampler, text


def fill_text(
    model: "ModelFile | CharModel | str | os.PathLike[str]",
    text: str | Path,
    *,
    length: int | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    marker: str = MARKER,
    encoding: str | None = None,
    errors: str = "strict",
    num: int = 1,
    seed: int | None = None,
    particles: int = PARTICLES,
    **settings: Any,
) -> list[Filled]:
    """Fill the gaps of a text, as `chargen fill` does. `fill` fills one gap between two texts.

    Args:
        model: the path of a model file or a run folder, what `read_model` returned, or a CharModel.
        text: with gaps marked by ___, or by ___{5} or ___{3-8} where a gap says its own length; or the Path of a file.
        length: characters of a gap; instead of min_length and max_length.
        min_length: characters of the shortest gap; 0 where None.
        max_length: characters of the longest gap.
        marker: what marks a gap.
        encoding: of the file; None: that of the training text.
        errors: what to do with bytes that do not fit it, "strict" or "replace".
        num: in how many ways, which differ in the first gap.
        seed: 0 to 2**64 - 1; drawn by the system where None.
        particles: how many gaps are tried side by side where there are too many to score all.
        **settings: fields of SampleConfig, and further arguments of `Filler`.

    Returns:
        The filled texts; fewer where there are fewer ways to fill the first gap.

    Raises:
        SettingError: the model reads one way only, or a setting or length is wrong.
        ModelFileError: the model file is missing or damaged.
        DataError: there is no gap, or the model does not know some characters.
        ChargenError: no gap is allowed, or the model's numbers overflow.
    """
    lengths = None if (length, min_length, max_length) == (None,) * 3 else gap_lengths(length, min_length, max_length)
    filler = Filler(model, particles=particles, seed=seed, **settings)
    return list(fill_gaps(filler, read_template(filler.model, text, marker, lengths, encoding, errors), num))


def read_template(
    model: ModelFile,
    text: str | Path,
    marker: str = MARKER,
    lengths: tuple[int, int] | None = None,
    encoding: str | None = None,
    errors: str = "strict",
) -> Template:
    """Find the gaps in a text, cleaned as the text that the model learned.

    Args:
        model: what `read_model` returned.
        text: with gaps; or the Path of a file.
        marker: what marks a gap.
        lengths: the shortest and longest length of gaps that do not say theirs.
        encoding: of the file; None: that of the training text.
        errors: what to do with bytes that do not fit it, "strict" or "replace".

    Raises:
        DataError: there is no gap, or the file cannot be read.
        SettingError: a length is missing, or the marker is empty.
    """
    return Template.parse(_read(text, model.reading, encoding, errors), clean(marker, model.reading), lengths)


def _read(text: str | Path, reading: ReadingConfig, encoding: str | None, errors: str) -> str:
    """A text as it is, or that of a file; cleaned."""
    if isinstance(text, Path):
        return read_like(find_sources([text])[0], reading, encoding, errors)
    return clean(text, reading)
