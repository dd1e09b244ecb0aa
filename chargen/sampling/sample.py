"""What a sampler hands over: single characters as they come, and whole samples."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Character:
    """One character that one stream wrote.

    Args:
        stream: which sample, from 0.
        character: the character.
        log_prob: the model's own log-probability of it, in nats, before temperature and filters.
        stopped: True where a stop text ends with it, and with it the stream's turn.
    """

    stream: int
    character: str
    log_prob: float
    stopped: bool = False


@dataclass(frozen=True)
class Sample:
    """What one stream wrote in one call.

    Args:
        text: it.
        log_probs: the model's own log-probability of each character, in nats, before temperature and filters.
        stopped: whether a stop text ended it.
    """

    text: str
    log_probs: tuple[float, ...]
    stopped: bool

    @classmethod
    def of(cls, turn: list[Character], backward: bool = False) -> "Sample":
        """Put the characters of one stream together, in the order of the text."""
        stopped = bool(turn) and turn[-1].stopped
        if backward:
            turn = turn[::-1]
        return cls("".join(written.character for written in turn), tuple(written.log_prob for written in turn), stopped)
