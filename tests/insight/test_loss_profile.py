"""Losses by kind of character, by distance, and calibration, against loops over characters."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.insight.loss_profile import CLASSES, calibrate, classify, loss_by_class, loss_by_distance

lists = st.lists(st.floats(-30, 0) | st.just(math.nan), max_size=60)


@pytest.mark.parametrize(
    ("name", "characters"),
    [
        ("letters", "aZéß漢שجही\u0301\u094d"),
        ("digits", "09٣½Ⅷ²"),
        ("spaces", " \t\u00a0\u3000"),
        ("punctuation", ".,;!?'\"()[]{}-_—«»。、/\\@#%&*+=<>$€^`|~"),
        ("line ends", "\n\r\u2028\u0085"),
        ("others", "\x00\x1b\u202e\u200d\ue000\udc80😀✓"),
    ],
)
def test_each_class_has_its_characters(name: str, characters: str) -> None:
    assert {CLASSES[number] for number in classify(characters)} == {name}


@given(st.text(st.sampled_from("aé1 .\n\t😀")), st.data())
def test_losses_by_class_are_those_of_a_loop(text: str, data: st.DataObject) -> None:
    values = st.lists(st.floats(-30, 0) | st.just(math.nan), min_size=len(text), max_size=len(text))
    log_probs = data.draw(values)
    table = loss_by_class(text, np.array(log_probs, np.float32))
    expected: dict[str, list[float]] = {name: [] for name in CLASSES}
    for number, value in zip(classify(text), log_probs, strict=True):
        if not math.isnan(value):
            expected[CLASSES[number]].append(-value)
    assert table.names == CLASSES
    assert table.counts.tolist() == [len(losses) for losses in expected.values()]
    assert table.nats == pytest.approx([math.fsum(losses) for losses in expected.values()], rel=1e-5)
    means = [math.fsum(losses) / len(losses) if losses else math.nan for losses in expected.values()]
    assert table.means == pytest.approx(means, rel=1e-5, nan_ok=True)


@given(lists, st.integers(1, 40))
def test_losses_by_distance_are_those_of_a_loop(log_probs: list[float], period: int) -> None:
    distances = [at % period for at in range(len(log_probs))]
    table = loss_by_distance(np.array(distances, np.int64), np.array(log_probs))
    for number, name in enumerate(table.names):
        first, _, last = name.partition("\u2013")
        members = range(int(first), int(last or first) + 1)
        losses = [-value for at, value in zip(distances, log_probs, strict=True)
                  if at in members and not math.isnan(value)]  # fmt: skip
        assert table.counts[number] == len(losses)
        assert table.nats[number] == pytest.approx(math.fsum(losses))
    assert table.counts.sum() == sum(not math.isnan(value) for value in log_probs)


def test_distances_double() -> None:
    table = loss_by_distance(np.arange(2000), np.zeros(2000))
    assert table.names[:5] == ("0", "1", "2\u20133", "4\u20137", "8\u201315")
    assert table.names[-1] == "1,024\u20132,047"
    assert table.counts.tolist() == [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 2000 - 1024]


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), max_size=50), st.integers(1, 12))
def test_calibration_is_that_of_a_loop(pairs: list[tuple[float, bool]], num_bins: int) -> None:
    curve = calibrate(np.array([p for p, _ in pairs]), np.array([came for _, came in pairs], bool), num_bins)
    error = 0.0
    for number in range(num_bins):
        inside = [pair for pair in pairs if min(int(pair[0] * num_bins), num_bins - 1) == number]
        assert curve.counts[number] == len(inside)
        if inside:
            predicted, observed = (sum(values) / len(inside) for values in zip(*inside, strict=True))
            assert curve.predicted[number] == pytest.approx(predicted)
            assert curve.observed[number] == pytest.approx(observed)
            assert curve.edges[number] <= predicted <= curve.edges[number + 1]
            error += abs(predicted - observed) * len(inside) / len(pairs)
        else:
            assert math.isnan(curve.predicted[number])
    assert curve.error == pytest.approx(error)


def test_a_calibrated_model_is_found_calibrated() -> None:
    random = np.random.default_rng(0)
    probabilities = random.random(200_000)
    came_true = random.random(200_000) < probabilities
    assert calibrate(probabilities, came_true).error < 0.01
    assert calibrate(probabilities**2, came_true).error > 0.1
