"""`python -m chargen` is `chargen`."""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Load the command and run it. Until it is loaded an interruption can harm nothing, so it ends the process."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from chargen.cli.main import main as run

    signal.signal(signal.SIGINT, before)
    run()


def _leave(number: int, frame: FrameType | None) -> None:
    print("chargen: interrupted", file=sys.stderr, flush=True)
    os._exit(130)


if __name__ == "__main__":
    main()
