"""Dropout whose masks are addressed, so that no random state needs saving.

Whether a value is kept is a function of (seed, step, layer, global row, position, hidden unit) and of nothing else: a
row has the same mask beside any other rows, in any process, and in a longer window.

Hidden unit u has the (u mod 8)-th of the eight 16-bit numbers that Philox makes of the counter
(u // 8, position, global row, DROPOUT), lower halves of words first; the key is Philox of (seed, layer, step, DROPOUT).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from chargen.errors import ArgumentError, SettingError, repr_short
from chargen.kernels import available
from chargen.model.arguments import FLOATS, check_tensor, is_host_memory
from chargen.model.device import KERNEL_DTYPES, numpy_view
from chargen.rng import MAX_SEED, Purpose, generator_seed, philox, philox_key
from chargen.settings import check_int

MASK_BITS = 16
"""Bits of each random number of a mask: a rate is rounded to a multiple of 2**-16."""
NUMBERS_PER_COUNTER = 8
"""Random numbers of MASK_BITS bits that Philox makes of one counter."""
MAX_ADDRESSES = 2**32
"""The limit for global rows, and for positions: each has a 32-bit word of the counter."""


@dataclass(frozen=True)
class DropoutKey:
    """The address of one optimizer step's masks. A model that is called without it drops nothing, in any mode.

    Args:
        seed: 0 to 2**64 - 1.
        step: the number of the optimizer step, below 2**64.
        first_row: the global number, over all processes, of the first row that the model is called with.
    """

    seed: int
    step: int
    first_row: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", check_int("seed", self.seed, 0, MAX_SEED))
        object.__setattr__(self, "step", check_int("step", self.step, 0, 2**64 - 1))
        object.__setattr__(self, "first_row", check_int("first_row", self.first_row, 0, MAX_ADDRESSES - 1))

    def philox_key(self, layer: int) -> tuple[int, int]:
        """The Philox key of a layer's masks."""
        return philox_key(self.seed, layer, self.step, Purpose.DROPOUT)

    def get_mask(self, values: Tensor, rate: float, layer: int) -> Tensor:
        """Draw a mask without compiled kernels.

        Args:
            values: (B, T, F), what it is for.
            rate: the share to drop.
            layer: a part of the address.

        Returns:
            (B, T, F) bool, true where a value is kept.
        """
        mask = torch.empty(values.shape, dtype=torch.bool, device=values.device)
        self.draw(mask, rate, layer)
        return mask

    def draw(self, mask: Tensor, rate: float, layer: int) -> None:
        """Fill in a mask.

        Only a mask on the host has a number for each address. On another device the whole mask is drawn at once from
        (seed, step, layer, first row): the masks of several processes are independent, but not those of a single one.

        Args:
            mask: (B, T, F) bool, filled with true where a value is kept.
            rate: the share to drop.
            layer: a part of the address.
        """
        if mask.device.type != "cpu":
            seed = generator_seed(self.seed, layer, self.step, Purpose.DROPOUT) ^ self.first_row
            mask.bernoulli_(1 - rate, generator=torch.Generator(mask.device).manual_seed(seed))
            return
        rows, positions, size = mask.shape
        for row in range(rows):  # row by row: the numbers take 32 times the memory of the mask
            words = (np.arange(-(-size // NUMBERS_PER_COUNTER)), np.arange(positions)[:, None], self.first_row + row)
            counter = np.stack(np.broadcast_arrays(*words, int(Purpose.DROPOUT)), -1).astype(np.uint64)
            numbers = philox(counter, self.philox_key(layer)).astype("<u4").view("<u2").reshape(positions, -1)
            mask[row] = torch.from_numpy(numbers[:, :size] >= round(rate * 2**MASK_BITS))


class FixedMasks:
    """Masks at fixed places in memory, which a captured CUDA graph can read; they are redrawn before each step."""

    def __init__(self) -> None:
        self.masks: dict[int, tuple[Tensor, float]] = {}

    def get_mask(self, values: Tensor, rate: float, layer: int) -> Tensor:
        """The mask of a layer; the first call makes it, with nothing dropped.

        Args:
            values: (B, T, F), what it is for.
            rate: the share to drop, kept for `redraw`.
            layer: a part of the address.

        Returns:
            (B, T, F) bool, true where a value is kept.
        """
        if layer not in self.masks:
            self.masks[layer] = torch.ones(values.shape, dtype=torch.bool, device=values.device), rate
        return self.masks[layer][0]

    def redraw(self, key: DropoutKey) -> None:
        """Fill in all masks for an optimizer step.

        Args:
            key: the address of the step's masks.
        """
        for layer, (mask, rate) in self.masks.items():
            key.draw(mask, rate, layer)


Masks = DropoutKey | FixedMasks
"""The source of an optimizer step's dropout masks."""


def drop(values: Tensor, rate: float, masks: Masks | None, layer: int) -> Tensor:
    """Zero a share of the values and scale the others by 1 / (1 - rate).

    Args:
        values: (B, T, F) floats.
        rate: the share to zero, 0 to below 1.
        masks: the masks, or their address; None drops nothing.
        layer: the number of the mask within the step; a part of its address.

    Raises:
        ArgumentError: values or masks have another type or shape, or there are more rows or positions than addresses.
        SettingError: the rate or the layer is out of range.
    """
    check_tensor("values", values, FLOATS, "B, T, F")
    if not 0 <= rate < 1:
        raise SettingError(f"dropout is {repr_short(rate)}: it must be at least 0 and less than 1", "dropout")
    if masks is not None and not isinstance(masks, Masks):
        raise ArgumentError(f"masks is of type {type(masks).__name__}: it must be a DropoutKey, or None")
    layer = check_int("layer", layer, 0, 2**32 - 1)
    limit = round(rate * 2**MASK_BITS)
    if masks is None or limit == 0 or values.is_meta or not values.numel():
        return values
    end, positions = getattr(masks, "first_row", 0) + values.shape[0], values.shape[1]
    if max(end, positions) > MAX_ADDRESSES:
        raise ArgumentError(f"rows end at {end:,}, positions at {positions:,}: masks have {MAX_ADDRESSES:,} of each")
    if isinstance(masks, DropoutKey) and values.dtype in KERNEL_DTYPES and is_host_memory(values) and available():
        dropped: Tensor = _Drop.apply(values, limit, masks, layer)  # type: ignore[no-untyped-call]
        return dropped
    return values * masks.get_mask(values, rate, layer) / (1 - rate)


class _Drop(torch.autograd.Function):
    """Dropout that computes its mask where it applies it, in the forward and in the backward pass, and stores none."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, limit: int, key: DropoutKey, layer: int) -> Tensor:
        ctx.address = limit, key, layer
        return _drop_compiled(values, limit, key, layer)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        # The gradient goes through the same function, so that it can be differentiated again.
        return _Drop.apply(gradients[0], *ctx.address), None, None, None  # type: ignore[no-untyped-call]


def _drop_compiled(values: Tensor, limit: int, key: DropoutKey, layer: int) -> Tensor:
    """Apply a mask to values (B, T, F) with compiled kernels; numbers below `limit` drop a value."""
    from chargen.kernels import dropout as kernels
    from chargen.kernels.threads import parallel_for

    rows, _, size = values.shape
    by_time = values.detach().transpose(0, 1)  # (T, B, F) is how compiled layers lay values out: no copy is needed
    padding = -size % NUMBERS_PER_COUNTER
    by_time = functional.pad(by_time, (0, padding)) if padding else by_time.contiguous()
    dropped = torch.empty_like(by_time)
    source, target = numpy_view(by_time.flatten()), numpy_view(dropped.flatten())
    counters = by_time.shape[2] // NUMBERS_PER_COUNTER
    address = *key.philox_key(layer), int(Purpose.DROPOUT), counters, rows, key.first_row

    def run(blocks: slice) -> None:
        kernels.drop(source, target, blocks.start, blocks.stop, limit, *address)

    parallel_for(run, -(-len(source) // kernels.BLOCK), microseconds=0.084)
    return (dropped[..., :size] if padding else dropped).transpose(0, 1)
