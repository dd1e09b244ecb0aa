"""One recurrent layer as a function `(input, state) -> (output, state)`; the same shape of state for LSTM and GRU."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from chargen.errors import ArgumentError
from chargen.kernels import available, fast_bf16
from chargen.model.arguments import (
    FLOATS,
    INTEGERS,
    carried_type,
    check_device,
    check_shape,
    check_tensor,
    for_gradients,
    in_memory,
    product_type,
    read_ids,
    read_state,
)
from chargen.model.config import ModelConfig
from chargen.model.device import one_thread
from chargen.settings import check_int

FEWEST_ROWS = 8
"""Below this, compiled layers mostly multiply zeros. In bf16 a GRU's are faster still: torch has none."""
SMALL = 512
"""Hidden units, at most, of a layer whose few rows one thread computes sooner than two meet on a busy machine."""
State = tuple[Tensor, ...]
"""One array (B, S) per layer: S = H for GRU (h), 2 H for LSTM (h, then c). None stands for an unknown context."""


def new_layer(config: ModelConfig, layer: int) -> nn.RNNBase:
    """A fresh one-layer module. An LSTM's forget gates start open (Jozefowicz et al., 2015): bias_ih 1, bias_hh 0.

    This happens here only, never when weights are loaded.
    """
    inputs = config.hidden_size if layer else config.input_size
    if config.cell == "gru":
        return nn.GRU(inputs, config.hidden_size, batch_first=True)
    module = nn.LSTM(inputs, config.hidden_size, batch_first=True)
    forget = slice(config.hidden_size, 2 * config.hidden_size)
    with torch.no_grad():
        module.get_parameter("bias_ih_l0")[forget] = 1.0
        module.get_parameter("bias_hh_l0")[forget] = 0.0
    return module


def run_layer(module: nn.RNNBase, inputs: Tensor, state: Tensor, *, fits: bool = False) -> tuple[Tensor, Tensor]:
    """Run a layer over inputs (B, T, F) from state (B, S): outputs (B, T, H) and the state after the last of them.

    Args:
        module: as `new_layer` makes it.
        fits: where it is known already that these fit each other.

    Raises ArgumentError where they do not.
    """
    if not fits:
        weights = _weights(module)
        check_tensor("inputs", inputs, FLOATS, "B, T, F")
        check_shape("inputs", inputs, (*inputs.shape[:2], module.input_size))
        check_device("inputs", inputs, weights[0].device)
        inputs = for_gradients(inputs)
        state = read_state("state", state, len(inputs), _state_size(module), weights[1])
    if not inputs.shape[1]:
        return inputs.new_zeros(len(inputs), 0, module.hidden_size), state
    if kind := _compiled(module, inputs, len(inputs), state):
        from chargen.model import compiled_layers

        return compiled_layers.run(module, inputs, state, kind)
    if inputs.is_cuda and torch.is_autocast_enabled("cuda"):
        with torch.autocast("cuda", enabled=False):
            return run_narrow(module, inputs, state)
    if len(inputs) < FEWEST_ROWS and module.hidden_size <= SMALL and in_memory(inputs, state):
        with one_thread():
            return run_plainly(module, inputs, state)
    return run_plainly(module, inputs, state)


def run_plainly(module: nn.RNNBase, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The same by torch's own modules."""
    weight: Any = module.weight_hh_l0
    state = state.to(weight.dtype)
    if inputs.dtype != weight.dtype and product_type(inputs) == inputs.dtype:
        inputs = inputs.to(weight.dtype)
    outputs, carried = module(inputs, _parts(module, state))
    return outputs, _whole(module, carried)


def run_narrow(module: nn.RNNBase, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The same in cuDNN's kernels for bf16. Autocast itself would take fp16, whatever type it was asked for."""
    cell: Any = type(module)
    size, places = _layout(cell, module.input_size, module.hidden_size, inputs.device)
    flat: tuple[Tensor, ...] = _Narrow.apply(size, places, *module.parameters())  # type: ignore[no-untyped-call]
    run = torch._VF.lstm if type(module) is nn.LSTM else torch._VF.gru
    hidden = _parts(module, state.bfloat16())
    # No layer has dropout of its own; cuDNN must be told where a way back will be asked for.
    outputs, *carried = run(inputs.bfloat16(), hidden, flat, True, 1, 0.0, torch.is_grad_enabled(), False, True)
    return outputs, _whole(module, carried[0] if len(carried) == 1 else tuple(carried))


def _parts(module: nn.RNNBase, state: Tensor) -> Any:
    """A state (B, S) as torch's layers take it."""
    parts = tuple(
        part.contiguous() for part in state.unsqueeze(0).chunk(2 if isinstance(module, nn.LSTM) else 1, dim=2)
    )
    return parts if len(parts) == 2 else parts[0]


def _whole(module: nn.RNNBase, carried: Any) -> Tensor:
    """Back from what torch's layers return."""
    state: Tensor = torch.cat(carried, dim=2) if isinstance(carried, tuple) else carried
    weight: Any = module.weight_hh_l0
    return state.squeeze(0).to(carried_type(weight))


Places = tuple[tuple[Any, ...], ...]
"""Size, strides and offset of each array of a layer in the one stretch of memory that cuDNN wants."""


@cache
def _layout(cell: Any, inputs: int, hidden: int, device: torch.device) -> tuple[int, Places]:
    """How many numbers a layer's weights take in memory, and where each array lies; torch arranges no bf16 itself."""
    module: nn.Module = cell(inputs, hidden, device="meta", dtype=torch.float16)
    weights = list(module.to_empty(device=device).parameters())
    size = weights[0].untyped_storage().nbytes() // weights[0].element_size()
    return size, tuple((one.size(), one.stride(), one.storage_offset()) for one in weights)


class _Narrow(torch.autograd.Function):
    """Weights in bf16, as cuDNN wants them: in one stretch of memory."""

    @staticmethod
    def forward(ctx: Any, size: int, places: Places, *weights: Tensor) -> Any:
        memory = torch.empty(size, dtype=torch.bfloat16, device=weights[0].device)
        found = [memory.as_strided(*place) for place in places]
        torch._foreach_copy_(found, weights)
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return None, None, *(gradient.float() for gradient in gradients)


def run_embedded(
    module: nn.RNNBase, embedding: nn.Embedding, ids: Tensor, state: Tensor, *, fits: bool = False
) -> tuple[Tensor, Tensor]:
    """`run_layer` over `embedding(ids)`, ids (B, T); with a product for each different character where that is less."""
    if not fits:
        check_tensor("ids", ids, INTEGERS, "B, T")
        ids = read_ids("ids", ids, len(embedding.weight), embedding.weight.device)
    (rows, size), number = embedding.weight.shape, ids.numel()
    # Three products with what is read: each id's, or each row's, which one more with ids makes of the gradients.
    fewer = rows * (3 * size + number) <= number * 3 * size
    if fewer and len(ids) >= FEWEST_ROWS and size == module.input_size:
        if not fits:
            state = read_state("state", state, len(ids), _state_size(module), _weights(module)[1])
        if kind := _compiled(module, embedding.weight, len(ids), state, ids):
            from chargen.model import compiled_layers

            return compiled_layers.run(module, embedding.weight, state, kind, ids)
    return run_layer(module, embedding(ids), state, fits=fits)


def _weights(module: nn.RNNBase) -> tuple[Tensor, ...]:
    """A layer's weights. Raises ArgumentError for a module that is none of ours."""
    if not isinstance(module, (nn.LSTM, nn.GRU)):
        raise ArgumentError(f"the layer is of type {type(module).__name__}: it must be an nn.LSTM or nn.GRU")
    if module.num_layers != 1 or module.bidirectional or not (module.bias and module.batch_first) or module.proj_size:
        raise ArgumentError(f"the layer is {module}: it must have one layer and direction, biases, batch_first=True")
    weights = tuple(getattr(module, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    gates = (4 if isinstance(module, nn.LSTM) else 3) * module.hidden_size
    shapes = (gates, module.input_size), (gates, module.hidden_size), (gates,), (gates,)
    for weight, shape in zip(weights, shapes, strict=True):
        check_shape("a weight of the layer", weight, shape)
    return weights


def _state_size(module: nn.RNNBase) -> int:
    return module.hidden_size * (2 if isinstance(module, nn.LSTM) else 1)


def _compiled(module: nn.RNNBase, inputs: Tensor, rows: int, state: Tensor, *ids: Tensor) -> torch.dtype | None:
    """What compiled kernels would multiply to run a layer; None where torch's modules run it, or refuse to."""
    narrow = torch.is_autocast_enabled("cpu")
    if rows < FEWEST_ROWS and not (narrow and isinstance(module, nn.GRU)):
        return None
    if not in_memory(inputs, state, *ids, *(weights := _weights(module))) or not available():
        return None
    if inputs.shape[-1] != module.input_size or state.shape != (rows, _state_size(module)):
        return None  # somebody has put another layer into a model
    if any(weight.dtype != torch.float32 for weight in weights):
        return None
    if narrow:
        return torch.bfloat16 if fast_bf16() and product_type(inputs) == torch.bfloat16 else None
    return torch.float32 if inputs.dtype == torch.float32 else None


def zero_state(config: ModelConfig, rows: int, device: torch.device) -> State:
    """The state of an unknown context for `rows` rows."""
    shape = check_int("rows", rows, 0), config.state_size
    return tuple(torch.zeros(shape, dtype=torch.float32, device=device) for _ in range(config.num_layers))


def reset_rows(state: State, continues: Tensor) -> State:
    """The state of the rows that continue (B,) bool; the others start fresh. Raises ArgumentError."""
    check_tensor("continues", continues, (torch.bool,), "B")
    for layer in state:
        check_shape("continues", continues, (len(layer),))
        check_device("continues", continues, layer.device)
    return tuple(torch.where(continues[:, None], layer, torch.zeros_like(layer)) for layer in state)


def detach(state: State) -> State:
    """The same state, cut from the graph: gradients end at the window's border (truncated backpropagation)."""
    return tuple(layer.detach() for layer in state)
