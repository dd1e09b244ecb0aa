"""Picture what commands print on a terminal of 80 columns, with the colours they use.

`python docs/terminal.py OUT.svg "chargen sample checkpoints/novel" …` runs each command and writes the picture.
"""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from html import escape
from itertools import pairwise
from pathlib import Path

COLUMNS = 80
CHARACTER, LINE, MARGIN = 7.23, 16, 14
COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "34": "#79c0ff"}
CODE = re.compile(r"\x1b\[([\d;]*)([A-Za-z])|([^\x1b])")


def run(command: str) -> str:
    """Run a command on a terminal and return all that it wrote there.

    Args:
        command: for the shell.
    """
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe("sh", ["sh", "-c", command], os.environ | {"TERM": "xterm-256color"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    written = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        if not data:
            break
        written += data
    os.waitpid(process, 0)
    return written.decode("utf-8", "replace")


def render(written: str) -> list[list[tuple[str, str]]]:
    """Apply what moves and colours a terminal's cursor.

    Args:
        written: what a command wrote.

    Returns:
        The lines at the end, each as pairs of a character and its colour.
    """
    lines: list[list[tuple[str, str]]] = [[]]
    row = column = 0
    colour = ""
    for codes, letter, character in CODE.findall(written):
        if letter == "m":
            known = [code for code in codes.split(";") if code in COLOURS]
            colour = COLOURS[known[0]] if known else "" if codes in ("", "0") else colour
        elif letter == "A":
            row = max(0, row - int(codes or 1))
        elif letter == "K":
            del lines[row][column:]
        elif character == "\r":
            column = 0
        elif character == "\n" or (character and column == COLUMNS):
            row, column = row + 1, 0
        if row == len(lines):
            lines.append([])
        if character and character not in "\r\n":
            lines[row] += [(" ", "")] * (column + 1 - len(lines[row]))
            lines[row][column] = character, colour
            column += 1
    return lines


def draw(lines: list[list[tuple[str, str]]]) -> str:
    """Draw lines of a terminal as SVG.

    Args:
        lines: pairs of a character and its colour.
    """
    width, height = COLUMNS * CHARACTER + 2 * MARGIN, len(lines) * LINE + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width * 1.2:.0f}" '
        'font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="12" fill="#e6edf3">',
        f'<rect width="{width:.0f}" height="{height}" rx="6" fill="#161b22"/>',
    ]
    for number, line in enumerate(lines):
        text, colours = "".join(character for character, _ in line).rstrip(), [colour for _, colour in line]
        borders = [0, *(i for i in range(1, len(text)) if colours[i] != colours[i - 1]), len(text)]
        for begin, end in pairwise(borders):
            if text[begin:end].strip():
                fill = f' fill="{colours[begin]}"' if colours[begin] else ""
                x, y, length = MARGIN + begin * CHARACTER, MARGIN + number * LINE + 12, (end - begin) * CHARACTER
                parts.append(
                    f'<text xml:space="preserve" x="{x:.2f}" y="{y}" textLength="{length:.2f}"{fill}>'
                    f"{escape(text[begin:end])}</text>"
                )
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    out, *commands = sys.argv[1:]
    picture: list[list[tuple[str, str]]] = []
    for command in commands:
        picture += [[(character, COLOURS["32"]) for character in f"$ {command}"], *render(run(command)), []]
    Path(out).write_text(draw(picture[:-1]), "utf-8")
