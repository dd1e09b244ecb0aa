"""Judge a text character by character, from before, from behind and from both sides."""

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chargen.errors import NOT_FINITE, ChargenError, DataError, SettingError
from chargen.model.config import need_two_ways
from chargen.sampling.choose import log_softmax
from chargen.settings import whole
from chargen.storage.model_file import ModelFile, build_model, read_model
from chargen.text.reading import clean
from chargen.text.vocabulary import CODE_POINTS

if TYPE_CHECKING:
    from chargen.model.both_ways import Window

JUDGES = ("cloze", "forward", "backward")


@dataclass(frozen=True, slots=True)
class CharacterScore:
    """What a model makes of one character.

    Args:
        character: it.
        forward, backward, cloze: its log-probability in nats from the characters before it, from those behind it, and
            from all others; None where the model does not know the character, or does not read that way. In bytes,
            cloze speaks of single bytes: it is None for longer characters, whose bytes would have seen each other.
        unlikely: whether the judge gives it less than the threshold, or does not know it.
        alternatives: what the judge finds likelier, with probabilities, the likeliest first; for unlikely ones only.
    """

    character: str
    forward: float | None
    backward: float | None
    cloze: float | None
    unlikely: bool
    alternatives: tuple[tuple[str, float], ...]


def score(
    model: ModelFile | str | os.PathLike[str],
    text: str,
    *,
    by: str = "cloze",
    threshold: float = 0.01,
    num_alternatives: int = 3,
    unknown: str = "error",
    device: str = "cpu",
    progress: Callable[[int], object] = lambda done: None,
) -> list[CharacterScore]:
    """Score every character of a text, the first and the last included: they stand between the model's begin texts, or,
    where it has none, one that nothing is known about is judged by the training text's character counts.

    A sum of forward or of backward log-probabilities is that of the text. A sum of cloze log-probabilities is a
    pseudo-likelihood (Besag, 1975): each has seen all other characters, and it must not be compared with the two.

    In bytes, a character's log-probability is the sum over its bytes, and alternatives are given for single bytes.

    Args:
        model: what `read_model` returned, or the path of a model file or a run folder.
        text: cleaned as the text that the model learned, so that the scores are those of the cleaned text.
        by: which of the three judges: "cloze", "forward" or "backward". Where there is no cloze score, forward and
            backward together: a character is unlikely where both find it so.
        threshold: a probability; characters below it are unlikely.
        num_alternatives: at most so many of them.
        unknown: what to do with characters the model does not know: "error", "skip" (they are flagged and taken out of
            every context) or "replace" by the unknown symbol.
        device: "cpu", "cuda", "mps" or "auto".
        progress: called after every window, with the position reached.

    Raises SettingError where a one-way model is to judge by more than "forward", DataError for unknown characters.
    """
    model = model if isinstance(model, ModelFile) else read_model(model)
    num_alternatives = whole("num_alternatives", num_alternatives, 0)
    if by not in JUDGES:
        raise SettingError(f"by is {by!r}: it must be one of {', '.join(JUDGES)}", "by")
    if not 0 <= threshold <= 1:
        raise SettingError(f"threshold is {threshold!r}: it must be 0 to 1", "threshold")
    if by != "forward":
        need_two_ways(model.config, f"{by} scoring")
    text = clean(text, model.reading)
    ids = model.vocabulary.encode(text, unknown).astype(np.int64)
    owners = _owners(model, text, unknown)
    if len(owners) != len(ids):
        raise DataError("the text holds a lone surrogate, which is not a character")
    if len(ids):  # the begin text on either side belongs to no character
        begin = model.vocabulary.encode(model.begin).astype(np.int64)
        ids = np.concatenate([begin, ids, begin])
        owners = np.pad(owners, len(begin), constant_values=len(text))
    size = np.bincount(owners, minlength=len(text) + 1)
    limit = math.log(threshold) if threshold else -math.inf
    extra = np.array([*(_unknown_nats(model, character) for character in text), 0.0])
    judges = JUDGES if model.config.bidirectional else ("forward",)
    sums = {name: np.zeros(len(text) + 1) for name in judges}
    alternatives: dict[int, tuple[tuple[str, float], ...]] = {}
    for window in _windows(model, ids, device):
        here = owners[window.start : window.start + len(window.forward)]
        own = ids[window.start : window.start + len(window.forward)]
        for name in judges:
            logits = getattr(window, name)
            if not np.isfinite(logits).all():
                raise ChargenError(NOT_FINITE)
            log_probs = log_softmax(logits)
            found = log_probs[np.arange(len(own)), own] - extra[here]
            np.add.at(sums[name], here, found)
            if name == by:
                for row in np.flatnonzero((found < limit) & (size[here] == 1)):
                    alternatives[int(here[row])] = _likelier(model, log_probs[row], int(own[row]), num_alternatives)
        progress(min(int(here[-1]) + 1, len(text)))
    scores = []
    for place, character in enumerate(text):
        known = size[place] > 0
        values = {name: float(sums[name][place]) if known and name in sums else None for name in JUDGES}
        judged = [by]
        if size[place] > 1:
            values["cloze"] = None
            judged = ["forward", "backward"] if by == "cloze" else judged
        unlikely = not known or all(sums[name][place] < limit for name in judged)
        scores.append(CharacterScore(character, **values, unlikely=unlikely, alternatives=alternatives.get(place, ())))
    return scores


def _windows(model: ModelFile, ids: NDArray[np.int64], device: str) -> Iterable["Window"]:
    from chargen.model.both_ways import read_both_ways
    from chargen.model.device import pick_device

    first = np.log(np.maximum(model.counts, 1e-9))
    return read_both_ways(build_model(model, str(pick_device(device))), ids, first) if len(ids) else ()


def _owners(model: ModelFile, text: str, unknown: str) -> NDArray[np.int64]:
    """For every id, the position of the character it belongs to."""
    if model.vocabulary.byte_mode:
        return np.repeat(np.arange(len(text)), [len(one.encode("utf-8", "ignore")) for one in text])
    if unknown != "skip":
        return np.arange(len(text))
    known = set(model.vocabulary.characters) | set(model.vocabulary.folded)
    return np.array([place for place, character in enumerate(text) if character in known], np.int64)


def _unknown_nats(model: ModelFile, character: str) -> float:
    """What a character costs beside the unknown symbol that stands for it, as in `evaluate`."""
    vocabulary = model.vocabulary
    if vocabulary.byte_mode or vocabulary.unknown_id is None or character in vocabulary.characters:
        return 0.0
    if character in vocabulary.folded:
        return math.log(len(vocabulary.folded))
    return math.log(CODE_POINTS - len(vocabulary))


def _likelier(model: ModelFile, log_probs: NDArray[np.float64], own: int, num: int) -> tuple[tuple[str, float], ...]:
    """The characters that are likelier than the one in the text."""
    found: list[tuple[str, float]] = []
    for one in np.argsort(-log_probs, kind="stable"):
        if log_probs[one] <= log_probs[own] or len(found) == num:
            break
        if model.vocabulary.byte_mode:
            if one < 0x80:
                found.append((chr(one), math.exp(log_probs[one])))
        elif one != model.vocabulary.unknown_id:
            found.append((model.vocabulary.characters[one], math.exp(log_probs[one])))
    return tuple(found)
