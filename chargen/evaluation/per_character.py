"""Judge a text character by character, from before, from behind and from both sides."""

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
from chargen.model.config import need_two_ways
from chargen.settings import check_int, check_text
from chargen.storage.model_file import ModelFile, as_model_file, build_model

if TYPE_CHECKING:
    from chargen.evaluation.both_ways import Window
    from chargen.model.language_model import CharModel

JUDGES = ("cloze", "forward", "backward")


SHOWN = 10_000
"""Characters that a notebook shows."""


@dataclass(frozen=True, slots=True)
class CharacterScore:
    """What a model makes of one character.

    Args:
        character: it.
        forward, backward, cloze: its log-probability in nats from the characters before it, from those behind it, and
            from all others; None where the model does not know the character, or does not read that way. In bytes,
            cloze speaks of single bytes: it is None for longer characters, whose bytes would have seen each other.
        unlikely: whether the judge gives it less than the threshold, or it was never seen in training.
        alternatives: what the judge finds likelier, with probabilities, the likeliest first; for unlikely ones only.
    """

    character: str
    forward: float | None
    backward: float | None
    cloze: float | None
    unlikely: bool
    alternatives: tuple[tuple[str, float], ...]

    def probability(self, by: str) -> float | None:
        """What a judge gives it; without a cloze score the larger of the two others; None for an unknown character."""
        value: float | None = getattr(self, by)
        if value is None and self.forward is not None and self.backward is not None:
            value = max(self.forward, self.backward)
        return None if value is None else math.exp(value)


class Scores(list[CharacterScore]):
    """What a model makes of each character of a text, in its order. A notebook shows the text with colours.

    Args:
        scores: one for each character.
        by: the judge: "cloze", "forward" or "backward".
        threshold: the probability below which a character is unlikely.
    """

    def __init__(self, scores: Iterable[CharacterScore] = (), by: str = "forward", threshold: float = 0.01) -> None:
        super().__init__(scores)
        self.by = by
        self.threshold = threshold

    def __repr__(self) -> str:
        text = "".join(one.character for one in self[:40])
        told = f"{text!r}{'…' * (len(self) > 40)}: {self._summary()}"
        for name in ("forward", "backward"):
            values = [value for one in self if (value := getattr(one, name)) is not None]
            told += f", {name} {-math.fsum(values) / len(values):.4f} nats per character" if values else ""
        return f"Scores({told})"

    def _repr_html_(self) -> str:
        """The text as HTML: unlikely characters in colour, their probabilities where the mouse points."""
        shown = "".join(self._html(one) for one in self[:SHOWN])
        more = f"; {len(self) - SHOWN:,} more are not shown" if len(self) > SHOWN else ""
        return f'<pre style="white-space: pre-wrap">{shown}</pre><div>{self._summary()}{more}</div>'

    def _summary(self) -> str:
        unlikely = sum(one.unlikely for one in self)
        return f"{unlikely:,} of {amount(len(self), 'character')} unlikely by {self.by}, below {self.threshold:g}"

    def _html(self, one: CharacterScore) -> str:
        character = one.character
        if not one.unlikely:
            return _escaped(character)
        probability = one.probability(self.by)
        rather = ", ".join(f"{quoted(other)} {share:.2g}" for other, share in one.alternatives)
        title = "unknown to the model" if probability is None else f"{probability:.2g}"
        title += f"; rather {rather}" if rather else ""
        color = "khaki" if probability is not None and probability > self.threshold / 10 else "lightsalmon"
        shown = "\u2423" + character.strip(" ") if character in " \n" else _escaped(character)
        return f'<span style="color: black; background: {color}" title="{html.escape(title)}">{shown}</span>'


def _escaped(character: str) -> str:
    """A character that is no markup, and hides or reorders nothing; joiners are parts of words in several scripts."""
    if character.isprintable() or character in "\n\t\u200c\u200d":
        return html.escape(character)
    return quoted(character)[1:-1]


def escaped_byte(character: str) -> str:
    """A byte that is no character, as surrogateescape writes it, as `\\xff`; any other character as it is."""
    byte = ord(character) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte < 0x100 else character


def quoted(character: str) -> str:
    """A character in quotes, as an escape where it cannot be seen."""
    escaped = escaped_byte(character)
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
    """Score every character of a text, the first and the last included: they stand between the model's begin texts, or,
    where it has none, one that nothing is known about is judged by the training text's character counts.

    A sum of forward or of backward log-probabilities is that of the text. A sum of cloze log-probabilities is a
    pseudo-likelihood (Besag, 1975): each has seen all other characters, and it must not be compared with the two.

    In bytes, a character's log-probability is the sum over its bytes, and alternatives are given for single bytes.

    Args:
        model: the path of a model file or a run folder, what `read_model` returned, or a CharModel.
        text: cleaned as the text that the model learned, so that the scores are those of the cleaned text.
        by: which of the three judges: "cloze", "forward" or "backward"; by default "cloze" where the model has it, else
            "forward". Where a character has no cloze score, forward and backward together: it is unlikely where both
            find it so.
        threshold: a probability; characters below it are unlikely.
        num_alternatives: at most so many of them.
        unknown: what to do with characters that the model has never seen: "error", "skip" (they are taken out of every
            context) or "replace" by the unknown symbol; by default "replace" where there is one, else "skip". All are
            flagged as unlikely.
        device: "cpu", "cuda", "mps" or "auto".
        vocabulary, counts: of a CharModel, which has none; all characters are as frequent where counts are left out.
        progress: called after every window, with the position reached.

    Raises SettingError where a one-way model is to judge by more than "forward", DataError for unknown characters.
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
        need_two_ways(model.config, f"{by} scoring")
    vocabulary, text = model.vocabulary, clean(text, model.reading)
    unknown = unknown or ("skip" if vocabulary.unknown_id is None else "replace")
    ids = vocabulary.encode(text, unknown).astype(np.int64)
    owners = _owners(model, text, unknown)
    if len(owners) != len(ids):
        raise DataError("the text holds a lone surrogate, which is not a character")
    if len(ids):  # the begin text on either side belongs to no character
        begin = model.vocabulary.encode(model.begin).astype(np.int64)
        ids = np.concatenate([begin, ids, begin])
        owners = np.pad(owners, len(begin), constant_values=len(text))
    size = np.bincount(owners, minlength=len(text) + 1)
    limit = math.log(threshold) if threshold else -math.inf
    unseen = ~vocabulary.knows(text)
    extra = np.append(vocabulary.extra_nats(text), 0.0)
    judges = JUDGES if model.config.bidirectional else ("forward",)
    sums = {name: np.zeros(len(text) + 1) for name in judges}
    alternatives: dict[int, tuple[tuple[str, float], ...]] = {}
    for window in _windows(model, ids, device):
        here = owners[window.start : window.start + len(window.forward)]
        own = ids[window.start : window.start + len(window.forward)]
        for name in judges:
            logits = getattr(window, name)
            if not np.isfinite(logits).all():
                raise ChargenError(NOT_FINITE_MESSAGE)
            log_probs = log_softmax(logits)
            found = log_probs[np.arange(len(own)), own] - extra[here]
            np.add.at(sums[name], here, found)
            if name == by:
                for row in np.flatnonzero((found < limit) & (size[here] == 1)):
                    likelier = _likelier(vocabulary, log_probs[row], int(own[row]), found[row], num_alternatives)
                    alternatives[int(here[row])] = likelier
        progress(min(int(here[-1]) + 1, len(text)))
    scores = Scores(by=by, threshold=threshold)
    for place, character in enumerate(text):
        known = size[place] > 0
        values = {name: float(sums[name][place]) if known and name in sums else None for name in JUDGES}
        judged = [by]
        if size[place] > 1:
            values["cloze"] = None
            judged = ["forward", "backward"] if by == "cloze" else judged
        unlikely = not known or bool(unseen[place]) or all(sums[name][place] < limit for name in judged)
        scores.append(CharacterScore(character, **values, unlikely=unlikely, alternatives=alternatives.get(place, ())))
    return scores


def _windows(model: ModelFile, ids: NDArray[np.int64], device: str) -> Iterable["Window"]:
    from chargen.evaluation.both_ways import read_both_ways
    from chargen.model.device import pick_device

    first = np.log(np.maximum(model.counts, 1e-9))
    return read_both_ways(build_model(model, str(pick_device(device))), ids, first) if len(ids) else ()


def _owners(model: ModelFile, text: str, unknown: str) -> NDArray[np.int64]:
    """For every id, the position of the character it belongs to."""
    if model.vocabulary.byte_mode:
        return np.repeat(np.arange(len(text)), [len(one.encode("utf-8", "ignore")) for one in text])
    if unknown != "skip":
        return np.arange(len(text))
    return np.flatnonzero(model.vocabulary.knows(text))


def _likelier(
    vocabulary: Vocabulary, log_probs: NDArray[np.float64], own: int, value: float, num: int
) -> tuple[tuple[str, float], ...]:
    """The characters that are likelier than the one in the text, whose log-probability is `value`."""
    found: list[tuple[str, float]] = []
    for one in np.argsort(-log_probs, kind="stable"):
        if log_probs[one] <= value or len(found) == num:
            break
        if vocabulary.byte_mode:
            if one < 0x80:
                found.append((chr(one), math.exp(log_probs[one])))
        elif one not in (own, vocabulary.unknown_id):
            found.append((vocabulary.characters[one], math.exp(log_probs[one])))
    return tuple(found)
