"""What a run tells of itself at every step."""

import html
import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from chargen.errors import truncate

Result = TypeVar("Result")


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Args:
        step: optimizer steps so far.
        epoch: passes over the training text so far.
        seconds: spent by the run so far, resumed parts included.
        train_loss: nats per character over the last step (on a GPU, the last whose figures are there); NaN before the
            first, or where it was not finite. Of a bidirectional model the mean of both directions.
        valid_loss: nats per character, where a validation has just ended, and in the last Progress of a run, where the
            best weights were scored on the whole split; None everywhere else.
        test_loss: nats per character, in the last Progress where there is a test part; None everywhere else.
        lr: of the last step.
        grad_norm: of the last step.
        chars_per_second: trained since the last line of metrics, validation apart.
        share: of the budget used, 0 to 1.
        seconds_left: until the budget is used, estimated.
        doing: "training", "validating" (a step's validation) or "finishing" (the whole splits at the end).
        train_losses: of a bidirectional model, where there is a train_loss, "forward", "backward" and, where the layer
            learned, "cloze"; empty otherwise.
        valid_losses: of a bidirectional model, where there is a valid_loss, by the same names; empty otherwise.
        test_losses: of a bidirectional model, where there is a test_loss, by the same names; empty otherwise.
        warning: why the latest save failed, while the run goes on without it; empty where it did not.
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
    test_loss: float | None = None
    train_losses: Mapping[str, float] = field(default_factory=dict)
    valid_losses: Mapping[str, float] = field(default_factory=dict)
    test_losses: Mapping[str, float] = field(default_factory=dict)
    warning: str = ""

    def __repr__(self) -> str:
        return f"Progress({', '.join(f'{name} {value}' for name, value in self._described().items())})"

    def _repr_html_(self) -> str:
        return as_table(self._described())

    def _described(self) -> dict[str, str]:
        """What matters, by name; losses in nats per character."""
        described = {"step": f"{self.step:,}", "epoch": f"{self.epoch:.2f}"}
        if not math.isnan(self.train_loss):
            described["train"] = f"{self.train_loss:.4f}"
        losses = {"valid": (self.valid_loss, self.valid_losses), "test": (self.test_loss, self.test_losses)}
        for name, (loss, parts) in losses.items():
            if loss is not None:
                named = ", ".join(f"{part} {value:.4f}" for part, value in parts.items())
                described[name] = f"{loss:.4f}" + (f" ({named})" if named else "")
        described[self.doing] = f"{100 * self.share:.0f} %"
        return described | ({"warning": truncate(self.warning, 200)} if self.warning else {})


def tell_while(
    work: Generator[None, None, Result], make: Callable[[str], Progress], doing: str
) -> Generator[Progress, None, Result]:
    """Yield progress while something is done in pieces.

    Args:
        work: yields between pieces.
        make: makes a Progress of the moment.
        doing: what is done, "validating" or "finishing".

    Returns:
        What `work` returns.
    """
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: Result = end.value
            return result
        yield make(doing)


def as_table(described: Mapping[str, str]) -> str:
    """Figures by name, as a notebook shows them."""
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(described[name])}</td></tr>" for name in described
    )
    return f"<table>{rows}</table>"
