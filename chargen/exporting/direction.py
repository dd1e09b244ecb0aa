"""Which way an exported model reads."""

from chargen.errors import SettingError, repr_short
from chargen.model.config import DIRECTIONS, ModelConfig, require_bidirectional

READINGS = (*DIRECTIONS, "both")


def check_reading(config: ModelConfig, direction: str) -> None:
    """Check that a model reads in a direction, or in both at once.

    Args:
        config: the model's shape.
        direction: "forward", "backward" or "both".

    Raises:
        SettingError: it is none, or the model reads forward only.
    """
    if direction not in READINGS:
        choices = ", ".join(READINGS)
        raise SettingError(f"direction is {repr_short(direction)}: it must be one of {choices}", "direction")
    if direction != "forward":
        require_bidirectional(config, f"reading {'backward' if direction == 'backward' else 'both ways'}")
