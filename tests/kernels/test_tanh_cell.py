"""A cell is formulas and nothing else: one that chargen does not have, h' = tanh(W x + b + U h), beside PyTorch's."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chargen.decoding.numpy_engine import NumpyEngine
from chargen.kernels.simd import Values, tanh
from chargen.kernels.train_gates import Group, make_cell
from chargen.kernels.train_rnn import Kernels, make_kernels
from chargen.model import compiled_layers
from tests.small_models import small_model

INPUTS = 8


def step(x: NDArray[Any], state: NDArray[Any], weight_ih: Any, weight_hh: Any, bias_ih: Any, bias_hh: Any) -> Any:
    return np.tanh(weight_ih @ x + bias_ih + weight_hh @ state + bias_hh)


def forward(x: Values, h: Values, bias: Values, kept: Group, hidden: Values) -> tuple[Values, Group, Values]:
    after = tanh(x + h + bias)
    return after, (), after


def backward(after: Values, _: Group, __: Group, hidden: Values, grad: Values, direct: Values) -> tuple[Any, Any]:
    return grad * (1 - after * after), direct


@cache
def kernels() -> Kernels:
    return make_kernels(make_cell(forward, backward, order=(0,), gradients=1, kept=""))


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("rows", "steps", "hidden"), [(9, 5, 12), (33, 7, 64)])
def test_a_new_cell_is_a_few_formulas(
    rows: int, steps: int, hidden: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_layers, "_kernels", lambda module: kernels())
    torch.manual_seed(rows)
    module, limit = nn.RNN(INPUTS, hidden, batch_first=True), 1e-5 if dtype == torch.float32 else 0.01
    ids, table = torch.randint(10, (rows, steps)), torch.randn(10, INPUTS)
    inputs, state = table[ids].requires_grad_(), torch.randn(rows, hidden, requires_grad=True)
    leaves, gradient, scale = [inputs, state, *module.parameters()], torch.randn(rows, steps, hidden), torch.ones(1)

    def everything(outputs: Tensor, after: Tensor) -> list[Tensor]:
        cost = (outputs.float() * gradient).sum() + (after * scale).sum()
        return [outputs.float(), after, *torch.autograd.grad(cost, leaves)]

    outputs, after = module(inputs, state[None])
    expected = everything(outputs, after[0])
    for values, exact in zip(everything(*compiled_layers.run(module, inputs, state, dtype)), expected, strict=True):
        assert ((values - exact).norm() / exact.norm()).item() < limit

    file = small_model("gru", num_layers=1, hidden_size=hidden)
    reference, slow_state = NumpyEngine(file.config, file.arrays), (state.detach().numpy(),)
    reference.layers = [tuple(weight.detach().numpy() for weight in module.parameters())]
    reference.embedding, reference._step_layer = table.numpy(), step
    for t in range(steps):
        _, slow_state = reference.step(ids[:, t].numpy(), slow_state)
        np.testing.assert_allclose(slow_state[0], outputs[:, t].detach().numpy(), atol=1e-5)
