"""The gradients of one row's window as products of two thin matrices, which nobody needs to store.

A window of T characters gives a weight (N, M) the gradient left.T @ right, with left (T, N) and right (T, M). Where T
is small, most of the time of learning would be that of writing and reading such gradients.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from chargen.kernels import thin_products
from chargen.kernels.threads import parallel_for
from chargen.model.device import one_thread
from chargen.model.language_model import CharModel
from chargen.model.layers import State
from chargen.model.one_row import Window, layer_weights

MIN_LOG_PROB = -60
"""Probabilities below e**-60 count as that in gradients: products with subnormal numbers take ten times as long."""
MIN_PART = 2**16
"""Weights that are worth a thread of their own."""
Product = tuple[Tensor, Tensor]
"""left (T, N) and right (T, M), both contiguous; the gradient of a bias (M,) is a matrix (1, M)."""


class ThinGradients:
    """The gradients of a window.

    Args:
        products: for each weight that has a gradient.
        weights: all weights of the model.
    """

    def __init__(self, products: dict[Tensor, Product], weights: Sequence[Tensor]) -> None:
        self.products = [products.get(weight) for weight in weights]

    def add_squares(self, squares: list[Tensor]) -> None:
        """Add the squares of all gradients.

        Args:
            squares: of each weight, to which they are added.
        """
        self._run(thin_products.add_squares, squares)

    def teach(
        self, weights: list[Tensor], rule: tuple[float, float, float], rms: list[Tensor], trained: list[Tensor]
    ) -> None:
        """Change weights by their gradients, then move them a part of the way back to where they were.

        Args:
            weights: the weights.
            rule: the learning rate, the floor and the decay, as in `thin_products.follow`.
            rms: the RMS gradients of each weight.
            trained: each weight as it was.
        """
        self._run(partial(thin_products.follow, rule), rms, trained, weights)

    def _run(self, kernel: Callable[..., None], *lists: list[Tensor]) -> None:
        """Run a kernel for every weight; each thread takes some rows of all of them."""
        jobs: list[Any] = []
        for product, *tensors in zip(self.products, *lists, strict=True):
            if product is not None:
                rows = product[0].shape[1]
                jobs.append([*map(_array, product), *(_array(values).reshape(rows, -1) for values in tensors)])
        shares = -(-sum(job[-1].size for job in jobs) // MIN_PART)

        def run(part: slice) -> None:
            for job in jobs:
                rows = len(job[-1])
                kernel(*job, rows * part.start // shares, rows * part.stop // shares)

        parallel_for(run, shares, microseconds=110)


def _array(values: Tensor) -> Any:
    return values.detach().numpy()


@torch.no_grad()
@one_thread()
def differentiate(
    model: CharModel, weights: Sequence[Tensor], ids: Tensor, targets: Tensor, state: State, direction: str
) -> tuple[Tensor, State, ThinGradients]:
    """Compute the loss of a window and its gradients.

    Args:
        model: the model, on a CPU and in float32.
        weights: its parameters.
        ids: (1, T), in the order of reading.
        targets: (1, T), the ids that follow them.
        state: the state before, of one row.
        direction: "forward" or "backward".

    Returns:
        The logarithms of what is predicted (T, V), the state after, and the gradients of the mean of
        -ln p(target).
    """
    ids, targets = ids[0], targets[0]
    table, output, steps = model.embedding.weight, model.output, torch.arange(len(ids))
    values, windows = table[ids], []
    for module, layer_state in zip(model.stack(direction), state, strict=True):
        windows.append(Window(layer_weights(module), values, layer_state))
        values = windows[-1].outputs
    log_probs = torch.log_softmax(output(values), 1)
    errors = log_probs.clamp(min=MIN_LOG_PROB).exp_()
    errors[steps, targets] -= 1
    errors /= len(ids)
    ones = errors.new_ones(len(ids), 1)
    products: dict[Tensor, Product] = {
        output.bias: (ones, errors),
        output.weight: (errors, values),
    }
    gradient = errors @ output.weight
    for window in reversed(windows):
        of_inputs, of_state, _ = window.differentiate(gradient)
        weight_ih, weight_hh, bias_ih, bias_hh = window.weights
        products[weight_ih] = of_inputs, window.inputs
        products[weight_hh] = of_state, window.before
        products[bias_ih], products[bias_hh] = (ones, of_inputs), (ones, of_state)
        gradient = of_inputs @ weight_ih
    one_hot = gradient.new_zeros(len(ids), len(table))
    one_hot[steps, ids] = 1
    if table in products:  # the output layer has the same weights
        one_hot, gradient = (torch.cat(pair) for pair in zip(products[table], (one_hot, gradient), strict=True))
    products[table] = one_hot, gradient
    state = tuple(window.after for window in windows)
    return log_probs, state, ThinGradients(products, weights)
