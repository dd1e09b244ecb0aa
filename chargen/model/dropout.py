"""Dropout whose masks are addressed, so that no random state needs saving.

Whether a value stays is a function of (seed, step, layer, global row, position, hidden unit): of nothing else in the
minibatch, so that a row's mask is the same beside whatever other rows, in whichever process, and in a longer window.
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
from chargen.model.arguments import FLOATS, check_tensor, in_memory
from chargen.model.device import STORED, numpy_view
from chargen.rng import MAX_SEED, Purpose, generator_seed, philox, philox_key
from chargen.settings import check_int

BITS = 16
"""Of a mask's random numbers: a rate is rounded to a multiple of 2**-16."""
NUMBERS = 8
"""Of such that a counter makes."""
MOST = 2**32
"""Rows of all processes, and positions: each has a word of the counter."""


@dataclass(frozen=True)
class DropoutKey:
    """The address of one training step's masks. A model called without it drops nothing: there is no mode to forget.

    Args:
        seed: 0 to 2**64 - 1.
        step: which optimizer step, below 2**64.
        first_row: the number, among the rows of all processes, of the first one that the model is called with.
    """

    seed: int
    step: int
    first_row: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", check_int("seed", self.seed, 0, MAX_SEED))
        object.__setattr__(self, "step", check_int("step", self.step, 0, 2**64 - 1))
        object.__setattr__(self, "first_row", check_int("first_row", self.first_row, 0, MOST - 1))

    def key(self, layer: int) -> tuple[int, int]:
        """The key of a layer's masks."""
        return philox_key(self.seed, layer, self.step, Purpose.DROPOUT)

    def kept(self, values: Tensor, rate: float, layer: int) -> Tensor:
        """What stays of values (B, T, F), bool, where no compiled kernel draws it."""
        mask = torch.empty(values.shape, dtype=torch.bool, device=values.device)
        self.draw(mask, rate, layer)
        return mask

    def draw(self, mask: Tensor, rate: float, layer: int) -> None:
        """Fill in a mask (B, T, F).

        Only the host looks at each address. Another device draws the whole mask at once from (seed, step, layer,
        first row): what processes draw is independent, but not what a single one would have drawn.
        """
        if mask.device.type != "cpu":
            seed = generator_seed(self.seed, layer, self.step, Purpose.DROPOUT) ^ self.first_row
            mask.bernoulli_(1 - rate, generator=torch.Generator(mask.device).manual_seed(seed))
            return
        rows, positions, size = mask.shape
        for row in range(rows):  # one at a time: the numbers take 32 times the memory of the mask
            words = (np.arange(-(-size // NUMBERS)), np.arange(positions)[:, None], self.first_row + row)
            counter = np.stack(np.broadcast_arrays(*words, int(Purpose.DROPOUT)), -1).astype(np.uint64)
            numbers = philox(counter, self.key(layer)).astype("<u4").view("<u2").reshape(positions, -1)
            mask[row] = torch.from_numpy(numbers[:, :size] >= round(rate * 2**BITS))


class FixedMasks:
    """Masks that stay where they are in memory and are drawn anew for each step: what a captured graph can read."""

    def __init__(self) -> None:
        self.masks: dict[int, tuple[Tensor, float]] = {}

    def kept(self, values: Tensor, rate: float, layer: int) -> Tensor:
        """The mask of a layer, made when it is first asked for."""
        if layer not in self.masks:
            self.masks[layer] = torch.ones(values.shape, dtype=torch.bool, device=values.device), rate
        return self.masks[layer][0]

    def redraw(self, noise: DropoutKey) -> None:
        """Fill in all masks for the step of `noise`."""
        for layer, (mask, rate) in self.masks.items():
            noise.draw(mask, rate, layer)


Masks = DropoutKey | FixedMasks
"""Where a step's dropout masks come from."""


def drop(values: Tensor, rate: float, noise: Masks | None, layer: int) -> Tensor:
    """Zero a share `rate` of values (B, T, F) and scale the rest by 1 / (1 - rate).

    Args:
        layer: which of a step's masks; a part of the address.

    Raises ArgumentError where values are none such, SettingError for a rate that is not 0 to below 1.
    """
    check_tensor("values", values, FLOATS, "B, T, F")
    if not 0 <= rate < 1:
        raise SettingError(f"dropout is {repr_short(rate)}: it must be at least 0 and less than 1", "dropout")
    if noise is not None and not isinstance(noise, Masks):
        raise ArgumentError(f"noise is of type {type(noise).__name__}: it must be a DropoutKey, or None")
    layer = check_int("layer", layer, 0, 2**32 - 1)
    limit = round(rate * 2**BITS)
    if noise is None or limit == 0 or values.is_meta or not values.numel():
        return values
    first, (rows, positions, _) = getattr(noise, "first_row", 0), values.shape
    if max(first + rows, positions) > MOST:
        raise ArgumentError(f"rows end at {first + rows:,}, positions at {positions:,}: masks have {MOST:,} of each")
    if isinstance(noise, DropoutKey) and values.dtype in STORED and in_memory(values) and available():
        dropped: Tensor = _Drop.apply(values, limit, noise, layer)  # type: ignore[no-untyped-call]
        return dropped
    return values * noise.kept(values, rate, layer) / (1 - rate)


class _Drop(torch.autograd.Function):
    """Masks that are computed where they are applied, on the way back once more; none is kept."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, limit: int, noise: DropoutKey, layer: int) -> Tensor:
        ctx.address = limit, noise, layer
        return _apply(values, limit, noise, layer)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        # The same function of the gradient, which has a gradient in its turn.
        return _Drop.apply(gradients[0], *ctx.address), None, None, None  # type: ignore[no-untyped-call]


def _apply(values: Tensor, limit: int, noise: DropoutKey, layer: int) -> Tensor:
    from chargen.kernels import dropout as kernels
    from chargen.kernels.threads import parallel_for

    rows, _, size = values.shape
    by_time = values.detach().transpose(0, 1)  # as the compiled layers have it: nothing is copied then
    padding = -size % NUMBERS
    by_time = functional.pad(by_time, (0, padding)) if padding else by_time.contiguous()
    dropped = torch.empty_like(by_time)
    before, after = (numpy_view(each.flatten()) for each in (by_time, dropped))
    address = *noise.key(layer), int(Purpose.DROPOUT), (size + padding) // NUMBERS, rows, noise.first_row

    def run(blocks: slice) -> None:
        kernels.drop(before, after, blocks.start, blocks.stop, limit, *address)

    parallel_for(run, -(-len(before) // kernels.BLOCK), at_least=256)
    return (dropped[..., :size] if padding else dropped).transpose(0, 1)
