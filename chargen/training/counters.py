"""What a run counts. Everything here is stored with its state, and everything that decides how it goes on is here."""

from dataclasses import dataclass, fields
from typing import Any

from chargen.errors import ModelFileError, repr_short
from chargen.settings import setting_types

MOST = 2**53


@dataclass
class Counters:
    """A run's figures at the border of a step. Fields in seconds are clocks: they steer time budgets only.

    Args:
        step: steps done; applied: of these, the ones whose gradient was finite; bad_steps: not finite in a row, lately.
        trained: targets seen. logged_step: the latest step at which a validation or a line of metrics was due.
        since_nats, since_characters, since_seconds: summed since that line; of a bidirectional model forward, and
            since_backward_…, since_cloze_… for the rest of it.
        cloze_applied: steps at which the cloze layer learned.
        grad_norm, lr: of the last step.
        best_loss, best_step, evaluations_since_best: the validation's memory.
        seconds: spent; eval_seconds, evaluated: spent on, and ids scored by, validation: its speed.
        metrics_bytes: the metrics' size. hidden: whether there is a carried state. complete: whether the run is over.
    """

    step: int = 0
    applied: int = 0
    bad_steps: int = 0
    trained: int = 0
    logged_step: int = 0
    since_nats: float = 0.0
    since_characters: int = 0
    since_seconds: float = 0.0
    since_backward_nats: float = 0.0
    since_backward_characters: int = 0
    since_cloze_nats: float = 0.0
    since_cloze_characters: int = 0
    cloze_applied: int = 0
    grad_norm: float = 0.0
    lr: float = 0.0
    best_loss: float | None = None
    best_step: int | None = None
    evaluations_since_best: int = 0
    seconds: float = 0.0
    eval_seconds: float = 0.0
    evaluated: int = 0
    metrics_bytes: int = 0
    hidden: bool = False
    complete: bool = False

    @classmethod
    def from_stored(cls, stored: Any) -> "Counters":
        """Take over stored figures. Raises ModelFileError where they are not what a run counts."""
        kinds = setting_types(cls)
        if not isinstance(stored, dict) or stored.keys() != {field.name for field in fields(cls)}:
            raise ModelFileError(
                "the state's counters are not those of this version: resume with the one that wrote it"
            )
        for name, value in stored.items():
            kind, optional, _ = kinds[name]
            if type(value) is not kind and not (optional and value is None):
                raise ModelFileError(f"the state's {name} is not a number that a run counts; take a fresh copy")
            if isinstance(value, int) and not 0 <= value <= MOST:
                raise ModelFileError(f"the state's {name} is {repr_short(value)}: a run counts from 0 to {MOST:,}")
        return cls(**stored)
