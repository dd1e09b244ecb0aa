"""Texts and records scored by network and counts: by engines, by torch and one id at a time, all the same."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen import Sampler, evaluate, score, score_records
from chargen.evaluation import layout, short_texts
from chargen.evaluation.per_character import Scores
from chargen.storage.model_file import ModelFile
from tests import naive
from tests.evaluation.judges import LETTERS, assert_close, model, text_of, values
from tests.judged_records import random_records
from tests.pairs import all_pairs
from tests.record_models import LABELS, record_model
from tests.record_models import LETTERS as RECORD_LETTERS
from tests.small_models import with_counts

BEGIN = "\n"


@cache
def counted(unit: str = "character", ways: str = "two", begin: str = "", order: int = 4) -> ModelFile:
    return replace(with_counts(model(unit=unit, ways=ways), text_of(unit, 300, seed=7), order), begin=begin)


@cache
def counted_records(unit: str = "character") -> ModelFile:
    file = record_model("lstm", unit)
    marks = [file.vocabulary.begin_mark(label) for label in (None, *LABELS)]
    texts = random_records(60, RECORD_LETTERS, seed=3)
    return with_counts(file, "".join(marks[at % 3] + text for at, text in enumerate(texts)), 4)


def alone(file: ModelFile) -> ModelFile:
    return replace(file, mixtures={})


def by_torch(file: ModelFile, texts: list[str], **options: object) -> list[Scores]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(short_texts, "MAX_IDS", -1)
        return score(file, texts, **options)


@pytest.mark.parametrize("unit", ["character", "folded", "byte"])
@settings(max_examples=12)
@given(st.sampled_from(["one", "two"]), st.sampled_from(["", BEGIN]),
       st.lists(st.text("abcdefghxyz \né", max_size=20), max_size=4), st.booleans())  # fmt: skip
def test_engines_and_torch_score_texts_as_one_id_at_a_time(
    unit: str, ways: str, begin: str, texts: list[str], skips: bool
) -> None:
    file = counted(unit, ways, begin)
    vocabulary, unknown = file.vocabulary, "skip" if skips or unit == "character" else "replace"
    by_engines, others = score(file, texts, unknown=unknown), by_torch(file, texts, unknown=unknown)
    for text, ours, theirs in zip(texts, by_engines, others, strict=True):
        assert_close(ours, theirs)
        sizes = [len(vocabulary.encode(character, unknown)) for character in text]
        ids = np.concatenate([vocabulary.encode(part, unknown) for part in (begin, text, begin)])
        for judge, log_probs in naive.judged(file, ids).items():
            own = log_probs[len(begin) : len(ids) - len(begin)]
            expected = np.bincount(np.repeat(np.arange(len(text)), sizes), own, len(text)) - vocabulary.extra_nats(text)
            scored = [at for at, size in enumerate(sizes) if size == 1 or (size and judge != "cloze")]
            assert [getattr(ours[at], judge) for at in scored] == pytest.approx(expected[scored], abs=1e-4), judge


@pytest.mark.parametrize("unit", ["character", "byte"])
@pytest.mark.parametrize("by", ["cloze", "forward", "backward"])
def test_records_and_their_ends_are_scored_alike(unit: str, by: str) -> None:
    file, texts = counted_records(unit), ["abc", "", "fade a bed", "f", "ab"]
    labels = ["sea", None, "sun", "sea", "sun"]
    options = {"label": labels, "by": by, "threshold": 0.3}
    plain = score(alone(file), texts, **options)
    for text, label, ours, theirs, network in zip(
        texts, labels, score(file, texts, **options), by_torch(file, texts, **options), plain, strict=True
    ):
        assert_close(ours, theirs)
        for direction in ("forward", "backward"):
            characters, end = naive.record_log_probs(file, text, label, direction)
            assert getattr(ours.end, direction) == pytest.approx(end, abs=1e-4)
            assert ours.totals[f"log_prob_{direction}"] == pytest.approx(characters + end, abs=1e-4)
        assert values(ours, "cloze")[1:-1] == pytest.approx(values(network, "cloze")[1:-1], abs=1e-4)


@pytest.mark.parametrize("limit", [-1, 3500])
@pytest.mark.parametrize("text", ["", "a", "ab", "fee de cab"])
def test_scores_add_up_to_the_loss_of_the_text(text: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_texts, "MAX_IDS", limit)
    for unit in ("character", "folded", "byte"):
        file = counted(unit, begin=BEGIN)
        scores = score(file, text)
        for direction in ("forward", "backward") if text else ():
            whole = BEGIN + text if direction == "forward" else text + BEGIN
            found = evaluate(file, whole, direction=direction)
            assert scores.totals[f"log_prob_{direction}"] == pytest.approx(-found.nats, abs=1e-4)
            assert len(text) < 5 or found.network_nats != pytest.approx(found.nats, rel=1e-3)
    file = counted_records()
    for label in (None, "sea") if text else ():
        marked = replace(file, reading=replace(file.reading, records="jsonl", text_field="t", label_field="l"))
        line = f'{{"t": "{text}", "l": "{label or ""}"}}'
        for direction in ("forward", "backward"):
            total = score(file, text, label=label).totals[f"log_prob_{direction}"]
            assert total == pytest.approx(-evaluate(marked, line, direction=direction).nats, abs=1e-4)


def test_alternatives_are_likelier_by_the_mixture() -> None:
    """Where no context is known but the empty one, counts of single ids are known all the same."""
    file = counted("character", "one", BEGIN)
    scores = score(file, "abc", threshold=1, num_alternatives=len(LETTERS))
    engine, logits, state = naive.start(file)
    for number, id_ in enumerate([*file.vocabulary.encode(BEGIN), *file.vocabulary.encode("abc")]):
        if number:
            odds = {c: float(np.exp(logits[0][i])) for i, c in enumerate(file.vocabulary.characters)}
            own = odds[file.vocabulary.characters[id_]]
            likelier = {character: share for character, share in odds.items() if share > own}
            assert dict(scores[number - 1].alternatives) == pytest.approx(likelier, abs=1e-5)
        logits, state = engine.step(np.array([id_]), state)


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("records", [True, False])
def test_cutting_a_long_text_changes_nothing(both: bool, records: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if records:
        file, text, options = counted_records(), "fade a bed " * 60, {"label": "sun"}
    else:
        file, text, options = counted(ways="two" if both else "one"), "fade a bed " * 60, {}
    monkeypatch.setattr(short_texts, "MAX_IDS", -1)
    whole = score(file, text, **options)
    monkeypatch.setattr(layout, "SPAN", 20)
    monkeypatch.setattr(layout, "CONTEXT", 100)
    cut = score(file, text, **options)
    for judge in ("forward", "backward", "cloze") if both else ("forward",):
        assert values(cut, judge) == pytest.approx(values(whole, judge), abs=1e-4)


@pytest.mark.parametrize(("unit", "by"), all_pairs(("character", "byte"), ("forward", "backward")))
def test_records_and_guesses_are_those_of_the_mixture(unit: str, by: str) -> None:
    file = counted_records(unit)
    texts = [*random_records(9, RECORD_LETTERS, longest=9), "", "a", "fade a bed"]
    for label in (None, "sea"):
        for text, entry in zip(texts, score_records(file, texts, label=label, by=by), strict=True):
            characters, end = naive.record_log_probs(file, text, label, by)
            assert entry.log_prob == pytest.approx(characters + end, abs=1e-4)
            assert entry.end_log_prob == pytest.approx(end, abs=1e-4)
    for text, entry in zip(texts, score_records(file, texts, guess_label=True, prior="uniform", by=by), strict=True):
        joint = {label: math.exp(sum(naive.record_log_probs(file, text, label, by))) for label in LABELS}
        shares = {label: value / sum(joint.values()) for label, value in joint.items()}
        assert entry.label_probs == pytest.approx(shares, abs=1e-4)


@pytest.mark.parametrize("by", ["forward", "backward"])
@pytest.mark.parametrize("begin", ["", BEGIN])
def test_lines_are_those_of_the_mixture(by: str, begin: str) -> None:
    file = counted(begin=begin)
    for entry in score_records(file, ["abc", "", "fade", "a", "ab\xe9"], by=by, unknown="skip"):
        engine, logits, state = naive.start(file, by)
        _, logits, state = naive.read(engine, logits, state, file.vocabulary.encode(begin))
        ids = file.vocabulary.encode(entry.text, "skip")[:: 1 if by == "forward" else -1]
        total, logits, state = naive.read(engine, logits, state, ids)
        end, _, _ = naive.read(engine, logits, state, file.vocabulary.encode(begin))
        assert entry.log_prob == pytest.approx(total + end, abs=1e-4)


@pytest.mark.parametrize("by", ["forward", "backward"])
def test_what_a_sampler_writes_is_as_likely_as_it_says(by: str) -> None:
    file = counted_records()
    sampler = Sampler(file, num=8, seed=2, direction=by, label="sea", temperature=0.7)
    written = [sample for sample in sampler.generate_all(200) if sample.end_log_prob is not None]
    assert len(written) > 2
    for sample, entry in zip(
        written, score_records(file, [one.text for one in written], label="sea", by=by), strict=True
    ):
        assert entry.log_prob == pytest.approx(math.fsum(sample.log_probs) + sample.end_log_prob, abs=1e-3)
