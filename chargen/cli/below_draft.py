"""What stands below a draft: pieces to choose from, a note, what is going on, and which keys there are."""

from chargen.cli.desk import Desk
from chargen.cli.report import list_characters, name_label
from chargen.cli.terminal import cut_into_rows, display_width, escape_control
from chargen.errors import amount

HINTS = ["Tab word", "^N sentence", "^P paragraph", "^R retry", "^T three", "^Z undo", "^Y redo", "^U ^D temperature",
         "^L label", "^X leave"]  # fmt: skip
LOW = 10
"""Rows of a screen from which on there is room for hints."""
Texts = list[tuple[str, str]]
"""Texts, each behind the name of its style."""


def rows_below(desk: Desk, rows: int, columns: int) -> Texts:
    """Write what stands below the draft.

    Args:
        desk: where the draft lies.
        rows: of the screen.
        columns: of the screen.
    """
    texts = _choices(desk, rows, columns)
    error, note = desk.error or desk.saver.error, desk.note
    if desk.unknown and not note:
        note = f"unknown to the model, which reads past it: {list_characters(desk.unknown)}"
    if error or note:
        lines = cut_into_rows(escape_control(error or note, newlines=True), columns - 1)
        texts.append(("class:error" if error else "class:note", "\n".join(lines) + "\n"))
    texts.append(("class:bar", _bar(desk, columns)))
    if rows >= LOW:
        texts.append(("", "\n" + "\n".join(_hints(desk, columns))))
    return texts


def _choices(desk: Desk, rows: int, columns: int) -> Texts:
    """The pieces that are offered, of which only a part may be seen."""
    texts, most = [], max(1, rows // 6)
    for number, text in enumerate(desk.choices, start=1):
        shown = escape_control(text.strip().replace("\n", " / "), newlines=True)
        lines = cut_into_rows(shown, columns - 3)
        if len(lines) > most:
            lines = [*lines[: most - 1], cut_into_rows(lines[most - 1], columns - 5)[0] + " …"]
        texts += [("class:number", f"{number} "), ("class:piece", "\n  ".join(lines) + "\n")]
    return texts


def _bar(desk: Desk, columns: int) -> str:
    """As much of what is to be known as there is room for, in all columns of a row."""
    writer, file = desk.writer, desk.draft.file
    parts = [f" {desk.state:7}", f"temperature {writer.config.temperature:g}"]
    if writer.vocabulary.labels:
        parts.append(f"label {escape_control(name_label(writer.label or ''), newlines=True)}")
    if file:
        parts.append(escape_control(file.path.name, newlines=True))
    parts.append(amount(len(desk.draft.text), "character"))
    while display_width(text := "  ".join(parts)) > columns and len(parts) > 1:
        del parts[-1]
    return text + " " * (columns - display_width(text))


def _hints(desk: Desk, columns: int) -> list[str]:
    """The keys that do something now, in rows."""
    hints = [hint for hint in HINTS if hint != "^L label" or desk.writer.vocabulary.labels]
    if desk.state == "writing":
        hints = ["Esc stop"]
    if desk.choices:
        hints = ["1 2 3 choose", "Esc none"]
    rows = [hints[0]]
    for hint in hints[1:]:
        if len(f"{rows[-1]}  {hint}") < columns:
            rows[-1] += f"  {hint}"
        else:
            rows.append(hint)
    return rows
