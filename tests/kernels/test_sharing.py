"""How threads share out a layer, by rule and by timing."""

import random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.kernels import threads
from chargen.kernels.sharing import PAIRS, TILES, VECTORS, Costs, Sharing, Work, fastest, microseconds, ways
from chargen.kernels.threads import AutoTuner, halves

SEVERAL = st.sampled_from([TILES, PAIRS, VECTORS])
WORKS = st.builds(Work, st.integers(1, 600), st.integers(1, 40), st.sampled_from([3, 4]), st.integers(1, 300))


@settings(max_examples=100)
@given(WORKS, SEVERAL, st.integers(1, 63), st.integers(1, 64))
def test_more_threads_are_never_predicted_to_be_slower_than_fewer(
    work: Work, costs: Costs, number: int, cores: int
) -> None:
    fewer, more = (fastest(work, costs, count, cores) for count in (number, number + 1))
    assert microseconds(more, work, costs, cores) <= microseconds(fewer, work, costs, cores)


@settings(max_examples=100)
@given(WORKS, SEVERAL, st.integers(1, 64), st.integers(1, 64))
def test_every_way_uses_threads_that_there_are_for_rows_and_hidden_units_that_there_are(
    work: Work, costs: Costs, number: int, cores: int
) -> None:
    choices = ways(work, costs, number, cores)
    assert choices[0] == fastest(work, costs, number, cores)
    assert len(set(choices)) == len(choices) <= number.bit_length() + 1
    assert Sharing(1, 1) in choices
    for choice in choices:
        assert 1 <= choice.teams <= work.rows
        assert 1 <= choice.members <= work.blocks
        assert choice.threads <= min(number, cores), "more threads than cores only wait for each other"


@settings(max_examples=50)
@given(WORKS, SEVERAL, st.integers(1, 64))
def test_more_rows_hidden_units_gates_and_characters_take_longer(work: Work, costs: Costs, number: int) -> None:
    least = microseconds(fastest(work, costs, number, number), work, costs, number)
    for name in work._fields:
        larger = work._replace(**{name: getattr(work, name) + 1})
        assert microseconds(fastest(larger, costs, number, number), larger, costs, number) >= least


@pytest.mark.parametrize(
    ("rows", "hidden", "costs", "number", "expected"),
    [
        (128, 384, TILES, 2, (2, 1)),  # no zeros either way: rows, since nobody waits then
        (32, 384, TILES, 2, (1, 2)),  # 16 rows for each would be padded to 32
        (96, 384, TILES, 2, (1, 2)),  # as 48 would be to 64
        (32, 32, TILES, 2, (1, 1)),  # hidden units of a single block cannot be shared out
        (32, 32, PAIRS, 2, (2, 1)),  # but pairs multiply 16 rows at once
        (32, 384, TILES, 16, (1, 12)),
        (32, 384, TILES, 8, (1, 6)),  # 8 would not be done sooner
        (128, 384, TILES, 16, (4, 4)),
        (64, 1024, TILES, 64, (2, 32)),
        (1024, 384, TILES, 16, (16, 1)),
        (8, 32, TILES, 64, (1, 1)),
    ],
)
def test_few_rows_share_out_hidden_units_or_use_fewer_threads(
    rows: int, hidden: int, costs: Costs, number: int, expected: tuple[int, int]
) -> None:
    assert fastest(Work(rows, hidden // 32, 3, 128), costs, number, number) == expected


MEASURED = {
    (128, 384): {(1, 1): 63.1, (2, 1): 40.1, (4, 1): 26.0, (8, 1): 25.3, (1, 4): 40.8, (2, 4): 22.7, (4, 4): 22.8},
    (128, 512): {(1, 1): 114.1, (2, 1): 59.8, (2, 2): 38.6, (4, 2): 24.6, (4, 4): 21.6, (1, 16): 34.7},
    (64, 1024): {(1, 1): 179.2, (2, 1): 96.1, (2, 2): 57.9, (1, 4): 64.4, (2, 4): 33.4, (2, 8): 34.8, (1, 16): 35.8},
}
"""Milliseconds of both passes of a GRU over 64 characters by B, H and sharing, on 16 cores of a busy host, with AMX."""


def test_predictions_fit_what_sixteen_cores_took() -> None:
    for (rows, hidden), measured in MEASURED.items():
        work = Work(rows, hidden // 32, 3, 64)
        predicted = {way: 2e-3 * microseconds(Sharing(*way), work, TILES, 16) for way in measured}
        assert predicted[1, 1] == pytest.approx(measured[1, 1], rel=0.15)
        for number in (1, 2, 4, 8, 16):
            possible = [way for way in measured if way[0] * way[1] <= number]
            assert measured[min(possible, key=predicted.__getitem__)] < 1.1 * min(map(measured.__getitem__, possible))


def test_halves_end_with_one() -> None:
    assert [halves(number) for number in (1, 2, 3, 16)] == [[1], [2, 1], [3, 1], [16, 8, 4, 2, 1]]


class Clock:
    """A machine on which ways take so long; the clock moves as they are taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.noise = 0.0, random.Random(0)
        monkeypatch.setattr(threads, "time", SimpleNamespace(monotonic=lambda: self.now))

    def run(self, tuner: AutoTuner[str], times: int, seconds: dict[str, float], late: float = 0.0) -> list[str]:
        """Choose so many times; a share `late` of them takes ten times as long."""
        chosen = []
        for _ in range(times):
            way = tuner.choose()
            spent = seconds[way] * (10 if self.noise.random() < late else 1)
            self.now += spent
            tuner.record(way, spent)
            chosen.append(way)
        return chosen


def test_the_fastest_way_is_taken_and_the_others_seldom_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seconds = Clock(monkeypatch), {"few": 4.0, "some": 1.0, "many": 2.0}
    tuner = AutoTuner(dict.fromkeys(seconds, 0.0))
    assert set(clock.run(tuner, 3, seconds)) == {*seconds}
    begun = clock.now
    chosen = clock.run(tuner, 10_000, seconds)
    others = sum(seconds[way] for way in chosen if way != "some")
    assert 0.005 < others / (clock.now - begun) < 0.011
    busy = seconds | {"some": 50.0}
    assert set(clock.run(tuner, 10, busy)[-2:]) == {"many"}, "the machine gets busy: soon another way"
    begun = clock.now
    chosen = clock.run(tuner, 20_000, busy)
    assert chosen.count("some") * 50 < 0.02 * (clock.now - begun)
    chosen = clock.run(tuner, 20_000, seconds)
    assert chosen[-10_000:].count("some") > 9_800, "it is at rest again: back"


def test_a_late_thread_now_and_then_does_not_change_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seconds = Clock(monkeypatch), {"one": 2.0, "two": 1.0}
    tuner = AutoTuner(dict.fromkeys(seconds, 0.0))
    assert clock.run(tuner, 5_000, seconds, late=0.1).count("two") > 4_900


def test_a_way_that_is_predicted_to_be_slow_is_tried_late_unless_the_others_are_slower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    assert clock.run(AutoTuner({"good": 1.0, "bad": 16.0}), 1_000, {"good": 1.0, "bad": 16.0}) == ["good"] * 1_000
    assert clock.run(AutoTuner({"good": 1.0, "bad": 16.0}), 2, {"good": 17.0, "bad": 16.0}) == ["good", "bad"]


def test_ways_are_compared_by_what_they_take_for_the_same_size() -> None:
    tuner = AutoTuner({"first": 0.0, "second": 0.0})
    tuner.record("first", 10.0, 100)
    tuner.record("second", 1.0, 5)
    assert tuner.choose() == "first"
    tuner.record("second", 1.0, 50)
    assert tuner.choose() == "second"
