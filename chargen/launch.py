"""What a launcher, such as torchrun, tells each of the processes that it starts together."""

import os
from typing import NamedTuple

from chargen.errors import SettingError, repr_short

VARIABLES = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "TORCHELASTIC_RESTART_COUNT": 0}
"""Of the environment, with what each is in a process that nobody has launched."""


class Launch(NamedTuple):
    """A process among those that were started together.

    Args:
        rank: its number among them all, from 0.
        world_size: how many there are.
        local_rank: its number among those on this machine, from 0.
        local_world_size: how many are on this machine.
        restarts: how often the launcher has started them again, after one had failed.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    restarts: int = 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.world_size == 1


def read_launch() -> Launch:
    """Read from the environment which process this is; alone where RANK and WORLD_SIZE do not say otherwise.

    Raises:
        SettingError: the variables contradict each other, or are no numbers.
    """
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return Launch()
    values = {}
    for name, usual in VARIABLES.items():
        word = os.environ.get(name, str(usual))
        if not (word.isascii() and word.isdigit()):
            raise SettingError(f"the environment's {name} is {repr_short(word)}: it must be a number; use torchrun")
        values[name] = int(word)
    launch = Launch(*values.values())
    if not (launch.rank < launch.world_size and launch.local_rank < launch.local_world_size <= launch.world_size):
        named = ", ".join(f"{name} {value}" for name, value in values.items())
        raise SettingError(f"the environment's {named} contradict each other; use torchrun")
    return launch
