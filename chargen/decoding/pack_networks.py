"""The weights of networks, in the order in which the compiled engine multiplies with them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import Arrays
from chargen.errors import ArgumentError
from chargen.kernels.amx import SIDE, TILE_CONFIG, aligned_zeros
from chargen.kernels.cpu_features import amx
from chargen.kernels.decode_matmul import WIDTH, pack
from chargen.kernels.decode_step import Weights
from chargen.kernels.packing import pack_rows
from chargen.model.config import ModelConfig
from chargen.storage.quantize import SCALE, as_float32
from chargen.storage.weight_checks import as_stack_weights


def pack_networks(config: ModelConfig, networks: Sequence[Arrays], direction: str) -> Weights:
    """Pack the weights of a direction of several networks of one shape.

    Args:
        config: their shape.
        networks: the weights of each by name, in float32 or quantized, all alike.
        direction: "forward" or "backward".

    Raises:
        ArgumentError: weights are missing or have another shape, or the type of those of another network.
        SettingError: the networks do not read in this direction.
    """
    checked = [as_stack_weights(config, arrays, direction) for arrays in networks]
    packed, tables = zip(*(_pack_products(config, arrays, direction) for arrays in checked), strict=True)
    if len({weights.dtype for weights in packed}) > 1 or len({table.shape for table in tables}) > 1:
        raise ArgumentError("the networks of a model have weights of one type, and outputs for the same ids")
    weights = aligned_zeros((sum(map(len, packed)),), packed[0].dtype)
    np.concatenate(packed, out=weights)
    size = tables[0].shape[0]
    in_tiles = _fits_tiles(config, packed[0].dtype)
    sums = zip(*(_pack_sums(config, arrays, direction) for arrays in checked), strict=True)
    return Weights(
        config.cell == "lstm", TILE_CONFIG if in_tiles else TILE_CONFIG[:0], config.hidden_size,
        size - config.begin_symbols, weights, np.stack(tables), *(np.stack(arrays) for arrays in sums),
    )  # fmt: skip


def _fits_tiles(config: ModelConfig, kind: Any) -> bool:
    """Whether weights are multiplied in the processor's tile registers, whatever the number of rows: bf16 ones are."""
    return bool(amx() and kind == np.uint16 and config.hidden_size % SIDE == 0)


def _pack_products(config: ModelConfig, arrays: Arrays, direction: str) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """What is multiplied with states and outputs, flat; and the first layer's sums over the inputs for each id."""
    stored = arrays
    if len({array.dtype for array in arrays.values() if array.ndim == 2}) > 1:
        stored = {name: as_float32(arrays, name) for name in arrays}  # a file that somebody put together
    pack_weights = pack_rows if _fits_tiles(config, stored[config.output_table].dtype) else pack
    layers = [f"{direction}_layers.{layer}.weight" for layer in range(config.num_layers)]
    _, *names = [f"{layer}_{part}_l0" for layer in layers for part in ("ih", "hh")]
    names.append(config.output_table)
    # Layer 0 sees only the embedding, so its products are one table with a row for each id.
    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the logits
        table = as_float32(arrays, "embedding.weight") @ as_float32(arrays, f"{layers[0]}_ih_l0").T
    return np.concatenate([pack_weights(stored[name]).ravel() for name in names]), table


def _pack_sums(config: ModelConfig, arrays: Arrays, direction: str) -> tuple[NDArray[np.float32], ...]:
    """What sums are multiplied with, and what is added to them: the last six parts of `Weights`."""
    gates = (4 if config.cell == "lstm" else 3) * config.hidden_size
    padded = -(-gates // WIDTH) * WIDTH
    scale_in, scale, bias = (np.zeros((config.num_layers, padded), np.float32) for _ in range(3))
    new_bias = np.zeros((config.num_layers, config.hidden_size), np.float32)
    for layer in range(config.num_layers):
        name = f"{direction}_layers.{layer}."
        bias_ih, bias_hh = (as_float32(arrays, f"{name}bias_{part}_l0") for part in ("ih", "hh"))
        with np.errstate(over="ignore"):  # the caller looks at the logits
            bias[layer, :gates] = bias_ih + bias_hh
        if config.cell == "gru":
            bias[layer, 2 * config.hidden_size : gates] = bias_ih[2 * config.hidden_size :]
            new_bias[layer] = bias_hh[2 * config.hidden_size :]
        scale[layer, :gates] = _row_scales(arrays, f"{name}weight_hh_l0")
        scale_in[layer, :gates] = _row_scales(arrays, f"{name}weight_ih_l0") if layer else 1
    head = _row_scales(arrays, config.output_table), as_float32(arrays, "output.bias")
    head_scale, head_bias = (np.pad(values, (0, -len(values) % WIDTH)) for values in head)
    return scale_in, scale, bias, new_bias, head_scale, head_bias


def _row_scales(arrays: Arrays, name: str) -> NDArray[np.float32]:
    """The factors (N,) of the sums of N rows of weights: 1 where they are not int8."""
    scales: NDArray[np.float32] = arrays.get(name + SCALE, np.ones(len(arrays[name]), np.float32))
    return scales
