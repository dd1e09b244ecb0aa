"""Find gaps by sequential Monte Carlo: particles grow id by id, weighted by how they meet what follows."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.decoding.choose import log_softmax, log_sum
from chargen.errors import ChargenError
from chargen.infill.lookahead import Lookahead
from chargen.infill.prefixes import NONE_ALLOWED, Grower, Prefixes
from chargen.rng import Purpose, uniform

FORWARD_SHARE = 0.05
"""Share of the forward stack's own prediction in every proposal, which bounds the weights."""
_RESAMPLE = 2**30


@dataclass(frozen=True, eq=False)
class Found:
    """Weighted particles at the ends of their gaps.

    Args:
        gaps: the distinct gaps (R).
        log_after: log p(after | before, gap), (R,).
        gap, log_weights: of each particle (K,): where it ended, and the log of its weight.
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
) -> Found:
    """Particles for the target p(gap | before)^power p(after | before, gap)^power, all lengths alike beforehand.

    Sequential Monte Carlo (Del Moral, Doucet and Jasra, 2006) with twisted targets (Whiteley and Lee, 2014): while a
    gap is written, the lookahead's match stands in for p(after | before, gap); at its end the real one takes its place.

    Args:
        grower, root: the forward stack, and where it stands before the gap.
        lookahead: what proposes; None where nothing follows the gap.
        after: ids whose probability counts.
        lengths: the gap's possible lengths in characters.
        particles: K; at least as many as lengths.
        seed: fixes every draw.
        power: 1 / temperature.
        search_power: the same while gaps grow; their weights are put right at the end. By default as `power`.

    Raises ChargenError where no gap is allowed.
    """
    search = power if search_power is None else search_power
    rows = np.arange(particles)
    length = lengths.start + rows * len(lengths) // particles
    left = length.copy()
    log_weights = -np.log(np.bincount(length - lengths.start)[length - lengths.start] * len(lengths) / particles)
    match = np.zeros(particles)
    if lookahead:
        match[left == 0] = lookahead.log_match(root.logits, after[0])
        log_weights[left == 0] += search * match[left == 0]
    log_evidence = 0.0
    growing, at = root, np.zeros(particles, np.int64)
    done = root.take([0])
    gap = np.where(left == 0, 0, -1)
    turn = 0
    while (running := (left > 0) & np.isfinite(log_weights)).any():
        turn += 1
        pairs, pair_of = np.unique(np.stack([at[running], left[running]]), axis=1, return_inverse=True)
        pair = np.zeros(particles, np.int64)
        pair[running] = pair_of.reshape(-1)
        forward = log_softmax(growing.logits)
        log_q, matched = _propose(grower, growing, forward, pairs, lookahead, search)
        now = np.where(np.isnan(matched[pair]), match, matched[pair])
        log_weights[running] += search * (now - match)[running]
        match[running] = now[running]
        log_weights[running & ~np.isfinite(log_q.max(axis=1))[pair]] = -np.inf  # nothing may follow this prefix

        if not np.isfinite(log_weights).any():
            break
        if effective_sample_size(log_weights) < particles / 2:
            log_evidence += float(log_sum(log_weights)) - math.log(particles)
            chosen = _systematic(log_weights, float(uniform(seed, _RESAMPLE, turn, Purpose.FILL)))
            at, left, match, gap, pair = at[chosen], left[chosen], match[chosen], gap[chosen], pair[chosen]
            log_weights = np.zeros(particles)
        alive = np.flatnonzero((left > 0) & np.isfinite(log_weights))
        if not len(alive):
            continue

        cumulated = np.cumsum(np.exp(log_q), axis=1)[pair[alive]]
        draws = uniform(seed, alive, turn, Purpose.FILL)[:, None] * cumulated[:, -1:]
        ids = (cumulated <= draws).sum(axis=1)
        log_weights[alive] += search * forward[at[alive], ids] - log_q[pair[alive], ids]
        keys, child = np.unique(at[alive] * forward.shape[1] + ids, return_inverse=True)
        growing = grower.grow(growing, keys // forward.shape[1], keys % forward.shape[1])
        at[alive] = child.reshape(-1)
        whole = np.array([not partial for partial in growing.partials])
        left[alive] -= whole[at[alive]]
        ended = grower.ended(growing)
        log_weights[alive[ended[at[alive]] & (left[alive] > 0)]] = -np.inf

        finished = alive[left[alive] == 0]
        if len(finished):
            ends, end = np.unique(at[finished], return_inverse=True)
            gap[finished] = len(done.texts) + end.reshape(-1)
            meets = np.zeros(len(ends))
            if lookahead:
                meets = lookahead.log_match(growing.logits[ends], after[0])
            log_weights[finished] += search * (meets[end.reshape(-1)] - match[finished])
            match[finished] = meets[end.reshape(-1)]
            done = done.join(growing.take(ends))
    alive = np.flatnonzero(np.isfinite(log_weights))
    if not len(alive):
        raise ChargenError(NONE_ALLOWED)
    used, place = np.unique(gap[alive], return_inverse=True)
    gaps = done.take(used)
    log_after = grower.next_mask(gaps, after)
    place = place.reshape(-1)
    log_weights = log_weights[alive] + search * (log_after[place] - match[alive])
    log_weights += (power - search) * (gaps.log_probs + log_after)[place]
    log_evidence += float(log_sum(log_weights)) - math.log(particles)
    return Found(gaps, log_after, place, log_weights, log_evidence)


def _propose(
    grower: Grower,
    growing: Prefixes,
    forward: NDArray[np.float64],
    pairs: NDArray[np.int64],
    lookahead: Lookahead | None,
    power: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For pairs (2, P) of a prefix and the characters left: proposals log q (P, V), and log matches (P,).

    A proposal is -inf where nothing is allowed; a match is NaN inside a character, where it stays as it was.
    """
    log_q = forward[pairs[0]]
    match = np.zeros(pairs.shape[1])
    if lookahead:
        inside = np.array([bool(partial) for partial in growing.partials])[pairs[0]]
        match[inside] = np.nan
        for left in np.unique(pairs[1, ~inside & (pairs[1] <= lookahead.horizon)]):
            of = np.flatnonzero(~inside & (pairs[1] == left))
            guessed, match[of] = lookahead.propose(growing.take(pairs[0, of]), int(left) - 1)
            log_q[of] = np.logaddexp(np.log1p(-FORWARD_SHARE) + guessed, np.log(FORWARD_SHARE) + log_q[of])
    log_q = np.where(grower.allowed(growing)[pairs[0]], power * log_q, -np.inf)
    total = log_sum(log_q)
    return log_q - np.where(np.isfinite(total), total, 0)[:, None], match


def effective_sample_size(log_weights: NDArray[np.float64]) -> float:
    """(sum w)^2 / sum w^2 (Kong, 1992): how many equally weighted particles these are worth."""
    return float(np.exp(2 * log_sum(log_weights) - log_sum(2 * log_weights)))


def _systematic(log_weights: NDArray[np.float64], start: float) -> NDArray[np.int64]:
    """Which particles go on: each as often as its weight says, up to one (Carpenter, Clifford and Fearnhead, 1999)."""
    weights = np.exp(log_weights - log_weights.max())
    running = np.cumsum(weights)
    points = (start + np.arange(len(weights))) / len(weights) * running[-1]
    chosen: NDArray[np.int64] = np.minimum(np.searchsorted(running, points, side="right"), len(weights) - 1)
    return chosen
