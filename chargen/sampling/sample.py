"""What a sampler hands over: single characters as they come, and whole samples."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Character:
    """One character that one stream wrote.

    Args:
        stream: the number of the sample, from 0.
        character: the character; empty for the end symbol of a record, which is none.
        log_prob: the model's own log-probability of it, in nats, before temperature and filters.
        stopped: True for the end symbol, and where a stop text ends with it: the stream writes no more in this call.
    """

    stream: int
    character: str
    log_prob: float
    stopped: bool = False


@dataclass(frozen=True)
class Sample:
    """What one stream wrote in one call.

    Args:
        text: the characters, in the order of the text.
        log_probs: the model's own log-probability of each character, in nats, before temperature and filters.
        stopped: whether a stop text or the end symbol ended it.
        end_log_prob: the same of the end symbol; None where it was not written. With `log_probs` it sums to the
            log-probability of the record.
    """

    text: str
    log_probs: tuple[float, ...]
    stopped: bool
    end_log_prob: float | None = None

    @classmethod
    def of(cls, characters: list[Character], backward: bool = False) -> "Sample":
        """Put the characters of one stream together.

        Args:
            characters: in the order of writing.
            backward: whether they were written from the end of the text.

        Returns:
            The sample, in the order of the text.
        """
        stopped = bool(characters) and characters[-1].stopped
        end_log_prob = None
        if stopped and not characters[-1].character:
            *characters, end = characters
            end_log_prob = end.log_prob
        if backward:
            characters = characters[::-1]
        text = "".join(character.character for character in characters)
        return cls(text, tuple(character.log_prob for character in characters), stopped, end_log_prob)
