"""Find gaps by sequential Monte Carlo: particles grow id by id, weighted by how they meet what follows."""

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
    numbers = np.arange(particles)
    length = lengths.start + numbers * len(lengths) // particles
    log_weights = -np.log(np.bincount(length - lengths.start)[length - lengths.start] * len(lengths) / particles)
    log_evidence = 0.0
    # Of each particle: its prefix, the characters that remain, the last log match, and its gap, once it is complete.
    prefixes, prefix = root, np.zeros(particles, np.int64)
    remaining = length.copy()
    match = np.zeros(particles)
    if lookahead:
        match[remaining == 0] = lookahead.log_match(root.logits, after[0])
        log_weights[remaining == 0] += search * match[remaining == 0]
    gaps, gap = root.take([0]), np.where(remaining == 0, 0, -1)
    iteration = 0
    while (running := (remaining > 0) & np.isfinite(log_weights)).any():
        iteration += 1
        pairs, pair_of = np.unique(np.stack([prefix[running], remaining[running]]), axis=1, return_inverse=True)
        pair = np.zeros(particles, np.int64)
        pair[running] = pair_of.reshape(-1)
        forward = log_softmax(prefixes.logits)
        log_q, matched = _propose(grower, prefixes, forward, pairs, lookahead, search)
        new_match = np.where(np.isnan(matched[pair]), match, matched[pair])
        log_weights[running] += search * (new_match - match)[running]
        match[running] = new_match[running]
        log_weights[running & ~np.isfinite(log_q.max(axis=1))[pair]] = -np.inf  # nothing may follow this prefix

        if not np.isfinite(log_weights).any():
            break
        if effective_sample_size(log_weights) < particles / 2:
            log_evidence += float(log_sum_exp(log_weights)) - math.log(particles)
            kept = _systematic(log_weights, float(uniform(seed, _RESAMPLE, iteration, Purpose.FILL)))
            prefix, remaining, match, gap, pair = prefix[kept], remaining[kept], match[kept], gap[kept], pair[kept]
            log_weights = np.zeros(particles)
        alive = np.flatnonzero((remaining > 0) & np.isfinite(log_weights))
        if not len(alive):
            continue

        cumulated = np.cumsum(np.exp(log_q), axis=1)[pair[alive]]
        draws = uniform(seed, alive, iteration, Purpose.FILL)[:, None] * cumulated[:, -1:]
        ids = (cumulated <= draws).sum(axis=1)
        log_weights[alive] += search * forward[prefix[alive], ids] - log_q[pair[alive], ids]
        # Particles that append the same id to the same prefix share what comes of it.
        children, child = np.unique(prefix[alive] * forward.shape[1] + ids, return_inverse=True)
        prefixes = grower.grow(prefixes, children // forward.shape[1], children % forward.shape[1])
        prefix[alive] = child.reshape(-1)
        whole_characters = np.array([not partial for partial in prefixes.partials])
        remaining[alive] -= whole_characters[prefix[alive]]
        ended = grower.ended(prefixes)
        log_weights[alive[ended[prefix[alive]] & (remaining[alive] > 0)]] = -np.inf

        complete = alive[remaining[alive] == 0]
        if len(complete):
            new_gaps, new_gap = np.unique(prefix[complete], return_inverse=True)
            new_gap = new_gap.reshape(-1)
            gap[complete] = len(gaps.texts) + new_gap
            end_match = np.zeros(len(new_gaps))
            if lookahead:
                end_match = lookahead.log_match(prefixes.logits[new_gaps], after[0])
            log_weights[complete] += search * (end_match[new_gap] - match[complete])
            match[complete] = end_match[new_gap]
            gaps = gaps.join(prefixes.take(new_gaps))
    alive = np.flatnonzero(np.isfinite(log_weights))
    if not len(alive):
        raise ChargenError(NO_GAP_ALLOWED)
    reached, gap = np.unique(gap[alive], return_inverse=True)
    gaps, gap = gaps.take(reached), gap.reshape(-1)
    log_after = grower.log_prob_after(gaps, after)
    log_weights = log_weights[alive] + search * (log_after[gap] - match[alive])
    log_weights += (power - search) * (gaps.log_probs + log_after)[gap]
    log_evidence += float(log_sum_exp(log_weights)) - math.log(particles)
    return Particles(gaps, log_after, gap, log_weights, log_evidence)


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
