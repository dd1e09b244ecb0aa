"""The loss of network and counts: id by id what their mixture costs, however a text is cut to be read."""

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen import evaluate
from chargen.evaluation import loss
from chargen.evaluation.loss import evaluate_ids
from chargen.evaluation.mixed_rows import MixedRows
from chargen.storage.model_file import ModelFile, build_model
from tests import naive
from tests.evaluation.test_record_losses import LABELS, jsonl, record_model
from tests.small_models import small_model, with_counts
from tests.texts import names

TEXT = "bad cab face\nhead bead deaf\nabc abc abd\n" * 4
DIRECTIONS = ["forward", "backward"]
ORDER = 5


@cache
def counted(unit: str = "character", *, order: int = ORDER, scale: float = 1.5, max_bytes: float = np.inf) -> ModelFile:
    """A two-way model of text with counts; in other units than characters, of some more of them."""
    text = {"character": TEXT, "folded": TEXT + "axe yaz x", "byte": TEXT + "fée 漢字 fée 漢字"}[unit]
    kind, folded = "byte" if unit == "byte" else "character", "xyz" if unit == "folded" else ""
    file = small_model(unit=kind, folded=folded, scale=scale, bidirectional=True)
    return with_counts(file, text, order, max_bytes=max_bytes)


@cache
def counted_records(unit: str = "character") -> ModelFile:
    file = record_model(unit)
    marks = [file.vocabulary.begin_mark(label) for label in (None, *LABELS)]
    return with_counts(file, "".join(marks[at % 3] + name for at, name in enumerate(names(5, 60))), ORDER)


def alone(file: ModelFile) -> ModelFile:
    return replace(file, mixtures={})


texts = st.text("abcdefgh \nxzé漢\U0001f600", min_size=1, max_size=40)


@given(
    texts, st.sampled_from(["character", "folded", "byte"]), st.sampled_from(DIRECTIONS), st.none() | st.integers(1, 9)
)
def test_a_text_costs_what_the_mixture_says_id_by_id(text: str, unit: str, direction: str, rows: int | None) -> None:
    file, text = counted(unit), f"b{text}a"  # two characters that it knows
    found = evaluate(file, text, direction=direction, rows=rows)
    ids = file.vocabulary.encode(text, file.vocabulary.default_unknown)[:: -1 if direction == "backward" else 1]
    extra = file.vocabulary.extra_nats(text).sum()
    assert found.nats == pytest.approx(naive.mixed_costs(file, ids, direction).sum() + extra, rel=1e-5)
    assert found.network_nats == pytest.approx(naive.mixed_costs(alone(file), ids, direction).sum() + extra, rel=1e-5)
    assert found.has_counts
    plain = evaluate(alone(file), text, direction=direction, rows=rows)
    assert not plain.has_counts
    assert found.network_nats == pytest.approx(plain.nats, rel=1e-6)
    same = "characters", "bytes", "folded", "unseen", "skipped"
    assert [getattr(found, name) for name in same] == [getattr(plain, name) for name in same]


letters = st.sampled_from(sorted({*"".join(names(5, 30)), "é"}))
tables = st.lists(st.tuples(st.text(letters, min_size=1, max_size=6) | st.sampled_from(names(5, 60)),
                            st.sampled_from([*LABELS, "moon", ""])), min_size=1, max_size=6)  # fmt: skip


@given(tables, st.sampled_from(["character", "byte"]), st.sampled_from(DIRECTIONS), st.integers(1, 4))
def test_records_cost_what_each_costs_alone(table: Any, unit: str, direction: str, rows: int) -> None:
    """So no context reaches from one into the next, and all labels share the counts."""
    file = counted_records(unit)
    found = evaluate(file, jsonl(table), direction=direction, rows=rows, by_label=True)
    nats: dict[str, list[float]] = {}
    ends = []
    for text, label in table:
        known = label if label in LABELS else ""
        ids = file.vocabulary.encode(text)[:: -1 if direction == "backward" else 1]
        order = [file.vocabulary.begin_id(known or None), *ids, file.vocabulary.end_id]
        costs = naive.mixed_costs(file, order, direction)
        nats.setdefault(known, []).append(costs.sum())
        ends.append(costs[-1])
    assert found.nats == pytest.approx(math.fsum(map(math.fsum, nats.values())), rel=1e-5)
    assert found.end_nats == pytest.approx(math.fsum(ends), rel=1e-5)
    assert {label: score.nats for label, score in found.by_label.items()} == pytest.approx(
        {label: math.fsum(costs) for label, costs in nats.items()}, rel=1e-5
    )
    plain = evaluate(alone(file), jsonl(table), direction=direction, rows=rows)
    assert found.network_nats == pytest.approx(plain.nats, rel=1e-6)


# A network without weights expects every id alike, wherever it began to read: what differs is due to counts.


@cache
def blank(records: bool = False) -> ModelFile:
    file = counted_records() if records else counted()
    return replace(file, arrays={name: 0 * array for name, array in file.arrays.items()})


def watched(file: ModelFile, ids: np.ndarray, direction: str, **options: Any) -> tuple[Any, np.ndarray]:
    """The loss of ids, and what each cost; NaN for those that were not scored."""
    nats = np.full(len(ids) + 1, np.nan)
    options |= {"vocabulary": file.vocabulary, "direction": direction, "mixture": file.mixtures[direction]}
    total = evaluate_ids(build_model(file), ids, **options, watch=lambda places, values: np.put(nats, places, values))
    return total, nats[: len(ids) + file.vocabulary.records]


@pytest.mark.parametrize("records", [False, True])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_contexts_reach_back_across_rows_and_windows(
    records: bool, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "WARMUP", ORDER)
    file = blank(records)
    marks = [file.vocabulary.begin_mark(label) for label in (None, *LABELS)] if records else [" "]
    words = names(5, 60) if records else TEXT.split()
    ids = file.vocabulary.encode("".join(marks[at % len(marks)] + word for at, word in enumerate(words * 3)))
    assert len(ids) > 300  # and so windows
    total, nats = watched(file, ids, direction, rows=1)
    assert np.isfinite(nats[1:]).all()
    assert len({*nats.round(6)}) > 20
    for rows in (2, 7, 60):
        cut, others = watched(file, ids, direction, rows=rows)
        np.testing.assert_allclose(others[1:], nats[1:], rtol=1e-9)
        assert cut.nats == pytest.approx(total.nats, rel=1e-9)
    some, others = watched(file, ids, direction, rows=9, limit=90)
    scored = np.flatnonzero(np.isfinite(others))
    assert len(scored) == some.ids == 90
    # The end of the last record, with which reading backward begins, is left out; so the first one misses its border.
    left_out = records and direction == "backward"
    scored = scored[scored >= ORDER * left_out]
    np.testing.assert_allclose(others[scored], nats[scored + left_out], rtol=1e-9)


def test_processes_share_the_rows() -> None:
    file, ids = counted(), np.tile(counted().vocabulary.encode(TEXT), 3)
    whole, nats = watched(file, ids, "forward", rows=7)
    parts = [watched(file, ids, "forward", rows=7, share=lambda n, at=at: range(at * n // 3, (at + 1) * n // 3))
             for at in range(3)]  # fmt: skip
    for name in ("nats", "network_nats", "characters"):
        assert sum(getattr(part, name) for part, _ in parts) == pytest.approx(getattr(whole, name), rel=1e-6)
    assert (np.isfinite([nats for _, nats in parts]).sum(0)[1:] == 1).all()
    np.testing.assert_allclose(np.nansum([nats for _, nats in parts], 0), np.nan_to_num(nats), atol=1e-5)


@settings(max_examples=15)
@given(st.integers(1, 32), st.sampled_from(["character", "byte"]), st.sampled_from(DIRECTIONS))
def test_a_tree_of_nothing_but_single_ids_or_of_any_order_mixes_alike(order: int, unit: str, direction: str) -> None:
    text = "abd fabc\nbad cab"
    for max_bytes in (0.0, np.inf):
        file = counted(unit, order=order, max_bytes=max_bytes)
        assert (len(file.mixtures[direction].tree.labels) == 1) == (max_bytes == 0 or order == 1)
        found = evaluate(file, text, direction=direction)
        ids = file.vocabulary.encode(text)[:: -1 if direction == "backward" else 1]
        assert found.nats == pytest.approx(naive.mixed_costs(file, ids, direction).sum(), rel=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_counts_of_one_direction_leave_the_other_to_the_network(direction: str) -> None:
    whole = counted()
    file = replace(whole, mixtures={direction: whole.mixtures[direction]})
    for other in DIRECTIONS:
        expected = evaluate(whole if other == direction else alone(whole), TEXT, direction=other)
        assert evaluate(file, TEXT, direction=other) == expected


# Rows of which windows are mixed.


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.data())
def test_ids_of_rows_are_mixed_as_in_their_whole_row(lengths: list[int], data: st.DataObject) -> None:
    mixture = counted().mixtures["forward"]
    draws = np.random.default_rng(0)
    texts = counted().vocabulary.encode(TEXT)
    rows = [texts[(start := int(draws.integers(0, 50))) : start + length] for length in lengths]
    places = [(row, at) for row, length in enumerate(lengths) for at in range(length)]
    chosen = data.draw(st.lists(st.sampled_from(places), max_size=12))
    which, positions = (np.array(column, np.int64) for column in zip(*chosen, strict=True)) if chosen else ([], [])
    which, positions = np.array(which, np.int64), np.array(positions, np.int64)
    logits = draws.normal(size=(len(chosen), 10)).astype(np.float32)
    mixed = MixedRows(mixture, rows)
    log_probs = mixed.mix(which, positions, logits)
    nats = draws.uniform(0.1, 5, len(chosen))
    costs = mixed.nats(which, positions, nats, nats / 2)
    for number, (row, at) in enumerate(chosen):
        if at:
            expected = np.log(mixture.probabilities(rows[row][:at], logits[number]))
            np.testing.assert_allclose(log_probs[number], expected, atol=1e-5)
            own = mixture.nats(rows[row], np.array([at]), nats[[number]], nats[[number]] / 2)
            assert costs[number] == pytest.approx(own[0])
        else:
            assert (log_probs[number] == logits[number]).all()
            assert costs[number] == nats[number]


def test_a_window_of_a_long_row_copies_no_more_than_contexts_need() -> None:
    class Text(np.ndarray):
        longest = 0

        def __getitem__(self, index: Any) -> Any:
            part = np.asarray(self).__getitem__(index)
            Text.longest = max(Text.longest, np.size(part))
            return part

    row = np.zeros(10_000, np.uint8).view(Text)
    mixed = MixedRows(counted().mixtures["forward"], [row])
    places = np.arange(5000, 5020)
    mixed.nats(np.zeros(20, np.int64), places, np.ones(20), np.ones(20))
    assert Text.longest == 20 + ORDER - 1
