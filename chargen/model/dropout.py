"""Dropout whose masks are addressed by (seed, step, layer), so that no random state needs saving."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chargen.draws import Purpose, integer
from chargen.kernels import available
from chargen.model.device import STORED, memory

BITS = 16
"""Of a mask's random numbers: a rate is rounded to a multiple of 2**-16."""


@dataclass(frozen=True)
class Noise:
    """The address of one training step's masks. A model called without it drops nothing: there is no mode to forget."""

    seed: int
    step: int


def drop(values: Tensor, rate: float, noise: Noise | None, layer: int) -> Tensor:
    """Zero a share `rate` of values (B, T, F) and scale the rest by 1 / (1 - rate).

    Args:
        layer: which of a step's masks; a part of the address.
    """
    if noise is None or rate == 0:
        return values
    if values.device.type == "cpu" and values.dtype in STORED and available():
        dropped: Tensor = _Drop.apply(values, round(rate * 2**BITS), noise, layer)  # type: ignore[no-untyped-call]
        return dropped
    generator = torch.Generator(values.device).manual_seed(integer(noise.seed, layer, noise.step, Purpose.DROPOUT))
    kept = torch.rand(values.shape, generator=generator, device=values.device) >= rate
    return values * kept / (1 - rate)


class _Drop(torch.autograd.Function):
    """Masks that are computed where they are applied, on the way back once more; none is kept."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, limit: int, noise: Noise, layer: int) -> Tensor:
        ctx.address = limit, noise, layer
        return _apply(values, limit, noise, layer)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _apply(gradients[0], *ctx.address), None, None, None


def _apply(values: Tensor, limit: int, noise: Noise, layer: int) -> Tensor:
    from chargen.kernels import dropout as kernels
    from chargen.kernels.threads import share

    by_time = values.detach().transpose(0, 1).contiguous()  # as the compiled layers have it: nothing is copied then
    found = torch.empty_like(by_time)
    before, after = (memory(each.flatten()) for each in (by_time, found))
    address = noise.seed, (noise.step << 24) % 2**64, layer, int(Purpose.DROPOUT)

    def run(groups: slice) -> None:
        kernels.drop(before, after, groups.start, groups.stop, limit, *address)

    share(run, -(-len(before) // kernels.GROUP), at_least=64)
    return found.transpose(0, 1)
