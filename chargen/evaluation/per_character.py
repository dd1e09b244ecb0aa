"""The score of every character of a text: from the characters before it, from those behind it, and from both."""

import html
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chargen.data.reading import clean
from chargen.data.vocabulary import Vocabulary
from chargen.decoding.choose import log_softmax
from chargen.errors import NOT_FINITE_MESSAGE, ChargenError, DataError, SettingError, amount
from chargen.model.config import require_bidirectional
from chargen.settings import check_int, check_text
from chargen.storage.model_file import ModelFile, as_model_file, build_model

if TYPE_CHECKING:
    from chargen.evaluation.both_ways import Window
    from chargen.model.language_model import CharModel

JUDGES = ("cloze", "forward", "backward")
MAX_SHOWN = 10_000
"""Characters that a notebook shows."""


@dataclass(frozen=True, slots=True)
class CharacterScore:
    """A model's score of a character. A log-probability is None where the model cannot give it.

    Args:
        character: the character.
        forward: its log-probability in nats from the characters before it.
        backward: its log-probability in nats from the characters behind it.
        cloze: its log-probability in nats from all others; in bytes, for characters of a single byte only, since the
            bytes of a longer one would have seen each other.
        unlikely: whether the judge gives it less than the threshold, or it was never seen in training.
        alternatives: for an unlikely character, likelier ones with the judge's probabilities, the likeliest first.
    """

    character: str
    forward: float | None
    backward: float | None
    cloze: float | None
    unlikely: bool
    alternatives: tuple[tuple[str, float], ...]

    def probability(self, by: str) -> float | None:
        """The probability of the character.

        Args:
            by: the judge: "cloze", "forward" or "backward".

        Returns:
            The judge's probability; without a cloze score the larger one of forward and backward; None for an unknown
            character.
        """
        value: float | None = getattr(self, by)
        if value is None and self.forward is not None and self.backward is not None:
            value = max(self.forward, self.backward)
        return None if value is None else math.exp(value)


class Scores(list[CharacterScore]):
    """A model's scores of the characters of a text, in its order. A notebook shows them as a coloured text.

    Args:
        scores: a score for each character.
        by: the judge: "cloze", "forward" or "backward".
        threshold: the probability below which a character is unlikely.
    """

    def __init__(self, scores: Iterable[CharacterScore] = (), by: str = "forward", threshold: float = 0.01) -> None:
        super().__init__(scores)
        self.by = by
        self.threshold = threshold

    def __repr__(self) -> str:
        text = "".join(score.character for score in self[:40])
        words = f"{text!r}{'…' * (len(self) > 40)}: {self._summary()}"
        for name in ("forward", "backward"):
            values = [value for score in self if (value := getattr(score, name)) is not None]
            words += f", {name} {-math.fsum(values) / len(values):.4f} nats per character" if values else ""
        return f"Scores({words})"

    def _repr_html_(self) -> str:
        """The text as HTML, with unlikely characters in colour and their probabilities as tooltips."""
        text = "".join(self._to_html(score) for score in self[:MAX_SHOWN])
        rest = f"; {len(self) - MAX_SHOWN:,} more are not shown" if len(self) > MAX_SHOWN else ""
        return f'<pre style="white-space: pre-wrap">{text}</pre><div>{self._summary()}{rest}</div>'

    def _summary(self) -> str:
        unlikely = sum(score.unlikely for score in self)
        return f"{unlikely:,} of {amount(len(self), 'character')} unlikely by {self.by}, below {self.threshold:g}"

    def _to_html(self, score: CharacterScore) -> str:
        character = score.character
        if not score.unlikely:
            return _escape_html(character)
        probability = score.probability(self.by)
        rather = ", ".join(f"{quote(other)} {share:.2g}" for other, share in score.alternatives)
        title = "unknown to the model" if probability is None else f"{probability:.2g}"
        title += f"; rather {rather}" if rather else ""
        color = "khaki" if probability is not None and probability > self.threshold / 10 else "lightsalmon"
        text = "\u2423" + character.strip(" ") if character in " \n" else _escape_html(character)
        return f'<span style="color: black; background: {color}" title="{html.escape(title)}">{text}</span>'


def _escape_html(character: str) -> str:
    """Escape markup, and characters that hide or reorder text, but not joiners, which are parts of some words."""
    if character.isprintable() or character in "\n\t\u200c\u200d":
        return html.escape(character)
    return quote(character)[1:-1]


def escape_byte(character: str) -> str:
    """Write a byte that is no character as `\\xff`, and leave any other character as it is.

    Args:
        character: a character, or a byte as the error handler "surrogateescape" decodes it.
    """
    byte = ord(character) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte < 0x100 else character


def quote(character: str) -> str:
    """Put a character in quotes, escaped where it cannot be seen.

    Args:
        character: a character, or a byte as the error handler "surrogateescape" decodes it.
    """
    escaped = escape_byte(character)
    return repr(character) if escaped == character else f"'{escaped}'"


def score(
    model: "ModelFile | CharModel | str | os.PathLike[str]",
    text: str,
    *,
    by: str | None = None,
    threshold: float = 0.01,
    num_alternatives: int = 3,
    unknown: str | None = None,
    device: str = "cpu",
    vocabulary: Vocabulary | None = None,
    counts: NDArray[np.int64] | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Scores:
    """Score every character of a text, the first and the last included.

    The text stands between two begin texts of the model; where the model has none, a character with an unknown context
    is scored by the counts of the training text.

    Forward log-probabilities add up to that of the text, and so do backward ones. The sum of cloze log-probabilities is
    a pseudo-likelihood (Besag, "Statistical analysis of non-lattice data", 1975): each character is predicted from all
    others, so it must not be compared with the two.

    In bytes, a character's log-probability is the sum over its bytes, and alternatives are given for single bytes.

    Args:
        model: the path of a model file or a run folder, what `read_model` returned, or a CharModel.
        text: cleaned as the text that the model learned; the scores are those of the cleaned text.
        by: the judge: "cloze", "forward" or "backward"; by default "cloze" where the model has it, else "forward".
            A character without a cloze score is unlikely where both forward and backward find it unlikely.
        threshold: a probability; characters below it are unlikely.
        num_alternatives: the most alternatives that an unlikely character gets.
        unknown: what to do with characters that the model has never seen: "error", "skip" (they are taken out of every
            context) or "replace" by the unknown symbol; by default "replace" where there is one, else "skip". All are
            flagged as unlikely.
        device: "cpu", "cuda", "mps" or "auto".
        vocabulary: the vocabulary of a CharModel, which has none of its own.
        counts: (V,), how often each id of a CharModel occurs; without them all are taken to be equally frequent.
        progress: called after every window with the position reached.

    Raises:
        SettingError: an argument is out of range, or a model that reads forward only is to judge by more.
        DataError: the text has unknown characters and `unknown` is "error", or it has a lone surrogate.
        ModelFileError: there is no model file, or it is damaged or contradicts itself.
        ChargenError: predictions are not finite.
    """
    model = as_model_file(model, vocabulary, counts)
    check_text("text", text)
    num_alternatives = check_int("num_alternatives", num_alternatives, 0)
    by = by or ("cloze" if model.config.bidirectional else "forward")
    if by not in JUDGES:
        raise SettingError(f"by is {by!r}: it must be one of {', '.join(JUDGES)}", "by")
    if not 0 <= threshold <= 1:
        raise SettingError(f"threshold is {threshold!r}: it must be 0 to 1", "threshold")
    if by != "forward":
        require_bidirectional(model.config, f"{by} scoring")
    vocabulary, text = model.vocabulary, clean(text, model.reading)
    unknown = unknown or ("skip" if vocabulary.unknown_id is None else "replace")
    ids = vocabulary.encode(text, unknown).astype(np.int64)
    positions = _positions_of_ids(model, text, unknown)
    if len(positions) != len(ids):
        raise DataError("the text holds a lone surrogate, which is not a character")
    if len(ids):  # the begin text on either side belongs to no character
        begin = model.vocabulary.encode(model.begin).astype(np.int64)
        ids = np.concatenate([begin, ids, begin])
        positions = np.pad(positions, len(begin), constant_values=len(text))
    num_ids = np.bincount(positions, minlength=len(text) + 1)
    limit = math.log(threshold) if threshold else -math.inf
    unseen = ~vocabulary.knows(text)
    extra = np.append(vocabulary.extra_nats(text), 0.0)
    names = JUDGES if model.config.bidirectional else ("forward",)
    sums = {name: np.zeros(len(text) + 1) for name in names}
    alternatives: dict[int, tuple[tuple[str, float], ...]] = {}
    for window in _read_windows(model, ids, device):
        window_positions = positions[window.start : window.start + len(window.forward)]
        window_ids = ids[window.start : window.start + len(window.forward)]
        for name in names:
            logits = getattr(window, name)
            if not np.isfinite(logits).all():
                raise ChargenError(NOT_FINITE_MESSAGE)
            log_probs = log_softmax(logits)
            values = log_probs[np.arange(len(window_ids)), window_ids] - extra[window_positions]
            np.add.at(sums[name], window_positions, values)
            if name == by:
                for row in np.flatnonzero((values < limit) & (num_ids[window_positions] == 1)):
                    arguments = vocabulary, log_probs[row], int(window_ids[row]), values[row], num_alternatives
                    alternatives[int(window_positions[row])] = _likelier_characters(*arguments)
        progress(min(int(window_positions[-1]) + 1, len(text)))
    scores = Scores(by=by, threshold=threshold)
    for at, character in enumerate(text):
        known = num_ids[at] > 0
        judges = [by]
        totals = {name: float(sums[name][at]) if known and name in sums else None for name in JUDGES}
        if num_ids[at] > 1:
            totals["cloze"] = None
            judges = ["forward", "backward"] if by == "cloze" else judges
        unlikely = not known or bool(unseen[at]) or all(sums[name][at] < limit for name in judges)
        scores.append(CharacterScore(character, **totals, unlikely=unlikely, alternatives=alternatives.get(at, ())))
    return scores


def _read_windows(model: ModelFile, ids: NDArray[np.int64], device: str) -> Iterable["Window"]:
    from chargen.evaluation.both_ways import read_both_ways
    from chargen.model.device import pick_device

    return read_both_ways(build_model(model, str(pick_device(device))), ids, model.first_logits) if len(ids) else ()


def _positions_of_ids(model: ModelFile, text: str, unknown: str) -> NDArray[np.int64]:
    """For every id, the position in the text of the character that it belongs to."""
    if model.vocabulary.byte_mode:
        return np.repeat(np.arange(len(text)), [len(character.encode("utf-8", "ignore")) for character in text])
    if unknown != "skip":
        return np.arange(len(text))
    return np.flatnonzero(model.vocabulary.knows(text))


def _likelier_characters(
    vocabulary: Vocabulary, log_probs: NDArray[np.float64], own_id: int, value: float, num: int
) -> tuple[tuple[str, float], ...]:
    """At most `num` characters that are likelier than `value`, a log-probability, and their probabilities."""
    likelier: list[tuple[str, float]] = []
    for character_id in np.argsort(-log_probs, kind="stable"):
        if log_probs[character_id] <= value or len(likelier) == num:
            break
        if vocabulary.byte_mode:
            if character_id < 0x80:
                likelier.append((chr(character_id), math.exp(log_probs[character_id])))
        elif character_id not in (own_id, vocabulary.unknown_id):
            likelier.append((vocabulary.characters[character_id], math.exp(log_probs[character_id])))
    return tuple(likelier)
