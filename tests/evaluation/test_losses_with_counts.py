"""The loss of network and counts: id by id what their mixture costs, however a text is cut to be read."""

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen import evaluate
from chargen.evaluation import loss
from chargen.evaluation.dynamic import FLOOR, SEGMENT, DynamicEvaluator, Rates, rms_gradients
from chargen.evaluation.loss import evaluate_ids, sum_losses
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


@pytest.mark.parametrize("unit", ["character", "folded", "byte"])
@settings(max_examples=15)
@given(texts, st.sampled_from(DIRECTIONS), st.none() | st.integers(1, 9))
def test_a_text_costs_what_the_mixture_says_id_by_id(unit: str, text: str, direction: str, rows: int | None) -> None:
    file, text = counted(unit), f"b{text}a"  # two characters that it knows
    found = evaluate(file, text, direction=direction, rows=rows)
    ids = file.vocabulary.encode(text, file.vocabulary.default_unknown)[:: -1 if direction == "backward" else 1]
    extra = file.vocabulary.extra_nats(text).sum()
    assert found.nats == pytest.approx(naive.mixed_costs(file, ids, direction).sum() + extra, rel=1e-5)
    assert found.network_nats == pytest.approx(naive.mixed_costs(alone(file), ids, direction).sum() + extra, rel=1e-5)
    assert found.has_counts or len(text) <= ORDER
    plain = evaluate(alone(file), text, direction=direction, rows=rows)
    assert not plain.has_counts
    assert found.network_nats == pytest.approx(plain.nats, rel=1e-6)
    same = "characters", "bytes", "folded", "unseen", "skipped"
    assert [getattr(found, name) for name in same] == [getattr(plain, name) for name in same]


letters = st.sampled_from(sorted({*"".join(names(5, 30)), "é"}))
tables = st.lists(st.tuples(st.text(letters, min_size=1, max_size=6) | st.sampled_from(names(5, 60)),
                            st.sampled_from([*LABELS, "moon", ""])), min_size=1, max_size=6)  # fmt: skip


@pytest.mark.parametrize("unit", ["character", "byte"])
@settings(max_examples=15)
@given(tables, st.sampled_from(DIRECTIONS), st.integers(1, 4))
def test_records_cost_what_each_costs_alone(unit: str, table: Any, direction: str, rows: int) -> None:
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


# Models that follow a text.


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_network_follows_a_text_and_counts_stay_as_they_are(cell: str) -> None:
    """Weights change by what segments cost the network; what they cost network and counts is mixed afterwards."""
    file = with_counts(small_model(cell, scale=1.5), TEXT, ORDER)
    rates, vocabulary, mixture = Rates(0.02, 0.3), file.vocabulary, file.mixtures["forward"]
    ids = vocabulary.encode(TEXT[20 : 21 + 3 * SEGMENT])
    model, slow = build_model(file), build_model(file)
    usual, state, before = rms_gradients(model, vocabulary, ids), None, [int(ids[0])]
    evaluator = DynamicEvaluator(model, vocabulary, usual, rates, mixture=mixture)
    read = torch.from_numpy(ids.astype(np.int64))
    for segment in evaluator.losses(ids):
        place = len(before) - 1
        targets = read[place + 1 : place + 1 + SEGMENT]
        scores, state = slow(read[None, place : place + SEGMENT], state)
        state = tuple(layer.detach() for layer in state)
        nats = []
        for logits, target in zip(scores[0].detach().numpy(), targets.tolist(), strict=True):
            nats.append(-np.log(mixture.probabilities(np.array(before), logits)[target]))
            before.append(target)
        cost = torch.nn.functional.cross_entropy(scores[0], targets)
        assert segment.nats == pytest.approx(math.fsum(nats), rel=1e-4)
        assert segment.network_nats == pytest.approx(SEGMENT * cost.item(), rel=1e-4)
        gradients = list(torch.autograd.grad(cost, list(slow.parameters())))
        naive.learn_from_segment(
            list(slow.parameters()), list(model.parameters()), gradients, usual, rates.lr, rates.decay, FLOOR
        )
    assert len(before) == len(ids)


@pytest.mark.parametrize("records", [False, True])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_model_with_counts_follows_a_text_as_its_network_does(records: bool, direction: str) -> None:
    if records:
        file, text = counted_records(), jsonl([(name, LABELS[len(name) % 2]) for name in names(5, 20)])
        options = {"tune": jsonl([(name, "") for name in names(6, 20)])}
    else:
        file, text, options = counted(), TEXT, {"tune": TEXT[:100][::-1]}
    found = evaluate(file, text, direction=direction, dynamic=True, **options)
    plain = evaluate(alone(file), text, direction=direction, dynamic=True, **options)
    assert found.dynamic == plain.dynamic
    assert found.network_nats == pytest.approx(plain.nats, rel=1e-5)
    static = evaluate(file, text, direction=direction, rows=1)
    assert found.static_nats_per_character == pytest.approx(static.nats_per_character, rel=1e-5)
    assert found.network_nats < static.network_nats


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_reader_that_does_not_learn_mixes_as_ever(direction: str) -> None:
    for file, text in ((counted("byte"), "f\xe9e bad " * 20), (counted("folded"), "axe bad xyz " * 20)):
        ids, model = file.vocabulary.encode(text, "replace"), build_model(file)
        rms = rms_gradients(model, file.vocabulary, ids, direction=direction)
        mixture = file.mixtures[direction]
        still = DynamicEvaluator(model, file.vocabulary, rms, Rates(0.0, 0.0), direction=direction, mixture=mixture)
        expected = evaluate(file, text, direction=direction, rows=1)
        losses = sum_losses(still.losses(ids))
        assert losses.nats == pytest.approx(expected.nats, rel=1e-5)
        assert losses.network_nats == pytest.approx(expected.network_nats, rel=1e-5)
