"""The option `--threads`, of every command that computes."""

import click

from chargen.cli.options import option
from chargen.cli.terminal import log
from chargen.errors import amount
from chargen.kernels.threads import MOST_THREADS, cores, set_threads
from chargen.launch import read_launch


def _set_threads(ctx: click.Context, parameter: click.Parameter, number: int | None) -> None:
    """Set the number of threads, before torch is loaded."""
    if number is None:
        return
    processes = read_launch().local_world_size
    if number * processes > cores():
        each = f" in each of {processes:,} processes" * (processes > 1)
        log(f"warning: --threads is {number:,}{each}: more than the {amount(cores(), 'core')} here compute no faster")
    set_threads(number)


threads_option = option(
    "--threads",
    group="Machine",
    type=click.IntRange(1, MOST_THREADS),
    metavar="N",
    expose_value=False,
    callback=_set_threads,
    help="Threads that compute.",
    shown_default="OMP_NUM_THREADS, or as many as cores, which processes of torchrun share",
)
"""Adds `--threads N`."""
