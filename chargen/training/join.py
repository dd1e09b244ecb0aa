"""Joining the processes that a launcher has started together."""

import contextlib
from collections.abc import Callable, Iterator

from chargen.kernels.threads import share_cores
from chargen.launch import read_launch
from chargen.training.group import ALONE, Group


@contextlib.contextmanager
def join_group(on_wait: Callable[[str], None] = lambda line: None) -> Iterator[Group]:
    """Join them while the context lasts; where there is no other process, be alone.

    Args:
        on_wait: called with a line now and then, in the first process, while others are waited for.

    Raises:
        ChargenError: they cannot reach each other, or another one is lost.
        SettingError: the launcher's variables contradict each other.
    """
    launch = read_launch()
    if launch.alone:
        yield ALONE
        return
    share_cores()
    from chargen.training.distributed import TorchGroup

    group = TorchGroup(launch, on_wait)
    try:
        yield group
    except BaseException as error:
        group.leave(None if group.stopping else error)
        raise
    group.leave(None)
