"""Losses by name: "forward", "backward" and "cloze"."""

from dataclasses import replace

from chargen.evaluation.loss import Loss
from chargen.model.config import DIRECTIONS

Losses = dict[str, Loss]


def mean_loss(losses: Losses) -> float:
    """The mean over the directions, in nats per character; the cloze layer's loss is another thing and stays out."""
    means = [losses[direction].mean for direction in DIRECTIONS if direction in losses]
    return sum(means) / len(means)


def without_counts(losses: Losses) -> Losses:
    """The losses of the network alone.

    Args:
        losses: by name.
    """
    return {name: replace(loss, nats=loss.network_nats) for name, loss in losses.items()}


def named_losses(role: str, losses: Losses) -> dict[str, float]:
    """A bidirectional model's losses under the names that files have for them.

    Args:
        role: "train", "valid" or "test".
        losses: by name.
    """
    return {f"{role}_cloze" if name == "cloze" else f"{role}_loss_{name}": loss.mean for name, loss in losses.items()}
