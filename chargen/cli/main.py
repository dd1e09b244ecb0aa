"""The command `chargen`: finds the subcommand, and turns every error into one line and an exit code."""

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from chargen import __version__
from chargen.cli.help import Context
from chargen.cli.terminal import log, log_error, prepare_outputs, redirect_to_null
from chargen.errors import ChargenError, LostProcess, SettingError, repr_short
from chargen.launch import read_launch
from chargen.suggestions import did_you_mean

# OpenMP's threads wait for each other by spinning. On cores shared with other programs that made training up to ten
# times slower; a short spin costs nothing on idle cores. It must be set before torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")

# What processes that are started together say of the network, with the addresses of their code, is said in one line.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")

COMMANDS = {
    "Learn": {"train": "Learn a text and save a model.", "compare": "Put runs beside one another."},
    "Write": {
        "sample": "Write text with a model.",
        "write": "Write a draft together with a model.",
        "fill": "Write what stands between two texts.",
    },
    "Judge": {
        "eval": "Score a text with a model.",
        "score": "Judge every character of a text.",
        "inspect": "Look inside a model while it reads a text.",
        "check": "Check what a model's predictions see.",
        "novelty": "Tell how much of a text is copied.",
    },
    "Corpora": {
        "corpus info": "Tell what is in a text before a model learns it.",
        "corpus list": "Tell which corpora have names.",
        "corpus get": "Get corpora by their names.",
        "corpus make": "Make a text whose entropy is known.",
        "corpus cache": "Show, verify or clear what is encoded.",
    },
    "Files": {
        "info": "Tell what is in a model file.",
        "export": "Make a web page, an ONNX file, a folder or a smaller file of a model.",
    },
}
NAMES = {name: text for group in COMMANDS.values() for name, text in group.items()}
GROUPS = {"corpus": "Look after the texts that models learn."}
"""Words that several commands begin with."""

SHARED = "train"
"""The command whose work several processes share."""

OUT_OF_MEMORY = ("allocate memory", "out of memory", "failed to map segment", "can't start new thread", "bad_alloc")
"""What libraries say of it that do not raise MemoryError."""


class _Commands(click.Group):
    """Imports a command only when it is asked for, so that help answers at once.

    Args:
        *args: of `click.Group`.
        prefix: the words before its commands in `COMMANDS`, with a blank behind them.
        **kwargs: of `click.Group`.
    """

    context_class = Context

    def __init__(self, *args: Any, prefix: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prefix = prefix

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = (name.removeprefix(self.prefix) for name in NAMES if name.startswith(self.prefix))
        return list(dict.fromkeys(name.split()[0] for name in names))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = self.prefix + cmd_name
        if name in NAMES:
            command = import_command(name)
            command.short_help = NAMES[name]
            return command
        if name in GROUPS:
            return _Commands(
                cmd_name, prefix=f"{name} ", help=GROUPS[name], context_settings=ctx.command.context_settings
            )
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Look up the command that is meant; an error for another name suggests the nearest."""
        commands = self.list_commands(ctx)
        if args[0] not in commands and not ctx.resilient_parsing:
            advice = did_you_mean(args[0], commands) or f"; there are {', '.join(commands)}"
            raise SettingError(f"there is no command {repr_short(self.prefix + args[0])}{advice}")
        if args[0] != SHARED and not (self.prefix or ctx.resilient_parsing):
            _leave_to_the_first(ctx, args[0])
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the subcommand; a reader who has had enough (| head) is no error."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if not _has_lost_reader(error):
                raise
            redirect_to_null(sys.stdout)
            return 0

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, group in COMMANDS.items():
            rows = [(name, text) for name, text in group.items() if name.startswith(self.prefix)]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _leave_to_the_first(ctx: click.Context, name: str) -> None:
    """Of several processes that were launched for a command that shares nothing, end all but the first."""
    launch = read_launch()
    if launch.rank:
        ctx.exit(0)
    if not launch.alone:
        advice = "; give each a part by --first instead" * (name == "sample")
        log(f"warning: {name} has nothing to share: of {launch.world_size} processes, the first works alone{advice}")


def import_command(name: str) -> click.Command:
    """Import a command.

    Args:
        name: its words, as in `COMMANDS`.
    """
    command = importlib.import_module(f"chargen.cli.{name.replace(' ', '_')}").command
    assert isinstance(command, click.Command)
    return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", "-V", prog_name="chargen")
def cli() -> None:
    """Learn a text, one character at a time, and write more of it.

    \b
    chargen train my.txt --minutes 5
    chargen sample checkpoints/my
    chargen write checkpoints/my chapter.txt

    MODEL is a model file, the folder of a run, or shakespeare, which comes with chargen. Exit codes: 0 done,
    1 failure, 2 usage, 3 bad data, 4 bad model, 5 training diverged, 129 hung up, 130 interrupted, 143 terminated.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Args:
        arguments: the words behind `chargen`; those of this process by default.

    Raises:
        SystemExit: always, with the exit code.
    """
    _open_missing_streams()
    prepare_outputs()
    try:
        _share_cores()
        # On Windows click would take words apart that no shell did: "*" and "$HOME" may be a text.
        code = cli.main(arguments, prog_name="chargen", standalone_mode=False, windows_expand_args=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        for line in error.format_message().split("\n"):
            log(line)
        sys.exit(2)
    except click.ClickException as error:
        # Of several processes all are called alike.
        _fail("" if read_launch().rank else _describe_usage_error(error), error.exit_code)
    except ChargenError as error:
        _fail("" if isinstance(error, LostProcess) and error.is_known else str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        if isinstance(error.__cause__, EOFError):  # which click takes for somebody who has left
            raise error.__cause__ from None
        _fail("interrupted", 130)
    except (MemoryError, RuntimeError, ImportError, SystemError, OSError) as error:
        redirect_to_null(sys.stdout)
        if _has_lost_reader(error):
            sys.exit(0)
        message = _describe_machine_failure(error)
        if not message:
            raise
        _fail(message, 1)


def _has_lost_reader(error: Exception) -> bool:
    """Whether an output's reader has gone. Windows says then that an argument is invalid, and names no file."""
    invalid = isinstance(error, OSError) and error.errno == errno.EINVAL and error.filename is None
    return isinstance(error, BrokenPipeError) or (sys.platform == "win32" and invalid)


def _describe_usage_error(error: click.ClickException) -> str:
    """What click says, and where to look where it does not say what to do."""
    message, ctx = error.format_message(), getattr(error, "ctx", None)
    if ctx and type(error) in (click.UsageError, click.MissingParameter):
        message += f" See {ctx.command_path} --help."
    return message


def _describe_machine_failure(error: Exception) -> str:
    """What the machine lacks, where an error of another library tells of that; empty where it is a bug."""
    is_system_error = isinstance(error, OSError) and bool(error.errno)
    reason = str(error.strerror if isinstance(error, OSError) and is_system_error else error)
    if isinstance(error, MemoryError) or any(phrase in reason.lower() for phrase in OUT_OF_MEMORY):
        return "out of memory; lower --batch-size, --seq-length, --hidden-size or --num, or free some memory"
    if isinstance(error, OSError):
        return f"{error.filename or 'output'}: {reason}" if is_system_error else reason
    if isinstance(error, RuntimeError) or str(getattr(error, "name", "")).startswith("chargen"):
        return ""
    # A library that got no memory while it was loaded fails in ways of its own.
    return f"a package cannot be loaded: {error}; is it installed and whole, and is there enough memory?"


def _share_cores() -> None:
    """Share this machine's cores with other processes of a launcher, before torch is loaded."""
    if read_launch().local_world_size > 1:
        from chargen.kernels.threads import share_cores  # takes a moment

        share_cores()


def _open_missing_streams() -> None:
    """Open the null device for standard streams that the caller closed: no run file may become descriptor 1 or 2."""
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+" if name == "stdin" else "w"))  # noqa: SIM115


def _fail(message: str, code: int) -> NoReturn:
    if message:
        log_error(message)
    sys.exit(code)
