"""What a run tells of itself at every step."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Args:
        step, epoch: done so far.
        seconds: spent by the run so far, resumed parts included.
        train_loss: nats per character over the last step; NaN before the first, or where it was not finite.
        valid_loss: of the latest validation, nats per character; None before the first.
        lr, grad_norm: of the last step.
        chars_per_second: trained since the last line of metrics, validation apart.
        share: of the budget used, 0 to 1.
        seconds_left: until the budget is used, estimated.
        doing: "training", "validating" (a step's validation) or "finishing" (the whole splits at the end).
    """

    step: int
    epoch: float
    seconds: float
    train_loss: float
    valid_loss: float | None
    lr: float
    grad_norm: float
    chars_per_second: float
    share: float
    seconds_left: float
    doing: str = "training"
