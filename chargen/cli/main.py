"""The command `chargen`: finds the subcommand, and turns every error into one line and an exit code."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from chargen import __version__
from chargen.cli.terminal import visible
from chargen.errors import ChargenError, SettingError

# OpenMP's threads wait for each other by spinning. On cores shared with other programs that made training up to ten
# times slower; a short spin costs nothing on idle cores. It must be set before torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")

COMMANDS = {
    "Learn": {"train": "Learn a text and save a model."},
    "Write": {"sample": "Write text with a model."},
    "Judge": {"eval": "Score a text with a model."},
    "Files": {"info": "Tell what is in a model file."},
}


class _Commands(click.Group):
    """Imports a subcommand only when it is asked for, so that help answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for group in COMMANDS.values() for name in group]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"chargen.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the subcommand; a reader who has had enough (| head) is no error."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _close_quietly()
            return 0

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, group in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl(list(group.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="chargen")
def cli() -> None:
    """Learn a text, one character at a time, and write more of it.

    \b
    chargen train my.txt --minutes 5        learn my.txt
    chargen sample checkpoints/my           write text like it

    MODEL is a model file or the folder of a run. Exit codes: 0 done, 1 failure, 2 usage, 3 bad data, 4 bad model,
    5 training diverged, 130 interrupted, 143 terminated.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    try:
        code = cli.main(arguments, prog_name="chargen", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except SettingError as error:
        message = str(error)
        if error.setting and message.startswith(error.setting + " "):
            message = f"--{error.setting.replace('_', '-')}{message[len(error.setting) :]}"
        _fail(message, error.exit_code)
    except ChargenError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", 130)
    except BrokenPipeError:
        _close_quietly()
        sys.exit(0)
    except OSError as error:
        _close_quietly()
        _fail(f"{error.filename or 'output'}: {error.strerror or error}", 1)
    except MemoryError:
        _fail("out of memory; lower --batch-size, --seq-length, --hidden-size or --num", 1)


def _close_quietly() -> None:
    """Send what is left to nowhere: Python would complain of the closed pipe once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"{click.style('chargen:', fg='red')} {visible(message, newlines=True)}", err=True)
    sys.exit(code)
