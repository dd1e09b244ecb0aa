"""The gradients of one row's window as products of two thin matrices, which nobody needs to store.

A window of T characters gives a weight (N, M) the gradient left @ right, with left (N, T) and right (T, M). Where T is
small, most of the time of learning would be that of writing and reading such gradients.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from chargen.kernels import thin_products
from chargen.kernels.bf16 import Floats
from chargen.kernels.decode_matmul import WIDTH
from chargen.kernels.threads import parallel_for
from chargen.model.language_model import CharModel
from chargen.model.layers import State
from chargen.model.one_row import Window, layer_weights

MIN_LOG_PROB = -60
"""Probabilities below e**-60 count as that in gradients: products with subnormal numbers take ten times as long."""
MIN_PART = 2**16
"""Numbers that are worth a thread of their own."""


class Product(NamedTuple):
    """The gradient left @ right of a weight (N, M), not computed yet; a bias is one row.

    Args:
        left: (N, T), contiguous.
        right: (T, M), contiguous.
    """

    left: Tensor
    right: Tensor

    def add_squares(self, squares: Tensor) -> None:
        """Add the squares of the gradient.

        Args:
            squares: of the weight's shape, to which they are added.
        """
        left, right = self._factors()
        into = self._matrix(squares)
        self._for_rows(lambda rows: thin_products.add_squares(left, right, into, rows.start, rows.stop))

    def follow(self, weight: Tensor, rule: tuple[float, float, float], rms: Tensor, trained: Tensor) -> None:
        """Change a weight by the gradient.

        Args:
            weight: the weight.
            rule: how it follows, as in `thin_products.follow`.
            rms: its RMS gradients.
            trained: what it was at first.
        """
        left, right = self._factors()
        arrays = self._matrix(rms), self._matrix(trained), self._matrix(weight)
        self._for_rows(lambda rows: thin_products.follow(left, right, rule, *arrays, rows.start, rows.stop))

    def _factors(self) -> tuple[Floats, Floats]:
        right = functional.pad(self.right, (0, -self.right.shape[1] % WIDTH))
        return self.left.numpy(), right.view(len(right), -1, WIDTH).transpose(0, 1).contiguous().numpy()

    def _matrix(self, values: Tensor) -> Floats:
        return values.detach().view(len(self.left), -1).numpy()

    def _for_rows(self, run: Callable[[slice], None]) -> None:
        parallel_for(run, len(self.left), -(-MIN_PART // self.right.shape[1]))


@torch.no_grad()
def differentiate(
    model: CharModel, ids: Tensor, targets: Tensor, state: State, direction: str
) -> tuple[float, State, list[Product | None]]:
    """Compute the loss of a window and its gradients.

    Args:
        model: the model, on a CPU and in float32.
        ids: (1, T), in the order of reading.
        targets: (1, T), the ids that follow them.
        state: the state before, of one row.
        direction: "forward" or "backward".

    Returns:
        The sum of -ln p(target), the state after, and the gradients of the mean of -ln p(target) for each
        weight, None for those of the other direction.
    """
    ids, targets = ids[0], targets[0]
    table, output, steps = model.embedding.weight, model.output, torch.arange(len(ids))
    values, windows = table[ids], []
    for module, layer_state in zip(model.stack(direction), state, strict=True):
        windows.append(Window(layer_weights(module), values, layer_state))
        values = windows[-1].outputs
    log_probs = torch.log_softmax(output(values), 1)
    nats = -log_probs[steps, targets].double().sum().item()
    errors = log_probs.clamp_(min=MIN_LOG_PROB).exp_()
    errors[steps, targets] -= 1
    errors /= len(ids)
    ones = errors.new_ones(1, len(ids))
    products: dict[Tensor, Product] = {
        output.bias: Product(ones, errors),
        output.weight: Product(_transpose(errors), values),
    }
    gradient = errors @ output.weight
    for window in reversed(windows):
        of_inputs, of_state, _ = window.differentiate(gradient)
        weight_ih, weight_hh, bias_ih, bias_hh = window.weights
        products[weight_ih] = Product(_transpose(of_inputs), window.inputs)
        products[weight_hh] = Product(_transpose(of_state), window.before)
        products[bias_ih], products[bias_hh] = Product(ones, of_inputs), Product(ones, of_state)
        gradient = of_inputs @ weight_ih
    one_hot = gradient.new_zeros(len(table), len(ids))
    one_hot[ids, steps] = 1
    if table in products:  # the output layer has the same weights
        one_hot = torch.cat([products[table].left, one_hot], 1)
        gradient = torch.cat([products[table].right, gradient])
    products[table] = Product(one_hot, gradient)
    gradients = [products.get(weight) for weight in model.parameters()]
    return nats, tuple(window.after for window in windows), gradients


def _transpose(values: Tensor) -> Tensor:
    return values.t().contiguous()
