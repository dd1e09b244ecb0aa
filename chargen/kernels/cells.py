"""What one hidden unit does with its sums, forward and backward, as formulas of numbers; fused for 32 units at once.

Equations as in PyTorch's LSTM and GRU; backward: Hochreiter and Schmidhuber (1997), with full gradients.
"""

from chargen.kernels.vectors import Values, fuse, sigmoid, tanh

Results = tuple[Values, ...]


def lstm_unit(
    enter: Values, forget: Values, new: Values, leave: Values, carried_enter: Values, carried_forget: Values,
    carried_new: Values, carried_leave: Values, bias_enter: Values, bias_forget: Values, bias_new: Values,
    bias_leave: Values, cell: Values,
) -> Results:  # fmt: skip
    """Sums over inputs, over the state, biases and the cell before -> gates, cell, and the output three times."""
    enter, forget = sigmoid(enter + carried_enter + bias_enter), sigmoid(forget + carried_forget + bias_forget)
    new, leave = tanh(new + carried_new + bias_new), sigmoid(leave + carried_leave + bias_leave)
    cell = forget * cell + enter * new
    out = leave * tanh(cell)
    return enter, forget, new, leave, cell, out, out, out


def lstm_unit_gradient(
    enter: Values, forget: Values, new: Values, leave: Values, before: Values, cell: Values, coming: Values,
    carried: Values, of_cell: Values,
) -> Results:  # fmt: skip
    """Gates, cells before and after, and gradients of the output (of two kinds) and of the cell -> gradients of the
    gates' sums twice, and that of the cell before.
    """
    out, squashed = coming + carried, tanh(cell)
    of_cell = of_cell + out * leave * (1 - squashed * squashed)
    through = of_cell * enter
    sums = (
        through * new * (1 - enter),
        of_cell * forget * before * (1 - forget),
        through * (1 - new * new),
        out * squashed * leave * (1 - leave),
    )
    return *sums, *sums, of_cell * forget


def gru_unit(
    reset: Values, update: Values, new: Values, carried_reset: Values, carried_update: Values, carried_new: Values,
    bias_reset: Values, bias_update: Values, bias_new: Values, inner_bias: Values, hidden: Values,
) -> Results:  # fmt: skip
    """Sums over inputs, over the state, biases and the state before -> gates, what the reset gate acts on, and the
    output three times.
    """
    reset, update = sigmoid(reset + carried_reset + bias_reset), sigmoid(update + carried_update + bias_update)
    inner = carried_new + inner_bias
    new = tanh(new + bias_new + reset * inner)
    out = new + update * (hidden - new)
    return reset, update, new, inner, out, out, out


def gru_unit_gradient(
    reset: Values, update: Values, new: Values, inner: Values, before: Values, coming: Values, carried: Values,
    direct: Values,
) -> Results:  # fmt: skip
    """Gates, what the reset gate acted on, the state before, gradients of the output (of three kinds) -> gradients of
    the gates' sums, of the same over the state, of the new state's sum, and what goes straight to the state before.
    """
    out = coming + carried + direct
    of_new = out * (1 - update) * (1 - new * new)
    of_update = out * (before - new) * update * (1 - update)
    of_inner = of_new * reset
    of_reset = of_inner * inner * (1 - reset)
    return of_reset, of_update, of_new, of_reset, of_update, of_inner, of_new, out * update


def gru_unit_gradient_in_rows(*given: Values) -> Results:
    """The same, but that what the reset gate acts on comes twice, and the new state once."""
    *results, _, direct = gru_unit_gradient(*given)
    return *results, results[-1], direct


lstm = fuse(lstm_unit, "wwwwfffffffff", "wwwwffww")
lstm_gradient = fuse(lstm_unit_gradient, "wwwwffwff", "wwwwwwwwf")
gru = fuse(gru_unit, "wwwffffffff", "wwwwfww")
gru_gradient = fuse(gru_unit_gradient, "wwwwwwff", "wwwwwwwf")
gru_gradient_in_rows = fuse(gru_unit_gradient_in_rows, "wwwwwwff", "wwwwwwwf")
