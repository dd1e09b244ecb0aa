"""Dropout whose masks are addressed by (seed, step, layer), so that no random state needs saving."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chargen.errors import ArgumentError, SettingError, repr_short
from chargen.kernels import available
from chargen.model.arguments import FLOATS, check_tensor, in_memory
from chargen.model.device import STORED, numpy_view
from chargen.rng import MAX_SEED, Purpose, integer
from chargen.settings import check_int

BITS = 16
"""Of a mask's random numbers: a rate is rounded to a multiple of 2**-16."""


@dataclass(frozen=True)
class DropoutKey:
    """The address of one training step's masks. A model called without it drops nothing: there is no mode to forget."""

    seed: int
    step: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", check_int("seed", self.seed, 0, MAX_SEED))
        object.__setattr__(self, "step", check_int("step", self.step, 0))

    def kept(self, values: Tensor, rate: float, layer: int) -> Tensor:
        """What stays of values, bool, where no compiled kernel draws it."""
        mask = torch.empty(values.shape, dtype=torch.bool, device=values.device)
        self.draw(mask, rate, layer)
        return mask

    def draw(self, mask: Tensor, rate: float, layer: int) -> None:
        """Fill in a mask."""
        seed = integer(self.seed, layer, self.step, Purpose.DROPOUT)
        mask.bernoulli_(1 - rate, generator=torch.Generator(mask.device).manual_seed(seed))


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
        raise ArgumentError(f"noise is of type {type(noise).__name__}: it must be a Noise, or None")
    layer = check_int("layer", layer, 0, 2**32 - 1)
    if noise is None or rate == 0 or values.is_meta:
        return values
    if isinstance(noise, DropoutKey) and values.dtype in STORED and in_memory(values) and available():
        dropped: Tensor = _Drop.apply(values, round(rate * 2**BITS), noise, layer)  # type: ignore[no-untyped-call]
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
    from chargen.kernels.threads import share

    by_time = values.detach().transpose(0, 1).contiguous()  # as the compiled layers have it: nothing is copied then
    found = torch.empty_like(by_time)
    before, after = (numpy_view(each.flatten()) for each in (by_time, found))
    address = noise.seed, (noise.step << 24) % 2**64, layer, int(Purpose.DROPOUT)

    def run(groups: slice) -> None:
        kernels.drop(before, after, groups.start, groups.stop, limit, *address)

    share(run, -(-len(before) // kernels.GROUP), at_least=64)
    return found.transpose(0, 1)
