"""The score of every character of a text: from the characters before it, from those behind it, and from both."""

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chargen.data.vocabulary import Vocabulary
from chargen.errors import amount
from chargen.evaluation.layout import Layout, lay_out
from chargen.evaluation.predicted_ids import JUDGES, Predicted
from chargen.storage.model_file import ModelFile

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
        alternatives: for an unlikely character, likelier ones with the judge's probabilities, the likeliest first; ""
            is the end of a record.
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
        self.end: CharacterScore | None = None
        """Of a record, the score of its end; read backward, that is where it begins. Its character is "", and the cloze
        layer does not judge it."""
        self.unseen = ""
        """The characters that the model has never seen, each once, sorted."""
        self.replaced = self.passed_over = 0
        """Bytes that did not fit the encoding, and files that are no text, where the text was read from files."""

    @property
    def totals(self) -> dict[str, Any]:
        """Counts of characters, and each judge's sum of log-probabilities; None where it gave none.

        "length" of the text, "scored" and "unlikely" ones; "unknown" ones that the model has never seen. Sums of
        forward and backward hold a record's end, which is told apart too.
        """
        totals: dict[str, Any] = {
            "length": len(self),
            "scored": sum(score.forward is not None for score in self),
            "unlikely": sum(score.unlikely for score in self),
        }
        keys = {"forward": "log_prob_forward", "backward": "log_prob_backward", "cloze": "pseudo_log_likelihood"}
        for name, key in keys.items():
            values = self._log_probs(name)
            totals[key] = math.fsum(values) if values else None
            if self.end is not None and name != "cloze":
                totals[f"end_{key}"] = getattr(self.end, name)
        unseen = set(self.unseen)
        return {**totals, "unknown": sum(score.character in unseen for score in self)}

    def __repr__(self) -> str:
        text = "".join(score.character for score in self[:40])
        words = f"{text!r}{'…' * (len(self) > 40)}: {self._summary()}"
        for name in ("forward", "backward"):
            values = self._log_probs(name)
            words += f", {name} {-math.fsum(values) / len(values):.4f} nats per character" if values else ""
        return f"Scores({words})"

    def _log_probs(self, judge: str) -> list[float]:
        scores = self if self.end is None else [*self, self.end]
        return [value for score in scores if (value := getattr(score, judge)) is not None]

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


def quote(character: str) -> str:
    """Put a character in quotes, escaped where it cannot be seen; a byte that is no character as `\\xff`.

    Args:
        character: a character, or a byte as the error handler "surrogateescape" decodes it; "" is a record's end.
    """
    if not character:
        return "the end"
    byte = ord(character) - 0xDC00
    return f"'\\x{byte:02x}'" if 0x80 <= byte < 0x100 else repr(character)


Predict: TypeAlias = Callable[[Sequence[str], Layout], Iterable[Predicted]]


def name_id(vocabulary: Vocabulary, number: int) -> str:
    """Write an id for people, a character in quotes.

    Args:
        vocabulary: the model's.
        number: the id.
    """
    if number == vocabulary.end_id:
        return quote("")
    if number == vocabulary.unknown_id:
        return "unknown"
    if vocabulary.byte_mode and number < 0x100:
        return quote(chr(number) if number < 0x80 else chr(0xDC00 + number))
    known = not vocabulary.byte_mode and number < len(vocabulary.characters)
    return quote(vocabulary.characters[number]) if known else "a label"


def score_texts(
    predict: Predict,
    file: ModelFile,
    texts: Sequence[str],
    *,
    by: str,
    threshold: float,
    num_alternatives: int,
    unknown: str,
    labels: Sequence[str | None] | None = None,
) -> list[Scores]:
    """Score every character of some texts, which are read side by side.

    Args:
        predict: what the model expects at every id of texts and their layout, such as `predict_ids`.
        file: the model's vocabulary, its begin text, and how often each id occurs.
        texts: cleaned as the text that the model learned.
        by: the judge: "cloze", "forward" or "backward".
        threshold: a probability; characters below it are unlikely.
        num_alternatives: the most alternatives that an unlikely character gets.
        unknown: what to do with characters that the model has never seen: "error", "skip" or "replace".
        labels: of each text, where texts are records; none by default.

    Raises:
        DataError: a text has unknown characters and `unknown` is "error", or it has a lone surrogate.
        ChargenError: predictions are not finite.
    """
    both, vocabulary, joined = file.config.bidirectional, file.vocabulary, "".join(texts)
    layout = lay_out(file, texts, unknown, "both" if both else "forward", labels)
    num_ids = np.bincount(layout.owner, minlength=layout.size)
    limit = math.log(threshold) if threshold else -math.inf
    sums = {name: np.zeros(layout.size) for name in (JUDGES if both else ("forward",))}
    alternatives: dict[int, tuple[tuple[str, float], ...]] = {}
    for part in predict(texts, layout):
        np.add.at(sums[part.judge], part.characters, part.values)
        if part.judge == by:
            places = np.flatnonzero((part.values < limit) & (num_ids[part.characters] == 1))
            for row, place in zip(part.rows(places), places, strict=True):
                likelier = _likelier_characters(vocabulary, row, part.values[place], num_alternatives)
                alternatives[int(part.characters[place])] = likelier
    known, whole, below = num_ids > 0, num_ids == 1, {name: sums[name] < limit for name in sums}
    unlikely = below[by] if by != "cloze" else np.where(whole, below["cloze"], below["forward"] & below["backward"])
    unlikely[: len(joined)] |= ~vocabulary.knows(joined)
    columns = [
        np.where(has_score, sums[name], np.array(None)).tolist() if name in sums else [None] * layout.size
        for name, has_score in (("forward", known), ("backward", known), ("cloze", whole))
    ]
    columns += [(unlikely | ~known).tolist(), [alternatives.get(at, ()) for at in range(layout.size)]]
    scored = list(map(CharacterScore, [*joined, *([""] * 2 * len(texts))], *columns))
    results, start = [], 0
    for number, text in enumerate(texts):
        results.append(Scores(scored[start : start + len(text)], by, threshold))
        results[-1].unseen = vocabulary.unseen(text)
        start += len(text)
        if vocabulary.records:
            before, behind = scored[len(joined) + 2 * number :][:2]
            results[-1].end = _join_ends(before, behind, by)
    return results


def _join_ends(before: CharacterScore, behind: CharacterScore, by: str) -> CharacterScore:
    """The score of a record's end, which the forward stack expects behind its text, the backward stack before it."""
    judged = before if by == "backward" else behind
    return CharacterScore("", behind.forward, before.backward, None, judged.unlikely, judged.alternatives)


def _likelier_characters(
    vocabulary: Vocabulary, log_probs: NDArray[np.float64], value: float, num: int
) -> tuple[tuple[str, float], ...]:
    """At most `num` characters that are likelier than `value`, a log-probability, and their probabilities."""
    likelier: list[tuple[str, float]] = []
    for character_id in np.argsort(-log_probs, kind="stable"):
        if log_probs[character_id] <= value or len(likelier) == num:
            break
        if character_id == vocabulary.end_id:
            character = ""
        elif vocabulary.byte_mode and character_id < 0x80:
            character = chr(character_id)
        elif vocabulary.byte_mode or character_id >= len(vocabulary.characters):
            continue  # a part of a character, the unknown symbol, or a label, which is never written
        else:
            character = vocabulary.characters[character_id]
        likelier.append((character, math.exp(log_probs[character_id])))
    return tuple(likelier)
