"""A model that is loaded once and answers requests of other programs, one after the other or many together."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from chargen import __version__
from chargen.api.fill import read_template
from chargen.api.generate import new_selection, writes_many
from chargen.api.requests import MAX_GAP, FillRequest, GenerateRequest, RequestError, ScoreRequest, sample_config
from chargen.api.score import read_labels, score_settings
from chargen.api.texts import clean_for_model, read_single
from chargen.data.reading import clean
from chargen.data.utf8 import as_json_text
from chargen.decoding.numpy_engine import Engine
from chargen.decoding.pick_engine import new_engine
from chargen.errors import ArgumentError, ChargenError, DataError, SettingError, Stopped, amount, truncate
from chargen.evaluation.per_character import Predict, score_texts
from chargen.evaluation.predicted_ids import predict_ids
from chargen.evaluation.score_json import describe_scores
from chargen.evaluation.short_texts import ShortTexts
from chargen.infill.fill import Filler, gap_lengths
from chargen.infill.template import Template, fill_gaps
from chargen.model.config import DIRECTIONS, require_bidirectional
from chargen.sampling.pieces import write_pieces
from chargen.sampling.prefix_engine import PrefixEngine
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import ModelFile, build_networks

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel

Answer: TypeAlias = dict[str, Any]
Steps: TypeAlias = Generator[Answer | None, None, Answer]
PROTOCOL = 1
"""The version of requests and answers; it rises where a program that knows an older one would err."""


class Session:
    """Answers requests with one model, whose engines and network are made once, when they are first needed.

    Writing goes on from the nearest text that was read before, so that an editor may send all of it at every key.

    Args:
        file: the model.
    """

    def __init__(self, file: ModelFile) -> None:
        self.file = file
        self.engine = cache(self._new_engine)
        self.short_texts = ShortTexts(file, self.engine)

    @cached_property
    def networks(self) -> "list[CharModel]":
        """The torch models of all networks, for texts that are not short."""
        return build_networks(self.file)

    def warm(self) -> None:
        """Make the engines, and load or compile their inner loops, which the first requests would wait for."""
        for direction in DIRECTIONS[: 1 + self.file.config.bidirectional]:
            engine = self.engine(direction)
            engine.step(np.zeros(1, np.int64), engine.start(1))

    def _new_engine(self, direction: str) -> Engine:
        return PrefixEngine(new_engine(self.file, "cpu", direction))

    def write(self, request: GenerateRequest | FillRequest) -> Steps:
        """Answer a request that takes its time, in steps between which the caller may do something else or give up.

        Args:
            request: what to write.

        Yields:
            A piece of text, where the request asks for pieces; None where there is nothing to hand over.

        Returns:
            The answer.

        Raises:
            ChargenError: what the call of that name raises.
        """
        return self._generate(request) if isinstance(request, GenerateRequest) else self._fill(request)

    def describe(self) -> Answer:
        """Tell what the model is."""
        file, vocabulary = self.file, self.file.vocabulary
        return {
            "protocol": PROTOCOL,
            "version": __version__,
            "sha256": file.sha256,
            "config": asdict(file.config),
            "parameters": file.parameters,
            "unit": vocabulary.unit,
            "vocabulary_size": len(vocabulary),
            "records": vocabulary.records,
            "labels": list(vocabulary.labels),
            "characters": "" if vocabulary.raw else vocabulary.characters,
        }

    def score(self, requests: Sequence[ScoreRequest]) -> list[Answer | ChargenError]:
        """Score texts side by side.

        Args:
            requests: whose `shared` is the same.

        Returns:
            For each its scores, or the error of that text.
        """
        try:
            return list(self._score(requests))
        except Stopped:
            raise
        except ChargenError as error:
            if len(requests) < 2:
                return [error]
        half = len(requests) // 2
        return self.score(requests[:half]) + self.score(requests[half:])

    def _score(self, requests: Sequence[ScoreRequest]) -> Iterator[Answer]:
        file, labels, (by, threshold, num, unknown) = self.file, [each.label for each in requests], requests[0].shared
        settings = score_settings(file, by, threshold, num, unknown)
        texts = [clean_for_model(file, request.text or "") for request in requests]
        known = read_labels(file.vocabulary, labels, len(texts)) if any(label is not None for label in labels) else None
        predict: Predict = self.short_texts.predict
        if not self.short_texts.fit(texts):
            predict = partial(predict_ids, self.networks, file, precision="fp32")
        for request, scores in zip(requests, score_texts(predict, file, texts, labels=known, **settings), strict=True):
            yield describe_scores(scores, file.vocabulary.raw, request.brief)

    def _generate(self, request: GenerateRequest) -> Steps:
        file, direction, raw = self.file, DIRECTIONS[request.reverse], self.file.vocabulary.raw
        filters: dict[str, Any] = {"unique": request.unique, "novel": None, "accept": None, "best_of": request.best_of}
        many, num = writes_many(file, request.num, False, filters), request.num or 1
        if request.reverse:
            require_bidirectional(file.config, "`reverse`")
        prime = read_single(request.prime, file.reading, None, "strict", "prime")
        sampler = Sampler(
            file, sample_config(request), num=1 if many else num, seed=request.seed, direction=direction,
            label=request.label, engine=self.engine(direction),
        )  # fmt: skip
        sampler.feed(prime, request.unknown)
        selection = new_selection(sampler, prime, None, "strict", **filters) if many else None
        written: list[list[str]] = [[prime] if request.echo else [] for _ in range(num)]
        stopped = [False] * num
        for number in range(num if request.stream and request.echo and prime else 0):
            yield {"sample": number, "piece": as_json_text(prime, raw)}
        for pieces in write_pieces(sampler, request.length, num=num, selection=selection):
            for number, piece in pieces:
                written[number].append(piece.text)
                stopped[number] = piece.stopped
                if request.stream:
                    yield {"sample": number, "piece": as_json_text(piece.text, raw)}
            yield None
        texts = [as_json_text("".join(parts[::-1] if request.reverse else parts), raw) for parts in written]
        shown = (
            {"text": texts[0], "stopped": stopped[0]} if request.num is None else {"texts": texts, "stopped": stopped}
        )
        return {"seed": sampler.seed, **shown}

    def _fill(self, request: FillRequest) -> Steps:
        file, limits = self.file, (request.length, request.min_length, request.max_length)
        lengths = gap_lengths(*limits) if request.text is None or limits != (None,) * 3 else None
        require_bidirectional(file.config, "filling a gap")
        filler = Filler(
            file, sample_config(request), particles=request.particles, seed=request.seed, unknown=request.unknown,
            engines={direction: self.engine(direction) for direction in DIRECTIONS},
        )  # fmt: skip
        if request.text is not None:
            template = read_template(file, request.text, request.marker, lengths)
        else:
            assert lengths is not None
            parts = clean(request.before or "", file.reading), clean(request.after or "", file.reading)
            template = Template(parts, (lengths,))
        if (size := sum(max(1, longest) for _, longest in template.lengths)) > MAX_GAP:
            raise SettingError(
                f"the gaps have {amount(size, 'character')} together: a request fills {MAX_GAP:,} at most", "length"
            )
        ways = []
        for filled in fill_gaps(filler, template, request.num):
            ways.append(filled.describe())
            yield None
        return {"seed": filler.seed, "ways": ways}


ERRORS: dict[type[Exception], str] = {
    RequestError: "request", SettingError: "setting", ArgumentError: "setting", DataError: "data",
    ChargenError: "failure",
}  # fmt: skip
"""What errors are called, the special before the general; others are bugs, "internal"."""


def describe_error(error: Exception) -> Answer:
    """Describe an error as a part of an answer.

    Args:
        error: what a request raised.

    Returns:
        Its message, the setting that is wrong or None, and its kind, of `ERRORS`.
    """
    kind = next((name for kind, name in ERRORS.items() if isinstance(error, kind)), "internal")
    message = str(error) if isinstance(error, ChargenError) else f"{type(error).__name__}: {truncate(error, 200)}"
    return {"message": message, "setting": getattr(error, "setting", None), "kind": kind}
