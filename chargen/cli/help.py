"""Help in rows that fit the terminal, from 40 columns on."""

import re
import shutil
from collections.abc import Iterable

import click

NARROW = 60
"""Below this many columns an option's text stands below it, not beside it."""
_HYPHEN = "\u2011"
"""Stands for a hyphen while rows are broken, so that no option is cut there."""
_ARGUMENTS = re.compile(r'--\S+ (?:"[^"]*"|[^-\s]\S*)|"[^"]*"|\S+')


class _HelpFormatter(click.HelpFormatter):
    """Formats help for terminals of less than 52 columns too, with examples that can be copied from them."""

    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        width = width or max(min(shutil.get_terminal_size().columns, max_width or 80) - 2, 30)
        super().__init__(indent_increment, width, max_width)

    def write(self, string: str) -> None:
        """Write rows, with the hyphens that were replaced."""
        super().write(string.replace(_HYPHEN, "-"))

    def write_text(self, text: str) -> None:
        """Write paragraphs; those that begin with \\b are examples, a command a line."""
        super().write_text("\n\n".join(map(self._format_paragraph, text.split("\n\n"))))

    def _format_paragraph(self, paragraph: str) -> str:
        lines = paragraph.split("\n")
        if lines[0].strip() == "\b":
            lines = [row for line in lines for row in break_command(line, self.width - self.current_indent)]
        return "\n".join(lines).replace("-", _HYPHEN)

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names with their descriptions."""
        rows = [(name, text.replace("-", _HYPHEN)) for name, text in rows]
        longest = max((len(name) for name, _ in rows), default=0)
        if self.width < NARROW and longest > self.width // 3:
            col_max = 4
        super().write_dl(rows, col_max, col_spacing)


def break_command(command: str, width: int) -> list[str]:
    """Break a command into rows for a shell, between its arguments; an option stays with its value.

    Args:
        command: as a person types it.
        width: columns of a row.
    """
    if len(command) <= width:
        return [command]
    program, *arguments = _ARGUMENTS.findall(command)
    rows = [program]
    for argument in arguments:
        if len(f"{rows[-1]} {argument} \\") <= width:
            rows[-1] += f" {argument}"
        else:
            rows.append(f"    {argument}")
    return [f"{row} \\" for row in rows[:-1]] + rows[-1:]


class Context(click.Context):
    """The context of a command whose help fits."""

    formatter_class = _HelpFormatter
