"""Fill the gaps of a text in one call."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chargen.api.texts import read_single
from chargen.data.reading import clean
from chargen.infill.fill import PARTICLES, Filler, gap_lengths
from chargen.infill.template import MARKER, Filled, Template, fill_gaps
from chargen.storage.model_file import ModelFile

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel


def fill_text(
    model: "ModelFile | CharModel | str | os.PathLike[str]",
    text: str | Path,
    *,
    length: int | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    marker: str = MARKER,
    encoding: str | None = None,
    errors: str = "strict",
    num: int = 1,
    seed: int | None = None,
    particles: int = PARTICLES,
    **settings: Any,
) -> list[Filled]:
    """Fill the gaps of a text, as `chargen fill` does. `fill` fills one gap between two texts.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel.
        text: with gaps marked by ___, or by ___{5} or ___{3-8} where a gap says its own length; or the Path of a file.
        length: characters of a gap; instead of min_length and max_length.
        min_length: characters of the shortest gap; 0 where None.
        max_length: characters of the longest gap.
        marker: what marks a gap.
        encoding: of the file; None: that of the training text.
        errors: what to do with bytes that do not fit it, "strict" or "replace".
        num: in how many ways, which differ in the first gap.
        seed: 0 to 2**64 - 1; drawn by the system where None.
        particles: how many gaps are tried side by side where there are too many to score all.
        **settings: fields of SampleConfig, and further arguments of `Filler`.

    Returns:
        The filled texts; fewer where there are fewer ways to fill the first gap.

    Raises:
        SettingError: the model reads one way only, or a setting or length is wrong.
        ModelFileError: the model file is missing or damaged.
        DataError: there is no gap, or the model does not know some characters.
        ChargenError: no gap is allowed, or the model's numbers overflow.
    """
    lengths = None if (length, min_length, max_length) == (None,) * 3 else gap_lengths(length, min_length, max_length)
    filler = Filler(model, particles=particles, seed=seed, **settings)
    return list(fill_gaps(filler, read_template(filler.model, text, marker, lengths, encoding, errors), num))


def read_template(
    model: ModelFile,
    text: str | Path,
    marker: str = MARKER,
    lengths: tuple[int, int] | None = None,
    encoding: str | None = None,
    errors: str = "strict",
) -> Template:
    """Find the gaps in a text, cleaned as the text that the model learned.

    Args:
        model: what `read_model` returned.
        text: with gaps; or the Path of a file.
        marker: what marks a gap.
        lengths: the shortest and longest length of gaps that do not say theirs.
        encoding: of the file; None: that of the training text.
        errors: what to do with bytes that do not fit it, "strict" or "replace".

    Raises:
        DataError: there is no gap, or the file cannot be read.
        SettingError: a length is missing, or the marker is empty.
    """
    return Template.parse(read_single(text, model.reading, encoding, errors), clean(marker, model.reading), lengths)
