"""What a hidden unit makes of its sums, and the way back, as formulas of numbers: all that is special about a cell.

Equations as in PyTorch's LSTM and GRU; backward: Hochreiter and Schmidhuber (1997), with full gradients.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from chargen.kernels.simd import Values, fuse, sigmoid, tanh

Group = Any
"""Values, or a tuple of them: one for each gate, say."""


class Cell(NamedTuple):
    """A kind of hidden unit.

    Each gate adds up two sums, one over the inputs and one over the state. The gradients of both are the same, but
    where something acts between the two, as a GRU's reset gate does: such a gate has two gradients, and two biases.

    Args:
        gates: G, how many there are; those with two gradients come last.
        gradients: P, how many gradients there are. The first G are of sums over inputs, the last G of sums over the
            state.
        order: where the gradient of each gate's sum over the inputs stands among them.
        kept: what the way back needs besides gates and states: "f", a second state in float32, which is part of the
            layer's state; "w", a number in the type of products; or nothing.
        forward, backward, backward_by_columns: the fused formulas.
    """

    gates: int
    gradients: int
    order: tuple[int, ...]
    kept: str
    forward: Any
    backward: Any
    backward_by_columns: Any


def make_cell(
    forward: Callable[..., tuple[Group, Group, Values]], backward: Callable[..., tuple[Group, Values]],
    order: tuple[int, ...], gradients: int, kept: str,
) -> Cell:  # fmt: skip
    """A cell of two formulas.

    Args:
        forward: sums over inputs (G), over the state (G), biases (P), what was kept before, the state before -> gates
            (G), what is kept, the state.
        backward: gates (G), what was kept before and after, the state before, the gradients of the state and of the
            second way -> gradients (P), and what goes back the second way: not through sums over the state.
        order, gradients, kept: as in `Cell`.
    """
    gates, apart = len(order), gradients - len(order)
    stored, sums = "w" * gates, "f" * gates

    def run(*groups: Group) -> tuple[Group, ...]:
        activations, keep, state = forward(*groups)
        return activations, keep, state, state, state

    def gradients_of(*groups: Group) -> tuple[tuple[Values, ...], Values]:
        *known, coming, carried, second = groups
        of_sums, second = backward(*known, coming + carried, second)
        return of_sums if isinstance(of_sums, tuple) else (of_sums,), second

    def by_rows(*groups: Group) -> tuple[Group, ...]:
        of_sums, second = gradients_of(*groups)
        return tuple(of_sums[place] for place in order), of_sums[:apart], of_sums[apart:], second

    def by_columns(*groups: Group) -> tuple[Group, ...]:
        of_sums, second = gradients_of(*groups)
        return of_sums, of_sums[apart:], second

    reads = stored, kept, kept, "w", "w", "f", "f"
    return Cell(
        gates, gradients, order, kept,
        fuse(run, (stored, sums, "f" * gradients, kept, "f"), (stored, kept, "f", "w", "w")),
        fuse(by_rows, reads, (stored, "w" * apart, stored, "f")),
        fuse(by_columns, reads, ("w" * gradients, stored, "f")),
    )  # fmt: skip


def lstm(inputs: Group, carried: Group, biases: Group, cell: Values, hidden: Values) -> tuple[Group, Values, Values]:
    """Gates i, f, g, o: c' = f c + i g; h' = o tanh(c')."""
    sums = [x + h + bias for x, h, bias in zip(inputs, carried, biases, strict=True)]
    enter, forget, new, leave = sigmoid(sums[0]), sigmoid(sums[1]), tanh(sums[2]), sigmoid(sums[3])
    cell = forget * cell + enter * new
    return (enter, forget, new, leave), cell, leave * tanh(cell)


def lstm_gradient(
    gates: Group, before: Values, cell: Values, hidden: Values, of_hidden: Values, of_cell: Values
) -> tuple[Group, Values]:
    """The second way is the cell's."""
    enter, forget, new, leave = gates
    squashed = tanh(cell)
    of_cell = of_cell + of_hidden * leave * (1 - squashed * squashed)
    through = of_cell * enter
    of_sums = (
        through * new * (1 - enter),
        of_cell * forget * before * (1 - forget),
        through * (1 - new * new),
        of_hidden * squashed * leave * (1 - leave),
    )
    return of_sums, of_cell * forget


def gru(inputs: Group, carried: Group, biases: Group, kept: Values, hidden: Values) -> tuple[Group, Values, Values]:
    """Gates r, z, n: n = tanh(W x + b + r (U h + b')); h' = n + z (h - n). What r acts on is kept."""
    reset, update = (sigmoid(inputs[gate] + carried[gate] + biases[gate]) for gate in (0, 1))
    inner = carried[2] + biases[3]
    new = tanh(inputs[2] + biases[2] + reset * inner)
    return (reset, update, new), inner, new + update * (hidden - new)


def gru_gradient(
    gates: Group, kept: Values, inner: Values, hidden: Values, of_hidden: Values, direct: Values
) -> tuple[Group, Values]:
    """The second way is past the gates: z h."""
    reset, update, new = gates
    out = of_hidden + direct
    of_new = out * (1 - update) * (1 - new * new)
    of_update = out * (hidden - new) * update * (1 - update)
    of_inner = of_new * reset
    of_reset = of_inner * inner * (1 - reset)
    return (of_new, of_reset, of_update, of_inner), out * update


LSTM = make_cell(lstm, lstm_gradient, order=(0, 1, 2, 3), gradients=4, kept="f")
GRU = make_cell(gru, gru_gradient, order=(1, 2, 0), gradients=4, kept="w")
