"""Fill a gap between two texts with what the forward model would write there, given what follows.

The target is pi(gap) ~ p(gap | before) p(after[:40] | before, gap), with p the forward stack's. While there are few
enough gaps all are scored; else particles look for them. The backward stack and the cloze layer only propose.
"""

import math
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.reading import clean
from chargen.data.vocabulary import Vocabulary
from chargen.decoding.choose import SampleConfig, draw, in_words, log_sum
from chargen.decoding.numpy_engine import State
from chargen.decoding.pick_engine import fresh, new_stepper
from chargen.errors import NOT_FINITE_MESSAGE, ChargenError, SettingError, amount
from chargen.infill.enumeration import every_gap, few_enough
from chargen.infill.lookahead import CONTEXT, Lookahead
from chargen.infill.particles import effective_sample_size, run_smc
from chargen.infill.prefixes import NONE_ALLOWED, Grower, Prefixes
from chargen.model.config import need_two_ways
from chargen.rng import MAX_SEED, Purpose, generator_seed, uniform
from chargen.sampling.constraints import fitted
from chargen.settings import check_int, make_settings
from chargen.storage.model_file import ModelFile, as_model_file

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel

AFTER = 40
"""Characters behind a gap that its score looks at."""
PARTICLES = 128
LONGEST = 100_000
COLDEST = 1e-6
"""Temperatures between 0 and this count as this."""
SEARCH_POWER = 2.0
"""Particles at low temperatures look for gaps at 1 / 2: colder, they would all follow the first good one."""
REMEMBERED = 8
"""Texts before gaps whose state is kept: the next gap of a text goes on from there."""
_ALTERNATIVE = 2**31


@dataclass(frozen=True)
class Alternative:
    """One way to fill a gap.

    Args:
        text: the gap's.
        log_prob: log p(gap | before) of the forward stack, in nats.
        log_prob_after: log p(after[:40] | before, gap), in nats; 0 where nothing follows.
        probability: its share of the target: exact, or by the estimated evidence.
    """

    text: str
    log_prob: float
    log_prob_after: float
    probability: float

    @property
    def score(self) -> float:
        """The log of the target, but for its constant, in nats."""
        return self.log_prob + self.log_prob_after


@dataclass(frozen=True)
class Fill:
    """What was found for one gap.

    Args:
        alternatives: distinct; the first is a draw from the target, each further one a draw from what is left of it.
        most_likely: the one of the highest score among all that were found.
        exact: whether every possible gap was scored.
        effective_sample_size: how many independent draws from the target the weighted particles are worth; where
            exact, how many equally likely gaps there might as well be.
        particles: how many there were; 0 where exact.
        found: how many distinct gaps were scored to the end.
        log_evidence: the log of the target's sum over all gaps, lengths averaged; where not exact, of an unbiased
            estimate of it.
        steps: characters of gaps and of what follows that the forward stack has read, over all gaps tried.
    """

    alternatives: tuple[Alternative, ...]
    most_likely: Alternative
    exact: bool
    effective_sample_size: float
    particles: int
    found: int
    log_evidence: float
    steps: int


class Filler:
    """Fills gaps with a bidirectional model. The same seed gives the same gaps.

    Bans, no_repeat, top-k, top-p and min-p say which characters a gap may hold, as they do for `sample` at temperature
    1, and a stop text may stand at a gap's end only. Temperature acts on whole gaps: they are drawn from the target to
    the power of 1 / temperature, and 0 takes the most likely ones that were found, with their shares at temperature 1.

    Args:
        model: the path of a model file or a run folder, what `read_model` returned, or a CharModel.
        config: how characters are chosen; or give its fields as keywords.
        particles: how many gaps are tried side by side where there are too many to score all.
        seed: 0 to 2**64 - 1; drawn by the system where None. `Filler.seed` tells it.
        unknown: what to do with characters of the text that the model does not know: "error", "skip" or "replace".
        vocabulary: of a CharModel, which has none.

    Raises SettingError for a model that reads one way.
    """

    def __init__(
        self,
        model: "ModelFile | CharModel | str | os.PathLike[str]",
        config: SampleConfig | None = None,
        *,
        particles: int = PARTICLES,
        seed: int | None = None,
        unknown: str = "error",
        vocabulary: Vocabulary | None = None,
        **settings: Any,
    ) -> None:
        model = as_model_file(model, vocabulary)
        need_two_ways(model.config, "filling a gap")
        if config is not None and settings:
            raise SettingError(f"give {', '.join(settings)} in the config or beside it, not both")
        self.model = model
        self.config = fitted(config or make_settings(SampleConfig, settings), model.vocabulary, model.reading)
        self.particles = check_int("particles", particles, 1, 100_000)
        self.seed = secrets.randbits(32) if seed is None else check_int("seed", seed, 0, MAX_SEED)
        if unknown not in ("error", "skip", "replace"):
            raise SettingError(f"unknown is {unknown!r}: it must be error, skip or replace", "unknown")
        self.unknown = unknown
        self.vocabulary = model.vocabulary
        self._read: dict[str, tuple[NDArray[Any], State]] = {}
        self.forward = new_stepper(model.config, model.arrays, "cpu")
        first_logits = np.log(np.maximum(model.counts, 1e-9))
        self._fresh = fresh(self.forward, first_logits, self.vocabulary.encode(model.begin))
        self._backward = new_stepper(model.config, model.arrays, "cpu", "backward")

    def __repr__(self) -> str:
        settings = {"particles": self.particles, "seed": self.seed, "unknown": self.unknown}
        return f"Filler({in_words(self.model.config, self.vocabulary, settings, self.config)})"

    def fill(
        self, before: str, after: str, min_length: int, max_length: int | None = None, *, num: int = 1, number: int = 0
    ) -> Fill:
        """Fill one gap.

        Args:
            before, after: the texts around it, cleaned as the text that the model learned. Without one before it, a gap
                begins a text, as what `sample` writes without a prime; without one after it, anything may follow.
            min_length, max_length: characters of the gap; all lengths are equally likely beforehand.
            num: how many alternatives; fewer where fewer were found.
            number: which gap of a text this is; each draws its own numbers.

        Raises DataError for characters that the model does not know, ChargenError where no gap is allowed.
        """
        num = check_int("num", num, 1, 1_000_000)
        shortest = check_int("min_length", min_length, 0, LONGEST)
        longest = check_int("max_length", shortest if max_length is None else max_length, 0, LONGEST)
        lengths = range(shortest, longest + 1)
        if not lengths:
            raise SettingError(
                f"a gap of {shortest} to {amount(longest, 'character')}: give whole numbers from 0, the smaller first"
            )
        before, after = clean(before, self.model.reading), clean(after, self.model.reading)
        seed = generator_seed(self.seed, 0, number, Purpose.FILL)
        cold = self.config.temperature == 0
        power = 1.0 if cold else 1 / max(self.config.temperature, COLDEST)
        as_read = self.vocabulary.decode(self.vocabulary.encode(before, self.unknown)) if self.config.no_repeat else ""
        grower = Grower(self.model, self.forward, self.config, as_read)
        self.vocabulary.encode(after, self.unknown)  # what is unknown is told, however far away
        after_ids = self.vocabulary.encode(after[:AFTER], self.unknown)
        root = self.read(before)
        letters = grower.letters()
        if not letters and shortest:
            raise ChargenError(NONE_ALLOWED)
        exact = lengths.stop == 1 or (not self.vocabulary.byte_mode and few_enough(letters, lengths))
        if exact:
            gaps = every_gap(grower, root, lengths)
            log_after = grower.next_mask(gaps, after_ids)
            log_shares = power * (gaps.log_probs + log_after) - math.log(len(lengths))
            log_evidence = float(log_sum(log_shares))
            size = effective_sample_size(log_shares)
        else:
            if len(lengths) > self.particles:
                raise SettingError(f"particles is {self.particles}: {len(lengths)} lengths need as many", "particles")
            lookahead = None
            if len(after_ids):
                behind = self.vocabulary.encode(after[:CONTEXT], self.unknown)
                lookahead = Lookahead(self.model, behind, lengths.stop - 1, seed, self._backward, self.config.ban)
            search = SEARCH_POWER if cold else min(power, SEARCH_POWER)
            found = run_smc(grower, root, lookahead, after_ids, lengths, self.particles, seed, power, search)
            gaps, log_after, log_evidence = found.gaps, found.log_after, found.log_evidence
            size = effective_sample_size(found.log_weights)
            log_shares = np.full(len(gaps.texts), -np.inf)
            np.logaddexp.at(log_shares, found.gap, found.log_weights)
        log_target = power * (gaps.log_probs + log_after) - math.log(len(lengths)) - log_evidence
        probabilities = np.exp(np.minimum(log_target, 0))  # an estimated evidence may be too small
        options = [
            Alternative(text, float(prob), float(follows), float(probability))
            for text, prob, follows, probability in zip(
                gaps.texts, gaps.log_probs, log_after, probabilities, strict=True
            )
        ]
        ranked = sorted(options, key=lambda one: (-one.score, one.text))
        chosen = ranked[:num] if cold else _draws(options, log_shares, num, seed)
        particles = 0 if exact else self.particles
        return Fill(tuple(chosen), ranked[0], exact, size, particles, len(options), log_evidence, grower.steps)

    def read(self, before: str) -> Prefixes:
        """The forward stack after the text before the gap: the empty prefix."""
        done = max((text for text in self._read if before.startswith(text)), key=len, default="")
        logits, state = self._read.pop(done, self._fresh)
        self._read[done] = logits, state  # lately used
        ids = self.vocabulary.encode(before[len(done) :], self.unknown)[None]
        logits, state = self.forward.read(ids, np.array([ids.shape[1]]), logits, state)
        if not np.isfinite(logits).all():
            raise ChargenError(NOT_FINITE_MESSAGE)
        self._read[before] = logits, state
        while len(self._read) > REMEMBERED:
            del self._read[next(iter(self._read))]
        return Prefixes([""], [b""], np.zeros(1), logits, state)


def fill(
    model: "ModelFile | CharModel | str | os.PathLike[str]",
    before: str,
    after: str,
    *,
    length: int | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    num: int = 1,
    seed: int | None = None,
    particles: int = PARTICLES,
    config: SampleConfig | None = None,
    **settings: Any,
) -> Fill:
    """Fill the gap between two texts; see `Filler`, which does it more than once.

    Args:
        model: as for `Filler`, whose other arguments may follow.
        before, after: the texts around the gap, as for `Filler.fill`.
        length: characters of the gap, or min_length and max_length.
        num: how many alternatives.

    Raises SettingError for a one-way model or wrong lengths; else as `Filler.fill`.
    """
    shortest, longest = gap_lengths(length, min_length, max_length)
    filler = Filler(model, config, particles=particles, seed=seed, **settings)
    return filler.fill(before, after, shortest, longest, num=num)


def gap_lengths(length: int | None, min_length: int | None, max_length: int | None) -> tuple[int, int]:
    """The shortest and the longest gap that settings ask for. Raises SettingError where they contradict each other."""
    if length is not None and (min_length is not None or max_length is not None):
        raise SettingError(
            "length and min_length or max_length contradict each other: give one or the others", "length"
        )
    if length is not None:
        return (check_int("length", length, 0, LONGEST),) * 2
    if max_length is None:
        raise SettingError("how long is the gap? Give its length, or a max_length", "length")
    return min_length or 0, max_length


def _draws(options: list[Alternative], log_shares: NDArray[np.float64], num: int, seed: int) -> list[Alternative]:
    """Draw by weight, without putting back.

    A particle's weight stands for all gaps that it might have been, its probability for itself.
    """
    order = sorted(range(len(options)), key=lambda one: options[one].text)
    left = log_shares[order]
    chosen = []
    for number in range(min(num, int(np.isfinite(left).sum()))):
        shares = np.exp(left - left.max())
        one = draw(shares, float(uniform(seed, _ALTERNATIVE + number, 0, Purpose.FILL)))
        chosen.append(options[order[one]])
        left[one] = -np.inf
    return chosen
