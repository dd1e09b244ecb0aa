"""Text on its way to a person's terminal: nothing in it may steer the terminal or reorder what is read."""

import contextlib
import os
import re
import shlex
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO, cast

import click

from chargen.data.lookalikes import ESCAPES, suggest_lookalikes
from chargen.kernels import available

if TYPE_CHECKING:
    from chargen.data.vocabulary import Vocabulary
    from chargen.kernels.jit import Compiling

_BYTES = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}
_HARMLESS = "\n\t\u200c\u200d"  # joiners are part of words in several scripts
_COMMAND = re.compile(r"(?:^|(?<= ))chargen [a-z]+ .*$")
_ESCAPE = re.compile(r"\\[ntr](?![a-z])")  # no command of LaTeX, such as \newline
_LABEL = re.compile(r"\S+ {2,}|\S{8} | +")


def as_argument(path: object) -> str:
    """A path as a shell takes it, and chargen for no option."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))


def escape_control(text: str, *, newlines: bool = False) -> str:
    """The text with control, bidirectional and other invisible characters as escapes such as \\x1b and \\u202e.

    Line ends and tabs stay, line ends only where `newlines` is False; so does a carriage return before a line feed.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = []
    for at, character in enumerate(text):
        if character == "\r" and text[at + 1 : at + 2] == "\n" and not newlines:
            continue
        hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _HARMLESS
        if hidden or (newlines and character in "\n\t"):
            shown.append(character.encode("unicode_escape").decode())
        else:
            shown.append(character)
    return "".join(shown)


def styled(text: str, color: str) -> str:
    """Text in a colour, for click.echo, which drops it where nobody looks on; as it is where NO_COLOR asks for that."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=color, bold=True)


def cells(text: str) -> int:
    """How many columns of a terminal a text takes: two for a wide character, none for one that joins another."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fold(line: str, width: int) -> list[str]:
    """A line cut into rows of at most `width` columns, at least 2: at a space, or in a word where there is none."""
    rows = []
    while cells(line) > width:
        cut = used = 0
        while used + _cells(line[cut]) <= width:
            used += _cells(line[cut])
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
    """A line broken at spaces, so that no row is wider; what follows hangs below what its label is of.

    A word that is wider, such as a path, stays whole, and so does a command at the end where a row holds it: both are
    there to be copied.
    """
    plain = click.unstyle(line)
    if cells(plain) <= width:
        return line
    label = _LABEL.match(plain)
    words, command = line.split(" "), _COMMAND.search(line)
    whole = cells(command[0]) if command else 0
    hang = len(label[0]) if label and max(3 * len(label[0]), len(label[0]) + whole) <= width else 2
    if command and hang + whole <= width:
        words = [*line[: command.start() - 1].split(" "), command[0]]
    rows, row = [], words[0]
    for word in words[1:]:
        if cells(click.unstyle(f"{row} {word}")) <= width or not row.strip():
            row += f" {word}"
        elif word:
            rows.append(row)
            row = " " * hang + word
    return "\n".join([*rows, row])


class _Stderr:
    """Standard error that nobody may be reading any more: what cannot be told is dropped, and the work goes on."""

    @property
    def encoding(self) -> str:
        """The stream's encoding: bars are drawn with characters that it has."""
        return sys.stderr.encoding or "utf-8"

    def write(self, text: str) -> int:
        """Write some text, or nothing."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand over what was written; once that fails, send the rest to nowhere."""
        try:
            sys.stderr.flush()
        except OSError:
            discard(sys.stderr)

    def isatty(self) -> bool:
        """True where a person looks on."""
        return sys.stderr.isatty()

    def fileno(self) -> int:
        """The stream's number."""
        return sys.stderr.fileno()


STDERR = _Stderr()
"""One for all: tqdm clears a bar before something else is written to the same stream."""


def discard(stream: TextIO) -> None:
    """Send what a stream still holds, and all that comes, to nowhere: Python would complain of it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def escape_what_cannot_be_written() -> None:
    """Let both outputs write an escape such as \\u2019 for a character that their encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def columns(stream: "TextIO | _Stderr" = STDERR) -> int | None:
    """How many columns a terminal has by now, but the last, where some begin a new line; None where it is none."""
    if not stream.isatty():
        return None
    try:
        found = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        found = 0
    return max(found or 80, 20) - 1


_QUIET = "chargen.quiet"


def be_quiet(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    """From here on the command tells warnings and errors only."""
    ctx.meta[_QUIET] = value


def quiet() -> bool:
    """Whether the command was asked to be."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get(_QUIET))


def log(text: str, *, whole: bool = False) -> None:
    """Say something on standard error, in rows that fit the terminal; an error stays whole, however long its line.

    A quiet command says it only where it is a warning or an error.
    """
    if quiet() and not (whole or text.startswith("warning:")):
        return
    click.echo(text if whole else _fitting(text), file=cast(TextIO, STDERR))


def show(line: str) -> None:
    """Print a line of a table on standard output, in rows that fit a terminal."""
    click.echo(_fitting(line, sys.stdout))


def _fitting(text: str, stream: "TextIO | _Stderr" = STDERR) -> str:
    """The text in rows that a terminal holds; as it is where there is none."""
    width = columns(stream)
    return text if width is None else "\n".join(wrap(line, width) for line in text.split("\n"))


class TextWriter:
    """Writes text as it comes: on a terminal made visible, character by character; in a pipe raw, as UTF-8.

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
        """Write some text, on a terminal in a colour; a carriage return waits for what follows it."""
        if not self.terminal:
            self.stream.write(text)
            return
        text, self._held = self._held + text, ""
        if text.endswith("\r"):
            text, self._held = text[:-1], "\r"
        self._last = text[-1:] or self._last
        shown = escape_control(text.translate(_BYTES) if self.raw else text)
        self.stream.write(styled(shown, color) if color and shown and self.colors else shown)
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


def separate(writer: TextWriter, number: int, separator: str | None, headings: Sequence[str]) -> None:
    """Part a text from the one before it, and where it goes to a terminal, say on standard error what it is.

    Args:
        number: of the text, from 0.
        separator: what stands between two texts; None: NUL, which parts texts for xargs -0, sort -z and awk, or on a
            terminal a blank line.
        headings: a line each.
    """
    blank = writer.terminal and separator is None and number > 0
    if blank:
        writer.end_line()
    elif number:
        writer.write("\0" if separator is None else separator)
    if blank and (quiet() or not headings):
        writer.write("\n")
    for line, heading in enumerate(headings if writer.terminal else ()):
        log("\n" * (blank and line == 0) + f"--- {heading} ---")


def tell_of_bans(ban: str, vocabulary: "Vocabulary") -> None:
    """Say which banned characters the model does not have anyway, and which were likely meant."""
    known = set(vocabulary.characters)
    places = [place for place, one in enumerate(ban) if one not in known and not vocabulary.byte_mode]
    if places:
        names = ", ".join(repr(ban[place]) for place in places[:5]) + " …" * (len(places) > 5)
        advice = suggest_lookalikes(ban, places[:5], known).removesuffix("; ")
        words = f"note: the model does not have {names}: to ban that does nothing{'; ' * bool(advice)}{advice}"
        log(escape_control(words, newlines=True))


def tell_of_escapes(vocabulary: "Vocabulary", texts: Mapping[str, Iterable[str]]) -> None:
    """Say where a text holds a backslash and an n, which is rarely meant; a model without backslashes refuses it.

    Args:
        texts: by the names of their options.
    """
    if not vocabulary.byte_mode and "\\" not in vocabulary.characters:
        return
    for name, given in texts.items():
        for escape in {match[0]: None for text in given for match in _ESCAPE.finditer(text)}:
            what = f"{name} has a backslash and {escape[1]}"
            log(f"note: {what}, not {ESCAPES[escape][1]}, which is $'{escape}' in most shells")


def log_compiling() -> "Compiling | None":
    """Say why a command is slow: without numba all the time, with it while something is compiled for this machine.

    Returns who knows how long that took.
    """
    if not available():
        log("note: without the package numba this is slower")
        return None
    from chargen.kernels.jit import when_compiling

    when = when_compiling(lambda: tell_above("compiling inner loops for this machine; it takes some seconds"))
    return click.get_current_context().with_resource(when)


def tell_above(text: str) -> None:
    """As `tell`, above a bar that is shown there."""
    if quiet() and not text.startswith("warning:"):
        return
    from tqdm import tqdm

    tqdm.write(_fitting(text), file=STDERR)
