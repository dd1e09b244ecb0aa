"""A text with a value for each character: in colours on a terminal, else with a row of marks under each row."""

from chargen.cli.terminal import TextWriter, display_width, escape_control, terminal_width

MARKS = {2: ("#", "red"), 1: ("+", "yellow"), 0: (" ", None), -1: ("-", "cyan"), -2: ("=", "blue")}
"""The mark and the colour of a value: 2 from 0.75 on, 1 from 0.25 on, and likewise below zero."""


class ValueWriter:
    """Writes characters with their values, one after the other.

    Args:
        raw: whether lone surrogates are bytes.
    """

    def __init__(self, raw: bool = False) -> None:
        self._writer = TextWriter(raw=raw)
        self._width = terminal_width(self._writer.stream)
        self._row = self._marks = ""

    @property
    def colors(self) -> bool:
        """Whether values are colours, not marks."""
        return self._writer.colors

    @property
    def legend(self) -> str:
        """What each colour or mark stands for."""
        names = {level: str(color if self.colors else mark) for level, (mark, color) in MARKS.items()}
        return f"{names[2]} from 0.75 on, {names[1]} from 0.25 on, {names[-1]} to -0.25, {names[-2]} to -0.75"

    def write(self, character: str, value: float) -> None:
        """Write a character.

        Args:
            character: that; a line end ends the row, with its mark at the row's end.
            value: from -1 to 1.
        """
        mark, color = _level(value)
        if self.colors:
            if color and character in " \n":
                self._writer.write("\u2423", color=color)
                character, color = character.strip(" "), None
            self._writer.write(character, color=color)
            return
        shown = "" if character == "\n" else escape_control(character, newlines=True)
        columns = display_width(shown)
        if self._width is not None and self._row and len(self._marks) + columns >= self._width:
            self._end_row()
        self._row += shown
        self._marks += mark * (1 if character == "\n" else columns)
        if character == "\n":
            self._end_row()

    def end_text(self) -> None:
        """End the row, unless it has just ended."""
        if self._row or self._marks:
            self._end_row()
        elif self.colors:
            self._writer.end_line()

    def close(self) -> None:
        """End the text."""
        self.end_text()
        self._writer.close()

    def _end_row(self) -> None:
        self._writer.write(f"{self._row}\n{self._marks.rstrip()}\n")
        self._row = self._marks = ""


def _level(value: float) -> tuple[str, str | None]:
    """The mark and the colour of a value."""
    strength = (abs(value) >= 0.25) + (abs(value) >= 0.75)
    return MARKS[strength if value > 0 else -strength]
