"""One recurrent layer as a function `(input, state) -> (output, state)`; the same shape of state for LSTM and GRU."""

from typing import Any

import torch
from torch import Tensor, nn

from chargen.kernels import available, fast_bf16
from chargen.model.config import ModelConfig

FEWEST_ROWS = 8
"""Below this, compiled layers would mostly multiply zeros."""
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


def run_layer(module: nn.RNNBase, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Run a layer over inputs (B, T, F) from state (B, S): outputs (B, T, H) and the state after the last of them."""
    if kind := _compiled(inputs, len(inputs)):
        from chargen.model import fast_recurrent

        return fast_recurrent.run(module, inputs, state, kind)
    if inputs.is_cuda and torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") != torch.float16:
        # Autocast runs cuDNN's recurrent layers in fp16, whatever type it was asked for, and fp16 without a scaled loss
        # loses small gradients. In float32 they may use TF32.
        with torch.autocast("cuda", enabled=False):
            return run_plainly(module, inputs.float(), state)
    return run_plainly(module, inputs, state)


def run_plainly(module: nn.RNNBase, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The same by torch's own modules."""
    outputs: Tensor
    carried: Any
    if isinstance(module, nn.LSTM):
        hidden, cell = state.unsqueeze(0).chunk(2, dim=2)
        outputs, carried = module(inputs, (hidden.contiguous(), cell.contiguous()))
        carried = torch.cat(carried, dim=2)
    else:
        outputs, carried = module(inputs, state.unsqueeze(0))
    return outputs, carried.squeeze(0).float()


def run_embedded(module: nn.RNNBase, embedding: nn.Embedding, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """`run_layer` over `embedding(ids)`, ids (B, T); with a product for each different character where that is less."""
    (rows, size), number = embedding.weight.shape, ids.numel()
    # Three products with what is read: each id's, or each row's, which one more with ids makes of the gradients.
    fewer = rows * (3 * size + number) <= number * 3 * size
    if fewer and (kind := _compiled(embedding.weight, len(ids))):
        from chargen.model import fast_recurrent

        return fast_recurrent.run(module, embedding.weight, state, kind, ids)
    return run_layer(module, embedding(ids), state)


def _compiled(inputs: Tensor, rows: int) -> torch.dtype | None:
    """What compiled kernels would multiply to run a layer; None where torch's modules run it."""
    if inputs.device.type != "cpu" or rows < FEWEST_ROWS or not available():
        return None
    if torch.is_autocast_enabled("cpu"):
        return torch.bfloat16 if fast_bf16() else None
    return torch.float32 if inputs.dtype == torch.float32 else None


def zero_state(config: ModelConfig, rows: int, device: torch.device) -> State:
    """The state of an unknown context for `rows` rows."""
    return tuple(torch.zeros(rows, config.state_size, device=device) for _ in range(config.num_layers))


def keep_rows(state: State, continues: Tensor) -> State:
    """The state of the rows that continue (B,) bool; the others start fresh."""
    return tuple(torch.where(continues[:, None], layer, torch.zeros_like(layer)) for layer in state)


def detach(state: State) -> State:
    """The same state, cut from the graph: gradients end at the window's border (truncated backpropagation)."""
    return tuple(layer.detach() for layer in state)
