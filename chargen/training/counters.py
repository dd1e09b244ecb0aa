"""What a run counts. Everything here is stored with its state, and everything that decides how it goes on is here."""

from dataclasses import dataclass, field, fields
from typing import Any

from chargen.errors import ModelFileError, repr_short
from chargen.settings import setting_types

MAX_COUNT = 2**53


@dataclass
class Counters:
    """A run's figures at the border of a step. Fields in seconds are clocks: they steer time budgets only.

    Args:
        step: optimizer steps.
        applied: of these, the ones of the network that is trained whose figures were finite.
        cloze_applied: of these, the ones at which the cloze layer learned.
        bad_steps: steps in a row, lately, that were not finite.
        trained: targets seen.
        logged_step: the latest step at which a validation or a line of metrics was due.
        since_nats: summed since the latest line of metrics, by loss: "forward", "backward", "cloze".
        since_characters: trained since the latest line of metrics, by loss; of cloze, ids.
        since_seconds: spent on steps since the latest line of metrics.
        grad_norm: of the latest step.
        lr: of the latest step.
        best_loss: of the validations of this network so far.
        best_step: when that was.
        evaluations_since_best: validations since then.
        seconds: spent.
        eval_seconds: spent on scoring.
        evaluated: ids scored in that time.
        metrics_bytes: size of the metrics.
        hidden: whether there is a carried state.
        complete: whether the run is over.
        network: the number of the network that is trained, from 0.
        network_step: the step at which its training began.
        network_seconds: spent before.
    """

    step: int = 0
    applied: int = 0
    bad_steps: int = 0
    trained: int = 0
    logged_step: int = 0
    since_nats: dict[str, float] = field(default_factory=dict)
    since_characters: dict[str, int] = field(default_factory=dict)
    since_seconds: float = 0.0
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
    network: int = 0
    network_step: int = 0
    network_seconds: float = 0.0

    def begin_network(self, seconds: float) -> None:
        """Begin to count for the next network what is counted for each.

        Args:
            seconds: spent so far.
        """
        self.network, self.network_step, self.network_seconds = self.network + 1, self.step, seconds
        self.applied = self.cloze_applied = self.bad_steps = self.evaluations_since_best = 0
        self.best_loss = self.best_step = None

    def add(self, name: str, nats: float, characters: int) -> None:
        """Add a loss to the sums."""
        self.since_nats[name] = self.since_nats.get(name, 0.0) + nats
        self.since_characters[name] = self.since_characters.get(name, 0) + characters

    def begin_sums(self) -> None:
        """Begin new sums."""
        self.since_nats, self.since_characters, self.since_seconds = {}, {}, 0.0

    @classmethod
    def from_stored(cls, stored: Any, directions: tuple[str, ...]) -> "Counters":
        """Take over stored figures.

        Args:
            stored: by name.
            directions: of the model.

        Raises:
            ModelFileError: where they are not what a run counts.
        """
        if not isinstance(stored, dict) or stored.keys() != {each.name for each in fields(cls)}:
            raise ModelFileError(
                "the state's counters are not those of this version: resume with the one that wrote it"
            )
        kinds, by_loss = setting_types(cls), {"since_nats": float, "since_characters": int}
        for name, value in stored.items():
            if name in by_loss:
                if not isinstance(value, dict) or not value.keys() <= {*directions, *["cloze"] * (len(directions) > 1)}:
                    raise ModelFileError(f"the state's {name} is not by loss; take a fresh copy")
                for number in value.values():
                    _check(name, number, by_loss[name])
            elif value is not None or not kinds[name][1]:
                _check(name, value, kinds[name][0])
        if stored["since_nats"].keys() != stored["since_characters"].keys():
            raise ModelFileError("the state's sums are of other losses than its counts; take a fresh copy")
        return cls(**stored)


def _check(name: str, value: Any, kind: type) -> None:
    if type(value) is not kind:
        raise ModelFileError(f"the state's {name} is not a number that a run counts; take a fresh copy")
    if isinstance(value, int) and not 0 <= value <= MAX_COUNT:
        raise ModelFileError(f"the state's {name} is {repr_short(value)}: a run counts from 0 to {MAX_COUNT:,}")
