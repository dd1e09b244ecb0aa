"""Texts to learn from, by name and made, in one call each."""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chargen.data.language import Language
from chargen.data.made_languages import find_language
from chargen.data.named_corpora import NamedCorpus, catalogue, find_corpus
from chargen.data.unpack import read_blocks
from chargen.durable import write_durably
from chargen.errors import ChargenError, DataError, WriteError, amount
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


def list_corpora() -> list[NamedCorpus]:
    """List the corpora that are known by name, as `chargen corpus list` does."""
    return list(catalogue().values())


def get_corpus(
    name: str,
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    offline: bool | None = None,
    progress: Callable[[str, int, int], object] = lambda task, done, total: None,
) -> list[Path]:
    """Get a corpus that is known by name, as `chargen corpus get` does: fetched where it is not on this machine.

    It is kept in the cache, where `train` finds it by its name. The file has the size and SHA-256 of the catalogue.

    Args:
        name: of the corpus.
        out: a file for a copy of it, as it is served; None makes no copy.
        overwrite: whether `out` may exist.
        offline: fetch nothing; None does so where the environment variable CHARGEN_OFFLINE is set, but to 0.
        progress: called with the task, "getting", the bytes so far, and those of all.

    Returns:
        Its file, or the copy; of python all files.

    Raises:
        DataError: where there is no such corpus, `out` exists, or it is not on this machine and may not be fetched.
        ChargenError: where it cannot be fetched.
    """
    corpus = find_corpus(name)
    target = None if out is None else check_path("out", out)
    if target is not None:
        check_new(target, overwrite)
        if not corpus.address:
            raise DataError(f"{name} has no single file that could be copied: leave out `out`")
    if not corpus.is_here:
        _fetch(corpus, offline, progress)
    if target is None:
        return corpus.files()
    with open(corpus.path, "rb") as file:
        write_durably(target, read_blocks(file, 1 << 20), corpus.size)
    return [target]


def _fetch(corpus: NamedCorpus, offline: bool | None, progress: Callable[[str, int, int], object]) -> None:
    by_hand = f"save {corpus.address} as {corpus.path} by hand"
    if corpus.path.exists():
        size = amount(corpus.path.stat().st_size, "byte")
        by_hand += f" (what is there is another file, of {size} instead of {corpus.size:,})"
    by_hand += ", or name a file of your own, or python, which needs no network"
    if is_offline(offline):
        raise DataError(
            f"the corpus {corpus.name} is not on this machine, and nothing is fetched (`offline` or CHARGEN_OFFLINE): "
            f"{by_hand}"
        )
    from chargen.data.download import ConnectionBroken, WrongFile, download

    def show(done: int) -> None:
        progress("getting", done, corpus.size)

    try:
        download(corpus.address, corpus.path, corpus.size, corpus.sha256, show)
    except WriteError as error:
        raise WriteError(f"{error}; set CHARGEN_CACHE to a folder with room") from error
    except ConnectionBroken as error:
        raise ChargenError(f"cannot get the corpus {corpus.name}: {error}; try again, or {by_hand}") from error
    except WrongFile as error:
        raise ChargenError(f"cannot get the corpus {corpus.name}: {error}; name a file of your own") from error


def is_offline(offline: bool | None) -> bool:
    """Tell whether nothing may be fetched.

    Args:
        offline: what a call says; None: what the environment says.
    """
    return os.environ.get("CHARGEN_OFFLINE", "") not in ("", "0") if offline is None else bool(offline)


def missing_corpora(*sources: Any) -> list[NamedCorpus]:
    """Find the corpora among the sources of a training that are not on this machine.

    Args:
        *sources: names of texts, one or a list of them each; a path that exists goes before a corpus of its name.
    """
    lists = [names if isinstance(names, (list, tuple)) else [names] for names in sources]
    names = dict.fromkeys(os.fspath(name) for names in lists for name in names if isinstance(name, (str, os.PathLike)))
    corpora = [catalogue()[name] for name in names if name in catalogue() and not os.path.exists(name)]
    return [corpus for corpus in corpora if not corpus.is_here]
