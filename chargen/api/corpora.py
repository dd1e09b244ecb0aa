"""Texts to learn from, made in one call."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chargen.data.made_languages import Language, find_language
from chargen.durable import write_durably
from chargen.errors import DataError, amount
from chargen.rng import MAX_SEED
from chargen.settings import check_int, check_path

DEFAULT_STRINGS, MAX_STRINGS = 10_000, 2**32
"""Strings of a made language: by default, and at most."""


@dataclass(frozen=True, eq=False)
class MadeCorpus:
    """Strings of a made language, a line each. Iterating over it makes the lines, the same each time.

    Args:
        name: of the language.
        language: has the exact entropy, and the log-probability of any string.
        num: how many strings.
        seed: same seed, same strings.
        labelled: whether lines are JSON objects with a text and a label.
        path: the file that holds them; None where nothing was written.
    """

    name: str
    language: Language
    num: int
    seed: int
    labelled: bool
    path: Path | None = None

    def __iter__(self) -> Iterator[str]:
        return self.language.lines(self.num, self.seed, self.labelled)

    @property
    def text(self) -> str:
        """All lines in one text."""
        return "".join(self)

    @property
    def nats_per_character(self) -> float:
        """The entropy rate: what the best model loses, the end of a string counting as a character."""
        return self.language.nats_per_character

    @property
    def nats_per_string(self) -> float:
        """The entropy of a string."""
        return self.language.nats_per_string

    def __repr__(self) -> str:
        nats, strings = self.nats_per_character, amount(self.num, "string")
        entropy = f"{nats:.4f} nats, {nats / math.log(2):.4f} bits per character"
        return f"MadeCorpus({self.name}; {strings}; entropy {entropy}; in {self.path or 'memory only'})"


def make_corpus(
    name: str,
    *,
    num: int = DEFAULT_STRINGS,
    seed: int = 0,
    labelled: bool = False,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> MadeCorpus:
    """Make strings of a language whose entropy is known exactly, as `chargen corpus make` does.

    Args:
        name: "embedded-reber", "counter" or "brackets".
        num: how many strings.
        seed: same seed, same strings; of more of them the first are the same.
        labelled: whether each line is a JSON object with a `text` and a `label`: half of the strings are good, and half
            bad, with one symbol changed so that they are not of the language. Else each line is a string.
        out: a file for them; None writes nothing.
        overwrite: whether `out` may exist.

    Returns:
        The strings, and how much even the best model loses on them.

    Raises:
        DataError: where there is no such language, or `out` exists.
        SettingError: where an argument is out of range.
        WriteError: where `out` cannot be written.
    """
    language = find_language(name)
    num, seed = check_int("num", num, 1, MAX_STRINGS), check_int("seed", seed, 0, MAX_SEED)
    made = MadeCorpus(name, language, num, seed, bool(labelled), None if out is None else check_path("out", out))
    if made.path is not None:
        check_new(made.path, overwrite)
        write_durably(made.path, (line.encode() for line in made))
    return made


def check_new(path: Path, overwrite: bool) -> None:
    """Check that a file may be written.

    Args:
        path: the file.
        overwrite: whether it may exist.

    Raises:
        DataError: where it must not be written.
    """
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder; name a file, such as {path / 'text.txt'}")
    if os.path.lexists(path) and not overwrite:
        raise DataError(f"{path} exists: choose another `out`, or replace it with `overwrite`")
