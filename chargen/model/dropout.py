"""Dropout whose masks are addressed by (seed, step, layer), so that no random state needs saving."""

from dataclasses import dataclass

import torch
from torch import Tensor

from chargen.draws import Purpose, integer


@dataclass(frozen=True)
class Noise:
    """The address of one training step's masks. A model called without it drops nothing: there is no mode to forget."""

    seed: int
    step: int


def drop(values: Tensor, rate: float, noise: Noise | None, layer: int, *, locked: bool) -> Tensor:
    """Zero a share `rate` of values (B, T, F) and scale the rest by 1 / (1 - rate).

    Args:
        layer: which of a step's masks; a part of the address.
        locked: one mask (B, 1, F) for all T (Gal and Ghahramani, "A theoretically grounded application of dropout in
            recurrent neural networks", 2016) instead of one per character.
    """
    if noise is None or rate == 0:
        return values
    shape = (values.shape[0], 1 if locked else values.shape[1], values.shape[2])
    generator = torch.Generator(values.device).manual_seed(integer(noise.seed, layer, noise.step, Purpose.DROPOUT))
    kept = torch.rand(shape, generator=generator, device=values.device) >= rate
    return values * kept / (1 - rate)
