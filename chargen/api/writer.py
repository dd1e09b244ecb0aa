"""Go on with a text that somebody else writes, too."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from chargen.api.texts import clean_for_model
from chargen.arguments import choose_config
from chargen.data.records import BLANK_LINES, KINDS
from chargen.data.vocabulary import Ids, Vocabulary
from chargen.decoding.choose import WRITING_DEFAULTS, SampleConfig
from chargen.errors import SettingError
from chargen.sampling.ends import MAX_PIECE, Ending
from chargen.sampling.kept_states import KeptStates
from chargen.sampling.sampler import Sampler
from chargen.sampling.start import encode_text, read_start
from chargen.settings import check_int, check_text
from chargen.storage.model_file import AnyModel


class Writer:
    """Goes on with a text, piece by piece, whoever changes it in between.

    Piece n is what sample n of a `Sampler` with this seed writes behind the text: it depends on the text, the settings,
    the seed and n only. What was read is kept, so that going on is instant.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel.
        config: how characters are chosen; or give its fields as keywords; temperature 0.8 by default.
        seed: 0 to 2**64 - 1; drawn by the system where None.
        pieces: how many pieces there have been.
        label: of the record that is written, where the model has labels.
        device: "cpu", "cuda" or "mps".
        vocabulary: only with a CharModel, which needs it.
        **settings: fields of `config`.

    Raises:
        SettingError: a setting is out of its range or contradicts another, or the model learned raw bytes.
        ModelFileError: the model file is missing or damaged.
    """

    def __init__(
        self, model: AnyModel, config: SampleConfig | None = None, *, seed: int | None = None, pieces: int = 0,
        label: str | None = None, device: str = "cpu", vocabulary: Vocabulary | None = None, **settings: Any,
    ) -> None:  # fmt: skip
        settings = settings if config else WRITING_DEFAULTS | settings
        sampler = Sampler(
            model, choose_config(SampleConfig, config, settings), seed=seed, device=device, vocabulary=vocabulary
        )
        self.model, self.vocabulary, self.engine = sampler.model, sampler.vocabulary, sampler.engine
        self.config, self.seed = sampler.config, sampler.seed
        if self.vocabulary.raw:
            raise SettingError("this model learned raw bytes, which are no text to go on with: `generate` writes them")
        self.pieces = check_int("pieces", pieces, 0, 2**62)
        self.set_label(label)

    def set_label(self, label: str | None) -> None:
        """Go on with records of another label.

        Args:
            label: of the record that is written; None for none.

        Raises:
            SettingError: the model does not have the label.
        """
        self._kept = KeptStates(self.engine, read_start(self.engine, self.model, label))
        self.label = label

    def set_temperature(self, temperature: float) -> None:
        """Go on with another temperature.

        Args:
            temperature: at least 0.

        Raises:
            SettingError: it is out of its range.
        """
        self.config = replace(self.config, temperature=temperature)

    def unseen(self, text: str) -> str:
        """List the characters that the model does not know: it skips them, or reads its unknown symbol instead.

        Args:
            text: any.

        Returns:
            Each of them once, sorted.
        """
        return self.vocabulary.unseen(clean_for_model(self.model, text))

    def knows(self, text: str) -> list[bool]:
        """Find the characters that the model knows; a letter and its accents are one to a model that composes them.

        Args:
            text: of N characters.

        Returns:
            N times, whether the model reads the character, or its unknown symbol instead.
        """
        if clean_for_model(self.model, text) == text:
            return [bool(known) for known in self.vocabulary.knows(text)]
        known: list[bool] = []
        for cluster in re.findall(r".[\u0300-\u036f]*", text, re.DOTALL):
            known += [not self.unseen(cluster)] * len(cluster)
        return known

    def read(self, text: str) -> Iterator[float]:
        """Read a text, so that `write` goes on with it at once; may be left at any time.

        Args:
            text: up to where the next piece is to stand.

        Returns:
            An iterator over the share that has been read, from 0 to 1, after each block.
        """
        ids = self._encode(text)
        for count in self._kept.read(ids):
            yield count / len(ids)

    def write(self, text: str, until: str = "sentence", num: int = 1) -> Iterator[list[str]]:
        """Write a piece that goes on with a text, or several to choose from; may be left at any time.

        The end symbol of a record ends a piece and stands there as what separates two records, such as a line end.

        Args:
            text: up to where the piece is to stand.
            until: how far: to the end of a "word", a "sentence" or a "paragraph".
            num: how many pieces.

        Returns:
            An iterator over what each piece goes on with, num texts; "" for one that has ended.

        Raises:
            SettingError: `until` is none of these, or `num` is no number from 1 to 100.
            ChargenError: `ban` leaves no character to write, or the model's numbers overflow.
        """
        ids, first = self._encode(text), self.pieces
        endings = [Ending(until, text) for _ in range(check_int("num", num, 1, 100))]
        self.pieces += num
        return self._write(ids, first, endings)

    def _write(self, ids: Ids, first: int, endings: list[Ending]) -> Iterator[list[str]]:
        for _ in self._kept.read(ids):
            pass
        _, logits, state = self._kept.nearest(len(ids))
        sampler = Sampler(self.model, self.config, num=len(endings), seed=self.seed, engine=self.engine)
        here = sampler.snapshot()
        streams = [stream.fork(first + row) for row, stream in enumerate(here.streams)]
        arrays = [np.repeat(array, len(endings), axis=0) for array in (logits, *state)]
        sampler.restore(replace(here, streams=streams, logits=arrays[0], layers=tuple(arrays[1:])))
        for characters in sampler.write(max(MAX_PIECE.values())):
            added = [""] * len(endings)
            for character in characters:
                ending = endings[character.stream]
                is_end_symbol = not character.character and not ending.ended
                added[character.stream] = self._separator if is_end_symbol else ending.add(character.character)
                ending.ended |= character.stopped
            if any(added):
                yield added
            if all(ending.ended for ending in endings):
                return

    def _encode(self, text: str) -> Ids:
        """The ids of the record that a text ends with; without records, of the whole text."""
        check_text("text", text)
        separator = self._separator
        if separator == "\n\n":
            text = text[max((match.end() for match in BLANK_LINES.finditer(text)), default=0) :]
        elif separator:
            text = text[text.rfind(separator) + len(separator) if separator in text else 0 :]
        cleaned = clean_for_model(self.model, text)
        return encode_text(cleaned, self.vocabulary, self.vocabulary.default_unknown)

    @property
    def _separator(self) -> str:
        """What stands between two records in a text; "" where nothing does."""
        kind = self.model.reading.records
        if not self.vocabulary.records or kind is None:
            return ""
        return {"line": "\n", "blank-line": "\n\n"}.get(kind, "" if kind in KINDS else kind)
