"""A cell is formulas and nothing else: one that chargen does not have, h' = tanh(W x + b + U h), beside PyTorch's."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from conftest import small_model
from numpy.typing import NDArray
from torch import Tensor, nn

from chargen.decoding.numpy_engine import NumpyStepper
from chargen.kernels.simd import Values, tanh
from chargen.kernels.train_gates import Group, make_cell
from chargen.kernels.train_rnn import Kernels, make_kernels
from chargen.model import compiled_layers

INPUTS = 8


def step(x: NDArray[Any], state: NDArray[Any], weight_ih: Any, weight_hh: Any, bias_ih: Any, bias_hh: Any) -> Any:
    return np.tanh(weight_ih @ x + bias_ih + weight_hh @ state + bias_hh)


def forward(inputs: Values, carried: Values, bias: Values, kept: Group, hidden: Values) -> tuple[Values, Group, Values]:
    after = tanh(inputs + carried + bias)
    return after, (), after


def backward(after: Values, _: Group, __: Group, hidden: Values, of_after: Values, direct: Values) -> tuple[Any, Any]:
    return of_after * (1 - after * after), direct


@cache
def kernels() -> Kernels:
    return make_kernels(make_cell(forward, backward, order=(0,), gradients=1, kept=""))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "steps", "hidden"), [(9, 5, 12), (33, 7, 64)])
def test_a_new_cell_is_a_few_formulas(
    rows: int, steps: int, hidden: int, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_layers, "_kernels", lambda module: kernels())
    torch.manual_seed(rows)
    module, near = nn.RNN(INPUTS, hidden, batch_first=True), 1e-5 if kind == torch.float32 else 0.01
    ids, table = torch.randint(10, (rows, steps)), torch.randn(10, INPUTS)
    inputs, state = table[ids].requires_grad_(), torch.randn(rows, hidden, requires_grad=True)
    leaves, gradient, of_after = [inputs, state, *module.parameters()], torch.randn(rows, steps, hidden), torch.ones(1)

    def everything(outputs: Tensor, after: Tensor) -> list[Tensor]:
        cost = (outputs.float() * gradient).sum() + (after * of_after).sum()
        return [outputs.float(), after, *torch.autograd.grad(cost, leaves)]

    outputs, after = module(inputs, state[None])
    expected = everything(outputs, after[0])
    for values, wanted in zip(everything(*compiled_layers.run(module, inputs, state, kind)), expected, strict=True):
        assert ((values - wanted).norm() / wanted.norm()).item() < near

    file = small_model("gru", num_layers=1, hidden_size=hidden)
    reference, slow = NumpyStepper(file.config, file.arrays), (state.detach().numpy(),)
    reference.layers = [tuple(weight.detach().numpy() for weight in module.parameters())]
    reference.embedding, reference._step_layer = table.numpy(), step
    for at in range(steps):
        _, slow = reference.step(ids[:, at].numpy(), slow)
        np.testing.assert_allclose(slow[0], outputs[:, at].detach().numpy(), atol=1e-5)
