"""Baselines are counted as `evaluate` counts, and each is what its own program says."""

import bz2
import lzma
import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from chargen.counting import baselines
from chargen.counting.baselines import Baselines, measure_baselines
from chargen.counting.ngram import NGram
from chargen.data.corpus import Corpus
from chargen.evaluation.evaluation import evaluate_text
from chargen.evaluation.loss import Loss, in_reading_order, loss_of
from tests import naive
from tests.texts import names

WORDS = "the cat sat on a mat, wärë it naïve of thé dog? no: dogs bite 漢字. "
TABLE = "name,kind\n" + "".join(f"{name.lower()}é,{'fm'[len(name) % 2]}\n" for name in names(0, 90)) + "other,\n"
MODES: list[tuple[str, dict[str, Any]]] = [
    (WORDS * 6, {}),
    (WORDS * 6, {"unit": "byte"}),
    (WORDS * 6, {"min_count": 13}),
    (WORDS * 6, {"unit": "byte", "encoding": "raw"}),
    (TABLE, {"records": "csv", "text_field": "name"}),
    (TABLE, {"records": "csv", "text_field": "name", "label_field": "kind"}),
    (TABLE, {"records": "csv", "text_field": "name", "label_field": "kind", "unit": "byte", "shuffle": False}),
]
IDS = [str(settings) for _, settings in MODES]


def measured(corpus: Corpus, order: int = 3) -> Baselines:
    figures, _ = measure_baselines(corpus, order, lambda task, done, total: None)
    assert figures is not None
    return figures


def rows(figures: Baselines) -> dict[str, float]:
    return {row.name: row.nats_per_character for row in figures.rows}


@pytest.mark.parametrize(("text", "settings"), MODES, ids=IDS)
def test_a_model_that_knows_nothing_costs_what_evaluate_says(text: str, settings: dict[str, Any]) -> None:
    corpus = Corpus.from_text(text, valid_fraction=0.2, **settings)
    vocabulary = corpus.vocabulary

    def uniform(ids: NDArray[Any]) -> Iterator[Loss]:
        ids, first = in_reading_order(ids, vocabulary, "forward", "scoring")
        nats = len(ids[first:]) * math.log(len(vocabulary) - len(vocabulary.labels))
        yield loss_of(ids[first:], nats, vocabulary)

    valid = vocabulary.decode(corpus.valid)
    if vocabulary.folded:  # of the text itself: the unknown symbol has no character
        valid = text[len(corpus.train) :]
    expected, figures = evaluate_text(vocabulary, valid, uniform), measured(corpus)
    assert figures.characters == expected.characters
    assert rows(figures)["uniform"] == pytest.approx(expected.nats_per_character)
    assert figures.rows[0].bits_per_character == pytest.approx(expected.bits_per_character)


@pytest.mark.parametrize(("text", "settings"), MODES[:1] + MODES[4:], ids=IDS[:1] + IDS[4:])
def test_n_grams_are_those_of_the_training_part(text: str, settings: dict[str, Any]) -> None:
    corpus = Corpus.from_text(text, valid_fraction=0.2, **settings)
    end, size = corpus.vocabulary.end_id, len(corpus.vocabulary)
    ended = [] if end is None else [end]
    figures = measured(corpus)
    for order in (1, 2, 3):
        twin = naive.KneserNey([*corpus.train.tolist(), *ended], size, order, end)
        nats = -sum(twin.log_probs([*corpus.valid.tolist(), *ended])[1:])
        assert rows(figures)[f"{order}-gram"] == pytest.approx(nats / figures.characters, abs=1e-12)


def test_bytes_of_a_first_character_are_context() -> None:
    corpus = Corpus.from_text("abcdefg" * 10 + "é" + "abc" * 3, valid_fraction=0.13, unit="byte")
    assert corpus.valid[0] == 0xC3
    figures = measured(corpus, 1)
    log_probs = NGram(corpus.train, 256, 1).log_probs(corpus.valid)
    assert figures.characters == 9
    assert rows(figures)["1-gram"] == pytest.approx(-log_probs[2:].sum() / 9)


def test_the_entropy_is_that_of_the_scored_characters() -> None:
    corpus = Corpus.from_text("abab" * 9 + "abcc", valid_fraction=0.1)
    assert rows(measured(corpus))["entropy"] == pytest.approx((math.log(3) + 2 * math.log(1.5)) / 3)


@pytest.mark.parametrize(("name", "compress"), [
    ("zlib", lambda data: zlib.compress(data, 9)), ("bz2", bz2.compress), ("lzma", lzma.compress),
])  # fmt: skip
def test_a_compressor_tells_what_the_part_adds(name: str, compress: Any) -> None:
    text = "".join(f"line {number * 7919 % 1009} é\n" for number in range(4000))
    corpus = Corpus.from_text(text, valid_fraction=0.3)
    first = len(corpus.train) + 1
    bits = 8 * (len(compress(text.encode())) - len(compress(text[:first].encode())))
    row = next(row for row in measured(corpus, 1).rows if row.name == name)
    assert row.bits_per_character == pytest.approx(bits / (len(text) - first))
    short = Corpus.from_text(text[:2000], valid_fraction=0.3)
    assert name not in rows(measured(short, 1)), "a format's own bytes would be most of it"


def test_records_are_compressed_with_a_line_end_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MIN_COMPRESSED", 0)
    monkeypatch.setattr(baselines, "COMPRESSORS", {"lzma": bytes})
    corpus = Corpus.from_text(TABLE, records="csv", text_field="name", label_field="kind", valid_fraction=0.3)
    figures = measured(corpus)
    size = len(corpus.vocabulary.decode(corpus.valid).encode("utf-8", "replace"))  # a mark as one byte
    assert figures.rows[-1].bits_per_character * figures.characters == pytest.approx(8 * size)


@pytest.mark.parametrize("settings", [{}, {"records": "line"}], ids=str)
def test_of_a_long_text_the_nearest_ids_are_taken(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"{number * 7 % 10}{number * 3 % 10}\n" for number in range(200))
    corpus = Corpus.from_text(text, valid_fraction=0.3, **settings)
    whole = measured(corpus)
    assert (whole.whole, whole.train_ids) == (True, len(corpus.train))
    monkeypatch.setattr(baselines, "MAX_TRAIN", 50)
    monkeypatch.setattr(baselines, "MAX_VALID", 30)
    part, end = measured(corpus), corpus.vocabulary.end_id
    train = corpus.train[-50:]
    if end is not None:
        train = train[np.flatnonzero(train == end)[0] :]
    ended = [] if end is None else [end]
    model = NGram(np.append(train, ended).astype(train.dtype), len(corpus.vocabulary), 3, end_id=end)
    nats = -model.log_probs(np.append(corpus.valid[:30], ended).astype(train.dtype))[1:].sum()
    assert (part.whole, part.train_ids, part.characters) == (False, len(train), 29 + len(ended))
    assert rows(part)["3-gram"] == pytest.approx(nats / part.characters)


@pytest.mark.parametrize("text", ["", "a", "ab"])
def test_without_two_characters_to_validate_on_there_is_nothing_to_score(text: str) -> None:
    figures, model = measure_baselines(Corpus.from_text(text), 2, lambda task, done, total: None)
    assert figures is None
    assert model.order == 2
