"""The formulas of cells: from the sums of the gates to the state, and from its gradient to those of the sums.

Equations are those of PyTorch's LSTM and GRU; gradients are full (Hochreiter and Schmidhuber, 1997, truncate them).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from chargen.kernels.simd import Values, fuse, sigmoid, tanh

Group = Any
"""Values, or a tuple of them, such as one for each gate."""


class Cell(NamedTuple):
    """A kind of hidden unit.

    Each gate adds up two sums, one over the inputs and one over the state. Both have the same gradient, except where
    something acts between the two, as a GRU's reset gate does: such a gate has two gradients, and two biases.

    Args:
        gates: G, how many there are; those with two gradients come last.
        gradients: P, how many gradients there are. The first G are of sums over inputs, the last G of sums over the
            state.
        order: for each gate, the number of the gradient of its sum over the inputs.
        kept: what the backward pass needs besides gates and states: "f", a second state in float32, which is part of
            the layer's state; "w", a number in the type of products; "", nothing.
        forward: the fused formula of the forward pass.
        backward: the fused formula of the backward pass for bf16, whose gradients are transposed afterwards.
        backward_by_columns: the fused formula of the backward pass for float32.
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
    """Make a cell of two formulas.

    The direct gradient is the part of the gradient of the state before that does not pass through sums over the state:
    that of an LSTM's cell, or that past a GRU's gates.

    Args:
        forward: a function of the sums over inputs (G), the sums over the state (G), the biases (P), what was kept for
            the character before, and the hidden state before. Results: gates (G), what is kept, the hidden state.
        backward: a function of the gates (G), what was kept for the character before, what is kept, the hidden state
            before, the gradient of the hidden state, and the direct gradient. Results: gradients (P), and the direct
            gradient of the character before.
        order: for each gate, the number of the gradient of its sum over the inputs.
        gradients: P, how many gradients there are. The first G are of sums over inputs, the last G of sums over the
            state.
        kept: what the backward pass needs besides gates and states: "f", a second state in float32, which is part of
            the layer's state; "w", a number in the type of products; "", nothing.
    """
    gates, input_only = len(order), gradients - len(order)
    gate_letters, sums = "w" * gates, "f" * gates

    def run_forward(*groups: Group) -> tuple[Group, ...]:
        activations, keep, state = forward(*groups)
        return activations, keep, state, state, state

    def compute_gradients(*groups: Group) -> tuple[tuple[Values, ...], Values]:
        *saved, grad_output, grad_state, grad_direct = groups
        grad_sums, grad_direct = backward(*saved, grad_output + grad_state, grad_direct)
        return grad_sums if isinstance(grad_sums, tuple) else (grad_sums,), grad_direct

    def backward_by_rows(*groups: Group) -> tuple[Group, ...]:
        grad_sums, grad_direct = compute_gradients(*groups)
        return tuple(grad_sums[number] for number in order), grad_sums[:input_only], grad_sums[input_only:], grad_direct

    def backward_by_columns(*groups: Group) -> tuple[Group, ...]:
        grad_sums, grad_direct = compute_gradients(*groups)
        return grad_sums, grad_sums[input_only:], grad_direct

    reads = gate_letters, kept, kept, "w", "w", "f", "f"
    return Cell(
        gates, gradients, order, kept,
        fuse(run_forward, (gate_letters, sums, "f" * gradients, kept, "f"), (gate_letters, kept, "f", "w", "w")),
        fuse(backward_by_rows, reads, (gate_letters, "w" * input_only, gate_letters, "f")),
        fuse(backward_by_columns, reads, ("w" * gradients, gate_letters, "f")),
    )  # fmt: skip


def lstm(
    input_sums: Group, state_sums: Group, biases: Group, cell: Values, hidden: Values
) -> tuple[Group, Values, Values]:
    """Compute gates i, f, g, o, and c' = f c + i g; h' = o tanh(c').

    Args:
        input_sums: of four gates.
        state_sums: of four gates.
        biases: of four gates.
        cell: c.
        hidden: not used.

    Returns:
        The gates, c' and h'.
    """
    sums = [x + h + bias for x, h, bias in zip(input_sums, state_sums, biases, strict=True)]
    enter, forget, new, leave = sigmoid(sums[0]), sigmoid(sums[1]), tanh(sums[2]), sigmoid(sums[3])
    cell = forget * cell + enter * new
    return (enter, forget, new, leave), cell, leave * tanh(cell)


def lstm_gradient(
    gates: Group, old_cell: Values, cell: Values, hidden: Values, grad_hidden: Values, grad_cell: Values
) -> tuple[Group, Values]:
    """Compute the gradients of an LSTM's sums; the direct gradient is that of the cell.

    Args:
        gates: i, f, g, o.
        old_cell: c.
        cell: c'.
        hidden: not used.
        grad_hidden: the gradient of h'.
        grad_cell: the gradient of c', but for what comes through h'.

    Returns:
        The gradients of four sums, and that of c.
    """
    enter, forget, new, leave = gates
    tanh_cell = tanh(cell)
    grad_cell = grad_cell + grad_hidden * leave * (1 - tanh_cell * tanh_cell)
    grad_new = grad_cell * enter
    grad_sums = (
        grad_new * new * (1 - enter),
        grad_cell * forget * old_cell * (1 - forget),
        grad_new * (1 - new * new),
        grad_hidden * tanh_cell * leave * (1 - leave),
    )
    return grad_sums, grad_cell * forget


def gru(
    input_sums: Group, state_sums: Group, biases: Group, kept: Values, hidden: Values
) -> tuple[Group, Values, Values]:
    """Compute gates r, z, n, where n = tanh(W x + b + r (U h + b')), and h' = n + z (h - n).

    Args:
        input_sums: of three gates.
        state_sums: of three gates.
        biases: of r, z and n, and b'.
        kept: not used.
        hidden: h.

    Returns:
        The gates, U h + b', which is kept, and h'.
    """
    reset, update = (sigmoid(input_sums[gate] + state_sums[gate] + biases[gate]) for gate in (0, 1))
    inner = state_sums[2] + biases[3]
    new = tanh(input_sums[2] + biases[2] + reset * inner)
    return (reset, update, new), inner, new + update * (hidden - new)


def gru_gradient(
    gates: Group, old_inner: Values, inner: Values, hidden: Values, grad_hidden: Values, grad_direct: Values
) -> tuple[Group, Values]:
    """Compute the gradients of a GRU's sums; the direct gradient is that through z h.

    Args:
        gates: r, z, n.
        old_inner: not used.
        inner: U h + b'.
        hidden: h.
        grad_hidden: the gradient of h', but for the direct one.
        grad_direct: the direct gradient of h'.

    Returns:
        The gradients of the sums over inputs of n, r and z, and of the sum over the state of n; the direct gradient
        of h.
    """
    reset, update, new = gates
    grad_output = grad_hidden + grad_direct
    grad_new = grad_output * (1 - update) * (1 - new * new)
    grad_update = grad_output * (hidden - new) * update * (1 - update)
    grad_inner = grad_new * reset
    grad_reset = grad_inner * inner * (1 - reset)
    return (grad_new, grad_reset, grad_update, grad_inner), grad_output * update


LSTM = make_cell(lstm, lstm_gradient, order=(0, 1, 2, 3), gradients=4, kept="f")
GRU = make_cell(gru, gru_gradient, order=(1, 2, 0), gradients=4, kept="w")
