"""Reading and writing whole chunks of characters: a model's steps and the choice of characters, without Python."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen.kernels import NONE_ALLOWED, NOT_FINITE
from chargen.kernels.decode_gates import gru, lstm
from chargen.kernels.decode_matmul import WIDTH, add_products
from chargen.kernels.jit import compiled
from chargen.kernels.matmul_bf16_rows import multiply_split
from chargen.kernels.spin_barrier import wait_for_all

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Ids = NDArray[np.int64]


class Weights(NamedTuple):
    """A model as products want it.

    Args:
        is_lstm: which cell; config: `TILE_CONFIG`, or nothing where weights are not multiplied in tiles.
        hidden: H.
        packed: all weights, flat: of each layer the recurrent ones, before them those of its inputs but in the first.
        table: (V, gates H), what the first layer makes of each character.
        input_scales, scales, biases: (L, gates H filled up), of sums over inputs, over the state, and of both.
        new_biases: (L, H), of a GRU's new state, inside the reset.
        head_scales, head_biases: (V filled up,).
    """

    is_lstm: bool
    config: Bytes
    hidden: int
    packed: NDArray[Any]
    table: Floats
    input_scales: Floats
    scales: Floats
    biases: Floats
    new_biases: Floats
    head_scales: Floats
    head_biases: Floats


class Choice(NamedTuple):
    """What may be written, and how: as in `Rules` and `SampleConfig`.

    Args:
        masks: (M, V), what is allowed after some id or other.
        follow: (M, V), which mask holds after an id; below zero: unknown, the row stops behind this id.
        pause: (V,), ids behind which a row stops.
    """

    masks: NDArray[np.bool_]
    follow: Ids
    pause: NDArray[np.bool_]
    temperature: float
    top_k: int
    top_p: float
    min_p: float


class Team(NamedTuple):
    """Threads that share the hidden units of every layer; H is then a multiple of 64. All get the same arrays.

    Args:
        member, members: which of how many.
        counter: (1,), zero.
        active: (R + 1,), the active rows, and last how many.
        outputs: (2, R, H).
    """

    member: int
    members: int
    counter: Ids
    active: Ids
    outputs: NDArray[np.float32]


@compiled
def read_or_write(
    model: Weights, logits: Floats, state: Floats, ids: Ids, log_probs: NDArray[np.float64], counts: Ids, write: bool,
    uniforms: NDArray[np.float64], mask_of: Ids, choice: Choice, team: Team,
) -> None:  # fmt: skip
    """Let R rows read the ids they are given, or write ids and read them; both for at most T characters.

    Args:
        logits, state: (R, V) and (L, R, S) before; changed into what they are after.
        ids: (R, T), read or written.
        log_probs: (R, T), of what was written, in nats.
        counts: (R,) how many are to be read, or how many were written. A row that could not write has a code below zero
            in `ids` behind its last one.
        write: whether to write.
        uniforms: (R, T), the draws.
        mask_of: (R,), which mask holds.
    """
    hidden, member, members, active = model.hidden, team.member, team.members, team.active
    rows, steps = ids.shape
    layers = len(state)
    size, padded, padded_out = logits.shape[1], model.biases.shape[1], len(model.head_biases)
    gates = 4 if model.is_lstm else 3
    # The hidden units, the columns of their gates, and the columns of logits that are this thread's.
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
    waited = 0
    for step in range(steps):
        number = 0
        if member == 0:
            for row in range(rows):
                if write:
                    if stopped[row]:
                        continue
                    allowed = choice.masks[mask_of[row]]
                    chosen, log_prob = pick(
                        logits[row], allowed, uniforms[row, step], choice.temperature, choice.top_k, choice.top_p,
                        choice.min_p, scratch,
                    )  # fmt: skip
                    ids[row, step] = chosen
                    if chosen < 0:
                        stopped[row] = True
                        continue
                    log_probs[row, step] = log_prob
                    counts[row] += 1
                    mask_of[row] = choice.follow[mask_of[row], chosen]
                    stopped[row] = mask_of[row] < 0 or choice.pause[chosen]
                elif step >= counts[row]:
                    continue
                active[number] = row
                number += 1
            active[rows] = number
        if members > 1:
            waited += members
            wait_for_all(team.counter, waited)
        number = int(active[rows])
        if number == 0:
            return
        at = 0
        for layer in range(layers):
            below, out = team.outputs[(layer + 1) % 2], team.outputs[layer % 2]
            if layer == 0:
                for n in range(number):
                    entering[n, : model.table.shape[1]] = model.table[ids[active[n], step]]
            else:
                _multiply(model, at, below, number, entering, gates, first, last, members, halves)
                at += padded * hidden
            for n in range(number):
                inputs[n] = state[layer, active[n], :hidden]
            _multiply(model, at, inputs, number, carried, gates, first, last, members, halves)
            at += padded * hidden
            for n in range(number):
                before, biases = state[layer, active[n]], model.biases[layer]
                input_scales, scales = model.input_scales[layer], model.scales[layer]
                if model.is_lstm:
                    lstm(entering[n], carried[n], input_scales, scales, biases, first, last, before, out[n])
                else:
                    inner = model.new_biases[layer]
                    gru(entering[n], carried[n], input_scales, scales, biases, inner, first, last, before, out[n])
            if members > 1:
                waited += members
                wait_for_all(team.counter, waited)
            for n in range(number):
                state[layer, active[n], first:last] = out[n, first:last]
        if not write and step + 1 < steps:
            # Only the last logits are asked for.
            ends = False
            for n in range(number):
                ends |= counts[active[n]] == step + 1
            if not ends:
                continue
        last_outputs = team.outputs[(layers + 1) % 2]
        _multiply_blocks(model, at, head_first, head_last, last_outputs, number, outputs, halves)
        for n in range(number):
            row = active[n]
            for v in range(head_first * WIDTH, min(head_last * WIDTH, size)):
                logits[row, v] = outputs[n, v] * model.head_scales[v] + model.head_biases[v]
        if members > 1:
            waited += members
            wait_for_all(team.counter, waited)


@compiled
def _multiply(
    model: Weights, at: int, inputs: Floats, rows: int, out: Floats, gates: int, first: int, last: int, members: int,
    halves: NDArray[np.uint16],
) -> None:  # fmt: skip
    """The sums of some hidden units' gates."""
    if members == 1:
        _multiply_blocks(model, at, 0, out.shape[1] // WIDTH, inputs, rows, out, halves)
        return
    for gate in range(gates):
        begin, end = (gate * model.hidden + first) // WIDTH, (gate * model.hidden + last) // WIDTH
        _multiply_blocks(model, at, begin, end, inputs, rows, out, halves)


@compiled
def _multiply_blocks(
    model: Weights, at: int, first: int, last: int, inputs: Floats, rows: int, out: Floats, halves: NDArray[np.uint16],
) -> None:  # fmt: skip
    if len(model.config):
        multiply_split(inputs, rows, model.packed, at, first, last, halves[0], halves[1], out, model.config)
    else:
        out[:rows, first * WIDTH : last * WIDTH] = 0
        add_products(model.packed, at, first, last, inputs, rows, model.hidden, out)


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
