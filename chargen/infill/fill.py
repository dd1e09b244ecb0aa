"""Fill a gap between two texts with what the forward model would write there, given what follows.

The target is pi(gap) ~ p(gap | before) p(after[:40] | before, gap), with p the forward stack's; a record's end
symbol belongs to what follows. While there are few enough gaps all are scored; else particles look for them. The
backward stack and the cloze layer only propose.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import choose_config
from chargen.data.reading import clean
from chargen.data.vocabulary import Ids, Vocabulary, check_unknown
from chargen.decoding.choose import SampleConfig, draw, log_sum_exp, summarize
from chargen.decoding.numpy_engine import Engine
from chargen.decoding.pick_engine import new_engine
from chargen.errors import NOT_FINITE_MESSAGE, ChargenError, SettingError, amount
from chargen.infill.enumeration import can_enumerate, enumerate_gaps
from chargen.infill.lookahead import CONTEXT, Lookahead
from chargen.infill.particles import effective_sample_size, run_smc
from chargen.infill.prefixes import NO_GAP_ALLOWED, Grower, Prefixes
from chargen.model.config import DIRECTIONS, require_bidirectional
from chargen.rng import Purpose, check_seed, generator_seed, uniform
from chargen.sampling.constraints import fit_config
from chargen.sampling.prefix_engine import PrefixEngine
from chargen.sampling.start import encode_text, read_start
from chargen.settings import check_int
from chargen.storage.model_file import AnyModel, as_model_file

AFTER = 40
"""Characters behind a gap that its score looks at."""
PARTICLES = 128
MAX_LENGTH = 100_000
"""Characters of a gap."""
MIN_TEMPERATURE = 1e-6
"""Temperatures between 0 and this count as this."""
SEARCH_POWER = 2.0
"""The highest power, 1 / temperature, at which particles look for gaps: colder, all would follow the first good one."""
_ALTERNATIVE = 2**31
"""The index of the first alternative's draw; those below are draws of particles."""


@dataclass(frozen=True)
class Alternative:
    """One way to fill a gap.

    Args:
        text: what stands in the gap.
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
    """The alternatives for one gap, and how good their figures are.

    Args:
        alternatives: distinct; the first is a draw from the target, each further one a draw from what is left of it.
        most_likely: the alternative of the highest score among all that were scored.
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
    the power of 1 / temperature, and 0 takes the most likely of those scored, with their shares at temperature 1. With
    a model of records the whole text is one record, and no gap ends it.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel.
        config: how characters are chosen; or give its fields as keywords.
        particles: how many gaps are tried side by side where there are too many to score all.
        seed: 0 to 2**64 - 1; drawn by the system where None. `Filler.seed` tells it.
        unknown: what to do with characters of the text that the model does not know: "error", "skip" or "replace".
        vocabulary: of a CharModel, which has none.
        engines: of this model by direction, to be shared by many fillers.
        **settings: fields of `config`.

    Raises:
        SettingError: the model reads one way only, or a setting is out of its range.
        ModelFileError: the model file is missing or damaged.
    """

    def __init__(
        self,
        model: AnyModel,
        config: SampleConfig | None = None,
        *,
        particles: int = PARTICLES,
        seed: int | None = None,
        unknown: str = "error",
        vocabulary: Vocabulary | None = None,
        engines: Mapping[str, Engine] | None = None,
        **settings: Any,
    ) -> None:
        model = as_model_file(model, vocabulary)
        require_bidirectional(model.config, "filling a gap")
        config = choose_config(SampleConfig, config, settings)
        self.model, self.vocabulary = model, model.vocabulary
        self.config = fit_config(config, model.vocabulary, model.reading)
        self.particles = check_int("particles", particles, 1, 100_000)
        self.seed = check_seed(seed)
        self.unknown = check_unknown(unknown)
        # The next gap of a text goes on from where the last one began.
        engines = engines or {name: PrefixEngine(new_engine(model, "cpu", name)) for name in DIRECTIONS}
        looks_back = self.config.counts_max_copy
        self.forward, self._backward = (engines[name].limited(looks_back) for name in DIRECTIONS)
        start = read_start(self.forward, model)
        self._begin = start.logits, start.state

    def __repr__(self) -> str:
        own = {"particles": self.particles, "seed": self.seed, "unknown": self.unknown}
        return f"Filler({summarize(self.model.config, self.vocabulary, own, self.config)})"

    def fill(
        self, before: str, after: str, min_length: int, max_length: int | None = None, *, num: int = 1, number: int = 0,
        last: bool = True,
    ) -> Fill:  # fmt: skip
        """Fill one gap.

        Args:
            before: the text before the gap, cleaned here as the text that the model learned; where it is empty, the gap
                begins a text, as what `sample` writes without a prime.
            after: the text behind the gap, cleaned likewise; where it is empty, anything may follow, or a record ends.
            min_length: characters of the shortest gap; all lengths are equally likely beforehand.
            max_length: characters of the longest gap; None takes `min_length`.
            num: how many alternatives; fewer where there are fewer gaps.
            number: of the gap in a text with several; each number has its own draws.
            last: whether a record ends behind `after`, as it does unless another gap follows.

        Returns:
            The alternatives and their figures.

        Raises:
            DataError: the model does not know some characters.
            SettingError: the lengths contradict each other, or need more particles.
            ChargenError: no gap is allowed, or the model's numbers overflow.
        """
        num = check_int("num", num, 1, 1_000_000)
        shortest = check_int("min_length", min_length, 0, MAX_LENGTH)
        longest = check_int("max_length", shortest if max_length is None else max_length, 0, MAX_LENGTH)
        lengths = range(shortest, longest + 1)
        if not lengths:
            raise SettingError(
                f"a gap of {shortest} to {amount(longest, 'character')}: give whole numbers from 0, the smaller first"
            )
        before, after = clean(before, self.model.reading), clean(after, self.model.reading)
        seed = generator_seed(self.seed, 0, number, Purpose.FILL)
        greedy = self.config.temperature == 0
        power = 1.0 if greedy else 1 / max(self.config.temperature, MIN_TEMPERATURE)
        as_read = self.vocabulary.decode(self._encode(before)) if self.config.no_repeat else ""
        grower = Grower(self.model, self.forward, self.config, as_read)
        self._encode(after)  # unknown characters are an error, however far away
        after_ids = self._encode_start(after, AFTER, last)
        root = self.read_before(before)
        num_ids = grower.num_ids()
        if not num_ids and shortest:
            raise ChargenError(NO_GAP_ALLOWED)
        exact = lengths.stop == 1 or (not self.vocabulary.byte_mode and can_enumerate(num_ids, lengths))
        if exact:
            gaps = enumerate_gaps(grower, root, lengths)
            log_after = grower.log_prob_after(gaps, after_ids)
            log_shares = power * (gaps.log_probs + log_after) - math.log(len(lengths))
            log_evidence = float(log_sum_exp(log_shares))
            size = effective_sample_size(log_shares)
        else:
            if len(lengths) > self.particles:
                raise SettingError(f"particles is {self.particles}: {len(lengths)} lengths need as many", "particles")
            lookahead = None
            if len(after_ids):
                context = self._encode_start(after, CONTEXT, last)
                lookahead = Lookahead(self.model, context, lengths.stop - 1, seed, self._backward, self.config.ban)
            search = SEARCH_POWER if greedy else min(power, SEARCH_POWER)
            result = run_smc(grower, root, lookahead, after_ids, lengths, self.particles, seed, power, search)
            gaps, log_after, log_evidence = result.gaps, result.log_after, result.log_evidence
            size = effective_sample_size(result.log_weights)
            log_shares = np.full(len(gaps.texts), -np.inf)
            np.logaddexp.at(log_shares, result.gap, result.log_weights)
        log_target = power * (gaps.log_probs + log_after) - math.log(len(lengths)) - log_evidence
        probabilities = np.exp(np.minimum(log_target, 0))  # an estimated evidence may be too small
        candidates = [
            Alternative(text, *map(float, figures))
            for text, *figures in zip(gaps.texts, gaps.log_probs, log_after, probabilities, strict=True)
        ]
        ranked = sorted(candidates, key=lambda candidate: (-candidate.score, candidate.text))
        chosen = ranked[:num] if greedy else _draw_alternatives(candidates, log_shares, num, seed)
        particles = 0 if exact else self.particles
        return Fill(tuple(chosen), ranked[0], exact, size, particles, len(candidates), log_evidence, grower.steps)

    def _encode(self, text: str) -> Ids:
        return encode_text(text, self.vocabulary, self.unknown)

    def _encode_start(self, after: str, size: int, last: bool) -> Ids:
        """The first characters behind a gap, and the end symbol where a record ends with them."""
        ids, end_id = self._encode(after[:size]), self.vocabulary.end_id
        return ids if end_id is None or not last or after[size:] else np.append(ids, end_id)

    def read_before(self, before: str) -> Prefixes:
        """Let the forward stack read the text before a gap.

        Args:
            before: the text, cleaned.

        Returns:
            The empty prefix behind it.

        Raises:
            DataError: the model does not know some characters.
            ChargenError: the model's numbers overflow.
        """
        ids = self._encode(before)[None]
        logits, state = self.forward.read(ids, np.array([ids.shape[1]]), *self._begin)
        if not np.isfinite(logits).all():
            raise ChargenError(NOT_FINITE_MESSAGE)
        return Prefixes([""], [b""], np.zeros(1), logits, state)


def fill(
    model: AnyModel,
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
    """Fill the gap between two texts. A `Filler` fills several with one model and keeps what it has read.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel.
        before: the text before the gap; where it is empty, the gap begins a text.
        after: the text behind the gap; where it is empty, anything may follow.
        length: characters of the gap; instead of min_length and max_length.
        min_length: characters of the shortest gap; 0 where None.
        max_length: characters of the longest gap; all lengths are equally likely beforehand.
        num: how many alternatives; fewer where there are fewer gaps.
        seed: 0 to 2**64 - 1; drawn by the system where None.
        particles: how many gaps are tried side by side where there are too many to score all.
        config: how characters are chosen; or give its fields as keywords.
        **settings: fields of `config`, and further arguments of `Filler`.

    Returns:
        The alternatives and their figures.

    Raises:
        SettingError: the model reads one way only, or a setting or length is wrong.
        ModelFileError: the model file is missing or damaged.
        DataError: the model does not know some characters.
        ChargenError: no gap is allowed, or the model's numbers overflow.
    """
    shortest, longest = gap_lengths(length, min_length, max_length)
    filler = Filler(model, config, particles=particles, seed=seed, **settings)
    return filler.fill(before, after, shortest, longest, num=num)


def gap_lengths(length: int | None, min_length: int | None, max_length: int | None) -> tuple[int, int]:
    """Work out the lengths of a gap from settings of which some are missing.

    Args:
        length: characters of the gap; instead of the others.
        min_length: characters of the shortest gap; 0 where None.
        max_length: characters of the longest gap.

    Returns:
        The shortest and the longest length.

    Raises:
        SettingError: the settings contradict each other, or none is given.
    """
    if length is not None and (min_length is not None or max_length is not None):
        raise SettingError("length contradicts `min_length` and `max_length`: give it or them", "length")
    if length is not None:
        return (check_int("length", length, 0, MAX_LENGTH),) * 2
    if max_length is None:
        raise SettingError("how long is the gap? Give `length`, or `max_length`", "length")
    return min_length or 0, max_length


def _draw_alternatives(
    candidates: list[Alternative], log_shares: NDArray[np.float64], num: int, seed: int
) -> list[Alternative]:
    """Draw by weight, without putting back.

    A particle's weight stands for all gaps that it might have been, its probability for itself.
    """
    order = sorted(range(len(candidates)), key=lambda index: candidates[index].text)
    log_weights = log_shares[order]
    chosen = []
    for number in range(min(num, int(np.isfinite(log_weights).sum()))):
        weights = np.exp(log_weights - log_weights.max())
        index = draw(weights, float(uniform(seed, _ALTERNATIVE + number, 0, Purpose.FILL)))
        chosen.append(candidates[order[index]])
        log_weights[index] = -np.inf
    return chosen
