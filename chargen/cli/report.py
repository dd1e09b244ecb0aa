"""What `chargen train` tells of the text, the model and the result, on standard error."""

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chargen.cli.terminal import as_argument, escape_control, log
from chargen.data.corpus import Corpus
from chargen.data.vocabulary import Vocabulary
from chargen.errors import amount
from chargen.model.config import ModelConfig, parameter_count
from chargen.training.autosize import MANY_CHARACTERS
from chargen.training.config import TrainConfig
from chargen.training.memory import estimate_memory

if TYPE_CHECKING:
    from chargen.training.trainer import Trainer

FEW_STEPS = 1_000
"""From then on a model is as good as its text and size let it be, whatever its loss."""
BABBLE = 0.75
"""Losses above this share of the entropy of single characters belong to models that do not write words yet."""
REPEATED, REPEATED_ITSELF = 0.1, 0.3
"""Shares of a part that are worth a warning: texts of their own accord reach 2 %, some logs more."""


def say(text: str) -> None:
    """Tell a line in which nothing can steer the terminal."""
    log(escape_control(text, newlines=True))


def tell_corpus(corpus: Corpus, name: str) -> None:
    """How large the text is, how it is cut, and what reading met."""
    vocabulary, report = corpus.vocabulary, corpus.report
    total = len(corpus.train) + len(corpus.valid) + len(corpus.test)
    parts = [f"train {len(corpus.train):,}", f"valid {len(corpus.valid):,}", f"test {len(corpus.test):,}"]
    parts = parts if len(corpus.test) else parts[:2]
    files = amount(report.files, "file")
    if report.joined and corpus.config.between is None:
        files += f", {amount(report.joined, 'line end')} added between them"
    elif report.joined:
        files += f", {corpus.config.between!r} between them"
    size = amount(total, vocabulary.unit)
    say(f"text     {name}: {size}, {corpus.occurring:,} distinct, {files} ({', '.join(parts)})")
    if vocabulary.folded:
        say(f"         one unknown symbol for {amount(len(vocabulary.folded), 'rare character')}")
    elif vocabulary.unit == "character" and len(vocabulary) >= MANY_CHARACTERS:
        rare, least = _rare(corpus.counts)
        if 2 * rare >= len(vocabulary):
            say(
                f"note: {rare:,} of these characters make up a thousandth of the text; "
                f"--min-count {least} would fold them into one, and training would be faster"
            )
    if report.replaced:
        say(f"warning: {amount(report.replaced, 'byte')} did not fit the encoding and became U+FFFD")
    if report.passed_over:
        files = amount(len(report.passed_over), "file")
        named = ", ".join(report.passed_over[:3]) + " …" * (len(report.passed_over) > 3)
        say(f"note: {files} passed over as no text: {named}")
    if corpus.hidden_entries:
        entries = amount(corpus.hidden_entries, "entry", "entries")
        say(f"note: {entries} not read: hidden files and folders, links to folders, files of runs")
    if report.carriage_returns and corpus.config.newline == "keep" and not vocabulary.raw:
        returns = amount(report.carriage_returns, "carriage return")
        say(f"note: {returns} among the characters to learn; with --newline lf every line ends with LF")
    if len(corpus.valid) < 2:
        say("warning: too little text to validate on: the last weights are kept, not the best")
    _warn_of_parts(corpus)


def _warn_of_parts(corpus: Corpus) -> None:
    """What makes a validation loss other than it looks."""
    for role, word in (("valid", "validation"), ("test", "test")):
        if (share := corpus.repeated[role]) >= REPEATED:
            before = "in an earlier part" if role == "test" else "in the training text"
            say(
                f"warning: {share:.0%} of the {word} text stands {before} too: its loss tells what was learned by heart"
            )
    if (share := corpus.repeated["train"]) >= REPEATED_ITSELF:
        say(f"warning: {share:.0%} of the training text stands there twice: is a file given twice?")
    if corpus.sorted_lines:
        say(
            "warning: the lines are sorted, so the validation part, at the end, holds other words than the training "
            "part, and its loss is too high: shuffle them first (shuf)"
        )


def _rare(counts: NDArray[np.int64]) -> tuple[int, int]:
    """How many of the rarest characters make up at most a thousandth of a text, and how often the next one occurs."""
    ordered = np.sort(counts)
    least = ordered[np.searchsorted(np.cumsum(ordered), counts.sum() / 1000, side="right")]
    return int((counts < least).sum()), int(least)


def tell_model(corpus: Corpus, model_config: ModelConfig, config: TrainConfig) -> None:
    """How large the model is."""
    size = len(corpus.vocabulary)
    memory = estimate_memory(model_config, size, config)
    say(
        f"model    {model_config.cell.upper()} {model_config.num_layers} x {model_config.hidden_size}"
        f"{', both ways' if model_config.bidirectional else ''}: "
        f"{parameter_count(model_config, size):,} parameters, about {memory / 1e6:,.0f} MB to train"
    )


def some_of(characters: str, most: int = 5) -> str:
    """The first of some characters, as they are written in a line."""
    return ", ".join(f"{character!r}" for character in characters[:most]) + (" …" if len(characters) > most else "")


def unknown_characters(vocabulary: Vocabulary, text: str) -> str:
    """The characters of a text that a vocabulary has never seen, each once, in order; of bytes only half characters."""
    return "".join(sorted(set(itertools.compress(text, ~vocabulary.knows(text)))))


def tell_origin(trainer: "Trainer", path: Path | None) -> None:
    """What a model takes over from another."""
    new = trainer.checkpointer.origin["new"]
    added = f"; {len(new):,} new: {some_of(new, 10)}" if new else ", none new"
    known = amount(trainer.checkpointer.origin["characters"], trainer.corpus.vocabulary.unit)
    say(f"start    from {path}: {known} known{added}")


def in_bits(summary: dict[str, Any], name: str) -> str:
    """The loss of the "valid" or "test" part in nats and bits per character, and per byte where ids are bytes.

    Args:
        summary: of a training, as a model file has it.
    """
    loss = summary[f"{name}_loss"]
    words = f"{loss:.4f} nats, {loss / math.log(2):.4f} bits per character"
    characters, size = (summary.get(f"{name}_{unit}") for unit in ("characters", "bytes"))
    if isinstance(size, int) and isinstance(characters, int) and 0 < characters <= size <= 2**53:
        words += f", {loss * characters / size / math.log(2):.4f} bits per byte"
    return words


def tell_result(trainer: "Trainer", spent: str = "") -> None:
    """The losses of a run that is done, and what can be done with it.

    Args:
        spent: what its time went on, where that is worth a line.
    """
    out = as_argument(trainer.out)
    summary = trainer.summary
    unit = trainer.corpus.vocabulary.unit  # of which cloze speaks
    for name, word in (("valid", "validation"), ("test", "test")):
        if f"{name}_loss" in summary:
            whole = "the whole" if summary[f"{name}_whole"] else "an evenly spaced part (time was short) of the"
            counts = amount(summary[f"{name}_characters"], "character")
            if f"{name}_bytes" in summary:
                counts += f", {amount(summary[f'{name}_bytes'], 'byte')}"
            say(f"{name:8} {in_bits(summary, name)}, on {whole} {word} text: {counts}")
            if f"{name}_loss_backward" in summary:
                forward, backward = summary[f"{name}_loss_forward"], summary[f"{name}_loss_backward"]
                say(
                    f"         that is the mean of {forward:.4f} forward and {backward:.4f} backward"
                    + (
                        f"; cloze on random windows {summary[f'{name}_cloze']:.4f} nats per {unit}"
                        if f"{name}_cloze" in summary
                        else ""
                    )
                )
    if trainer.validator.out_of_patience:
        say(f"stopped  early: {amount(trainer.config.patience, 'validation')} without a new best")
    if spent:
        say(f"time     {spent}")
    if _cannot_write(trainer):
        say(
            f"note: after {amount(summary['step'], 'step')} the model cannot write yet: it knows "
            "little more than how often each character occurs; give it more time, or a smaller model"
        )
    say(f"saved    {trainer.out}/model.safetensors (step {summary['step']:,}); now: chargen sample {out}")


def _cannot_write(trainer: "Trainer") -> bool:
    """Whether a run was so short that its model predicts little better than the mere counts of characters do."""
    steps, ids, summary = trainer.counters.applied, trainer.corpus.valid, trainer.summary
    if steps >= FEW_STEPS or "valid_loss" not in summary:
        return steps < FEW_STEPS / 10
    shares = trainer.corpus.counts[trainer.corpus.counts > 0] / trainer.corpus.counts.sum()
    entropy = -float(np.sum(shares * np.log(shares)))
    return bool(summary["valid_loss"] * trainer.corpus.vocabulary.count_characters(ids) > BABBLE * entropy * len(ids))
