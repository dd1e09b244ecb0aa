"""Find gaps by sequential Monte Carlo: particles grow id by id, weighted by how they meet what follows."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.decoding.choose import log_softmax, log_sum_exp
from chargen.errors import ChargenError
from chargen.infill.lookahead import Lookahead
from chargen.infill.prefixes import NO_GAP_ALLOWED, Grower, Prefixes
from chargen.rng import Purpose, uniform

FORWARD_SHARE = 0.05
"""Share of the forward stack's own prediction in every proposal, which bounds the weights."""
_RESAMPLE = 2**30
"""The index of the draws that choose which particles go on; those below are draws of particles."""

_FIELDS = "prefix", "pair", "remaining", "gap", "match", "log_weight"
_PARTICLE = np.dtype({"names": _FIELDS, "formats": 4 * ["i8"] + 2 * ["f8"]})
"""Of a particle: the number of its prefix, and of the pair of that and the characters that remain; how many remain; the
number of its gap, -1 until it is complete; its last log match; and its log weight."""
Swarm = Any
"""A record array (K,) of `_PARTICLE`."""


@dataclass(frozen=True, eq=False)
class Particles:
    """Weighted particles at the ends of their gaps.

    Args:
        gaps: the R distinct gaps.
        log_after: (R,), log p(after | before, gap) in nats.
        gap: (K,), the number of the gap that each particle has written.
        log_weights: (K,), of each particle.
        log_evidence: the log of an unbiased estimate of the target's sum over all gaps.
    """

    gaps: Prefixes
    log_after: NDArray[np.float64]
    gap: NDArray[np.int64]
    log_weights: NDArray[np.float64]
    log_evidence: float


def run_smc(
    grower: Grower,
    root: Prefixes,
    lookahead: Lookahead | None,
    after: NDArray[Any],
    lengths: range,
    particles: int,
    seed: int,
    power: float = 1.0,
    search_power: float | None = None,
) -> Particles:
    """Sample the target p(gap | before)^power p(after | before, gap)^power, all lengths equally likely beforehand.

    Sequential Monte Carlo (Del Moral, Doucet and Jasra, 2006) with twisted targets (Whiteley and Lee, 2014): while a
    gap is written, the lookahead's match stands in for p(after | before, gap); at its end the real one takes its place.

    Args:
        grower: grows prefixes with the forward stack.
        root: the empty prefix, after the text before the gap.
        lookahead: proposes characters; None where nothing follows the gap.
        after: ids (A,) behind the gap whose probability counts.
        lengths: the gap's possible lengths in characters.
        particles: K; at least as many as lengths.
        seed: fixes every draw.
        power: 1 / temperature.
        search_power: the power while gaps grow, made up for in the weights at their end; None takes `power`.

    Returns:
        The particles that have reached the end of their gaps.

    Raises:
        ChargenError: no gap is allowed.
    """
    search = power if search_power is None else search_power
    prefixes, gaps, swarm = root, root.take([]), _start(lengths, particles)
    log_evidence = 0.0
    for iteration in itertools.count(1):
        complete = np.flatnonzero((swarm.remaining == 0) & (swarm.gap < 0))
        if len(complete):
            new, new_gap = np.unique(swarm.prefix[complete], return_inverse=True)
            new_gaps, new_gap = prefixes.take(new), new_gap.reshape(-1)
            swarm.gap[complete] = len(gaps.texts) + new_gap
            gaps = gaps.join(new_gaps)
            if lookahead:
                _rematch(swarm, complete, lookahead.log_match(new_gaps.logits, after[0])[new_gap], search)
        running = np.flatnonzero((swarm.remaining > 0) & np.isfinite(swarm.log_weight))
        if not len(running):
            break

        pairs = np.stack([swarm.prefix[running], swarm.remaining[running]])
        pairs, pair = np.unique(pairs, axis=1, return_inverse=True)
        pair = swarm.pair[running] = pair.reshape(-1)
        forward = log_softmax(prefixes.logits)
        log_q, matched = _propose(grower, prefixes, forward, pairs, lookahead, search)
        _rematch(swarm, running, np.where(np.isnan(matched[pair]), swarm.match[running], matched[pair]), search)
        swarm.log_weight[running[~np.isfinite(log_q.max(axis=1))[pair]]] = -np.inf  # nothing may follow these
        if not np.isfinite(swarm.log_weight).any():
            break
        if effective_sample_size(swarm.log_weight) < particles / 2:
            log_evidence += float(log_sum_exp(swarm.log_weight)) - math.log(particles)
            swarm = swarm[_systematic(swarm.log_weight, float(uniform(seed, _RESAMPLE, iteration, Purpose.FILL)))]
            swarm.log_weight = 0
        alive = np.flatnonzero((swarm.remaining > 0) & np.isfinite(swarm.log_weight))
        if not len(alive):
            continue

        cumulated = np.cumsum(np.exp(log_q), axis=1)[swarm.pair[alive]]
        ids = (cumulated <= uniform(seed, alive, iteration, Purpose.FILL)[:, None] * cumulated[:, -1:]).sum(axis=1)
        swarm.log_weight[alive] += search * forward[swarm.prefix[alive], ids] - log_q[swarm.pair[alive], ids]
        # Particles that append the same id to the same prefix share what comes of it.
        children, child = np.unique(swarm.prefix[alive] * forward.shape[1] + ids, return_inverse=True)
        prefixes = grower.grow(prefixes, children // forward.shape[1], children % forward.shape[1])
        swarm.prefix[alive] = child.reshape(-1)
        whole_characters = np.array([not partial for partial in prefixes.partials])
        swarm.remaining[alive] -= whole_characters[swarm.prefix[alive]]
        ended = grower.ended(prefixes)[swarm.prefix[alive]]
        swarm.log_weight[alive[ended & (swarm.remaining[alive] > 0)]] = -np.inf
    alive = swarm[np.isfinite(swarm.log_weight)]
    if not len(alive):
        raise ChargenError(NO_GAP_ALLOWED)
    reached, gap = np.unique(alive.gap, return_inverse=True)
    gaps, gap = gaps.take(reached), gap.reshape(-1)
    log_after = grower.log_prob_after(gaps, after)
    log_weights = alive.log_weight + search * (log_after[gap] - alive.match)
    log_weights += (power - search) * (gaps.log_probs + log_after)[gap]
    log_evidence += float(log_sum_exp(log_weights)) - math.log(particles)
    return Particles(gaps, log_after, gap, log_weights, log_evidence)


def _start(lengths: range, particles: int) -> Swarm:
    """Particles before their first character, equally many of each length but for rounding, which weights undo."""
    length = np.arange(particles) * len(lengths) // particles
    swarm = np.zeros(particles, _PARTICLE).view(np.recarray)
    swarm.remaining, swarm.gap = lengths.start + length, -1
    swarm.log_weight = -np.log(np.bincount(length)[length] * len(lengths) / particles)
    return swarm


def _rematch(swarm: Swarm, rows: NDArray[np.int64], match: NDArray[np.float64], power: float) -> None:
    """Put new log matches of some particles in place of the last ones, in their weights, too."""
    swarm.log_weight[rows] += power * (match - swarm.match[rows])
    swarm.match[rows] = match


def _propose(
    grower: Grower,
    prefixes: Prefixes,
    forward: NDArray[np.float64],
    pairs: NDArray[np.int64],
    lookahead: Lookahead | None,
    power: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For pairs (2, P) of a prefix and the characters that remain: proposals log q (P, V), and log matches (P,).

    A proposal is -inf where nothing is allowed; a match is NaN inside a character, where the last one stays.
    """
    log_q = forward[pairs[0]]
    match = np.zeros(pairs.shape[1])
    if lookahead:
        inside = np.array([bool(partial) for partial in prefixes.partials])[pairs[0]]
        match[inside] = np.nan
        for remaining in np.unique(pairs[1, ~inside & (pairs[1] <= lookahead.horizon)]):
            some = np.flatnonzero(~inside & (pairs[1] == remaining))
            guessed, match[some] = lookahead.propose(prefixes.take(pairs[0, some]), int(remaining) - 1)
            log_q[some] = np.logaddexp(np.log1p(-FORWARD_SHARE) + guessed, np.log(FORWARD_SHARE) + log_q[some])
    log_q = np.where(grower.allowed(prefixes)[pairs[0]], power * log_q, -np.inf)
    total = log_sum_exp(log_q)
    return log_q - np.where(np.isfinite(total), total, 0)[:, None], match


def effective_sample_size(log_weights: NDArray[np.float64]) -> float:
    """Compute how many equally weighted particles some weighted ones are worth: (sum w)^2 / sum w^2 (Kong, 1992).

    Args:
        log_weights: (K,).

    Returns:
        A number from 1 to K.
    """
    return float(np.exp(2 * log_sum_exp(log_weights) - log_sum_exp(2 * log_weights)))


def _systematic(log_weights: NDArray[np.float64], start: float) -> NDArray[np.int64]:
    """Systematic resampling (Carpenter, Clifford and Fearnhead, 1999): copies by weight, rounded up or down."""
    weights = np.exp(log_weights - log_weights.max())
    cumulated = np.cumsum(weights)
    points = (start + np.arange(len(weights))) / len(weights) * cumulated[-1]
    chosen: NDArray[np.int64] = np.minimum(np.searchsorted(cumulated, points, side="right"), len(weights) - 1)
    return chosen
