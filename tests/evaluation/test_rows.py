"""Rows of ids that are read side by side: how many, and that nothing follows from that."""

from typing import Any

import numpy as np
import pytest

from chargen.evaluation import rows
from chargen.evaluation.rows import predict, read_rows
from chargen.storage.model_file import build_model
from tests.small_models import count_ids_read, small_model


@pytest.mark.parametrize(("length", "expected"), [(9, 300), (64, 256), (100, 163), (128, 128), (1000, 128)])
def test_short_rows_are_read_more_at_a_time(length: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, read = build_model(small_model()), []
    before = rows._read_before
    monkeypatch.setattr(rows, "_read_before", lambda *words: read.append(words[1].shape[0]) or before(*words))
    for _ in read_rows(network, [np.zeros(length, np.int64)] * 300):
        pass
    assert read[0] == expected
    assert sum(read) == 300


def test_no_more_rows_are_read_at_a_time_than_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_model(small_model())
    sizes = count_ids_read(network, monkeypatch)
    for _ in read_rows(network, [np.zeros(length, np.int64) for length in [100] * 70 + [50] * 30]):
        pass
    assert sizes == [70 * 99, 30 * 49]


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_what_is_read_does_not_depend_on_how_many_are_read_at_a_time(
    direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, random = build_model(small_model("gru", bidirectional=True)), np.random.default_rng(0)
    texts = [random.integers(0, 10, length) for length in random.integers(0, 30, 200)]
    judge = "cloze" if direction == "both" else "forward"

    def logits() -> Any:
        values: dict[tuple[int, int], Any] = {}
        for window in read_rows(network, texts, direction=direction):
            places = zip(window.rows.tolist(), window.positions.tolist(), strict=True)
            values |= zip(places, predict(network, window, judge, np.zeros(10)).numpy(), strict=True)
        return np.array([values[place] for place in sorted(values)])

    at_once = logits()
    monkeypatch.setattr(rows, "AT_A_TIME", 1)
    monkeypatch.setattr(rows, "SIDE_BY_SIDE", 7)
    assert len(at_once) == sum(map(len, texts))
    assert np.abs(logits() - at_once).max() < 1e-5
