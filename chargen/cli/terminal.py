"""Text on its way to a person's terminal: nothing in it may steer the terminal or reorder what is read."""

import contextlib
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO, cast

import click

from chargen.data.lookalikes import ESCAPES, suggest_lookalikes, write_for_shell
from chargen.errors import quote_argument
from chargen.kernels import available
from chargen.launch import read_launch

if TYPE_CHECKING:
    from chargen.data.vocabulary import Vocabulary
    from chargen.kernels.jit import Compiling

_BYTES = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}
_HARMLESS = "\n\t\u200c\u200d"  # joiners are part of words in several scripts
_COMMAND = re.compile(r"(?:^|(?<= ))chargen [a-z]+ .*$")
_ESCAPE = re.compile(r"\\[ntr](?![a-z])")  # no command of LaTeX, such as \newline
_LABEL = re.compile(r"\S+(?: \S+)? {2,}|\S{8} | +")


def quote_path(path: object) -> str:
    """Write a path as one argument for a shell, which chargen does not take for an option.

    Args:
        path: anything whose `str` is a path.
    """
    return quote_argument(f"./{path}" if str(path).startswith("-") else str(path))


def escape_control(text: str, *, newlines: bool = False) -> str:
    """Replace control, bidirectional and other invisible characters by escapes such as \\x1b and \\u202e.

    Args:
        text: any text.
        newlines: whether line ends and tabs become escapes too. Where not, a carriage return before a line feed is
            dropped.
    """
    if text.isascii() and text.isprintable():
        return text
    escaped = []
    for index, character in enumerate(text):
        if character == "\r" and text[index + 1 : index + 2] == "\n" and not newlines:
            continue
        invisible = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _HARMLESS
        if invisible or (newlines and character in "\n\t"):
            escaped.append(character.encode("unicode_escape").decode())
        else:
            escaped.append(character)
    return "".join(escaped)


def colorize(text: str, color: str) -> str:
    """Write text bold in a colour, for `click.echo`, which drops colours where the output is no terminal.

    Args:
        text: any text.
        color: a name that click knows.

    Returns:
        The text as it is where the environment variable NO_COLOR is set.
    """
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=color, bold=True)


def display_width(text: str) -> int:
    """Count the columns that a text takes on a terminal.

    Args:
        text: a wide character takes two columns, a combining or invisible one none.
    """
    if text.isascii():
        return len(text)
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut_into_rows(line: str, width: int) -> list[str]:
    """Cut a line into rows: at a space, or within a word where there is none.

    Args:
        line: a text without line ends.
        width: columns of a row, at least 2.
    """
    rows = []
    while display_width(line) > width:
        cut = used = 0
        while used + _character_width(line[cut]) <= width:
            used += _character_width(line[cut])
            cut += 1
        space = line.rfind(" ", 0, cut + 1)
        if not line[: max(space, 0)].strip():
            rows.append(line[:cut])
            line = line[cut:]
        else:
            rows.append(line[:space])
            line = line[space + 1 :]
    return [*rows, line]


def wrap(line: str, width: int) -> str:
    """Break a line at spaces, with later rows indented as far as its label.

    Nothing breaks a word that is wider than a row, such as a path, or a command at the end that fits in a row: both are
    there to be copied.

    Args:
        line: a text without line ends; it may hold escapes for colours, which take no columns.
        width: columns of a row.
    """
    plain = click.unstyle(line)
    if display_width(plain) <= width:
        return line
    label = _LABEL.match(plain)
    words, command = line.split(" "), _COMMAND.search(line)
    command_width = display_width(command[0]) if command else 0
    indent = len(label[0]) if label and max(3 * len(label[0]), len(label[0]) + command_width) <= width else 2
    if command and indent + command_width <= width:
        words = [*line[: command.start() - 1].split(" "), command[0]]
    rows, row = [], words[0]
    for word in words[1:]:
        if display_width(click.unstyle(f"{row} {word}")) <= width or not row.strip():
            row += f" {word}"
        elif word:
            rows.append(row)
            row = " " * indent + word
    return "\n".join([*rows, row])


class _Stderr:
    """Standard error that may have lost its reader: what cannot be written is dropped, and the work goes on."""

    @property
    def encoding(self) -> str:
        """The stream's encoding: bars are drawn with characters that it has."""
        return sys.stderr.encoding or "utf-8"

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream; once that fails, send all that follows to the null device."""
        try:
            sys.stderr.flush()
        except OSError:
            redirect_to_null(sys.stderr)

    def isatty(self) -> bool:
        """Tell whether the stream is a terminal."""
        return sys.stderr.isatty()

    def fileno(self) -> int:
        """The stream's file descriptor."""
        return sys.stderr.fileno()


STDERR = cast(TextIO, _Stderr())
"""A single object: tqdm clears a bar before something else is written to the same stream."""


def redirect_to_null(stream: TextIO) -> None:
    """Send what a stream still holds, and all that follows, to the null device: Python would complain of it at exit.

    Args:
        stream: an output of this process.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def prepare_outputs() -> None:
    """Let both outputs write an escape such as \\u2019 for a character that their encoding does not have.

    On Windows they are UTF-8 with line feeds where they are no terminal, and terminals of old releases show colours.
    """
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
            if sys.platform == "win32" and not stream.isatty():
                reconfigure(encoding="utf-8", newline="\n")
    if sys.platform == "win32":
        from colorama import just_fix_windows_console

        just_fix_windows_console()


def terminal_width(stream: TextIO = STDERR) -> int | None:
    """Ask for the present width of a terminal.

    Args:
        stream: an output of this process.

    Returns:
        Its columns without the last, where some terminals begin a new line; None where the stream is no terminal.
    """
    if not stream.isatty():
        return None
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        width = 0
    return max(width or 80, 20) - 1


_QUIET = "chargen.quiet"


def set_quiet(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Let the command log warnings and errors only: the callback of --quiet.

    Args:
        ctx: the command's context.
        parameter: the option.
        value: whether the option is there.
    """
    ctx.meta[_QUIET] = value


def is_quiet() -> bool:
    """Tell whether the command runs with --quiet, or as another than the first of several processes."""
    ctx = click.get_current_context(silent=True)
    return read_launch().rank > 0 or (ctx is not None and bool(ctx.meta.get(_QUIET)))


def _is_dropped(line: str) -> bool:
    """Whether a line is not logged: --quiet drops all but warnings, other processes than the first drop all."""
    return is_quiet() and (read_launch().rank > 0 or not line.startswith("warning:"))


def log(line: str) -> None:
    """Write a line to standard error, escaped, in rows that fit the terminal; --quiet drops all but warnings.

    Args:
        line: a warning begins with "warning:".
    """
    if not _is_dropped(line):
        click.echo(_fit(escape_control(line, newlines=True)), file=STDERR)


def log_error(message: str) -> None:
    """Write an error to standard error as one line, however long, escaped.

    Args:
        message: what is wrong and what to do.
    """
    click.echo(f"{colorize('chargen:', 'red')} {escape_control(message, newlines=True)}", file=STDERR)


def log_above_bar(text: str) -> None:
    """Write lines to standard error above a bar that stands there; --quiet drops all but warnings.

    Args:
        text: one line or more, already escaped; a warning begins with "warning:".
    """
    if _is_dropped(text):
        return
    from tqdm import tqdm

    tqdm.write(_fit(text), file=STDERR)


def print_line(line: str) -> None:
    """Print a line of a table on standard output, in rows that fit a terminal.

    Args:
        line: a text that is already escaped.
    """
    click.echo(_fit(line, sys.stdout))


def _fit(text: str, stream: TextIO = STDERR) -> str:
    """Break a text into rows of a terminal; leave it as it is where the stream is none."""
    width = terminal_width(stream)
    return text if width is None else "\n".join(wrap(line, width) for line in text.split("\n"))


class TextWriter:
    """Writes text as it comes: on a terminal escaped, character by character; in a pipe raw, as UTF-8.

    Args:
        stream: standard output, by default.
        raw: whether lone surrogates are bytes, which a pipe gets as they are.
    """

    def __init__(self, stream: TextIO | None = None, raw: bool = False) -> None:
        self.stream = stream or sys.stdout
        self.raw = raw
        self.terminal = self.stream.isatty()
        self.colors = self.terminal and not os.environ.get("NO_COLOR")
        reconfigure = getattr(self.stream, "reconfigure", None)
        if reconfigure:
            if self.terminal:
                reconfigure(errors="backslashreplace")
            else:
                errors = "surrogateescape" if raw else "backslashreplace"
                reconfigure(encoding="utf-8", errors=errors, newline="\n")
        self._held = ""
        self._last = "\n"

    def write(self, text: str, color: str | None = None) -> None:
        """Write a text; on a terminal a carriage return waits for the character behind it.

        Args:
            text: any text.
            color: a name that click knows, used on a terminal only.
        """
        if not self.terminal:
            self.stream.write(text)
            return
        text, self._held = self._held + text, ""
        if text.endswith("\r"):
            text, self._held = text[:-1], "\r"
        self._last = text[-1:] or self._last
        escaped = escape_control(text.translate(_BYTES) if self.raw else text)
        self.stream.write(colorize(escaped, color) if color and escaped and self.colors else escaped)
        self.stream.flush()

    def close(self) -> None:
        """End the text; on a terminal the prompt then stands on a line of its own."""
        if self.terminal:
            self.end_line()
        self.stream.flush()

    def end_line(self) -> None:
        """End the line, unless it has just ended."""
        ended = self._last == "\n" and not self._held
        self.stream.write(escape_control(self._held) + ("" if ended else "\n"))
        self.stream.flush()
        self._held, self._last = "", "\n"


def write_separator(writer: TextWriter, number: int, separator: str | None, headings: Sequence[str]) -> None:
    """Separate a text from the one before it; on a terminal, log its headings.

    Args:
        writer: where the texts go.
        number: index of the text, from 0.
        separator: what stands between two texts; None: NUL, which separates texts for xargs -0, sort -z and awk, or on
            a terminal a blank line.
        headings: a line each.
    """
    blank = writer.terminal and separator is None and number > 0
    if blank:
        writer.end_line()
    elif number:
        writer.write("\0" if separator is None else separator)
    if blank and (is_quiet() or not headings):
        writer.write("\n")
    elif blank:
        log("")
    for heading in headings if writer.terminal else ():
        log(f"--- {heading} ---")


def log_unknown_bans(ban: str, vocabulary: "Vocabulary") -> None:
    """Log which banned characters the model does not have anyway, and which were likely meant.

    Args:
        ban: the banned characters.
        vocabulary: of the model.
    """
    known = set(vocabulary.characters)
    unknown = [index for index, character in enumerate(ban) if character not in known and not vocabulary.byte_mode]
    if unknown:
        names = ", ".join(repr(ban[index]) for index in unknown[:5]) + " …" * (len(unknown) > 5)
        advice = suggest_lookalikes(ban, unknown[:5], known).removesuffix("; ")
        log(f"note: the model does not have {names}: to ban that does nothing{'; ' * bool(advice)}{advice}")


def log_literal_escapes(vocabulary: "Vocabulary", texts: Mapping[str, Iterable[str]]) -> None:
    """Log where a text holds a backslash and an n, which is rarely meant; a model without backslashes refuses it.

    Args:
        vocabulary: of the model.
        texts: by the names of their options.
    """
    if not vocabulary.byte_mode and "\\" not in vocabulary.characters:
        return
    for name, values in texts.items():
        for escape in {match[0]: None for text in values for match in _ESCAPE.finditer(text)}:
            problem = f"{name} has a backslash and {escape[1]}"
            log(f"note: {problem}, not {ESCAPES[escape][1]}, which is {write_for_shell(escape)}")


def log_compiling() -> "Compiling | None":
    """Log why a command is slow: always without numba; with it, once something is compiled for this machine.

    Returns:
        A clock of the seconds spent compiling; None without numba.
    """
    if not available():
        log("note: without the package numba this is slower")
        return None
    from chargen.kernels.jit import when_compiling

    when = when_compiling(lambda: log_above_bar("compiling inner loops for this machine; it takes some seconds"))
    return click.get_current_context().with_resource(when)
