"""One recurrent layer as a function `(input, state) -> (output, state)`; its state is one tensor for LSTM and GRU."""

import contextlib
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from chargen.errors import ArgumentError
from chargen.kernels import available, fast_bf16
from chargen.model.arguments import (
    FLOATS,
    INTEGERS,
    as_normal_tensor,
    check_device,
    check_shape,
    check_tensor,
    is_host_memory,
    product_dtype,
    read_fresh,
    read_ids,
    read_state,
    state_dtype,
)
from chargen.model.config import ModelConfig
from chargen.model.device import one_thread, to_device, torch_lstm_in_bf16
from chargen.model.pieces import Pieces
from chargen.settings import check_int

MIN_COMPILED_ROWS = 8
"""With fewer rows, compiled layers mostly multiply zeros; only a GRU in bf16, which torch lacks, is still faster."""
MAX_ONE_THREAD_SIZE = 512
"""Hidden units up to which one thread computes few rows sooner than two threads synchronize on a busy machine."""
State = tuple[Tensor, ...]
"""One tensor (B, S) per layer: S = H for GRU (h), 2 H for LSTM (h, then c). None stands for an unknown context."""


def new_layer(config: ModelConfig, layer: int) -> nn.RNNBase:
    """A one-layer module with initial weights.

    An LSTM's forget gates start open, with bias_ih 1 and bias_hh 0 (Jozefowicz, Zaremba and Sutskever, "An empirical
    exploration of recurrent network architectures", 2015).

    Args:
        config: the model's shape.
        layer: the number of the layer, from 0.
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


def run_layer(
    module: nn.RNNBase, inputs: Tensor, state: Tensor, fresh: Tensor | None = None, *, checked: bool = False
) -> tuple[Tensor, Tensor]:
    """Run a layer in the fastest way that there is for its size, type and device.

    Args:
        module: a layer as `new_layer` makes it.
        inputs: (B, T, F) floats.
        state: (B, S), the state before the first input.
        fresh: (B, T) bool, true where the state is zero before an input; None where it never is.
        checked: whether the arguments have been checked already: they are not checked again.

    Returns:
        Outputs (B, T, H) and the state (B, S) after the last input.

    Raises:
        ArgumentError: the arguments do not fit each other.
    """
    if not checked:
        weights = _weights(module)
        check_tensor("inputs", inputs, FLOATS, "B, T, F")
        check_shape("inputs", inputs, (*inputs.shape[:2], module.input_size))
        check_device("inputs", inputs, weights[0].device)
        inputs = as_normal_tensor(inputs)
        state = read_state("state", state, len(inputs), _state_size(module), weights[1])
        fresh = read_fresh(fresh, inputs.shape[:2])
    if not inputs.shape[1]:
        return inputs.new_zeros(len(inputs), 0, module.hidden_size), state
    if dtype := _compiled_dtype(module, inputs, len(inputs), state):
        from chargen.model import compiled_layers

        return compiled_layers.run(module, inputs, state, dtype, fresh=fresh)
    if inputs.is_cuda and torch.is_autocast_enabled("cuda"):
        with torch.autocast("cuda", enabled=False):
            return run_cudnn_bf16(module, inputs, state, fresh)
    if fresh is None and _is_one_learning_row(module, inputs, state):
        from chargen.model import one_row

        with one_thread():
            return one_row.run(module, inputs, state)
    if len(inputs) < MIN_COMPILED_ROWS and module.hidden_size <= MAX_ONE_THREAD_SIZE and is_host_memory(inputs, state):
        with one_thread():
            return run_torch(module, inputs, state, fresh)
    return run_torch(module, inputs, state, fresh)


def _is_one_learning_row(module: nn.RNNBase, inputs: Tensor, state: Tensor) -> bool:
    """Tell whether a layer reads one row in float32 and gradients are needed, which torch computes slowly."""
    if len(inputs) != 1 or not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or not available():
        return False
    tensors = inputs, state, *_weights(module)
    learns = is_host_memory(*tensors) and any(tensor.requires_grad for tensor in tensors)
    fits = inputs.shape[-1] == module.input_size and state.shape == (1, _state_size(module))
    return learns and fits and all(tensor.dtype == torch.float32 for tensor in tensors)


def run_torch(module: nn.RNNBase, inputs: Tensor, state: Tensor, fresh: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Run a layer with torch's own module.

    Args:
        module: a layer as `new_layer` makes it.
        inputs: (B, T, F) floats.
        state: (B, S), the state before the first input.
        fresh: (B, T) bool, true where the state is zero before an input; None where it never is.

    Returns:
        Outputs (B, T, H) and the state (B, S) after the last input.
    """
    weight: Any = module.weight_hh_l0
    state = state.to(weight.dtype)
    if inputs.dtype != weight.dtype and product_dtype(inputs) == inputs.dtype:
        inputs = inputs.to(weight.dtype)
    in_bf16 = isinstance(module, nn.LSTM) and torch.is_autocast_enabled("cpu")
    with torch_lstm_in_bf16() if in_bf16 else contextlib.nullcontext():
        if fresh is None:
            outputs, hidden = module(inputs, _split_state(module, state))
            return outputs, _join_state(module, hidden)
        pieces = Pieces(fresh, inputs.device)
        packed = PackedSequence(pieces.pack(inputs), pieces.batch_sizes)
        outputs, hidden = module(packed, _split_state(module, pieces.before(state)))
        return pieces.unpack(outputs.data), pieces.after(_join_state(module, hidden))


def run_cudnn_bf16(
    module: nn.RNNBase, inputs: Tensor, state: Tensor, fresh: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run a layer with cuDNN's kernels for bf16; torch's autocast would use fp16, whatever type it was asked for.

    Args:
        module: a layer as `new_layer` makes it.
        inputs: (B, T, F) floats.
        state: (B, S), the state before the first input.
        fresh: (B, T) bool, true where the state is zero before an input; None where it never is. cuDNN's persistent
            kernels cannot run rows that are cut.

    Returns:
        Outputs (B, T, H) in bf16 and the state (B, S) after the last input.
    """
    cell: Any = type(module)
    size, layout = _memory_layout(cell, module.input_size, module.hidden_size, inputs.device)
    weights: tuple[Tensor, ...] = _Bf16Weights.apply(size, layout, *module.parameters())  # type: ignore[no-untyped-call]
    run = torch._VF.lstm if type(module) is nn.LSTM else torch._VF.gru
    # Layers have no dropout of their own; cuDNN needs to know whether a backward pass may follow.
    options = True, 1, 0.0, torch.is_grad_enabled(), False
    inputs, state = inputs.bfloat16(), state.bfloat16()
    if fresh is None:
        outputs, *after = run(inputs, _split_state(module, state), weights, *options, True)
        return outputs, _join_state(module, after[0] if len(after) == 1 else tuple(after))
    pieces = Pieces(fresh, inputs.device)
    before = _split_state(module, pieces.before(state))
    outputs, *after = run(pieces.pack(inputs), pieces.batch_sizes, before, weights, *options)
    joined = _join_state(module, after[0] if len(after) == 1 else tuple(after))
    return pieces.unpack(outputs), pieces.after(joined)


def _split_state(module: nn.RNNBase, state: Tensor) -> Any:
    """Convert a state (B, S) to the form of torch's layers: h (1, B, H) for a GRU, (h, c) for an LSTM."""
    parts = tuple(
        part.contiguous() for part in state.unsqueeze(0).chunk(2 if isinstance(module, nn.LSTM) else 1, dim=2)
    )
    return parts if len(parts) == 2 else parts[0]


def _join_state(module: nn.RNNBase, hidden: Any) -> Tensor:
    """Convert h (1, B, H), or (h, c), as torch's layers return them, to a state (B, S)."""
    state: Tensor = torch.cat(hidden, dim=2) if isinstance(hidden, tuple) else hidden
    weight: Any = module.weight_hh_l0
    return state.squeeze(0).to(state_dtype(weight))


Layout = tuple[tuple[Any, ...], ...]
"""The size, strides and offset of each weight of a layer in the one block of memory that cuDNN needs."""


@cache
def _memory_layout(cell: Any, input_size: int, hidden_size: int, device: torch.device) -> tuple[int, Layout]:
    """How many numbers a layer's weights take in memory, and the layout, taken from fp16: torch has none for bf16."""
    module: nn.Module = cell(input_size, hidden_size, device="meta", dtype=torch.float16)
    weights = list(module.to_empty(device=device).parameters())
    size = weights[0].untyped_storage().nbytes() // weights[0].element_size()
    return size, tuple((weight.size(), weight.stride(), weight.storage_offset()) for weight in weights)


class _Bf16Weights(torch.autograd.Function):
    """Copies of weights in bf16, in the one block of memory that cuDNN needs."""

    @staticmethod
    def forward(ctx: Any, size: int, layout: Layout, *weights: Tensor) -> Any:
        memory = torch.empty(size, dtype=torch.bfloat16, device=weights[0].device)
        copies = [memory.as_strided(*place) for place in layout]
        torch._foreach_copy_(copies, weights)
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return None, None, *(gradient.float() for gradient in gradients)


def run_embedded(
    module: nn.RNNBase, embedding: nn.Embedding, ids: Tensor, state: Tensor, fresh: Tensor | None = None, *,
    checked: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Run a layer over the embeddings of ids; where that is less work, products are made per character, not per id.

    Args:
        module: a layer as `new_layer` makes it.
        embedding: the table (V, E).
        ids: (B, T), whole numbers from 0 to V - 1.
        state: (B, S), the state before the first id.
        fresh: (B, T) bool, true where the state is zero before an id; None where it never is.
        checked: whether the arguments have been checked already: they are not checked again.

    Returns:
        Outputs (B, T, H) and the state (B, S) after the last id.

    Raises:
        ArgumentError: the arguments do not fit each other.
    """
    if not checked:
        check_tensor("ids", ids, INTEGERS, "B, T")
        ids = read_ids("ids", ids, len(embedding.weight), embedding.weight.device)
    (vocabulary_size, size), number = embedding.weight.shape, ids.numel()
    # Inputs enter three products. They have one row per id; or one per character, and then the gradients of the ids
    # are summed by a further product with their one-hot vectors.
    fewer = vocabulary_size * (3 * size + number) <= number * 3 * size
    if fewer and len(ids) >= MIN_COMPILED_ROWS and size == module.input_size:
        if not checked:
            state = read_state("state", state, len(ids), _state_size(module), _weights(module)[1])
            fresh = read_fresh(fresh, ids.shape)
        if dtype := _compiled_dtype(module, embedding.weight, len(ids), state, ids):
            from chargen.model import compiled_layers

            return compiled_layers.run(module, embedding.weight, state, dtype, ids, fresh)
    return run_layer(module, embedding(ids), state, fresh, checked=checked)


def _weights(module: nn.RNNBase) -> tuple[Tensor, ...]:
    """A layer's weights, checked: other modules than `new_layer` makes are refused."""
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


def _compiled_dtype(module: nn.RNNBase, inputs: Tensor, rows: int, state: Tensor, *ids: Tensor) -> torch.dtype | None:
    """The type of products where compiled kernels run a layer; None where torch's module runs it, or refuses to."""
    autocast = torch.is_autocast_enabled("cpu")
    if rows < MIN_COMPILED_ROWS and not (autocast and isinstance(module, nn.GRU)):
        return None
    if not is_host_memory(inputs, state, *ids, *(weights := _weights(module))) or not available():
        return None
    if inputs.shape[-1] != module.input_size or state.shape != (rows, _state_size(module)):
        return None  # the layer of a model was replaced
    if any(weight.dtype != torch.float32 for weight in weights):
        return None
    if autocast:
        return torch.bfloat16 if fast_bf16() and product_dtype(inputs) == torch.bfloat16 else None
    return torch.float32 if inputs.dtype == torch.float32 else None


def zero_state(config: ModelConfig, rows: int, device: torch.device) -> State:
    """The state of an unknown context: zeros (B, S) for each layer.

    Args:
        config: the model's shape.
        rows: B.
        device: where the state is made.
    """
    shape = check_int("rows", rows, 0), config.state_size
    return tuple(torch.zeros(shape, dtype=torch.float32, device=device) for _ in range(config.num_layers))


def start_fresh(state: State, fresh: Tensor | None) -> tuple[State, Tensor | None]:
    """Zero the state of rows that begin fresh, which is all there is to do where no state is reset inside the window.

    Args:
        state: of B rows.
        fresh: (B, T) bool on the host, true where the state is zero before an input; None where it never is.

    Returns:
        The state, and `fresh` where layers have to reset it.
    """
    if fresh is None or fresh.numpy()[:, 1:].any():
        return state, fresh
    begins = to_device(fresh[:, :1].numpy(), state[0].device)
    return tuple(layer.masked_fill(begins, 0) for layer in state), None


def detach(state: State) -> State:
    """Detach a state from the graph, so that gradients end at the window's border (truncated backpropagation)."""
    return tuple(layer.detach() for layer in state)
