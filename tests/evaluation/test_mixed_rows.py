"""Counts mixed into predictions for ids of rows: as in each whole row, whatever stands beside it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.decoding.choose import log_softmax
from chargen.evaluation.mixed_rows import MixedRows
from tests.evaluation.test_losses_with_counts import ORDER, TEXT, counted


def compare(rows: list[np.ndarray], chosen: list[tuple[int, int]]) -> None:
    """Mix for some ids of rows together, and for each alone in its row."""
    mixture, draws = counted().mixtures["forward"], np.random.default_rng(0)
    which, positions = np.array(chosen, np.int64).reshape(-1, 2).T
    logits = draws.normal(size=(len(chosen), 10)).astype(np.float32)
    mixed = MixedRows(mixture, rows)
    log_probs = mixed.mix(which, positions, logits)
    some = slice(1, None)
    costs = mixed.nats(which, positions, some, logits[some])
    for number, (row, at) in enumerate(chosen):
        expected = np.log(mixture.probabilities(rows[row][:at], logits[number]))
        np.testing.assert_allclose(log_probs[number], expected, atol=1e-5)
        if at == 0:
            np.testing.assert_allclose(expected, log_softmax(logits[number]), atol=1e-5)
        if number:
            assert costs[number - 1] == pytest.approx(-expected[rows[row][at]], abs=1e-5)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 40)), min_size=1, max_size=5), st.data())  # fmt: skip
def test_ids_of_rows_are_mixed_as_in_their_whole_row(stretches: list[tuple[int, int]], data: st.DataObject) -> None:
    ids = counted().vocabulary.encode(TEXT)
    rows = [ids[start : start + length] for start, length in stretches]
    places = [(row, at) for row, (_, length) in enumerate(stretches) for at in range(length)]
    compare(rows, data.draw(st.lists(st.sampled_from(places), max_size=12)))


def test_no_context_reaches_into_the_row_before() -> None:
    encode = counted().vocabulary.encode
    rows = [encode(text) for text in ("bad ", "cab", "face", "\n", "head")]  # one behind the other they are the text
    compare(rows, [(row, at) for row, ids in enumerate(rows) for at in range(len(ids))])


def test_a_window_of_a_long_row_copies_no_more_than_contexts_need() -> None:
    class Text(np.ndarray):
        longest = 0

        def __getitem__(self, index: Any) -> Any:
            part = np.asarray(self).__getitem__(index)
            Text.longest = max(Text.longest, np.size(part))
            return part

    mixture = counted().mixtures["forward"]
    row = np.zeros(10_000, np.uint8).view(Text)
    mixed = MixedRows(mixture, [row])
    places = np.arange(5000, 5020)
    mixed.nats(np.zeros(20, np.int64), places, slice(None), np.ones((20, mixture.tree.size)))
    assert Text.longest == 20 + ORDER - 1
