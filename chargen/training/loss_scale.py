"""Gradients in float16, multiplied by as much as they bear: small ones would be zero there, large ones infinite.

After Micikevicius et al., "Mixed precision training" (ICLR 2018), with a scale that finds itself.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from chargen.training.counters import FIRST_SCALE, LARGEST_SCALE

PATIENCE = 2_000
"""Finite steps in a row after which the scale is doubled."""


class LossScale:
    """The scale of a run's next step. It stays on the device, so that the host need not wait for it.

    Args:
        device: the model's.
        scale, streak: what a stored run had: the scale, and finite steps in a row since it was last changed.
    """

    def __init__(self, device: torch.device, scale: float = FIRST_SCALE, streak: int = 0) -> None:
        self.scale = torch.tensor(scale, device=device)
        self.streak = torch.tensor(streak, device=device)

    def undo(self, gradients: Iterable[Tensor]) -> None:
        """Divide gradients by the scale, in place; what was infinite stays so."""
        torch._foreach_mul_(list(gradients), 1 / self.scale)

    def update(self, finite: Tensor) -> None:
        """After a step: half the scale where its gradients were not finite, twice as much after many that were."""
        streak = self.streak + 1
        grows = streak >= PATIENCE
        larger = torch.where(grows, (2 * self.scale).clamp(max=LARGEST_SCALE), self.scale)
        self.scale.copy_(torch.where(finite, larger, (self.scale / 2).clamp(min=1)))
        self.streak.copy_(torch.where(finite & ~grows, streak, 0))
