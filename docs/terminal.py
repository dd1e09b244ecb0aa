"""Picture what commands print on a terminal of 80 columns, with the colours they use.

`python docs/terminal.py OUT.svg "chargen sample checkpoints/novel" …` runs each command and writes the picture. A word
that begins with "keys:" is typed into the command before it, a second between two parts that `~` separates; the picture
is that of the screen once all is typed.
"""

import fcntl
import os
import pty
import struct
import sys
import termios
import threading
import time
from html import escape
from itertools import pairwise
from pathlib import Path

import pyte

COLUMNS, ROWS = 80, 20
CHARACTER, LINE, MARGIN = 7.23, 16, 14
TEXT, PAPER = "#e6edf3", "#161b22"
COLOURS = {"default": TEXT, "red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341", "blue": "#79c0ff"}
Cell = tuple[str, str, str]
"""A character, its colour, and that of what is behind it."""


def run(command: str, keys: str = "") -> list[list[Cell]]:
    """Run a command on a terminal.

    Args:
        command: for the shell.
        keys: what is typed, its parts separated by `~`; of a command that takes the whole screen.

    Returns:
        The lines of the screen, all that was printed, or once all was typed.
    """
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe("sh", ["sh", "-c", command], os.environ | {"TERM": "xterm-256color"})
    screen = pyte.Screen(COLUMNS, ROWS if keys else 200)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS if keys else 40, COLUMNS, 0, 0))
    stream = pyte.ByteStream(screen)
    picture: list[list[Cell]] = []

    def type_keys() -> None:
        for part in keys.split("~"):
            time.sleep(3 if part == keys.split("~")[0] else 1.5)
            os.write(terminal, part.encode().decode("unicode_escape").encode("latin-1"))
        time.sleep(1.5)
        picture.extend(read_cells(screen))
        os.write(terminal, b"\x1b\x18")

    if keys:
        threading.Thread(target=type_keys).start()
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        if not data:
            break
        stream.feed(data)
    os.waitpid(process, 0)
    if not keys:
        picture = read_cells(screen)
        while picture and all(character == " " for character, *_ in picture[-1]):
            del picture[-1]
    return picture


def read_cells(screen: pyte.Screen) -> list[list[Cell]]:
    """Read what stands on a screen."""
    lines = []
    for row in range(screen.lines):
        line = []
        for column in range(screen.columns):
            cell = screen.buffer[row][column]
            colours = COLOURS.get(cell.fg, TEXT), PAPER
            line.append((cell.data or " ", *(colours[::-1] if cell.reverse else colours)))
        lines.append(line)
    return lines


def draw(lines: list[list[Cell]]) -> str:
    """Draw lines of a terminal as SVG.

    Args:
        lines: cells.
    """
    width, height = COLUMNS * CHARACTER + 2 * MARGIN, len(lines) * LINE + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width * 1.2:.0f}" '
        f'font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="12" fill="{TEXT}">',
        f'<rect width="{width:.0f}" height="{height}" rx="6" fill="{PAPER}"/>',
    ]
    for number, line in enumerate(lines):
        colours = [cell[1:] for cell in line]
        borders = [0, *(i for i in range(1, len(line)) if colours[i] != colours[i - 1]), len(line)]
        for begin, end in pairwise(borders):
            text = "".join(cell[0] for cell in line[begin:end])
            fill, behind = colours[begin]
            x, y, length = MARGIN + begin * CHARACTER, MARGIN + number * LINE, (end - begin) * CHARACTER
            if behind != PAPER:
                parts.append(f'<rect x="{x:.2f}" y="{y}" width="{length:.2f}" height="{LINE}" fill="{behind}"/>')
            if shown := text.rstrip():
                length = len(shown) * CHARACTER
                colour = f' fill="{fill}"' if fill != TEXT else ""
                parts.append(
                    f'<text xml:space="preserve" x="{x:.2f}" y="{y + 12}" textLength="{length:.2f}"{colour}>'
                    f"{escape(shown)}</text>"
                )
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    out, *words = sys.argv[1:]
    whole: list[list[Cell]] = []
    for word, following in pairwise([*words, ""]):
        if not word.startswith("keys:"):
            whole.append([(character, COLOURS["green"], PAPER) for character in f"$ {word}"])
            whole += [*run(word, following.removeprefix("keys:") * following.startswith("keys:")), []]
    Path(out).write_text(draw(whole[:-1]), "utf-8")
