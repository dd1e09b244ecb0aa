"""Reading and writing whole chunks of characters: a model's steps and the choice of characters, without Python."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.kernels import NONE_ALLOWED, NOT_FINITE
from chargen.kernels.compiled import compiled
from chargen.kernels.pointwise import gru, lstm
from chargen.kernels.products import WIDTH, add_products
from chargen.kernels.split import multiply_split
from chargen.kernels.team import meet


@compiled
def read_or_write(
    model: tuple[Any, ...], logits: NDArray[np.float32], state: NDArray[np.float32], ids: NDArray[np.int64],
    log_probs: NDArray[np.float64], counts: NDArray[np.int64], write: bool, uniforms: NDArray[np.float64],
    masks: NDArray[np.bool_], mask_of: NDArray[np.int64], follow: NDArray[np.int64], pause: NDArray[np.bool_],
    temperature: float, top_k: int, top_p: float, min_p: float, member: int, members: int,
    shared: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]],
) -> None:  # fmt: skip
    """Let R rows read the ids they are given, or write ids and read them; both for at most T turns.

    Args:
        model: what `Decoder` laid out.
        logits, state: (R, V) and (L, R, S) before; changed into what they are after.
        ids: (R, T), read or written.
        log_probs: (R, T), of what was written, in nats.
        counts: (R,) how many are to be read, or how many were written. A row that could not write has a code below zero
            in `ids` behind its last one.
        write: whether to write.
        uniforms: (R, T), the draws.
        masks: (M, V), what is allowed after one thing or another; mask_of: (R,), which holds.
        follow: (M, V), which mask holds after an id; below zero: unknown, the row stops behind this id.
        pause: (V,), ids behind which a row stops.
        temperature, top_k, top_p, min_p: as in `SampleConfig`.
        member, members: which of how many threads this is that share the units of every layer; H is then a multiple of
            64. All get the same arrays.
        shared: what they share: a counter (1,) at zero, the active rows and how many (R + 1,), outputs (2, R, H).
    """
    lstm_cell, units, hidden, weights, table, scale_in, scale, bias, new_bias, head_scale, head_bias = model
    counter, active, fresh = shared
    rows, turns = ids.shape
    layers = len(state)
    size, padded, padded_out = logits.shape[1], bias.shape[1], len(head_bias)
    gates = 4 if lstm_cell else 3
    # The units, the columns of their gates, and the columns of logits that are this thread's.
    first, last = hidden * member // members, hidden * (member + 1) // members
    if members > 1:
        blocks = hidden // WIDTH
        first, last = blocks * member // members * WIDTH, blocks * (member + 1) // members * WIDTH
    head_blocks = padded_out // WIDTH
    head_first, head_last = head_blocks * member // members, head_blocks * (member + 1) // members
    filled = (rows + 15) // 16 * 16
    inputs = np.empty((rows, hidden), np.float32)
    entering, carried = np.empty((filled, padded), np.float32), np.empty((filled, padded), np.float32)
    outputs = np.empty((filled, padded_out), np.float32)
    room = np.zeros(2 * filled * hidden + 64, np.uint16)
    begin = (-room.ctypes.data % 64) // 2
    halves = room[begin : begin + 2 * filled * hidden].reshape((2, filled, hidden))
    scratch = np.empty(size, np.float64)
    stopped = np.zeros(rows, np.bool_)
    met = 0
    for turn in range(turns):
        number = 0
        if member == 0:
            for row in range(rows):
                if write:
                    if stopped[row]:
                        continue
                    allowed, uniform = masks[mask_of[row]], uniforms[row, turn]
                    one, log_prob = pick(logits[row], allowed, uniform, temperature, top_k, top_p, min_p, scratch)
                    ids[row, turn] = one
                    if one < 0:
                        stopped[row] = True
                        continue
                    log_probs[row, turn] = log_prob
                    counts[row] += 1
                    mask_of[row] = follow[mask_of[row], one]
                    stopped[row] = mask_of[row] < 0 or pause[one]
                elif turn >= counts[row]:
                    continue
                active[number] = row
                number += 1
            active[rows] = number
        if members > 1:
            met += members
            meet(counter, met)
        number = int(active[rows])
        if number == 0:
            return
        at = 0
        for layer in range(layers):
            below, out = fresh[(layer + 1) % 2], fresh[layer % 2]
            if layer == 0:
                for n in range(number):
                    entering[n, : table.shape[1]] = table[ids[active[n], turn]]
            else:
                _multiply(weights, at, below, number, hidden, entering, gates, first, last, members, units, halves)
                at += padded * hidden
            for n in range(number):
                inputs[n] = state[layer, active[n], :hidden]
            _multiply(weights, at, inputs, number, hidden, carried, gates, first, last, members, units, halves)
            at += padded * hidden
            for n in range(number):
                old, coming, going = state[layer, active[n]], scale_in[layer], scale[layer]
                if lstm_cell:
                    lstm(entering[n], carried[n], coming, going, bias[layer], first, last, old, out[n])
                else:
                    inside = new_bias[layer]
                    gru(entering[n], carried[n], coming, going, bias[layer], inside, first, last, old, out[n])
            if members > 1:
                met += members
                meet(counter, met)
            for n in range(number):
                state[layer, active[n], first:last] = out[n, first:last]
        if not write and turn + 1 < turns:
            # Only the last logits are asked for.
            ends = False
            for n in range(number):
                ends |= counts[active[n]] == turn + 1
            if not ends:
                continue
        _multiply_blocks(
            weights, at, head_first, head_last, fresh[(layers + 1) % 2], number, hidden, outputs, units, halves
        )
        for n in range(number):
            row = active[n]
            for v in range(head_first * WIDTH, min(head_last * WIDTH, size)):
                logits[row, v] = outputs[n, v] * head_scale[v] + head_bias[v]
        if members > 1:
            met += members
            meet(counter, met)


@compiled
def _multiply(
    weights: NDArray[Any], at: int, inputs: NDArray[np.float32], rows: int, hidden: int, out: NDArray[np.float32],
    gates: int, first: int, last: int, members: int, units: NDArray[np.uint8], halves: NDArray[np.uint16],
) -> None:  # fmt: skip
    """The sums of some units' gates."""
    if members == 1:
        _multiply_blocks(weights, at, 0, out.shape[1] // WIDTH, inputs, rows, hidden, out, units, halves)
        return
    for gate in range(gates):
        begin, end = (gate * hidden + first) // WIDTH, (gate * hidden + last) // WIDTH
        _multiply_blocks(weights, at, begin, end, inputs, rows, hidden, out, units, halves)


@compiled
def _multiply_blocks(
    weights: NDArray[Any], at: int, first: int, last: int, inputs: NDArray[np.float32], rows: int, hidden: int,
    out: NDArray[np.float32], units: NDArray[np.uint8], halves: NDArray[np.uint16],
) -> None:  # fmt: skip
    if len(units):
        multiply_split(inputs, rows, weights, at, first, last, halves[0], halves[1], out, units)
    else:
        out[:rows, first * WIDTH : last * WIDTH] = 0
        add_products(weights, at, first, last, inputs, rows, hidden, out)


@compiled
def pick(
    logits: NDArray[np.float32], allowed: NDArray[np.bool_], uniform: float, temperature: float, top_k: int,
    top_p: float, min_p: float, weights: NDArray[np.float64],
) -> tuple[int, float]:  # fmt: skip
    """The id that `choose` finds, and its log-probability before temperature and filters; or a code below zero."""
    size = len(logits)
    top, best = -np.inf, -1
    for v in range(size):
        value = np.float64(logits[v])
        if not np.isfinite(value):
            return NOT_FINITE, 0.0
        top = max(top, value)
        if allowed[v] and (best < 0 or value > logits[best]):
            best = v
    if best < 0:
        return NONE_ALLOWED, 0.0
    total = 0.0
    for v in range(size):
        weights[v] = np.exp(np.float64(logits[v]) - top)
        total += weights[v]
    normal = top + np.log(total)
    if temperature == 0:
        return best, logits[best] - normal
    plain = temperature == 1 and logits[best] == top
    for v in range(size):
        if not allowed[v]:
            weights[v] = 0
        elif not plain:
            weights[v] = np.exp((np.float64(logits[v]) - np.float64(logits[best])) / temperature)
    if 0 < top_k < size or top_p < 1:
        scores = np.empty(size, np.float64)
        for v in range(size):
            scores[v] = -np.float64(logits[v]) if allowed[v] else np.inf
        order = np.argsort(scores, kind="mergesort")
        keep = min(top_k, size) if top_k > 0 else size
        if top_p < 1:
            reached = 0.0
            for place in range(keep):
                reached += weights[order[place]]
            goal, reached = top_p * reached, 0.0
            for place in range(keep):
                reached += weights[order[place]]
                if reached >= goal:
                    keep = place + 1
                    break
        for place in range(keep, size):
            weights[order[place]] = 0
    total = 0.0
    for v in range(size):
        if weights[v] < min_p:
            weights[v] = 0
        total += weights[v]
    goal, reached = uniform * total, 0.0
    for v in range(size):
        reached += weights[v]
        if reached > goal:
            return v, logits[v] - normal
    return best, logits[best] - normal
