"""Kneser-Ney: beside the slow twin, a worked example, and what every model of probabilities must do."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.counting import ngram
from chargen.counting.gram_counts import FALLBACK, estimate_discounts
from chargen.counting.ngram import NGram
from chargen.errors import ArgumentError, SettingError
from tests import naive


def random_ids(seed: int, length: int, size: int, stickiness: float = 0.6) -> np.ndarray:
    """Ids that repeat themselves: at each place a piece of what came before goes on, or a new id is drawn."""
    random = np.random.default_rng(seed)
    ids, at = [0], 0
    for _ in range(length - 1):
        at = at + 1 if random.random() < stickiness and at + 1 < len(ids) else int(random.integers(len(ids)))
        ids.append(ids[at] if random.random() < 0.8 else int(random.integers(size)))
    return np.array(ids[:length], np.uint8)


def records(seed: int, length: int, end: int, labels: int) -> np.ndarray:
    """Records of ids below `end`, each behind the end symbol or a label's."""
    ids = random_ids(seed, length, end)
    random = np.random.default_rng(seed + 1)
    borders = random.random(length) < 0.15
    ids[borders] = end + random.integers(0, labels + 1, borders.sum())
    ids[0] = end
    return ids


@pytest.mark.parametrize("order", [1, 2, 3, 5, 9, 20])
@pytest.mark.parametrize(("seed", "size"), [(0, 2), (1, 5), (2, 30)])
def test_the_slow_twin_says_the_same(seed: int, size: int, order: int) -> None:
    ids, others = random_ids(seed, 400, size), random_ids(seed + 9, 150, size)
    others[50:90] = ids[200:240]
    model, twin = NGram(ids, size, order), naive.KneserNey(ids.tolist(), size, order)
    for text in (others, ids, ids[-3:], ids[:0]):
        np.testing.assert_allclose(model.log_probs(text), twin.log_probs(text.tolist()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 6, 12])
@pytest.mark.parametrize(("seed", "labels"), [(0, 0), (1, 3)])
def test_the_slow_twin_says_the_same_of_records(seed: int, labels: int, order: int) -> None:
    end, size = 4, 5 + labels
    ids, others = records(seed, 400, end, labels), records(seed + 5, 100, end, labels)
    others[40:80] = ids[100:140]
    model, twin = NGram(ids, size, order, end_id=end), naive.KneserNey(ids.tolist(), size, order, end)
    for text in (others, ids):
        np.testing.assert_allclose(model.log_probs(text), twin.log_probs(text.tolist()), rtol=0, atol=1e-12)


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=12), st.integers(1, 8))
def test_the_slow_twin_says_the_same_of_any_text(ids: list[int], others: list[int], order: int) -> None:
    model, twin = NGram(np.array(ids, np.uint8), 3, order), naive.KneserNey(ids, 3, order)
    np.testing.assert_allclose(model.log_probs(np.array(others, np.uint8)), twin.log_probs(others), rtol=0, atol=1e-12)


def test_every_order_is_the_model_of_that_order() -> None:
    ids, others = random_ids(3, 500, 6), random_ids(4, 200, 6)
    rows = np.concatenate(list(NGram(ids, 6, 7).log_probs_by_order(others)), axis=1)
    assert rows.shape == (7, 200)
    for order, row in enumerate(rows, 1):
        np.testing.assert_allclose(row, NGram(ids, 6, order).log_probs(others), rtol=0, atol=1e-12)


@pytest.mark.parametrize("end", [None, 4])
def test_probabilities_sum_to_one_behind_any_context(end: int | None) -> None:
    ids = records(0, 300, 4, 2) if end else random_ids(0, 300, 7)
    model, random = NGram(ids, 7, 5, end_id=end), np.random.default_rng(1)
    contexts = [random.integers(0, 7, length) for length in (0, 1, 2, 4, 9) for _ in range(20)]
    contexts += [ids[start : start + 6] for start in (0, 17, 120, 294)]
    targets = range(7 if end is None else end + 1)
    for context in contexts:
        probabilities = [np.exp(model.log_probs(np.append(context, target))[-1]) for target in targets]
        assert sum(probabilities) == pytest.approx(1, abs=1e-12)
        assert min(probabilities) > 0


def test_a_worked_example() -> None:
    """abab: counts by hand, with the discounts 0.5, 1 and 1.5, as there are too few counts to estimate any."""
    model = NGram(np.array([0, 1, 0, 1]), 3, 2)
    # Single characters by what precedes them: a has two, the beginning and b; b has one, a. Of 3 in all, both together
    # leave 1 + 0.5 for the uniform distribution.
    a, b, c = (2 - 1 + 1.5 / 3) / 3, (1 - 0.5 + 1.5 / 3) / 3, 1.5 / 3 / 3
    # Behind a stands b, twice, which leaves 1 of 2; behind b stands a, once, which leaves 0.5 of 1.
    expected = {
        (0, 0): a / 2, (0, 1): (2 - 1) / 2 + b / 2, (0, 2): c / 2,
        (1, 0): 0.5 + a / 2, (1, 1): b / 2, (1, 2): c / 2,
        (2, 0): a, (2, 1): b, (2, 2): c,
    }  # fmt: skip
    for (before, target), probability in expected.items():
        assert np.exp(model.log_probs(np.array([before, target]))) == pytest.approx([[a, b, c][before], probability])


def test_a_worked_example_of_single_characters() -> None:
    """abracadabra: a 5, b 2, r 2, c 1, d 1; an unseen z; discounts 0.5, 1, 1.5, as no character occurs three times."""
    ids = np.array(["abcdrz".index(letter) for letter in "abracadabra"])
    left = (1.5 + 1 + 1 + 0.5 + 0.5) / 11
    expected = [3.5 / 11 + left / 6, 1 / 11 + left / 6, 0.5 / 11 + left / 6, 0.5 / 11 + left / 6, 1 / 11 + left / 6,
                left / 6]  # fmt: skip
    assert np.exp(NGram(ids, 6, 1).log_probs(np.arange(6))) == pytest.approx(expected)


def test_a_record_is_worth_the_same_behind_any_other() -> None:
    ids, record = records(0, 300, 4, 1), [0, 2, 1, 4]
    model = NGram(ids, 6, 6, end_id=4)
    for begin in (4, 5):
        first, second = (model.log_probs(np.array([*before, begin, *record])) for before in ([4, 1, 1, 2], [4, 3]))
        np.testing.assert_array_equal(first[-4:], second[-4:])


def test_discounts_are_those_of_the_formula() -> None:
    counts = np.repeat([1, 2, 3, 4, 9], [10, 6, 3, 2, 4])
    share = (10 + 4) / (10 + 4 + 12)
    assert estimate_discounts(counts, once=4) == pytest.approx(
        (1 - 2 * share * 6 / 14, 2 - 3 * share * 3 / 6, 3 - 4 * share * 2 / 3)
    )
    assert estimate_discounts(np.repeat([1, 2, 3], [5, 0, 2])) == FALLBACK
    assert estimate_discounts(np.repeat([1, 2, 3], [5, 1, 9])) == FALLBACK, "a discount below 0 would be none"


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, others = records(0, 300, 4, 1), records(7, 200, 4, 1)
    model = NGram(ids, 6, 6, end_id=4)
    whole = model.log_probs(others)
    monkeypatch.setattr(ngram, "BLOCK", 7)
    np.testing.assert_array_equal(model.log_probs(others), whole)


def test_samples_are_drawn_from_the_probabilities() -> None:
    ids = random_ids(5, 200, 4)
    model, context = NGram(ids, 4, 4), [1, 2]
    drawn = [model.sample(2, seed, context).tolist() for seed in range(1500)]
    for pair in product(range(4), repeat=2):
        share = np.exp(model.log_probs(np.array([*context, *pair]))[-2:].sum())
        assert drawn.count(list(pair)) / 1500 == pytest.approx(
            share, abs=4 * np.sqrt(share * (1 - share) / 1500) + 1e-3
        )


@pytest.mark.parametrize("times", [1, 20])
def test_a_sample_of_records_does_not_look_across_borders(times: int) -> None:
    model = NGram(np.array([3, 0, 1, 3, 0, 2, 3, 1, 1, 3] * times), 4, 5, end_id=3)
    written = model.sample(400, 3, [3])
    assert {3} < set(written.tolist()) < {0, 1, 2, 3, 4}
    np.testing.assert_array_equal(model.sample(60, 3, [3]), written[:60])
    np.testing.assert_array_equal(model.sample(60, 3, [0, 1, 3]), written[:60])
    assert not np.array_equal(model.sample(60, 4, [3]), written[:60])


def test_a_sample_of_labelled_records_begins_them_as_the_text_does() -> None:
    """Behind the end symbol itself, which stands nowhere in the text, single ids would begin them."""
    written = NGram(np.array([4, 0, 1, 5, 0, 2] * 200), 6, 3, end_id=3).sample(900, 0, [4])
    firsts, seconds = written[1:][written[:-1] == 3], written[2:][written[:-2] == 3]
    assert (firsts == 0).mean() > 0.95
    assert 0.35 < (seconds == 1).mean() < 0.65, "the labels are as frequent as in the text"


@pytest.mark.parametrize("ids", [[], [0], [0, 0, 0]])
def test_the_shortest_texts(ids: list[int]) -> None:
    model = NGram(np.array(ids, np.uint8), 2, 3)
    probabilities = np.exp([model.log_probs(np.array([0, target]))[-1] for target in (0, 1)])
    assert probabilities.sum() == pytest.approx(1)
    assert (probabilities[0] == 0.5) == (not ids)
    assert len(model.sample(5)) == 5


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, ">i4", np.int64])
def test_ids_may_be_of_any_type_of_whole_numbers(dtype: object) -> None:
    model = NGram(np.append(random_ids(0, 300, 4), 300), 305, 3, end_id=300)
    small = np.array([0, 2, 1, 3, 3])
    np.testing.assert_array_equal(model.log_probs(small.astype(dtype)), model.log_probs(small))
    assert NGram(small.astype(dtype), 305, 3, end_id=300).log_probs(small[:0]).shape == (0,)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SettingError, match="order is 0"):
        NGram(np.array([0]), 1, 0)
    with pytest.raises(SettingError, match="order is 101"):
        NGram(np.array([0]), 1, 101)
    with pytest.raises(ArgumentError, match="ids from 0 to 2"):
        NGram(np.array([0, 2]), 2)
    with pytest.raises(ArgumentError, match="ids from -1 to -1"):
        NGram(np.array([0, 1]), 2).log_probs(np.array([-1]))
