"""Reading and writing whole chunks of ids outside the interpreter: a model's layers and the choice of ids."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen.kernels import NONE_ALLOWED, NOT_FINITE
from chargen.kernels.context_tree import Tree, begins_text, find_path
from chargen.kernels.decode_gates import gru, lstm
from chargen.kernels.decode_matmul import WIDTH, add_products
from chargen.kernels.filters import apply_filters
from chargen.kernels.jit import compiled
from chargen.kernels.matmul_bf16_rows import multiply_split
from chargen.kernels.mixture import LEAST, Tables, mix_row, new_scratch
from chargen.kernels.spin_barrier import wait_for_all

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Ids = NDArray[np.int64]


class Weights(NamedTuple):
    """The weights of a model's K networks, packed for products.

    Args:
        is_lstm: whether the cell is an LSTM's, not a GRU's.
        config: `TILE_CONFIG`, or empty where weights are not multiplied in tiles.
        hidden: H.
        first_begin: the id from which on all are begin symbols, before which a row's state is reset; V for none.
        packed: all packed weights, flat, network by network: for each layer but the first those of its inputs, then the
            recurrent ones; at the end those of the output layer.
        table: (K, V, gates H), the first layer's sums over the inputs for each id.
        input_scales: (K, L, gates H padded), factors of the sums over inputs.
        state_scales: (K, L, gates H padded), factors of the sums over the state.
        biases: (K, L, gates H padded), added to both.
        new_biases: (K, L, H), added to the sums over the state that a GRU's reset gate multiplies.
        head_scales: (K, V padded), factors of the output layer's sums.
        head_biases: (K, V padded), added to them.
    """

    is_lstm: bool
    config: Bytes
    hidden: int
    first_begin: int
    packed: NDArray[Any]
    table: Floats
    input_scales: Floats
    state_scales: Floats
    biases: Floats
    new_biases: Floats
    head_scales: Floats
    head_biases: Floats


class Choice(NamedTuple):
    """The rules and settings by which ids are chosen.

    Args:
        masks: (M, V), M sets of allowed ids; at any time one of them holds for a row.
        next_mask: (M, V), the number of the mask that holds after an id; below zero where there is none yet, and the
            row stops.
        stop_after: (V,), the ids behind which a row stops.
        temperature: divides logits; 0 takes the most probable id.
        filters: (F,), the settings of `apply_filters`; empty where all are off.
        ranked: whether a filter needs the most likely ids first.
    """

    masks: NDArray[np.bool_]
    next_mask: Ids
    stop_after: NDArray[np.bool_]
    temperature: float
    filters: NDArray[np.float64]
    ranked: bool


class Counts(NamedTuple):
    """What logits are mixed with.

    Args:
        tree: the contexts; none where there are no counts.
        tables: how much is counted.
        history: (R, n + T), the last ids that each row has read before, and those that it reads, or room for those that
            it writes.
    """

    tree: Tree
    tables: Tables
    history: Ids


class Team(NamedTuple):
    """A thread's place among those that share out the hidden units of every layer. All have the same arrays.

    Args:
        member: the thread's number, from 0.
        members: how many threads there are; where more than one, H is a multiple of 64.
        counter: (1,), zero; the barrier at which they wait.
        active: (R + 1,), filled with the rows that read or write the current id; the last element is their number.
        outputs: (2, R, H), filled with outputs of layers of even and odd numbers.
        logits: (K, R, V), filled with those of each network.
    """

    member: int
    members: int
    counter: Ids
    active: Ids
    outputs: NDArray[np.float32]
    logits: NDArray[np.float32]


@compiled
def read_or_write(
    model: Weights, logits: Floats, state: Floats, ids: Ids, log_probs: NDArray[np.float64], counts: Ids, write: bool,
    uniforms: NDArray[np.float64], mask_index: Ids, choice: Choice, mixed: Counts, team: Team,
) -> None:  # fmt: skip
    """Let R rows read at most T ids each, or write and read them.

    Args:
        model: the packed weights.
        logits: (R, V), those of the next id, of all networks and counts; updated.
        state: (K L, R, S), of all layers, network by network; updated.
        ids: (R, T), to be read, or filled with what is written. Where a row cannot write, a code below zero
            (`NOT_FINITE`, `NONE_ALLOWED`) stands behind its last id.
        log_probs: (R, T), filled with the log-probabilities of what is written, in nats.
        counts: (R,), how many ids are to be read; or zeros, which become the numbers of written ids.
        write: whether to write.
        uniforms: (R, T), draws from 0 to below 1, which choose the ids.
        mask_index: (R,), the number of the mask that holds; updated.
        choice: the rules and settings by which ids are chosen.
        mixed: what logits are mixed with.
        team: this thread's place among those that compute the same rows.
    """
    hidden, member, members, active = model.hidden, team.member, team.members, team.active
    rows, time_steps = ids.shape
    networks = len(model.table)
    layers = len(state) // networks
    size, padded, padded_out = logits.shape[1], model.biases.shape[2], model.head_biases.shape[1]
    gates = 4 if model.is_lstm else 3
    # This thread computes the hidden units from `start` up to `stop`, and some blocks of logits.
    start, stop = hidden * member // members, hidden * (member + 1) // members
    if members > 1:
        blocks = hidden // WIDTH
        start, stop = blocks * member // members * WIDTH, blocks * (member + 1) // members * WIDTH
    head_blocks = padded_out // WIDTH
    head_start, head_stop = head_blocks * member // members, head_blocks * (member + 1) // members
    padded_rows = (rows + 15) // 16 * 16
    hidden_rows = np.empty((rows, hidden), np.float32)
    input_sums, state_sums = np.empty((padded_rows, padded), np.float32), np.empty((padded_rows, padded), np.float32)
    outputs = np.empty((padded_rows, padded_out), np.float32)
    # Room for the two bf16 halves of inputs, from a cache line on.
    buffer = np.zeros(2 * padded_rows * hidden + 64, np.uint16)
    aligned_start = (-buffer.ctypes.data % 64) // 2
    halves = buffer[aligned_start : aligned_start + 2 * padded_rows * hidden].reshape((2, padded_rows, hidden))
    scratch = np.empty(size, np.float64)
    stopped = np.zeros(rows, np.bool_)
    has_counts, first = len(mixed.tree.labels) > 0, mixed.history.shape[1] - time_steps
    path, counted = np.empty(mixed.tables.longest + 1, np.int32), new_scratch(size * has_counts)
    arrivals = 0
    for t in range(time_steps):
        count = 0
        if member == 0:
            for row in range(rows):
                if write:
                    if stopped[row]:
                        continue
                    allowed = choice.masks[mask_index[row]]
                    chosen, log_prob = pick(
                        logits[row], allowed, uniforms[row, t], choice.temperature, choice.filters, choice.ranked,
                        scratch,
                    )  # fmt: skip
                    ids[row, t] = chosen
                    if chosen < 0:
                        stopped[row] = True
                        continue
                    log_probs[row, t] = log_prob
                    mixed.history[row, first + t] = chosen
                    counts[row] += 1
                    mask_index[row] = choice.next_mask[mask_index[row], chosen]
                    stopped[row] = mask_index[row] < 0 or choice.stop_after[chosen]
                elif t >= counts[row]:
                    continue
                active[count] = row
                count += 1
            active[rows] = count
        if members > 1:
            arrivals += members
            wait_for_all(team.counter, arrivals)
        count = int(active[rows])
        if count == 0:
            return
        # Only the logits after a row's last id are needed.
        needs_logits = write or t + 1 == time_steps
        for n in range(count):
            needs_logits |= counts[active[n]] == t + 1
        for network in range(networks):
            offset = network * (len(model.packed) // networks)
            table, own_logits = model.table[network], team.logits[network]
            for layer in range(layers):
                below, out = team.outputs[(layer + 1) % 2], team.outputs[layer % 2]
                before = state[network * layers + layer]
                if layer == 0:
                    for n in range(count):
                        input_sums[n, : table.shape[1]] = table[ids[active[n], t]]
                else:
                    _multiply_gates(model, offset, below, count, input_sums, gates, start, stop, members, halves)
                    offset += padded * hidden
                for n in range(count):
                    if ids[active[n], t] < model.first_begin:
                        hidden_rows[n] = before[active[n], :hidden]
                    else:  # this thread's part only: others may still read theirs
                        hidden_rows[n] = 0
                        before[active[n], start:stop] = 0
                        if model.is_lstm:
                            before[active[n], hidden + start : hidden + stop] = 0
                _multiply_gates(model, offset, hidden_rows, count, state_sums, gates, start, stop, members, halves)
                offset += padded * hidden
                bias, new_bias = model.biases[network, layer], model.new_biases[network, layer]
                in_scales, scales = model.input_scales[network, layer], model.state_scales[network, layer]
                for n in range(count):
                    old, new = before[active[n]], out[n]
                    if model.is_lstm:
                        lstm(input_sums[n], state_sums[n], in_scales, scales, bias, start, stop, old, new)
                    else:
                        gru(input_sums[n], state_sums[n], in_scales, scales, bias, new_bias, start, stop, old, new)
                if members > 1:
                    arrivals += members
                    wait_for_all(team.counter, arrivals)
                for n in range(count):
                    before[active[n], start:stop] = out[n, start:stop]
            if not needs_logits:
                continue
            top_outputs = team.outputs[(layers + 1) % 2]
            _multiply_blocks(model, offset, head_start, head_stop, top_outputs, count, outputs, halves)
            head_scales, head_biases = model.head_scales[network], model.head_biases[network]
            for n in range(count):
                for v in range(head_start * WIDTH, min(head_stop * WIDTH, size)):
                    own_logits[active[n], v] = outputs[n, v] * head_scales[v] + head_biases[v]
            if members > 1:
                arrivals += members
                wait_for_all(team.counter, arrivals)
        if needs_logits and member == 0:
            for n in range(count):
                row = active[n]
                if not (write or counts[row] == t + 1):
                    continue
                if networks == 1:
                    logits[row] = team.logits[0, row]
                else:
                    average_logits(team.logits[:, row], logits[row], scratch)
                if has_counts:
                    length = find_path(mixed.tree, mixed.history[row], first + t + 1, path)
                    if begins_text(mixed.tree, mixed.history[row], first + t + 1, length, len(path) - 1):
                        length = -1
                    mix_row(mixed.tree, mixed.tables, path, length, logits[row], counted)


@compiled
def average_logits(logits: Floats, average: Floats, probabilities: NDArray[np.float64]) -> None:
    """Average what networks predict: the logarithms of the means of their probabilities.

    Args:
        logits: (K, V), those of each network.
        average: (V,), filled; with logits that are not finite where there are any.
        probabilities: (V,), scratch memory.
    """
    networks, size = logits.shape
    probabilities[:] = 0
    for network in range(networks):
        own = logits[network]
        largest, total = np.float64(own[0]), 0.0
        for v in range(size):
            if not np.isfinite(own[v]):
                average[:] = own
                return
            largest = max(largest, np.float64(own[v]))
        for v in range(size):
            total += np.exp(np.float64(own[v]) - largest)
        for v in range(size):
            probabilities[v] += np.exp(np.float64(own[v]) - largest) / total
    for v in range(size):
        average[v] = np.log(max(probabilities[v] / networks, LEAST))


@compiled
def _multiply_gates(
    model: Weights, offset: int, inputs: Floats, rows: int, out: Floats, gates: int, start: int, stop: int,
    members: int, halves: NDArray[np.uint16],
) -> None:  # fmt: skip
    """Compute the sums of some hidden units' gates."""
    if members == 1:
        _multiply_blocks(model, offset, 0, out.shape[1] // WIDTH, inputs, rows, out, halves)
        return
    for gate in range(gates):
        start_block, stop_block = (gate * model.hidden + start) // WIDTH, (gate * model.hidden + stop) // WIDTH
        _multiply_blocks(model, offset, start_block, stop_block, inputs, rows, out, halves)


@compiled
def _multiply_blocks(
    model: Weights, offset: int, start: int, stop: int, inputs: Floats, rows: int, out: Floats,
    halves: NDArray[np.uint16],
) -> None:  # fmt: skip
    if len(model.config):
        multiply_split(inputs, rows, model.packed, offset, start, stop, halves[0], halves[1], out, model.config)
    else:
        out[:rows, start * WIDTH : stop * WIDTH] = 0
        add_products(model.packed, offset, start, stop, inputs, rows, model.hidden, out)


@compiled
def pick(
    logits: NDArray[np.float32], allowed: NDArray[np.bool_], uniform: float, temperature: float,
    filters: NDArray[np.float64], ranked: bool, weights: NDArray[np.float64],
) -> tuple[int, float]:  # fmt: skip
    """Choose an id by the rules of `chargen.decoding.choose`.

    Args:
        logits: (V,).
        allowed: (V,), the ids that may be chosen.
        uniform: a draw from 0 to below 1.
        temperature: divides logits; 0 takes the most probable id.
        filters: (F,), the settings of `apply_filters`; empty where all are off.
        ranked: whether a filter needs the most likely ids first.
        weights: (V,), scratch memory.

    Returns:
        The id, and its log-probability before temperature and filters; or `NOT_FINITE` or `NONE_ALLOWED`, and 0.
    """
    size = len(logits)
    max_logit, best = -np.inf, -1
    for v in range(size):
        value = np.float64(logits[v])
        if not np.isfinite(value):
            return NOT_FINITE, 0.0
        max_logit = max(max_logit, value)
        if allowed[v] and (best < 0 or value > logits[best]):
            best = v
    if best < 0:
        return NONE_ALLOWED, 0.0
    total = 0.0
    for v in range(size):
        weights[v] = np.exp(np.float64(logits[v]) - max_logit)
        total += weights[v]
    log_total = max_logit + np.log(total)
    if temperature == 0:
        return best, logits[best] - log_total
    unchanged = temperature == 1 and logits[best] == max_logit
    for v in range(size):
        if not allowed[v]:
            weights[v] = 0
        elif not unchanged:
            weights[v] = np.exp((np.float64(logits[v]) - np.float64(logits[best])) / temperature)
    if len(filters) and ranked:
        scores = np.empty(size, np.float64)
        for v in range(size):
            scores[v] = -np.float64(logits[v]) if allowed[v] else np.inf
        order = np.argsort(scores, kind="mergesort")
        ranked_weights = weights[order]
        apply_filters(ranked_weights, filters)
        weights[order] = ranked_weights
    elif len(filters):
        apply_filters(weights, filters)
    total = 0.0
    for v in range(size):
        total += weights[v]
    target, cumulative = uniform * total, 0.0
    for v in range(size):
        cumulative += weights[v]
        if cumulative > target:
            return v, logits[v] - log_total
    return best, logits[best] - log_total
