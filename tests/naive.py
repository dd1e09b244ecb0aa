"""The slow, obvious twins of what chargen computes fast: every fast path is tested against one of them.

Each can be checked against its formula by reading it: one row, one character, one number at a time, nothing carried but
a loop's variables. **B** rows, **T** characters per row, **V** vocabulary, **E** embedding, **H** hidden, **N**
characters of a text.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import groupby, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from chargen.counting.mixture import Mixture
from chargen.data.batches import Resets
from chargen.decoding.choose import SampleConfig, choose, log_softmax, log_sum_exp
from chargen.decoding.cloze import NumpyCloze
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.model.config import parameter_shapes
from chargen.model.dropout import DropoutKey
from chargen.model.layers import run_torch
from chargen.rng import Purpose, philox_key, uniform
from chargen.sampling.constraints import Constraints
from chargen.storage.model_file import ModelFile, build_model
from chargen.storage.quantize import as_float32

# Randomness.


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Ten rounds of Philox4x32 in whole numbers of any size: a counter of four words and a key of two give four words.

    Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.
    """
    mask = 2**32 - 1
    for _ in range(10):
        first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (second >> 32) ^ counter[1] ^ key[0],
            second & mask,
            (first >> 32) ^ counter[3] ^ key[1],
            first & mask,
        ]
        key = [(key[0] + 0x9E3779B9) & mask, (key[1] + 0xBB67AE85) & mask]
    return counter


def dropout_mask(shape: tuple[int, int, int], rate: float, key: DropoutKey, layer: int) -> Tensor:
    """Which of the values (B, T, F) stay: those whose 16 bits, Philox of their address, are not below the rate."""
    numbers = np.empty(shape, np.int64)
    for row, position, hidden_unit in np.ndindex(shape):
        counter = [hidden_unit // 8, position, key.first_row + row, int(Purpose.DROPOUT)]
        words = philox(counter, list(philox_key(key.seed, layer, key.step, Purpose.DROPOUT)))
        word, half = divmod(hidden_unit % 8, 2)
        numbers[row, position, hidden_unit] = words[word] >> 16 * half & 0xFFFF
    return torch.from_numpy(numbers >= round(rate * 65536))


# Batches.


def row_starts(length: int, rows: int, seed: int) -> list[int]:
    """Where each of B rows begins in a text of N characters: evenly spread, all moved by a phase drawn once."""
    phase = int(float(uniform(seed, 0, 0, Purpose.PHASE)) * length)
    return [phase + row * length // rows for row in range(rows)]


def consecutive_targets(length: int, rows: int, window: int, seed: int, step: int) -> list[list[int]]:
    """The positions (B, T) that a step of consecutive batches has as targets: (phase + ⌊iN/B⌋ + kT + j) mod N."""
    starts = row_starts(length, rows, seed)
    return [[(start + step * window + j) % length for j in range(window)] for start in starts]


def window_starts(places: int, rows: int, seed: int, step: int, purpose: Purpose) -> list[int]:
    """Where the random windows (B,) of a step begin: any of so many places, all as likely."""
    return [int(float(uniform(seed, row, step, purpose)) * places) for row in range(rows)]


def fresh_states(resets: Resets, seed: int, step: int, rows: list[int], inputs: list[list[int]]) -> list[list[bool]]:
    """Where resets are drawn: at the window's start, or at each line end, whose address counts a row's characters."""
    fresh = []
    for row, ids in zip(rows, inputs, strict=True):
        index, size = 1_000_000 * resets.stream + row, len(ids)
        if resets.begin is None or resets.share == 1:
            drawn = [float(uniform(seed, index, step, Purpose.RESET)) < resets.share]
            fresh.append(drawn + [False] * (size - 1))
        else:
            draws = [float(uniform(seed, index, step * size + j, Purpose.RESET)) for j in range(size)]
            drawn = [draw * size * resets.frequency < resets.share for draw in draws]
            fresh.append([reset and id_ == resets.begin for reset, id_ in zip(drawn, ids, strict=True)])
    return fresh


# Arithmetic.


def fused_multiply_add(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> NDArray[np.float32]:
    """a * b + c of float32 arrays, rounded once: the product is exact in float64, the sum is rounded to odd.

    Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008.
    """
    products, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = products + c
    part = total - products
    rest = (products - (total - part)) + (c - part)
    places = total.view(np.int64)
    inexact = (rest != 0) & (places % 2 == 0)
    odd = places + np.where(inexact, np.where((rest > 0) == (total > 0), 1, -1), 0)
    result: NDArray[np.float32] = odd.view(np.float64).astype(np.float32)
    return result


def exp(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The operations of `decode_gates.exp` in NumPy, each rounded to float32: 2^k times a Taylor series of the rest."""
    x = np.clip(x, np.float32(-87), np.float32(87))
    doublings = np.rint(x * np.float32(1 / np.log(2)))
    r = (x - doublings * np.float32(0.693359375)) - doublings * np.float32(-2.12194440e-4)
    series = np.float32(1 / 5040)
    for factorial in (720, 120, 24, 6, 2, 1, 1):
        series = np.float32(1 / factorial) + r * series
    result: NDArray[np.float32] = np.ldexp(series, doublings.astype(np.int32))
    return result


def bf16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Numbers rounded to bf16 as PyTorch rounds them, to the nearest and of two to the even one, as bits."""
    bits: NDArray[np.uint16] = torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()
    return bits


def rounded_to_bf16(values: Tensor) -> Tensor:
    """Numbers rounded to bf16 as PyTorch rounds them, in float32."""
    return values.detach().bfloat16().float()


def layer_with_resets(module: nn.RNNBase, inputs: Tensor, state: Tensor, fresh: Tensor) -> tuple[Tensor, Tensor]:
    """A layer of inputs (B, T, F) step by step, its state (B, S) multiplied by zero where it is fresh (B, T)."""
    outputs = []
    for t in range(inputs.shape[1]):
        output, state = run_torch(module, inputs[:, t : t + 1], state * ~fresh[:, t : t + 1])
        outputs.append(output)
    return torch.cat(outputs, 1), state


def scan(kept: Tensor, added: Tensor, state: Tensor) -> Tensor:
    """h[t] = kept[t] h[t-1] + added[t] for all t (T, B, H), from a state (B, H)."""
    states = []
    for t in range(len(kept)):
        state = kept[t] * state + added[t]
        states.append(state)
    return torch.stack(states)


# Layers.


def sigmoid(x: NDArray[Any]) -> NDArray[np.float64]:
    """1 / (1 + e^-x) in float64."""
    result: NDArray[np.float64] = 1 / (1 + np.exp(-x.astype(np.float64)))
    return result


def lstm_cell(gates: NDArray[np.float64], cell: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Hidden state and cell (H,) after sums of gates (4, H), in the order input, forget, new, output.

    c' = σ(f) c + σ(i) tanh(g) and h' = σ(o) tanh(c'); Gers, Schmidhuber and Cummins, "Learning to forget", 2000,
    as `torch.nn.LSTM` has it.
    """
    enter, forget, new, leave = gates
    cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
    return sigmoid(leave) * np.tanh(cell), cell


def gru_cell(inputs: NDArray[Any], states: NDArray[Any], hidden: NDArray[Any]) -> NDArray[np.float64]:
    """The hidden state (H,) after sums over inputs and over the state (3, H), in the order reset, update, new.

    h' = (1 - z) tanh(n_x + r n_h) + z h with r and z sigmoids; Cho and others, 2014, as `torch.nn.GRU` has it.
    """
    reset, update = sigmoid(inputs[0] + states[0]), sigmoid(inputs[1] + states[1])
    result: NDArray[np.float64] = (1 - update) * np.tanh(inputs[2] + reset * states[2]) + update * hidden
    return result


def logits(
    file: ModelFile, ids: list[int], direction: str = "forward", neurons: dict[tuple[int, int], float] | None = None
) -> NDArray[np.float64]:
    """Logits (T, V) of a model's stack after each of ids, in float64, one gate at a time.

    Hidden units of `neurons`, by layer from 1 and number, are overwritten by a value before the first id and after
    every step, before anything reads them.
    """
    config, shapes = file.config, parameter_shapes(file.config, len(file.vocabulary))
    weights = {name: as_float32(file.arrays, name).astype(np.float64) for name in shapes}
    hidden = np.zeros((config.num_layers, config.hidden_size))
    cell, rows = hidden.copy(), []

    def overwrite(layer: int) -> None:
        for (number, unit), value in (neurons or {}).items():
            if number == layer + 1:
                hidden[layer, unit] = value

    for id_ in ids:
        x = weights["embedding.weight"][id_]
        for layer in range(config.num_layers):
            if id_ >= len(file.vocabulary) - config.begin_symbols:
                hidden[layer] = cell[layer] = 0
            overwrite(layer)
            w = {name: weights[f"{direction}_layers.{layer}.{name}_l0"] for name in ("weight_ih", "weight_hh")}
            b = {name: weights[f"{direction}_layers.{layer}.{name}_l0"] for name in ("bias_ih", "bias_hh")}
            inputs, states = w["weight_ih"] @ x + b["bias_ih"], w["weight_hh"] @ hidden[layer] + b["bias_hh"]
            if config.cell == "lstm":
                hidden[layer], cell[layer] = lstm_cell((inputs + states).reshape(4, -1), cell[layer])
            else:
                hidden[layer] = gru_cell(inputs.reshape(3, -1), states.reshape(3, -1), hidden[layer])
            overwrite(layer)
            x = hidden[layer]
        rows.append(weights[config.output_table] @ x + weights["output.bias"])
    return np.array(rows)


def cloze_logits(model: nn.Module, left: Tensor, right: Tensor) -> NDArray[np.float64]:
    """Logits (..., V) between outputs (..., H) of both stacks: the sum of both predictions and of a layer of tanh."""
    w = {name: weight.detach().double().numpy() for name, weight in model.named_parameters()}
    before, behind = left.double().numpy(), right.double().numpy()
    inner = before @ w["cloze.left.weight"].T + behind @ w["cloze.right.weight"].T + w["cloze.right.bias"]
    result = (before + behind) @ w["output.weight"].T + 2 * w["output.bias"]
    result += np.tanh(inner) @ w["cloze.output.weight"].T + w["cloze.output.bias"]
    return np.asarray(result)


def lstm_in_bf16(module: nn.LSTM, inputs: Tensor, state: Tensor, gradient: Tensor, after: Tensor) -> dict[str, Tensor]:
    """One LSTM layer and its gradients in float32, rounded to bf16 where the compiled layer rounds.

    Args:
        module: the layer.
        inputs: what it reads, (B, T, F).
        state: what it starts from, hidden state and cell, (B, 2H).
        gradient: of its outputs, (B, T, H).
        after: gradient of its last state, (B, 2H).

    Returns:
        "outputs", the state "after", and the gradients "of inputs", "of weight_ih" and so on.
    """
    weight_ih, weight_hh = (rounded_to_bf16(module.get_parameter(f"weight_{kind}_l0")) for kind in ("ih", "hh"))
    bias = (module.get_parameter("bias_ih_l0") + module.get_parameter("bias_hh_l0")).detach()
    inputs = rounded_to_bf16(inputs)
    h, c = state.chunk(2, 1)
    input_sums = rounded_to_bf16(inputs @ weight_ih.t())
    hiddens, cells, gates = [h], [c], []
    for t in range(inputs.shape[1]):
        i, f, g, o = (input_sums[:, t] + bias + rounded_to_bf16(h) @ weight_hh.t()).chunk(4, 1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        c = f * c + i * g
        h = o * c.tanh()
        hiddens.append(h)
        cells.append(c)
        gates.append(rounded_to_bf16(torch.cat([i, f, g, o], 1)))
    dh, dc = after.chunk(2, 1)
    grad_bias = torch.zeros_like(bias)
    grad_sums: list[Tensor] = []
    for t in range(inputs.shape[1] - 1, -1, -1):
        i, f, g, o = gates[t].chunk(4, 1)
        dh = dh + rounded_to_bf16(gradient[:, t])
        tanh = cells[t + 1].tanh()
        dc = dc + dh * o * (1 - tanh * tanh)
        grads = torch.cat(
            [dc * i * g * (1 - i), dc * f * cells[t] * (1 - f), dc * i * (1 - g * g), dh * tanh * o * (1 - o)], 1
        )
        dc = dc * f
        grad_bias = grad_bias + rounded_to_bf16(grads).sum(0)
        grad_sums.insert(0, rounded_to_bf16(grads))
        dh = rounded_to_bf16(grads) @ weight_hh
    sums, before = torch.stack(grad_sums, 1), rounded_to_bf16(torch.stack(hiddens[:-1], 1))
    return {
        "outputs": rounded_to_bf16(torch.stack(hiddens[1:], 1)),
        "after": torch.cat([h, c], 1),
        "of inputs": rounded_to_bf16(sums @ weight_ih),
        "of weight_ih": rounded_to_bf16(sums.flatten(0, 1).t() @ inputs.flatten(0, 1)),
        "of weight_hh": rounded_to_bf16(sums.flatten(0, 1).t() @ before.flatten(0, 1)),
        "of bias_ih": grad_bias,
        "of bias_hh": grad_bias,
        "of state": torch.cat([dh, dc], 1),
    }


def gru_in_bf16(module: nn.GRU, inputs: Tensor, state: Tensor, gradient: Tensor, after: Tensor) -> dict[str, Tensor]:
    """One GRU layer and its gradients in float32, rounded to bf16 where the compiled layer rounds.

    Arguments and result are those of `lstm_in_bf16`; a state is (B, H), and is carried on in float32.
    """
    weight_ih, weight_hh = (rounded_to_bf16(module.get_parameter(f"weight_{kind}_l0")) for kind in ("ih", "hh"))
    bias_ih, bias_hh = (module.get_parameter(f"bias_{kind}_l0").detach() for kind in ("ih", "hh"))
    inputs, h, size = rounded_to_bf16(inputs), state, state.shape[1]
    input_sums = rounded_to_bf16(inputs @ weight_ih.t())
    hiddens, inners, gates = [h], [], []
    for t in range(inputs.shape[1]):
        state_sums = rounded_to_bf16(h) @ weight_hh.t() + bias_hh
        r, z = (input_sums[:, t] + bias_ih + state_sums)[:, : 2 * size].sigmoid().chunk(2, 1)
        inner = state_sums[:, 2 * size :]
        n = (input_sums[:, t, 2 * size :] + bias_ih[2 * size :] + r * inner).tanh()
        h = (1 - z) * n + z * h
        hiddens.append(h)
        inners.append(rounded_to_bf16(inner))
        gates.append(rounded_to_bf16(torch.cat([r, z, n], 1)))
    dh = after
    grad_sums: list[Tensor] = []
    grad_inners: list[Tensor] = []
    grad_bias, grad_inner_bias = torch.zeros_like(bias_ih), torch.zeros(size)
    for t in range(inputs.shape[1] - 1, -1, -1):
        r, z, n = gates[t].chunk(3, 1)
        before = rounded_to_bf16(hiddens[t])
        dh = dh + rounded_to_bf16(gradient[:, t])
        dn, dz = dh * (1 - z) * (1 - n * n), dh * (before - n) * z * (1 - z)
        grad_inner = dn * r
        grads = torch.cat([grad_inner * inners[t] * (1 - r), dz, dn], 1)
        grad_bias = grad_bias + rounded_to_bf16(grads).sum(0)
        grad_inner_bias = grad_inner_bias + rounded_to_bf16(grad_inner).sum(0)
        grad_sums.insert(0, rounded_to_bf16(grads))
        grad_inners.insert(0, rounded_to_bf16(grad_inner))
        dh = dh * z + torch.cat([rounded_to_bf16(grads)[:, : 2 * size], rounded_to_bf16(grad_inner)], 1) @ weight_hh
    sums, before = torch.stack(grad_sums, 1), rounded_to_bf16(torch.stack(hiddens[:-1], 1))
    grad_inner = torch.cat([sums[..., : 2 * size], torch.stack(grad_inners, 1)], 2)
    return {
        "outputs": rounded_to_bf16(torch.stack(hiddens[1:], 1)),
        "after": h,
        "of inputs": rounded_to_bf16(sums @ weight_ih),
        "of weight_ih": rounded_to_bf16(sums.flatten(0, 1).t() @ inputs.flatten(0, 1)),
        "of weight_hh": rounded_to_bf16(grad_inner.flatten(0, 1).t() @ before.flatten(0, 1)),
        "of bias_ih": grad_bias,
        "of bias_hh": torch.cat([grad_bias[: 2 * size], grad_inner_bias]),
        "of state": dh,
    }


# Losses.


def cross_entropy(values: Tensor, output: nn.Linear, targets: Tensor, fixed: Any = None) -> Tensor:
    """The mean cost of targets (...) in nats from values (..., H), by one product and PyTorch's own loss.

    Args:
        values: what the output layer reads.
        output: the output layer, H to V.
        targets: ids, or (..., V) probabilities.
        fixed: values (..., K), weights (V, K) and bias (V,) whose product is added and has no gradient; or None.
    """
    scores: Tensor = output(values)
    if fixed:
        scores = scores + fixed[0] @ fixed[1].t() + fixed[2]
    if targets.is_floating_point():
        return -(targets.to(scores.dtype) * torch.log_softmax(scores, -1)).sum(-1).mean()
    return functional.cross_entropy(scores.flatten(0, -2), targets.flatten())


@torch.inference_mode()
def costs(model: Any, ids: Any, direction: str = "forward") -> NDArray[np.float64]:
    """What each of ids (N,) but the first that is read costs in nats, (N - 1,), in the order of reading."""
    order = [int(id_) for id_ in (ids[::-1] if direction == "backward" else ids)]
    state, nats = None, []
    for at in range(1, len(order)):
        scores, state = model(torch.tensor([[order[at - 1]]]), state, direction=direction)
        nats.append(-torch.log_softmax(scores[0, 0].double(), 0)[order[at]].item())
    return np.array(nats)


@torch.inference_mode()
def mixed_costs(file: ModelFile, order: Any, direction: str = "forward") -> NDArray[np.float64]:
    """What each of ids (N,) but the first costs, (N - 1,): network and counts mixed; one at a time, as they are read.

    Where the model has no counts of this direction, the network predicts alone.
    """
    model, mixture, nats = build_model(file), file.mixtures.get(direction), []
    state, last = None, model.first_begin if file.vocabulary.records else len(file.vocabulary)
    for at in range(1, len(order)):
        scores, state = model(torch.tensor([[int(order[at - 1])]]), state, direction=direction)
        logits = scores[0, 0].double().numpy()
        before = np.array(order[:at], np.int64)
        odds = mixture.probabilities(before, logits) if mixture else np.exp(log_softmax(logits))
        nats.append(-np.log(odds[min(int(order[at]), last)]))
    return np.array(nats)


@torch.inference_mode()
def cloze_costs(model: Any, window: Any, margin: int) -> list[float]:
    """What each character of a window (T,) costs between its neighbours in nats, margins left out, one id at a time."""
    after: dict[str, dict[int, Tensor]] = {"forward": {}, "backward": {}}
    for direction, order in (("forward", range(len(window))), ("backward", reversed(range(len(window))))):
        state = None
        for t in order:
            values, state = model.read(torch.tensor([[int(window[t])]]), state, direction=direction)
            after[direction][t] = values[0, 0]
    nats = []
    for t in range(margin, len(window) - margin):
        scores = model.cloze_logits(after["forward"][t - 1], after["backward"][t + 1])
        nats.append(-torch.log_softmax(scores.double(), 0)[int(window[t])].item())
    return nats


def clipped(loss: Tensor, named: dict[str, Tensor], limit: float) -> tuple[dict[str, Tensor], float]:
    """The gradients of a loss by name, together no longer than the limit (0 is none), and how long they were.

    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", 2013.
    """
    gradients = torch.autograd.grad(loss, list(named.values()))
    length = sum(float(gradient.double().square().sum()) for gradient in gradients) ** 0.5
    factor = min(1.0, limit / length) if limit else 1.0
    return {name: gradient * factor for name, gradient in zip(named, gradients, strict=True)}, length


def segments(model: Any, ids: NDArray[Any], size: int) -> Iterator[tuple[float, list[Tensor]]]:
    """The mean cost of each segment of ids (N,) in nats, and its gradient for all weights; the state is carried."""
    all_ids, state = torch.from_numpy(ids.astype(np.int64)), None
    for begin in range(0, len(ids) - 1, size):
        end = min(begin + size, len(ids) - 1)
        scores, state = model(all_ids[None, begin:end], state)
        state = tuple(layer.detach() for layer in state)
        cost = functional.cross_entropy(scores[0], all_ids[begin + 1 : end + 1])
        yield cost.item(), list(torch.autograd.grad(cost, list(model.parameters())))


@torch.no_grad()
def learn_from_segment(
    weights: list[Tensor], trained: list[Tensor], gradients: list[Tensor], usual: list[Tensor],
    lr: float, decay: float, floor: float,
) -> None:  # fmt: skip
    """One step of dynamic evaluation on weights, in place.

    Krause, Kahembwe, Murray and Renals, "Dynamic evaluation of neural sequence models", 2018, formulas (5) to (7).

    Args:
        weights: as they are.
        trained: as they were before anything was read.
        gradients: of the segment that was read last.
        usual: the root of the mean square of gradients over a training text.
        lr: learning rate.
        decay: how strongly weights are pulled back to the trained ones.
        floor: the least divisor, as a share of the mean of `usual`.
    """
    mean = torch.cat([size.flatten() for size in usual]).mean()
    for weight, start, gradient, size in zip(weights, trained, gradients, usual, strict=True):
        weight -= lr * gradient / (size + floor * mean)
        weight += (decay * size / mean).clamp(max=1) * (start - weight)


def inside(file: ModelFile, text: str, direction: str = "forward", label: str | None = None) -> dict[str, Any]:
    """Hidden states, cells and gates (L, N, H) after each character of a text, one id after the other.

    States are those of the reference engine. The state before a character that has no id stays.
    """
    engine, _, state = start(file, direction)
    vocabulary, size, order = file.vocabulary, file.config.hidden_size, 1 if direction == "forward" else -1
    names = ("reset", "update") if file.config.cell == "gru" else ("input", "forget", "", "output")
    weights = {
        (layer, name): as_float32(file.arrays, f"{direction}_layers.{layer}.{name}_l0").astype(np.float64)
        for layer in range(file.config.num_layers)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    table = as_float32(file.arrays, "embedding.weight").astype(np.float64)
    gates = np.zeros((len(names), file.config.num_layers, size))
    rows: dict[str, list[NDArray[Any]]] = {"hidden": [], "cells": [], **{f"gate_{name}": [] for name in names if name}}

    def read_id(id_: int) -> None:
        nonlocal state
        hidden, x = [layer[0, :size] for layer in state], table[id_]
        _, state = engine.step(np.array([id_]), state)
        for layer, before in enumerate(hidden):
            sums = weights[layer, "weight_ih"] @ x + weights[layer, "bias_ih"]
            sums = sums + weights[layer, "weight_hh"] @ before + weights[layer, "bias_hh"]
            gates[:, layer] = sigmoid(sums).reshape(-1, size)[: len(names)]
            x = state[layer][0, :size].astype(np.float64)

    for id_ in [vocabulary.begin_id(label)] if vocabulary.records else vocabulary.encode(file.begin)[::order]:
        read_id(id_)
    for character in text[::order]:
        for id_ in vocabulary.encode(character, vocabulary.default_unknown)[::order]:
            read_id(id_)
        rows["hidden"].append(np.array([layer[0, :size] for layer in state]))
        rows["cells"].append(np.array([layer[0, -size:] for layer in state]))
        for number, name in enumerate(names):
            if name:
                rows[f"gate_{name}"].append(gates[number].copy())
    return {name: np.array(values[::order]).swapaxes(0, 1) for name, values in rows.items()}


# Features.


def features(text: str) -> list[dict[str, float | bool]]:
    """What is true after each character of a text, read forward, by one walk that remembers what is open."""
    rows: list[dict[str, float | bool]] = []
    depths = {"quotes": 0, "single quotes": 0, "brackets": 0}
    odd = {"quotes": False, "single quotes": False, "triple quotes": False}
    length, indentation, leading = 0, 0, True
    triples = [match.start() for match in re.finditer('"""', text)]
    lines = [len(line) + 1 for line in text.split("\n")]
    for at, character in enumerate(text):
        before, behind = text[at - 1 : at], text[at + 1 : at + 2]
        if at and before == "\n":
            length, indentation, leading = 0, 0, True
            odd["single quotes"] = depths["single quotes"] = False
            if text[max(at - 2, 0) : at] == "\n\n":
                depths, odd["quotes"] = {"quotes": 0, "single quotes": 0, "brackets": 0}, False
        length += 1
        leading = leading and character in " \t"
        indentation += leading
        apostrophe = before.isalnum() and behind.isalnum()
        steps = {"quotes": ("“«", "”»"), "brackets": ("([{", ")]}"), "single quotes": ("‘", "" if apostrophe else "’")}
        for name, (opening, closing) in steps.items():
            depths[name] = max(0, depths[name] + (character in opening) - (character in closing))
        in_triple = any(start <= at < start + 3 for start in triples)
        odd["quotes"] ^= character == '"' and not in_triple
        odd["triple quotes"] ^= at - 2 in triples
        odd["single quotes"] ^= character == "'" and not apostrophe
        line = text[:at].count("\n")
        size = lines[line] if line < len(lines) - 1 else lines[line] - 1
        rows.append({
            "line length so far": length, "position in line": length / size, "indentation": indentation,
            "inside quotes": depths["quotes"] > 0 or odd["quotes"], "inside brackets": depths["brackets"] > 0,
            "inside single quotes": depths["single quotes"] > 0 or odd["single quotes"],
            "inside triple quotes": odd["triple quotes"], "upper case": character.isupper(),
            "word start": character.isalnum() and not before.isalnum(),
        })  # fmt: skip
    return rows


def area(states: NDArray[Any], members: NDArray[np.bool_]) -> float:
    """The share of pairs, one with a feature and one without, whose first has the higher state; a half for equals."""
    ones, others = states[members].astype(np.float64), states[~members].astype(np.float64)
    wins = (ones[:, None] > others).sum() + (ones[:, None] == others).sum() / 2
    return float(wins / (len(ones) * len(others)))


# Reading and writing.


def walk(engine: Any, ids: NDArray[Any], state: Any = None) -> tuple[NDArray[Any], Any]:
    """Logits (B, T, V) after each of ids (B, T), one step after the other, and the last state."""
    state = engine.start(len(ids)) if state is None else state
    columns = []
    for column in ids.T:
        output, state = engine.step(column, state)
        columns.append(output)
    return np.stack(columns, axis=1), state


class CountedEngine:
    """An engine whose logits are logarithms of what network and counts mixed predict; its state has all ids read."""

    def __init__(self, engine: NumpyEngine, mixture: Mixture) -> None:
        self.engine, self.mixture = engine, mixture

    def start(self, rows: int) -> Any:
        return (), *self.engine.start(rows)

    def step(self, ids: NDArray[Any], state: Any) -> tuple[NDArray[Any], Any]:
        logits, layers = self.engine.step(ids, state[1:])
        read = (*state[0], int(ids[0]))
        probabilities = self.mixture.probabilities(np.array(read), logits[0])
        return np.log(np.maximum(probabilities, 1e-300))[None], (read, *layers)


def start(file: ModelFile, direction: str = "forward") -> tuple[Any, NDArray[Any], Any]:
    """An engine, the first logits (1, V), those of the stored counts, and the first state."""
    engine: Any = NumpyEngine(file.config, file.arrays, direction)
    if mixture := file.mixtures.get(direction):
        engine = CountedEngine(engine, mixture)
    return engine, np.log(file.counts)[None], engine.start(1)


def read(engine: Any, scores: NDArray[Any], state: Any, ids: Any) -> tuple[float, NDArray[Any], Any]:
    """The log-probability of ids, one after the other, and logits (1, V) and state after them."""
    total = 0.0
    for id_ in ids:
        total += float(log_softmax(scores[0])[id_])
        scores, state = engine.step(np.array([id_]), state)
    return total, scores, state


def read_all(file: ModelFile, ids: NDArray[Any], direction: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Outputs (N, H) and logits (N, V) after each of ids (N,) was read, in the order of the text."""
    engine, _, state = start(file, direction)
    outputs, rows = [], []
    for id_ in ids if direction == "forward" else ids[::-1]:
        row, state = engine.step(np.array([id_]), state)
        rows.append(row[0])
        outputs.append(state[-1][0, : file.config.hidden_size])
    order = 1 if direction == "forward" else -1
    return np.array(outputs)[::order], np.array(rows)[::order]


def judged(file: ModelFile, ids: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """By each judge, the log-probability (N,) of every one of ids: by counts where nothing is before or behind it.

    The cloze layer judges between two characters; at an edge of the text one direction judges alone. What it judges by
    is the network's, without counts of contexts.
    """
    log_probs = {direction: _judged_one_way(file, ids, direction)[0] for direction in file.config.directions}
    if file.config.bidirectional:
        (forward, left, before), (log_probs["cloze"], right, behind) = (
            _judged_one_way(replace(file, mixtures={}), ids, direction) for direction in ("forward", "backward")
        )
        log_probs["cloze"][1:], cloze = forward[1:], NumpyCloze(file.arrays)
        for at in range(1, len(ids) - 1):
            contexts = left[at - 1], right[at + 1], before[at - 1], behind[at + 1]
            row = cloze.logits(*(context[None] for context in contexts))[0, 0]
            log_probs["cloze"][at] = log_softmax(row)[ids[at]]
    return log_probs


def _judged_one_way(file: ModelFile, ids: NDArray[Any], direction: str) -> tuple[NDArray[Any], ...]:
    """The log-probability (N,) of every one of ids; outputs (N, H) and logits (N, V) after each."""
    first, near = log_softmax(np.log(file.counts)), -1 if direction == "forward" else 1
    outputs, logits = read_all(file, ids, direction)
    rows = [log_softmax(logits[at + near]) if 0 <= at + near < len(ids) else first for at in range(len(ids))]
    return np.array([row[id_] for row, id_ in zip(rows, ids, strict=True)]), outputs, logits


def sample(
    file: ModelFile, config: SampleConfig, seed: int, index: int, prime: str, direction: str = "forward"
) -> Iterator[tuple[str, float]]:
    """Characters of one sample in the order of writing, each with its log-probability; an empty one ends a record."""
    backward = direction == "backward"
    engine, scores, state = start(file, direction)
    rules = Constraints(file.vocabulary, config.ban, config.no_repeat, backward=backward)
    ids = file.vocabulary.encode(prime)
    _, scores, state = read(engine, scores, state, ids[::-1] if backward else ids)
    rules.note_read(prime[::-1] if backward else prime)
    draws, partial, total = 0, b"", 0.0
    while True:
        id_ = choose(scores[0], rules.mask(partial), float(uniform(seed, index, draws, Purpose.SAMPLE)), config)
        total += log_softmax(scores[0])[id_]
        scores, state = engine.step(np.array([id_]), state)
        draws += 1
        if id_ == file.vocabulary.end_id:
            yield "", total
            return
        written = bytes([id_]) if file.vocabulary.byte_mode else file.vocabulary.characters[id_].encode()
        partial = written + partial if backward else partial + written
        try:
            character = partial.decode()
        except UnicodeDecodeError:
            continue
        rules.note_written(character)
        yield character, total
        partial, total = b"", 0.0


def processed_sample(file: ModelFile, processor: Any, length: int, seed: int, ban: str) -> tuple[str, list[float]]:
    """A text whose logits a function changes, drawn with Python's numbers, and its log-probabilities without that."""
    engine, _, state = start(file)
    scores, state = engine.step(file.vocabulary.encode("\n"), state)
    text, log_probs = "\n", []
    for n in range(length):
        values = processor(file.vocabulary.encode(text).astype(np.int64), scores[0].copy())
        weights = [
            0.0 if character in ban else float(np.exp(np.float64(value - values.max())))
            for character, value in zip(file.vocabulary.characters, values, strict=True)
        ]
        target = float(uniform(seed, 0, n, Purpose.SAMPLE)) * sum(weights)
        drawn = next(index for index in range(len(weights)) if sum(weights[: index + 1]) > target)
        text += file.vocabulary.characters[drawn]
        log_probs.append(float(log_softmax(scores[0])[drawn]))
        scores, state = engine.step(np.array([drawn]), state)
    return text[1:], log_probs


def rounded(text: str, length: int, line: int, word: int) -> str:
    """A long text, in the order of writing, cut behind the next line end, else behind the next blank, else at once.

    Args:
        text: what would be written without an end.
        length: characters that are written in any case.
        line: how many more may be written to end a line.
        word: how many more than those may be written to end a word.
    """
    for size in range(length, length + line):
        if text[size - 1] == "\n":
            return text[:size]
    for size in range(length + line, length + line + word):
        if text[size - 1].isspace():
            return text[:size]
    return text[: length + line + word]


def cut_into_samples(plain: str, sizes: list[int], stop: list[str]) -> list[tuple[str, bool]]:
    """A text, in the order of writing, cut into calls: what each wrote, and whether a stop text ended it."""
    at, unmatched, samples = 0, "", []
    for size in sizes:
        text, stopped = "", False
        while len(text) < size and not stopped:
            text += plain[at]
            unmatched += plain[at]
            at += 1
            if stopped := any(unmatched.endswith(end) for end in stop):
                unmatched = ""
        samples.append((text, stopped))
    return samples


def forbidden(history: list[tuple[str, bool]], run: int) -> set[str]:
    """The characters that would repeat a run of so many which ends in what was written.

    Args:
        history: each character so far, and whether it was written rather than fed.
        run: the length that no run may have twice; 0 forbids none.
    """
    text = "".join(character for character, _ in history)
    if not run or len(text) < run - 1:
        return set()
    context = text[len(text) - run + 1 :]
    ends = range(run - 1, len(text))
    return {text[end] for end in ends if history[end][1] and text[end - run + 1 : end] == context}


# UTF-8, as Python writes it.


@cache
def utf8_encodings() -> dict[int, NDArray[np.uint8]]:
    """By number of bytes, every character's UTF-8, (characters, bytes)."""
    encodings = {}
    for first, last, length in ((0, 0x80, 1), (0x80, 0x800, 2), (0x800, 0x10000, 3), (0x10000, 0x110000, 4)):
        text = "".join(chr(code) for code in range(first, last) if not 0xD800 <= code < 0xE000)
        encodings[length] = np.frombuffer(text.encode(), np.uint8).reshape(-1, length)
    return encodings


@cache
def utf8_edges(size: int, end: bool = False) -> dict[bytes, int]:
    """The first (or last) `size` bytes of all encodings as long or longer, each with how many characters have them."""
    numbers = []
    for length, encoded in utf8_encodings().items():
        if length >= size:
            edge = encoded[:, length - size :] if end else encoded[:, :size]
            numbers.append(edge.astype(np.int64) @ 256 ** np.arange(size - 1, -1, -1))
    values, counts = np.unique(np.concatenate(numbers), return_counts=True)
    return {value.to_bytes(size, "big"): count for value, count in zip(values.tolist(), counts.tolist(), strict=True)}


@cache
def characters_of(edge: bytes, end: bool = False) -> list[str]:
    """All characters whose UTF-8 begins (or ends) with `edge`, in order."""
    characters: list[str] = []
    for length, encoded in utf8_encodings().items():
        if length >= len(edge):
            part = encoded[:, length - len(edge) :] if end else encoded[:, : len(edge)]
            characters += encoded[(part == np.frombuffer(edge, np.uint8)).all(axis=1)].tobytes().decode()
    return characters


# N-grams.


class KneserNey:
    """Interpolated modified Kneser-Ney by dictionaries; Chen and Goodman, 1998, section 4.1.3, equations 26 to 29.

    Args:
        ids: of the text.
        size: V.
        order: n.
        end_id: of records, the first symbol that begins one: contexts do not reach across it.
    """

    def __init__(self, ids: list[int], size: int, order: int, end_id: int | None = None) -> None:
        self.order, self.end_id = order, size if end_id is None else end_id
        self.uniform = 1 / size if end_id is None else 1 / (end_id + 1)
        occurrences: dict[tuple[int, ...], int] = {}
        preceding: dict[tuple[int, ...], set[Any]] = {}
        begin = 0
        for at, id_ in enumerate(ids):
            target = min(id_, self.end_id)
            for start in range(max(begin, at - order + 1), at + 1):
                if not (at == 0 and end_id is not None):
                    gram = (*ids[start:at], target)
                    occurrences[gram] = occurrences.get(gram, 0) + 1
                    preceding.setdefault(gram, set()).add(ids[start - 1] if start > begin else ("nothing", at))
            begin = at if id_ >= self.end_id else begin
        counts = {gram: number if len(gram) == order else len(preceding[gram]) for gram, number in occurrences.items()}
        self.counts, self.occurrences = counts, occurrences
        self.behind: dict[tuple[int, ...], list[int]] = {}
        for gram, count in counts.items():
            self.behind.setdefault(gram[:-1], []).append(count)
        self.discounts = {n: self.discount([count for gram, count in counts.items() if len(gram) == n])
                          for n in range(1, order + 1)}  # fmt: skip

    def discount(self, counts: list[int]) -> list[float]:
        n = [0, *(counts.count(number) for number in range(1, 5))]
        if all(n[1:]):
            y = n[1] / (n[1] + 2 * n[2])
            estimates = [c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3)]
            if min(estimates) > 0:
                return [0.0, *estimates]
        return [0.0, 0.5, 1.0, 1.5]

    def probability(self, context: tuple[int, ...], target: int) -> float:
        lower = self.probability(context[1:], target) if context else self.uniform
        counts, discounts = self.behind.get(context, []), self.discounts[len(context) + 1]
        if not counts:
            return lower
        count = self.counts.get((*context, target), 0)
        left = sum(discounts[min(each, 3)] for each in counts)
        return (count - discounts[min(count, 3)] + left * lower) / sum(counts)

    def log_probs(self, ids: list[int]) -> list[float]:
        """The log-probability of each id behind at most n - 1 of its record."""
        logs, begin = [], 0
        for at, id_ in enumerate(ids):
            context = tuple(ids[max(begin, at - self.order + 1) : at])
            logs.append(float(np.log(self.probability(context, min(id_, self.end_id)))))
            begin = at if id_ >= self.end_id else begin
        return logs


class CountedContexts:
    """What a tree of contexts predicts, from `KneserNey`: contexts that occur twice, and numbers that have codes.

    Args:
        ids: of the text.
        size: V.
        order: one more than the ids of the longest contexts.
        end_id: of records, the end symbol, which stands for those of all labels.
    """

    def __init__(self, ids: list[int], size: int, order: int, end_id: int | None = None) -> None:
        self.size = size if end_id is None else end_id + 1
        self.grams = KneserNey([min(id_, self.size - 1) for id_ in ids], self.size, order, end_id)

    def has(self, context: tuple[int, ...]) -> bool:
        """Whether a context occurs twice, and something stands behind it."""
        return context in self.grams.behind and (not context or self.grams.occurrences.get(context, 0) >= 2)

    def longest(self, ids: list[int]) -> tuple[int, ...]:
        """The longest of such contexts that ids end with."""
        ids = [min(id_, self.size - 1) for id_ in ids]
        contexts = [tuple(ids[len(ids) - length :]) for length in range(min(self.grams.order - 1, len(ids)), -1, -1)]
        return next(context for context in contexts if self.has(context) or not context)

    def distribution(self, context: tuple[int, ...], coded: bool = True) -> NDArray[np.float64]:
        """The probabilities of all ids that are ever predicted.

        Args:
            context: one that occurs twice.
            coded: whether shares and rests are rounded to powers of two to a multiple of 1/16.
        """

        def as_coded(number: float) -> float:
            return 2 ** (-min(round(-np.log2(number) * 16), 255) / 16) if coded else number

        uniform = np.full(self.size, 1 / self.size)
        lower = self.distribution(context[1:], coded) if context else uniform
        if not self.has(context):
            return lower
        discounts = self.grams.discounts[len(context) + 1]
        counts = {id_: self.grams.counts.get((*context, id_), 0) for id_ in range(self.size)}
        total, taken = sum(counts.values()), sum(discounts[min(count, 3)] for count in counts.values())
        kept = {id_: (count - discounts[min(count, 3)]) / total for id_, count in counts.items() if count}
        if max(kept.values()) == 0:
            return lower
        rest = as_coded(taken / total)
        shares = np.zeros(self.size)
        for id_, number in kept.items():
            shares[id_] = as_coded(number / max(kept.values())) if number else 0
        result: NDArray[np.float64] = (1 - rest) * shares / shares.sum() + rest * lower
        return result


# Gaps.


def kept_ids(odds: NDArray[np.float64], ids: list[int], config: SampleConfig) -> list[int]:
    """Those of ids that the filters leave, the most likely first: top-k, of these top-p, of these min-p.

    Args:
        odds: of all ids, (V,), not normalised.
        ids: those that are allowed.
        config: of the filters.
    """
    kept = sorted(ids, key=lambda id_: -odds[id_])[: config.top_k or None]
    reached = np.cumsum(odds[kept])
    kept = [
        id_
        for id_, below in zip(kept, reached - odds[kept], strict=True)
        if config.top_p == 1 or below < config.top_p * reached[-1]
    ]
    return [id_ for id_ in kept if odds[id_] >= config.min_p * odds[kept[0]]]


def gap_is_refused(before: str, gap: str, scores: list[NDArray[Any]], characters: str, config: SampleConfig) -> bool:
    """Whether a gap is forbidden by a ban, by a stop text inside it, by no_repeat or by a filter.

    Args:
        before: the text before the gap.
        gap: what may stand in it.
        scores: logits (V,) before each of its characters.
        characters: of the vocabulary.
        config: of all rules.
    """
    run, text, start_ = config.no_repeat, before + gap, len(before)
    if set(gap) & set(config.ban):
        return True
    if any(gap[:end].endswith(stop) for end in range(len(gap)) for stop in config.stop):
        return True
    for at, letter in enumerate(gap):
        history = [(character, number >= start_) for number, character in enumerate(text[: start_ + at])]
        closed = forbidden(history, run) | set(config.ban)
        allowed = [id_ for id_, character in enumerate(characters) if character not in closed]
        if characters.index(letter) not in kept_ids(np.exp(scores[at].astype(np.float64)), allowed, config):
            return True
    return False


def gaps(
    file: ModelFile, before: str, after: str, lengths: range, config: SampleConfig | None = None
) -> tuple[dict[str, tuple[float, float, float]], float]:
    """Each allowed gap's log_prob, log_prob_after and probability, and the log evidence, one gap after the other.

    A gap's weight is (p(gap | before) p(after[:40] | before, gap))^(1 / temperature) over the number of lengths.
    """
    config = config or SampleConfig()
    power, characters = 1 / (config.temperature or 0.5), "".join(file.vocabulary.characters)
    engine, scores, state = start(file)
    encode = file.vocabulary.encode
    known = {"": read(engine, scores, state, encode(before))[1:]}

    def behind(gap: str) -> tuple[NDArray[Any], Any]:
        if gap not in known:
            known[gap] = engine.step(encode(gap[-1]), behind(gap[:-1])[1])
        return known[gap]

    found = {}
    for gap in ("".join(letters) for length in lengths for letters in product(characters, repeat=length)):
        rows = [behind(gap[:at])[0][0] for at in range(len(gap))]
        if not gap_is_refused(before, gap, rows, characters, config):
            log_prob = sum(float(log_softmax(row)[encode(letter)[0]]) for row, letter in zip(rows, gap, strict=True))
            found[gap] = log_prob, read(engine, *behind(gap), encode(after[:40]))[0]
    log_shares = power * np.array([sum(logs) for logs in found.values()]) - np.log(len(lengths))
    log_evidence = float(log_sum_exp(log_shares))
    shares = np.exp(log_shares - log_evidence).tolist()
    return {gap: (*logs, share) for (gap, logs), share in zip(found.items(), shares, strict=True)}, log_evidence


def gap_scores(file: ModelFile, before: str, gap: str, after: str) -> tuple[float, float]:
    """log p(gap | before) and log p(after[:40] | before, gap)."""
    engine, scores, state = start(file)
    _, scores, state = read(engine, scores, state, file.vocabulary.encode(before))
    log_prob, scores, state = read(engine, scores, state, file.vocabulary.encode(gap))
    return log_prob, read(engine, scores, state, file.vocabulary.encode(after[:40]))[0]


def byte_gaps(file: ModelFile, before: str, lengths: range, top_k: int) -> Iterator[tuple[str, float]]:
    """Every gap that top_k leaves in bytes and its log-probability, by a walk along what Python takes for UTF-8."""
    engine, scores, state = start(file)

    def valid(partial: bytes) -> bool:
        try:
            partial.decode()
        except UnicodeDecodeError as error:
            return error.reason == "unexpected end of data"
        return True

    def grow(text: bytes, scores: NDArray[Any], state: Any, total: float) -> Iterator[tuple[str, float]]:
        whole = text.decode("utf-8", "ignore")
        finished = whole.encode() == text
        if finished and len(whole) in lengths:
            yield whole, total
        if finished and len(whole) == lengths.stop - 1:
            return
        log_probs = log_softmax(scores[0])
        allowed = [byte for byte in range(256) if valid(text + bytes([byte]))]
        for byte in sorted(allowed, key=lambda byte: -log_probs[byte])[:top_k]:
            after, state_after = engine.step(np.array([byte]), state)
            yield from grow(text + bytes([byte]), after, state_after, total + log_probs[byte])

    return grow(b"", *read(engine, scores, state, file.vocabulary.encode(before))[1:], 0.0)


# Records.


def records(text: str, kind: str, lf: bool) -> list[str]:
    """The records of a text."""
    if lf or kind in ("line", "blank-line") or ("\n" in kind and "\r" not in kind):
        text, kind = (each.replace("\r\n", "\n").replace("\r", "\n") for each in (text, kind))
    if kind == "blank-line":
        groups = groupby(text.split("\n"), lambda line: bool(line.strip(" \t")))
        return ["\n".join(lines) for is_record, lines in groups if is_record]
    return [record for record in text.split({"line": "\n", "file": "\0"}.get(kind, kind)) if record]


def record_log_probs(
    file: ModelFile, text: str, label: str | None = None, direction: str = "forward"
) -> tuple[float, float]:
    """The log-probability of a record's characters, and that of its end behind them, or before them read backward."""
    engine, scores, state = start(file, direction)
    _, scores, state = read(engine, scores, state, [file.vocabulary.begin_id(label)])
    ids = file.vocabulary.encode(text, file.vocabulary.default_unknown)
    total, scores, state = read(engine, scores, state, ids if direction == "forward" else ids[::-1])
    return total - file.vocabulary.extra_nats(text).sum(), read(engine, scores, state, [file.vocabulary.end_id])[0]


# Copies.


def suffixes(corpus: list[str]) -> list[str]:
    """What stands in some texts from any place on."""
    return [source[place:] for source in corpus for place in range(len(source) + 1)]


def longest_matches(text: str, sources: list[str]) -> list[int]:
    """How many characters from each position of a text on some sources begin with."""
    return [
        max(
            length
            for length in range(len(text) - start + 1)
            if not length or any(source.startswith(text[start : start + length]) for source in sources)
        )
        for start in range(len(text))
    ]


def copied_spans(text: str, corpus: list[str], least: int) -> list[tuple[int, int]]:
    """Start and length of each span that stands in one of some texts, and as a part of a longer one of the text not."""
    lengths = longest_matches(text, suffixes(corpus))
    pairs = zip(lengths, [-1, *lengths], strict=False)
    return [(at, here) for at, (here, before) in enumerate(pairs) if here >= least and here != before - 1]


def repeated_stretches(text: str, least: int, times: int) -> set[tuple[int, int, int]]:
    """Start, length and shortest period of each stretch of so many characters that repeats them so often."""
    stretches: dict[tuple[int, int], int] = {}
    for period in range(len(text) // times, 0, -1):
        equal = [text[at] == text[at + period] for at in range(len(text) - period)]
        for is_equal, group in groupby(range(len(equal)), key=equal.__getitem__):
            places = list(group)
            length = len(places) + period
            if is_equal and length >= max(least, times * period):
                stretches[places[0], length] = period
    return {(start, length, period) for (start, length), period in stretches.items()}


def near_copies(text: str, corpus: list[str], least: int, gap: int) -> set[tuple[int, int, int]]:
    """Start, stop and differing characters of the best near-copy that ends with each span, and does not go on."""
    spans = copied_spans(text, corpus, least)
    nodes = [
        (start, length, number, place)
        for start, length in spans
        for number, source in enumerate(corpus)
        for place in range(len(source))
        if source.startswith(text[start : start + length], place)
    ]
    best = {node: (node[0], 0) for node in nodes}
    continued = set()
    for node in nodes:
        for earlier in nodes:
            if earlier[2] != node[2] or earlier[0] >= node[0]:
                continue
            ahead, source_ahead = (node[side] - earlier[side] - earlier[1] for side in (0, 3))
            overlap = max(0, -ahead, -source_ahead)
            differing = max(ahead, source_ahead) + overlap
            if differing <= gap and overlap < node[1]:
                start, before = best[earlier]
                best[node] = min(best[node], (start, before + differing))
                continued.add(earlier)
    ended: dict[int, tuple[int, int]] = {}
    for node in nodes:
        if node not in continued and best[node][0] != node[0]:
            stop = node[0] + node[1]
            ended[stop] = min(ended.get(stop, best[node]), best[node])
    return {(start, stop, differing) for stop, (start, differing) in ended.items()}
