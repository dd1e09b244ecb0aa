"""Examples of layers, and ways to run them that can be compared."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from chargen.model import compiled_layers, layers

BF16, FP32 = torch.bfloat16, torch.float32
Run = Callable[[nn.RNNBase, Tensor, Tensor], tuple[Tensor, Tensor]]


class Cell(NamedTuple):
    """A kind of layer: its name, and the type of the factors of its products."""

    name: str
    dtype: torch.dtype

    @property
    def error(self) -> float:
        """How far from exact ones results may be."""
        return 0.01 if self.dtype == BF16 else 1e-5


CELLS = tuple(Cell(name, dtype) for name in ("lstm", "gru") for dtype in (BF16, FP32))
every_cell = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.name}-{str(cell.dtype)[6:]}")


@dataclass(frozen=True)
class Case:
    """A layer, what it reads (B, T, F) and starts from (B, S), and the gradients that come back to it."""

    module: nn.RNNBase
    inputs: Tensor
    state: Tensor
    gradient: Tensor
    after: Tensor
    dtype: torch.dtype


def fast(example: Case, ids: Tensor | None = None) -> Run:
    """What is tested, in the type of the case."""
    return lambda module, inputs, state: compiled_layers.run(module, inputs, state, example.dtype, ids)


def plain(module: nn.RNNBase, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Run torch's module."""
    return layers.run_torch(module, inputs, state)


def case(
    cell: Cell,
    rows: int = 9,
    time_steps: int = 5,
    inputs: int = 10,
    hidden: int = 12,
    *,
    seed: int = 0,
    scale: float = 1.0,
) -> Case:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = (nn.LSTM if cell.name == "lstm" else nn.GRU)(inputs, hidden, batch_first=True)
        with torch.no_grad():
            for weight in module.parameters():
                weight *= scale
        width = hidden * (2 if cell.name == "lstm" else 1)
        shapes = (rows, time_steps, inputs), (rows, width), (rows, time_steps, hidden), (rows, width)
        inputs_, state, gradient, after = (torch.randn(*shape) for shape in shapes)
        return Case(module, inputs_, state, gradient, after, cell.dtype)


def parameters(module: nn.RNNBase) -> list[Tensor]:
    return [module.get_parameter(f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


def forward(example: Case, run: Run | None = None) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        outputs, after = (run or fast(example))(example.module, example.inputs, example.state)
    return outputs, after


def everything(example: Case, run: Run | None = None) -> dict[str, Tensor]:
    """Outputs, the state after, and all gradients, by name; all in float32."""
    inputs, state = example.inputs.clone().requires_grad_(), example.state.clone().requires_grad_()
    outputs, after = (run or fast(example))(example.module, inputs, state)
    leaves = [inputs, *parameters(example.module), state]
    gradients = torch.autograd.grad([outputs, after], leaves, [example.gradient.to(outputs.dtype), example.after])
    names = ("inputs", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "state")
    actual = {"outputs": outputs.detach().float(), "after": after.detach()}
    return actual | {f"of {name}": value for name, value in zip(names, gradients, strict=True)}


def distance(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


# A table of inputs.


def from_table(example: Case, size: int, seed: int = 0) -> tuple[Case, Tensor]:
    """The same layer over rows (B, T) of a table (V, F); one row of the table is never read, one is read often."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        table = torch.randn(size, example.inputs.shape[2])
        ids = torch.randint(1, size, example.inputs.shape[:2])
        ids[:, 0] = 1
    return replace(example, inputs=table), ids
