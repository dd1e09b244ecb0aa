"""What records cost: each as if it were alone, its end included, under its own label, read from either side."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen import evaluate
from chargen.data.reading_config import ReadingConfig
from chargen.data.vocabulary import MAX_LABELS, Vocabulary
from chargen.errors import DataError, SettingError
from chargen.evaluation import loss
from chargen.evaluation.dynamic import ADAPT, DynamicEvaluator, Rates, adapt_model, rms_gradients
from chargen.evaluation.loss import evaluate_ids, sum_losses
from chargen.storage.model_file import ModelFile, build_model
from tests import naive
from tests.small_models import small_model
from tests.texts import names

LABELS = ("sea", "sun")
LETTERS = "".join(sorted({*"".join(names(5, 200)), "é", "漢"}))


def record_model(unit: str = "character", labels: Any = LABELS, folded: str = "", **shape: Any) -> ModelFile:
    """A two-way model of records of JSON lines."""
    characters = "" if unit == "byte" else LETTERS
    vocabulary = Vocabulary(characters, unit=unit, folded=folded, records=True, labels=labels)
    places = "".join(map(chr, range(0x4E00, 0x4E00 + len(vocabulary))))
    file = small_model(characters=places, bidirectional=True, num_layers=1, scale=2.0, **shape)
    reading = ReadingConfig(records="jsonl", text_field="t", label_field="l" if labels else None)
    config = replace(file.config, begin_symbols=vocabulary.begin_symbols)
    return replace(file, vocabulary=vocabulary, config=config, reading=reading)


def jsonl(rows: Any) -> str:
    return "".join(json.dumps({"t": text, "l": label}) + "\n" for text, label in rows)


def naive_nats(file: ModelFile, rows: Any, direction: str) -> float:
    """The sum of what each record costs alone, between its begin symbol and its end."""
    vocabulary, network, nats = file.vocabulary, build_model(file), []
    for text, label in rows:
        begin = vocabulary.begin_id(label if label in vocabulary.labels else None)
        ids = [*vocabulary.encode(text).tolist()][:: -1 if direction == "backward" else 1]
        order = [begin, *ids, vocabulary.end_id]
        costs = naive.costs(network, order[:: -1 if direction == "backward" else 1], direction)
        nats.append(costs.sum())
    return math.fsum(nats)


rows = st.lists(st.tuples(st.text(LETTERS, min_size=1, max_size=6), st.sampled_from([*LABELS, "moon", ""])), min_size=1,
                max_size=8)  # fmt: skip


@settings(max_examples=12)
@given(rows, st.sampled_from(["character", "byte"]), st.sampled_from(["forward", "backward"]), st.integers(1, 4))
def test_a_text_costs_what_its_records_cost_alone(rows: Any, unit: str, direction: str, count: int) -> None:
    file = record_model(unit)
    found = evaluate(file, jsonl(rows), direction=direction, rows=1)
    assert found.nats == pytest.approx(naive_nats(file, rows, direction), rel=1e-5)
    assert found.records == len(rows)
    assert found.characters == sum(len(text) + 1 for text, _ in rows)
    assert found.bytes == sum(len(text.encode()) + 1 for text, _ in rows)
    assert found.nats_per_record == found.nats / len(rows)
    # Rows are cut in the middle of records, and read what is before them.
    assert evaluate(file, jsonl(rows), direction=direction, rows=count).nats == pytest.approx(found.nats, rel=1e-5)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_records_may_stand_in_any_order_and_a_changed_one_changes_no_other(direction: str) -> None:
    file = record_model()
    table = [(name, LABELS[len(name) % 2]) for name in names(5, 200)]
    whole = evaluate(file, jsonl(table), direction=direction)
    again = evaluate(file, jsonl(table[::-1]), direction=direction)
    assert again.nats == pytest.approx(whole.nats, rel=1e-6)
    assert again.end_nats == pytest.approx(whole.end_nats, rel=1e-6)
    other = [*table[:77], ("漢", "sun"), *table[78:]]
    difference = evaluate(file, jsonl(other), direction=direction).nats - whole.nats
    alone = naive_nats(file, other[77:78], direction) - naive_nats(file, table[77:78], direction)
    assert difference == pytest.approx(alone, abs=1e-3)
    assert abs(alone) > 0.1


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_labels_are_the_models_whatever_their_order_in_the_text(direction: str) -> None:
    file = record_model()
    cost = {label: evaluate(file, jsonl([("Anna", label)]), direction=direction).nats for label in ("sun", "sea", "")}
    assert len(set(cost.values())) == 3
    for other in ("moon", "Sun"):
        assert evaluate(file, jsonl([("Anna", other)]), direction=direction).nats == cost[""]
    for order in ("sun", "sea"), ("sea", "sun"), ("moon", "sun"):
        table = [("Anna", label) for label in order]
        expected = sum(cost.get(label, cost[""]) for label in order)
        assert evaluate(file, jsonl(table), direction=direction).nats == pytest.approx(expected, rel=1e-6)


def test_a_file_is_scored_under_the_label_of_its_folder(tmp_path: Path) -> None:
    file = record_model()
    named = replace(file, reading=ReadingConfig(records="line", label_from="folder"))
    for label, other in (("sea", "sea"), ("sun", "sun"), ("moon", "")):
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.txt").write_text("Anna\r\n\r\nDora")
        expected = evaluate(file, jsonl([("Anna", other), ("Dora", other)]))
        unknown = () if other else (label,)
        expected = replace(expected, unknown_labels=unknown)
        assert evaluate(named, tmp_path / label / "x.txt") == expected
        assert evaluate(named, sources=[tmp_path / label]) == expected
    assert evaluate(named, "Anna\nDora") == replace(expected, unknown_labels=())


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("number", [0, 127, 128, 191, 192])
def test_a_record_of_any_label_counts_the_same_among_bytes(direction: str, number: int) -> None:
    file = record_model("byte", [f"l{label}" for label in range(200)])
    table = [("ée", f"l{number}"), ("é", f"l{number}")]
    found = evaluate(file, jsonl(table), direction=direction)
    assert (found.characters, found.bytes, found.records) == (5, 7, 2)
    assert found.nats == pytest.approx(naive_nats(file, table, direction), rel=1e-5)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_folded_unseen_and_skipped_characters_of_records_are_counted(direction: str) -> None:
    file, text = record_model(folded="qx"), jsonl([("aq", ""), ("z漢w", "sea"), ("ax", "")])
    found = evaluate(file, text, direction=direction)
    assert (found.folded, found.unseen, found.unseen_characters, found.characters) == (2, 2, "wz", 10)
    assert found.bytes == len("aqz漢wax".encode()) + 3
    plain = record_model()
    found = evaluate(plain, text, direction=direction)
    assert (found.skipped, found.characters, found.bytes) == (4, 6, 8)
    assert found.unseen_characters == "qwxz"
    with pytest.raises(DataError, match="unknown to the model"):
        evaluate(plain, text, direction=direction, unknown="error")


def test_a_model_needs_to_know_how_records_are_read() -> None:
    file = record_model()
    network, text = build_model(file), jsonl([("Anna", "sun")])
    assert evaluate(network, file.vocabulary, text, reading=file.reading).nats == evaluate(file, text).nats
    with pytest.raises(SettingError, match="reading must say what the records of this model are") as caught:
        evaluate(network, file.vocabulary, text)
    assert caught.value.setting == "reading"
    with pytest.raises(SettingError, match="reading must say"):
        evaluate(small_model(), "abc", reading=file.reading)
    with pytest.raises(DataError, match="line 1 is no JSON"):
        evaluate(file, "Anna")


def test_a_subset_is_a_part_of_the_records() -> None:
    file = record_model(labels=())
    table = [(name, "") for name in names(5, 200)]
    ids = file.vocabulary.encode("".join("\udfff" + name for name, _ in table))
    network = build_model(file)
    whole = evaluate_ids(network, ids, vocabulary=file.vocabulary)
    some = evaluate_ids(network, ids, vocabulary=file.vocabulary, limit=len(ids) // 2)
    assert (whole.records, whole.characters) == (200, len(ids))
    assert some.characters == len(ids) // 2
    assert 80 < some.records < 120
    assert some.mean == pytest.approx(whole.mean, rel=0.1)


# Models that follow a text.


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_reader_that_does_not_learn_scores_records_as_ever(direction: str) -> None:
    file = record_model()
    table = [(name, LABELS[len(name) % 2]) for name in names(5, 20)]
    ids = file.vocabulary.encode("".join(file.vocabulary.begin_mark(label) + name for name, label in table))
    network = build_model(file)
    rms = rms_gradients(network, file.vocabulary, ids, direction=direction)
    still = DynamicEvaluator(network, file.vocabulary, rms, Rates(0.0, 0.0), direction=direction)
    expected = evaluate(file, jsonl(table), direction=direction, rows=1)
    assert sum_losses(still.losses(ids)).nats == pytest.approx(expected.nats, rel=1e-5)
    follows = DynamicEvaluator(network, file.vocabulary, rms, ADAPT, direction=direction)
    assert sum_losses(follows.losses(ids)).nats < expected.nats


def test_a_model_follows_records_that_are_read_as_its_own() -> None:
    file = record_model()
    table = [(name, LABELS[len(name) % 2]) for name in names(5, 60)]
    other = jsonl([(name, LABELS[0]) for name in names(6, 60)])
    found = evaluate(file, jsonl(table), dynamic=True, tune=other)
    assert found.nats_per_character < found.static_nats_per_character
    assert found.tail == sum(len(name) + 1 for name in names(6, 60))
    adapted = adapt_model(file, jsonl(table), times=1, rates=ADAPT)
    assert evaluate(replace(file, arrays=adapted.arrays), jsonl(table)).nats < evaluate(file, jsonl(table)).nats


def test_any_number_of_labels_that_the_model_does_not_know_count_as_none() -> None:
    file = record_model()
    rows = [(f"name {number}", f"label {number}") for number in range(MAX_LABELS + 1)]
    result = evaluate(file, jsonl(rows), unknown="skip")
    assert result.nats == pytest.approx(evaluate(file, jsonl((text, "") for text, _ in rows), unknown="skip").nats)
    assert len(result.unknown_labels) == MAX_LABELS + 1


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_rows_that_begin_inside_a_long_record_are_told_its_label(
    direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "WARMUP", 3)
    file, size, rows = record_model(), 4_000, 8
    model, text = build_model(file), file.vocabulary.encode(("anna" * size)[:size])
    before = file.vocabulary.encode(file.vocabulary.begin_mark(LABELS[0]))
    nats = {}
    for label in LABELS:
        marked = np.append(file.vocabulary.begin_id(label), text)
        ids = np.concatenate([before, marked] if direction == "forward" else [marked, before])
        nats[label] = np.zeros(size + 3)
        options: Any = {"vocabulary": file.vocabulary, "rows": rows, "direction": direction}
        evaluate_ids(model, ids, **options, watch=lambda places, values, out=nats[label]: np.put(out, places, values))
    differs = nats["sea"] != nats["sun"]
    assert all(differs[1 + row * (size + 2) // rows] for row in range(1, rows))
    assert differs[:9].any()
    assert not differs.all()  # a label is forgotten in the end


def test_a_row_that_begins_with_a_record_reads_that_records_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "WARMUP", 4)
    file = record_model()
    ids = file.vocabulary.encode(
        "".join(file.vocabulary.begin_mark(label) + "annanna" for label in ("sea", "sun", "sea"))
    )
    nats = np.zeros((2, len(ids) + 1))
    for rows in (1, 2):  # the second reads from the beginning of the second record, and scores from its middle on
        options: Any = {"vocabulary": file.vocabulary, "rows": rows}
        evaluate_ids(build_model(file), ids, **options, watch=partial(np.put, nats[rows - 1]))
    np.testing.assert_allclose(nats[1], nats[0], atol=1e-5)
