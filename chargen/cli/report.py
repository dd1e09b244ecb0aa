"""What `chargen train` logs of the text, the model and the result."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chargen.cli.flags import write_settings
from chargen.cli.terminal import log, quote_path
from chargen.counting.corpus_warnings import warn_of_parts, warn_of_size
from chargen.data.corpus import Corpus
from chargen.data.corpus_cache import ROLES
from chargen.data.reading_report import ReadingReport
from chargen.errors import amount, truncate
from chargen.model.config import parameter_count
from chargen.storage.run_state import RunState
from chargen.training.autosize import CHOSEN_SETTINGS, MANY_CHARACTERS, Sizes
from chargen.training.config import BUDGETS
from chargen.training.memory import estimate_memory

if TYPE_CHECKING:
    from chargen.training.trainer import Trainer

FEW_STEPS = 1_000
"""From so many steps on, a model is as good as its text and size let it be, whatever its loss."""
BABBLE = 0.75
"""Models whose loss is above this share of the entropy of single characters do not write words yet."""


def log_corpus(corpus: Corpus, name: str) -> None:
    """Log how large the text is, how it is split, and what reading met.

    Args:
        corpus: the text.
        name: what its sources are called.
    """
    vocabulary, report = corpus.vocabulary, corpus.report
    sizes = {role: len(getattr(corpus, role)) for role in ROLES}
    size = amount(sum(sizes.values()), vocabulary.unit)
    if vocabulary.records:
        sizes = {role: corpus.count_records(role) for role in ROLES}
        size = f"{amount(sum(sizes.values()), 'record')} of {size}"
    parts = [f"{role} {number:,}" for role, number in sizes.items() if number or role != "test"]
    files = amount(report.files, "file")
    if report.joined and corpus.config.between is None:
        files += f", {amount(report.joined, 'line end')} added between them"
    elif report.joined:
        files += f", {corpus.config.between!r} between them"
    log(f"text     {name}: {size}, {corpus.occurring:,} distinct, {files} ({', '.join(parts)})")
    if vocabulary.labels:
        listed = ", ".join(map(name_label, vocabulary.labels[:5])) + " …" * (len(vocabulary.labels) > 5)
        log(f"         {amount(len(vocabulary.labels), 'label')}: {listed}")
    if vocabulary.folded:
        log(f"         one unknown symbol for {amount(len(vocabulary.folded), 'rare character')}")
    elif vocabulary.unit == "character" and len(vocabulary) >= MANY_CHARACTERS:
        rare, least = _count_rare(corpus.counts)
        if 2 * rare >= len(vocabulary):
            log(
                f"note: {rare:,} of these characters make up a thousandth of the text; "
                f"--min-count {least} would fold them into one, and training would be faster"
            )
    _log_reading(corpus)
    _log_part_warnings(corpus)


def describe_left_out(report: ReadingReport, hidden_entries: int) -> Iterator[str]:
    """Say what was not read, or not as the text that it shows.

    Args:
        report: what reading met.
        hidden_entries: entries of folders that were not read.
    """
    if report.passed_over:
        names = ", ".join(report.passed_over[:3]) + " …" * (len(report.passed_over) > 3)
        yield f"{amount(len(report.passed_over), 'file')} passed over as no text: {names}"
    if report.excluded:
        yield f"{amount(report.excluded, 'file')} left out by --include and --exclude"
    if report.html:
        yield f"{amount(report.html, 'HTML file')} read with all tags; --documents learns the text in them"
    if report.plain_tables:
        yield f"{amount(report.plain_tables, 'table')} read as plain text; --records learns the texts in its rows"
    if hidden_entries:
        entries = amount(hidden_entries, "entry", "entries")
        yield f"{entries} not read: hidden files and folders, links to folders, files of runs"


def _log_reading(corpus: Corpus) -> None:
    """Log what was not read as it is, or might better not be."""
    report = corpus.report
    if report.replaced:
        log(f"warning: {amount(report.replaced, 'byte')} did not fit the encoding and became U+FFFD")
    for line in describe_left_out(report, corpus.hidden_entries):
        log(f"note: {line}")
    if report.carriage_returns and not corpus.config.has_lf and not corpus.vocabulary.raw:
        returns = amount(report.carriage_returns, "carriage return")
        log(f"note: {returns} among the characters to learn; with --newline lf every line ends with LF")


def _log_part_warnings(corpus: Corpus) -> None:
    """Warn of what makes a validation loss mean something else than it seems to, or of there being none."""
    for warning in warn_of_parts(corpus):
        log(f"warning: {write_settings(warning)}")


def _count_rare(counts: NDArray[np.int64]) -> tuple[int, int]:
    """Count the rarest characters that make up at most a thousandth of a text, and how often the next one occurs."""
    ordered = np.sort(counts)
    least = ordered[np.searchsorted(np.cumsum(ordered), counts.sum() / 1000, side="right")]
    return int((counts < least).sum()), int(least)


def log_small_text(corpus: Corpus) -> None:
    """Warn of a text that is too small to teach much.

    Args:
        corpus: the text.
    """
    for warning in warn_of_size(corpus):
        log(f"warning: {warning}")


def log_sizes(corpus: Corpus, sizes: Sizes) -> None:
    """Log what was chosen and why, and how large the model is.

    Args:
        corpus: what it learns.
        sizes: of model and training.
    """
    for number, reason in enumerate(sizes.reasons):
        log(f"{'' if number else 'chosen':9}{reason}")
    model, size = sizes.model, len(corpus.vocabulary)
    memory = estimate_memory(model, size, sizes.training)
    log(
        f"model    {model.cell.upper()} {model.num_layers} x {model.hidden_size}"
        f"{', both ways' if model.bidirectional else ''}: "
        f"{parameter_count(model, size):,} parameters, about {memory / 1e6:,.0f} MB to train"
    )


def log_resumption(trainer: "Trainer", state: RunState, moved: Mapping[str, Sequence[str]]) -> None:
    """Log where a run goes on, and what has changed; with a new budget also what stays that fitted the old one.

    Args:
        trainer: the run.
        state: as it was saved.
        moved: new sources by role, where there are any.
    """
    log(f"resume   {trainer.out} at step {trainer.counters.step:,}, after {trainer.counters.seconds:,.0f} s")
    for role, names in moved.items():
        if names:
            log(f"text     {role}: the same as before, now in {', '.join(names)}")
    before, settings = state.settings["training"], asdict(trainer.config)
    changed = {name for name in settings if before.get(name) != settings[name]}
    for name in settings:
        if name in changed:
            is_budget = name in BUDGETS
            none = "no limit" if is_budget else "none"
            old, new = (none if value is None else value for value in (before.get(name), settings[name]))
            log(f"changed  {name}: {old} before, {new} {'in all' if is_budget else 'from here on'}")
    if changed & BUDGETS:
        settings |= asdict(trainer.model_config)
        kept = ", ".join(f"{name} {settings[name]:g}" for name in CHOSEN_SETTINGS if name not in changed)
        log(f"kept     {kept}: chosen or given for the first budget; only a new run chooses anew")
    machine, now = state.settings["machine"], trainer.checkpointer.machine(trainer.device)
    others = [f"{name} {machine.get(name)} before, {now[name]} now" for name in now if machine.get(name) != now[name]]
    if others:
        goes_on = "the run goes on with the same minibatches, but not byte for byte as it would have"
        log(f"warning: {'; '.join(others)}: {goes_on}")


def name_label(label: str) -> str:
    """Write the name of a label, which may be any text, for a line of text.

    Args:
        label: its name; "" for records without a label.
    """
    if not label:
        return "no label"
    return label if re.fullmatch(r"[\w.-]{1,40}", label) else truncate(label, 40, repr)


def list_characters(characters: str, limit: int = 5) -> str:
    """Name the first of some characters, quoted, for a line of text.

    Args:
        characters: all of them.
        limit: how many to name.
    """
    return ", ".join(f"{character!r}" for character in characters[:limit]) + (" …" if len(characters) > limit else "")


def log_initialization(trainer: "Trainer", path: Path | None) -> None:
    """Log what the model of a run takes over from another.

    Args:
        trainer: the run.
        path: of the other model.
    """
    new = trainer.checkpointer.origin["new"]
    added = f"; {len(new):,} new: {list_characters(new, 10)}" if new else ", none new"
    known = amount(trainer.checkpointer.origin["characters"], trainer.corpus.vocabulary.unit)
    log(f"start    from {path}: {known} known{added}")


def describe_loss(summary: dict[str, Any], name: str) -> str:
    """Describe the loss of a part in nats and bits per character, and in bits per byte where ids are bytes.

    Args:
        summary: of a training, as a model file has it.
        name: of the part, "valid" or "test".
    """
    loss = summary[f"{name}_loss"]
    description = f"{loss:.4f} nats, {loss / math.log(2):.4f} bits per character"
    characters, size = (summary.get(f"{name}_{key}") for key in ("characters", "bytes"))
    if isinstance(size, int) and isinstance(characters, int) and 0 < characters <= size <= 2**53:
        description += f", {loss * characters / size / math.log(2):.4f} bits per byte"
    return description


def log_result(trainer: "Trainer", time_spent: str = "") -> None:
    """Log the losses of a run that is done, and how to use its model.

    Args:
        trainer: the run.
        time_spent: what its time went on, where that is worth a line.
    """
    out = quote_path(trainer.out)
    summary = trainer.summary
    unit = trainer.corpus.vocabulary.unit  # cloze losses count ids, not characters
    for name, word in (("valid", "validation"), ("test", "test")):
        if f"{name}_loss" in summary:
            share = "the whole" if summary[f"{name}_whole"] else "an evenly spaced part (time was short) of the"
            counts = amount(summary[f"{name}_characters"], "character")
            if f"{name}_bytes" in summary:
                counts += f", {amount(summary[f'{name}_bytes'], 'byte')}"
            log(f"{name:8} {describe_loss(summary, name)}, on {share} {word} text: {counts}")
            if f"{name}_loss_backward" in summary:
                forward, backward = summary[f"{name}_loss_forward"], summary[f"{name}_loss_backward"]
                line = f"         that is the mean of {forward:.4f} forward and {backward:.4f} backward"
                if f"{name}_cloze" in summary:
                    line += f"; cloze on random windows {summary[f'{name}_cloze']:.4f} nats per {unit}"
                log(line)
            if f"{name}_loss_network" in summary:
                loss = summary[f"{name}_loss_network"]
                log(f"         without counts: {loss:.4f} nats, {loss / math.log(2):.4f} bits")
    if trainer.validator.out_of_patience:
        log(f"stopped  early: {amount(trainer.config.patience, 'validation')} without a new best")
    if time_spent:
        log(f"time     {time_spent}")
    if _cannot_write(trainer):
        log(
            f"note: after {amount(summary['step'], 'step')} the model cannot write yet: it knows "
            "little more than how often each character occurs; give it more time, or a smaller model"
        )
    log(f"saved    {trainer.out}/model.safetensors (step {summary['step']:,}); now: chargen sample {out}")


def _cannot_write(trainer: "Trainer") -> bool:
    """Tell whether a run was so short that its model predicts little better than counts of characters do."""
    steps, ids, summary = trainer.counters.applied, trainer.corpus.valid, trainer.summary
    if steps >= FEW_STEPS or "valid_loss" not in summary:
        return steps < FEW_STEPS / 10
    shares = trainer.corpus.counts[trainer.corpus.counts > 0] / trainer.corpus.counts.sum()
    entropy = -float(np.sum(shares * np.log(shares)))
    return bool(summary["valid_loss"] * trainer.corpus.vocabulary.count_characters(ids) > BABBLE * entropy * len(ids))
