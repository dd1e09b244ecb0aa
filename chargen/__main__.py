"""Runs the command `chargen` as `python -m chargen`."""

import signal

from chargen.cli.signals import interrupt


def main() -> None:
    """Load the command line and run it; Ctrl-C is handled even while it loads."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    from chargen.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
