"""The losses of a step with their gradients, and their sum over all processes: one buffer, once a step."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from chargen.training.group import DIGIT, Group, to_digits

Counts = tuple[int, int, int]
"""Of a loss's targets: how many there are, how many characters begin there, and how many are unknown symbols."""


@dataclass(eq=False)
class LossPart:
    """A loss, and its gradient.

    Args:
        loss: the mean over its targets in nats, a scalar.
        gradients: of the weights that it moves, in their order; None for those that it does not reach.
        counts: (3,) float64, `Counts`.
    """

    loss: Tensor
    gradients: list[Tensor | None]
    counts: Tensor


def count_tensor(counts: Counts) -> Tensor:
    """Counts as a LossPart has them.

    Args:
        counts: of its targets.

    Returns:
        (3,) float64.
    """
    return torch.tensor(counts, dtype=torch.float64)


def sum_parts(parts: Iterable[LossPart], group: Group) -> Tensor | None:
    """Replace losses and gradients by those over the targets of all processes.

    What is summed lies side by side in one buffer: of each part its gradients and its loss, both times its number of
    targets; then all counts, and the notices of the group. Each part is divided by the number of its targets in all.

    Args:
        parts: are changed; as many in each process, with the same weights.
        group: the processes.

    Returns:
        The notices of the group, float32 on the device of the gradients; None where this process is alone.

    Raises:
        ChargenError: another process is gone.
    """
    parts = list(parts)
    if group.alone:
        return None
    # The buffer: gradients and loss of the first part, of the second …; counts as digits; notices.
    values = [value for part in parts for value in (*part.gradients, part.loss) if value is not None]
    digits = [digit for part in parts for count in part.counts.tolist() for digit in to_digits(int(count))]
    tail = digits + group.notices()
    buffer = torch.empty(sum(value.numel() for value in values) + len(tail), device=values[0].device)
    *places, end = torch.split(buffer, [*(value.numel() for value in values), len(tail)])
    end.copy_(torch.tensor(tail))
    free = iter(places)
    for part in parts:
        for value in (*part.gradients, part.loss):
            if value is not None:
                torch.mul(value.detach().flatten(), part.counts[0].item(), out=next(free))
    group.sum(buffer)
    sums = iter(places)
    all_counts = end[: len(digits)].double().view(len(parts), -1, 2) @ end.new_tensor([DIGIT, 1], dtype=torch.float64)
    for part, counts in zip(parts, all_counts, strict=True):
        part.counts = counts
        part.gradients = [
            None if value is None else next(sums).div_(counts[0]).view_as(value) for value in part.gradients
        ]
        part.loss = next(sums).div_(counts[0]).view_as(part.loss)
    notices: Tensor = end[len(digits) :]
    return notices
