"""Losses of records: against reading each one by itself, by label, and read from files."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import evaluate
from chargen.data.reading_config import ReadingConfig
from chargen.errors import DataError, SettingError
from chargen.storage.model_file import build_model
from tests import naive
from tests.judged_records import LETTERS, random_records, record_model
from tests.pairs import all_pairs

LABELS = ("red", "green", "blue")


def folder_of(path: Path, by_label: dict[str, list[str]]) -> Path:
    """A folder with a file of lines for each label."""
    for label, records in by_label.items():
        (path / "texts").mkdir(exist_ok=True)
        (path / "texts" / f"{label}.txt").write_text("".join(f"{record}\n" for record in records), "utf-8")
    return path / "texts"


def summed(file, by_label: dict[str, list[str]], direction: str) -> dict[str, tuple[float, float]]:
    """The nats of the records of each label, ends included, and those of the ends."""
    sums = {}
    for label, records in by_label.items():
        name = label if label in file.vocabulary.labels else None
        each = [naive.record_log_probs(file, record, name, direction) for record in records]
        sums[label] = -math.fsum(map(sum, each)), -math.fsum(end for _, end in each)
    return sums


@pytest.mark.parametrize(
    ("cell", "unit", "direction", "labelled"),
    all_pairs(("lstm", "gru"), ("character", "folded", "byte"), ("forward", "backward"), (False, True)),
)
def test_a_text_costs_what_its_records_cost_one_by_one(tmp_path, cell, unit, direction, labelled):
    labels = LABELS if labelled else ()
    file = record_model(
        cell, labels=labels, unit="byte" if unit == "byte" else "character", bidirectional=direction == "backward",
        folded="xyz" if unit == "folded" else "",
    )  # fmt: skip
    letters = {"character": LETTERS, "folded": LETTERS + "xyzé", "byte": LETTERS + "é字"}[unit]
    by_label = {"blue": random_records(40, letters, 1), "red": random_records(70, letters, 2), "new": ["abc", "h"]}
    sources = folder_of(tmp_path, by_label)
    result = evaluate(file, sources=sources, direction=direction, by_label=labelled, rows=3)
    sums = summed(file, by_label, direction)
    records = [record for some in by_label.values() for record in some]
    assert result.records == 112
    assert result.characters == sum(map(len, records)) + 112
    assert result.bytes == sum(len(record.encode()) for record in records) + 112
    assert result.nats == pytest.approx(sum(nats for nats, _ in sums.values()), rel=1e-6)
    assert result.end_nats == pytest.approx(sum(ends for _, ends in sums.values()), rel=1e-6)
    assert result.nats_per_record == pytest.approx(result.nats / 112)
    assert result.bits_per_record == pytest.approx(result.nats / 112 / math.log(2))
    assert result.unknown_labels == (("new",) if labelled else ())
    if labelled:
        assert list(result.by_label) == ["red", "blue", ""], "the most frequent first"
        for name, loss in result.by_label.items():
            some = by_label[name or "new"]
            assert (loss.records, loss.characters) == (len(some), sum(map(len, some)) + len(some))
            assert (loss.nats, loss.end_nats) == pytest.approx(sums[name or "new"], rel=1e-5)
            assert loss.nats_per_record == loss.nats / len(some)
            assert loss.nats_per_character == loss.nats / loss.characters


def test_the_order_of_files_is_not_the_order_of_labels(tmp_path):
    """A label means the same whichever the file meets first, and one that the model does not know means none."""
    file, records = record_model(labels=LABELS), random_records(30)
    alone = {}
    for label in (*LABELS, "aaa"):
        path = tmp_path / f"{label}.txt"
        path.write_text("\n".join(records))
        alone[label] = evaluate(file, sources=path)
    assert len({result.nats for result in alone.values()}) == 4
    texts = dict.fromkeys(("aaa", "blue", "red"), records)
    together = evaluate(file, sources=folder_of(tmp_path, texts), by_label=True)
    for label in texts:
        nats = together.by_label[label if label in LABELS else ""].nats
        assert nats == pytest.approx(alone[label].nats, rel=1e-5)
    unlabelled = evaluate(file, "\n".join(records), by_label=True)
    assert list(unlabelled.by_label) == [""]
    assert unlabelled.nats == pytest.approx(alone["aaa"].nats)


def test_a_text_in_memory_has_the_labels_of_a_file():
    file = record_model(labels=LABELS)
    file = replace(file, reading=ReadingConfig(records="jsonl", label_field="colour"))
    lines = [json.dumps({"colour": label, "text": "abc"}) for label in ("blue", "new", "red")]
    losses = evaluate(file, "\n".join(lines), by_label=True).by_label
    sums = summed(file, {label: ["abc"] for label in ("blue", "new", "red")}, "forward")
    expected = {"blue": sums["blue"][0], "": sums["new"][0], "red": sums["red"][0]}
    assert {label: loss.nats for label, loss in losses.items()} == pytest.approx(expected)


def test_many_labels_are_no_bytes_that_continue_a_character(tmp_path):
    """Ids of labels 129 to 192 have the bits of such bytes."""
    labels = tuple(f"label{number:03}" for number in range(200))
    file = record_model(unit="byte", labels=labels)
    result = evaluate(file, sources=folder_of(tmp_path, {label: ["aé"] for label in labels}), by_label=True)
    assert (result.records, result.characters) == (200, 600)
    assert {loss.characters for loss in result.by_label.values()} == {3}


def test_skipped_characters_belong_to_no_label(tmp_path):
    file = record_model(labels=LABELS, folded="xyz")
    texts = {"red": ["a\u00e9b", "x"], "blue": ["\u00e9"]}
    skipped = evaluate(file, sources=folder_of(tmp_path, texts), unknown="skip", by_label=True)
    sums = summed(file, {"red": ["ab", "x"], "blue": [""]}, "forward")
    assert {label: loss.nats for label, loss in skipped.by_label.items()} == pytest.approx(
        {label: nats for label, (nats, _) in sums.items()}
    )


@given(st.lists(st.text(LETTERS, min_size=1, max_size=9), min_size=1, max_size=9), st.integers(1, 5))
def test_rows_change_nothing(records, rows):
    file = record_model()
    whole, cut = (evaluate(file, "\n".join(records), rows=number) for number in (1, rows))
    assert (cut.records, cut.characters) == (whole.records, whole.characters)
    assert (cut.nats, cut.end_nats) == pytest.approx((whole.nats, whole.end_nats), rel=1e-5)


def test_a_model_that_follows_records_counts_them():
    file = replace(record_model(scale=1.0), training={"settings": {"valid_fraction": 0.0, "test_fraction": 0.0}})
    text, tune = "\n".join(random_records(40)), "\n".join(random_records(30, seed=9))
    result = evaluate(file, text, dynamic=True, tune=tune)
    assert (result.records, result.characters) == (40, sum(map(len, random_records(40))) + 40)
    assert result.static_nats_per_character == pytest.approx(evaluate(file, text).nats_per_character)


def test_what_cannot_be_told_by_label_is_refused():
    for file, options, words in (
        (record_model(), {}, "by_label is for a model of labelled records: this one has no labels"),
        (record_model(labels=LABELS), {"dynamic": True, "tune": "abc"}, "without `dynamic…`"),
    ):
        with pytest.raises(SettingError, match=words):
            evaluate(file, "abc", by_label=True, **options)


def test_a_charmodel_of_records_needs_to_know_what_a_record_is():
    file = record_model()
    network = build_model(file)
    with pytest.raises(SettingError, match="reading must say what the records"):
        evaluate(network, file.vocabulary, "aNoneb")
    read = evaluate(network, file.vocabulary, "a\nb", reading=ReadingConfig(records="line"))
    assert read.nats == pytest.approx(evaluate(file, "a\nb").nats)
    with pytest.raises(DataError, match="lone surrogate"):
        evaluate(file, "a\udfffb")
