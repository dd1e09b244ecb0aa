"""A batch is a pure function of its step; every character is a target as often as every other."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chargen.data.batches import Batch, ConsecutiveBatches, RandomBatches, Resets
from chargen.data.directions import BackwardBatches, make_batches
from chargen.errors import ArgumentError, DataError, SettingError
from chargen.rng import Purpose, uniform
from tests import naive

seeds = st.integers(0, 2**64 - 1)


@st.composite
def consecutive(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """N, B, T and a seed."""
    return draw(st.integers(2, 60)), draw(st.integers(1, 9)), draw(st.integers(1, 13)), draw(seeds)


def counts_after(batches: ConsecutiveBatches, length: int, steps: int) -> np.ndarray:
    """How often each position was a target; the text is its own positions."""
    targets = np.concatenate([batches.batch(step).targets.ravel() for step in range(steps)])
    return np.bincount(targets, minlength=length)


def are_equal(batch: Batch, other: Batch) -> bool:
    return (
        np.array_equal(batch.inputs, other.inputs)
        and np.array_equal(batch.targets, other.targets)
        and np.array_equal(batch.fresh, other.fresh)
    )


@given(consecutive(), st.integers(0, 10**9))
def test_a_target_stands_where_the_formula_says(sizes: tuple[int, int, int, int], step: int) -> None:
    length, rows, window, seed = sizes
    batch = ConsecutiveBatches(np.arange(length), rows, window, seed).batch(step)
    assert batch.targets.tolist() == naive.consecutive_targets(length, rows, window, seed, step)
    assert batch.targets.dtype == batch.inputs.dtype == np.int64


@given(consecutive(), st.integers(0, 100))
def test_an_input_is_the_position_before_its_target(sizes: tuple[int, int, int, int], step: int) -> None:
    length, rows, window, seed = sizes
    batch = ConsecutiveBatches(np.arange(length), rows, window, seed).batch(step)
    assert batch.inputs.shape == batch.targets.shape == (rows, window)
    assert np.array_equal((batch.inputs + 1) % length, batch.targets)
    assert np.array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])


@given(consecutive(), st.integers(1, 100))
def test_a_row_goes_on_where_it_stopped_and_keeps_its_state(sizes: tuple[int, int, int, int], step: int) -> None:
    length, rows, window, seed = sizes
    batches = ConsecutiveBatches(np.arange(length), rows, window, seed)
    before, after = batches.batch(step - 1), batches.batch(step)
    assert np.array_equal(before.targets[:, -1], after.inputs[:, 0])
    assert not after.fresh.any()
    assert batches.batch(0).fresh.sum(0).tolist() == [rows] + [0] * (window - 1)


@pytest.mark.parametrize("length", range(2, 61))
def test_after_any_step_target_counts_differ_by_one_at_most(length: int) -> None:
    for rows in (1, 2, 3, 5, 8):
        for window in (1, 3, 7):
            batches = ConsecutiveBatches(np.arange(length), rows, window, length)
            counts = np.zeros(length, int)
            for step in range(2 * length // (rows * window) + 2):
                counts += np.bincount(batches.batch(step).targets.ravel(), minlength=length)
                assert np.ptp(counts) <= 1


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 8), seeds)
def test_every_character_is_a_target_exactly_once_an_epoch(rows: int, window: int, steps: int, seed: int) -> None:
    length = rows * window * steps
    if length < 2:
        return
    batches = ConsecutiveBatches(np.arange(length), rows, window, seed)
    assert batches.steps_per_epoch == steps
    assert counts_after(batches, length, steps).tolist() == [1] * length
    assert counts_after(batches, length, 2 * steps).tolist() == [2] * length


@given(consecutive())
def test_no_tail_is_lost_when_sizes_do_not_divide(sizes: tuple[int, int, int, int]) -> None:
    length, rows, window, seed = sizes
    batches = ConsecutiveBatches(np.arange(length), rows, window, seed)
    assert batches.steps_per_epoch == length / (rows * window)
    assert counts_after(batches, length, int(np.ceil(batches.steps_per_epoch))).min() >= 1


def test_the_phase_depends_on_the_seed_and_reaches_every_place() -> None:
    starts = {int(ConsecutiveBatches(np.arange(9), 1, 1, seed).batch(0).targets[0, 0]) for seed in range(100)}
    assert starts == set(range(9))


@given(st.integers(1, 64), st.integers(2**59, 2**61), seeds)
def test_rows_of_an_enormous_text_start_where_the_formula_says(rows: int, length: int, seed: int) -> None:
    text = np.broadcast_to(np.uint8(0), length)  # one byte
    assert ConsecutiveBatches(text, rows, 1, seed).starts.tolist() == naive.row_starts(length, rows, seed)


def test_a_worked_example() -> None:
    ids = np.frombuffer(b"0123456789", np.uint8)
    phase = int(float(uniform(1, 0, 0, Purpose.PHASE)) * 10)
    batches = ConsecutiveBatches(np.roll(ids, phase), 2, 3, 1)
    text = ["".join(map(chr, row)) for step in range(3) for row in batches.batch(step).targets]
    assert text == ["012", "567", "345", "890", "678", "123"]
    assert "".join(map(chr, batches.batch(0).inputs[0])) == "901"


@pytest.mark.parametrize("kind", [ConsecutiveBatches, RandomBatches])
@given(order=st.lists(st.integers(0, 30), min_size=1, max_size=12), seed=seeds)
def test_a_batch_depends_on_its_step_alone(kind: type, order: list[int], seed: int) -> None:
    ids = np.arange(50)
    used = kind(ids, 3, 4, seed)
    for step in order:
        assert are_equal(used.batch(step), kind(ids, 3, 4, seed).batch(step))


@pytest.mark.parametrize("kind", [ConsecutiveBatches, RandomBatches])
@given(borders=st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda pair: pair[0] < pair[1]), seed=seeds)
def test_some_rows_are_those_rows_of_the_whole_batch(kind: type, borders: tuple[int, int], seed: int) -> None:
    ids, rows = np.arange(53), range(*borders)
    for step in (0, 1, 17):
        whole, part = kind(ids, 7, 5, seed).batch(step), kind(ids, 7, 5, seed, rows).batch(step)
        assert are_equal(
            part, Batch(*(getattr(whole, name)[rows.start : rows.stop] for name in ("inputs", "targets", "fresh")))
        )
    assert kind(ids, 7, 5, seed, rows).steps_per_epoch == kind(ids, 7, 5, seed).steps_per_epoch


@pytest.mark.parametrize("kind", [ConsecutiveBatches, RandomBatches])
def test_without_a_seed_it_is_0(kind: type) -> None:
    ids = np.arange(1000)
    assert are_equal(kind(ids, 3, 4).batch(5), kind(ids, 3, 4, 0).batch(5))


@given(st.integers(1, 9), st.integers(1, 13), st.integers(1, 60))
def test_an_epoch_of_random_windows_is_as_long_as_one_of_consecutive_rows(rows: int, window: int, more: int) -> None:
    length = window + more
    steps_per_epoch = RandomBatches(np.arange(length), rows, window).steps_per_epoch
    assert (
        steps_per_epoch
        == ConsecutiveBatches(np.arange(length), rows, window).steps_per_epoch
        == length / (rows * window)
    )


@given(st.integers(0, 6), st.integers(1, 7), seeds, st.integers(1, 2**40), st.sampled_from([None, 3]))
def test_rows_are_reset_whichever_process_has_them(
    first: int, rows: int, seed: int, step: int, begin: int | None
) -> None:
    ids, part = np.arange(1000) % 7, range(first, min(first + rows, 7))
    resets = Resets(0.5, begin, 1 / 7)
    drawn = [ConsecutiveBatches(ids, 7, 5, seed, rows, resets).batch(step).fresh for rows in (range(7), part)]
    assert np.array_equal(drawn[1], drawn[0][part.start : part.stop])


@given(
    st.builds(
        Resets,
        st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
        st.none() | st.integers(0, 3),
        st.floats(0, 1),
        st.integers(0, 1),
    ),
    st.lists(st.integers(0, 999_999), min_size=1, max_size=3),
    st.integers(1, 6),
    st.integers(0, 2**40),
    seeds,
)
def test_fresh_states_are_drawn_where_the_formula_says(
    resets: Resets, rows: list[int], window: int, step: int, seed: int
) -> None:
    inputs = np.add.outer(rows, np.arange(window)) % 4
    fresh = resets.draw(seed, step, np.array(rows), inputs)
    assert fresh.tolist() == naive.fresh_states(resets, seed, step, rows, inputs.tolist())


@given(st.sampled_from([None, 3]), st.integers(0, 99), seeds)
@example(None, 0, 0)
def test_resets_are_added_to_the_batch_of_a_step(begin: int | None, step: int, seed: int) -> None:
    ids, resets = np.arange(1000) % 7, Resets(0.5, begin, 1 / 7, stream=1)
    plain, reset = (ConsecutiveBatches(ids, 7, 5, seed, range(2, 6), drawn).batch(step) for drawn in (Resets(), resets))
    drawn = naive.fresh_states(resets, seed, step, [2, 3, 4, 5], plain.inputs.tolist())
    assert are_equal(reset, Batch(plain.inputs, plain.targets, plain.fresh | np.array(drawn)))


@pytest.mark.parametrize("begin", [None, 3])
def test_a_draw_of_just_the_share_resets_nothing(begin: int | None) -> None:
    share = float(uniform(1, 0, 9, Purpose.RESET))
    for asked, fresh in ((share, False), (float(np.nextafter(share, 1)), True)):
        assert Resets(asked, begin, 1).draw(1, 9, np.array([0]), np.array([[3]])).tolist() == [[fresh]]


def test_resets_are_off_until_they_are_asked_for() -> None:
    assert Resets() == Resets(share=0, begin=None, frequency=0, stream=0)


@pytest.mark.parametrize(("share", "period"), [(0.05, 10), (0.05, 900), (0.5, 40), (2 / 3, 3)])
def test_states_are_reset_at_line_ends_as_often_as_asked_for(share: float, period: int) -> None:
    """So often in a row's window, on average: each line end with the same probability, at most 1."""
    ids = np.where(np.arange(90_000) % period == period - 1, 10, 1)
    batches = ConsecutiveBatches(ids, 32, 16, 1, resets=Resets(share, 10, 1 / period))
    windows = [batches.batch(step) for step in range(1, 300)]
    inputs, fresh = (np.stack([getattr(batch, name) for batch in windows]) for name in ("inputs", "fresh"))
    assert (inputs[fresh] == 10).all()
    per_window = min(share, 16 / period)
    assert fresh.sum() / (299 * 32) == pytest.approx(per_window, rel=0.15)
    by_place = fresh.sum((0, 1))  # wherever the line end is in the window
    assert (np.abs(by_place - by_place.mean()) < 6 * np.sqrt(by_place.mean() + 1)).all()


def test_a_share_of_one_carries_no_state_wherever_lines_end() -> None:
    batches = ConsecutiveBatches(np.arange(100) % 5, 4, 6, resets=Resets(1, 3, 0.2))
    assert batches.batch(7).fresh.sum(0).tolist() == [4, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("kind", [ConsecutiveBatches, RandomBatches])
def test_no_rows_are_no_rows(kind: type) -> None:
    assert kind(np.arange(53), 7, 5, 0, range(3, 3)).batch(0).inputs.shape == (0, 5)


@given(st.integers(1, 12), st.integers(1, 30), seeds, st.integers(0, 2**40))
def test_a_random_window_is_one_piece_of_the_text_and_starts_fresh(
    window: int, more: int, seed: int, step: int
) -> None:
    length = window + more
    batch = RandomBatches(np.arange(length), 6, window, seed).batch(step)
    assert batch.inputs.shape == (6, window)
    assert np.array_equal(batch.inputs, batch.inputs[:, :1] + np.arange(window))
    assert np.array_equal(batch.targets, batch.inputs + 1)
    assert batch.inputs.min() >= 0
    assert batch.targets.max() < length
    assert batch.fresh.dtype == bool
    assert batch.fresh.sum(0).tolist() == [6] + [0] * (window - 1)


@given(st.integers(1, 12), st.integers(1, 1000), seeds, st.integers(0, 2**40), st.sampled_from(Purpose))
def test_a_random_window_starts_where_the_formula_says(
    window: int, places: int, seed: int, step: int, purpose: Purpose
) -> None:
    text = np.arange(window + places)

    for batches, used in (
        (RandomBatches(text, 3, window, seed, purpose=purpose), purpose),
        (RandomBatches(text, 3, window, seed), Purpose.WINDOW),
    ):
        assert batches.windows(step)[:, 0].tolist() == naive.window_starts(places, 3, seed, step, used)


@pytest.mark.parametrize(("length", "window"), [(2, 1), (9, 8), (10, 8), (30, 5)])
def test_all_random_windows_are_equally_likely(length: int, window: int) -> None:
    batches = RandomBatches(np.arange(length), 64, window, 3)
    firsts = np.concatenate([batches.batch(step).inputs[:, 0] for step in range(100)])
    counts = np.bincount(firsts)
    assert len(counts) == length - window
    assert np.abs(counts - 6400 / len(counts)).max() < 5 * np.sqrt(6400 / len(counts))


def test_random_rows_and_steps_differ() -> None:
    batches = RandomBatches(np.arange(10**6), 50, 3, 0)
    firsts = np.concatenate([batches.batch(step).inputs[:, 0] for step in range(3)])
    assert len(set(firsts.tolist())) == 150


@pytest.mark.parametrize("length", [0, 1])
def test_a_text_too_short_for_consecutive_rows_is_named(length: int) -> None:
    with pytest.raises(DataError, match=f"at least 2 characters, found {length}"):
        ConsecutiveBatches(np.arange(length), 1, 1)


@pytest.mark.parametrize(
    ("length", "advice"),
    [(0, "give more"), (1, "give more"), (2, "choose `seq_length=1` or less"), (5, "choose `seq_length=4` or less")],
)
def test_a_text_too_short_for_a_random_window_is_named(length: int, advice: str) -> None:
    with pytest.raises(DataError, match=rf"at least 6 characters .* found {length}; {advice}"):
        RandomBatches(np.arange(length), 1, 5)
    assert RandomBatches(np.arange(6), 1, 5).batch(0).targets.tolist() == [[1, 2, 3, 4, 5]]


@pytest.mark.parametrize("directions", [["forward"], ["backward"], ["forward", "backward"]])
@given(seed=seeds, step=st.integers(0, 100), reset=st.booleans())
def test_each_direction_reads_the_text_from_its_own_end(
    directions: list[str], seed: int, step: int, reset: bool
) -> None:
    ids, rows = np.arange(53), range(1, 4)
    resets = {name: Resets(0.5, stream=number) for number, name in enumerate(directions)} if reset else None
    made = make_batches(ids, directions, "consecutive", 7, 5, seed, rows, resets)
    assert list(made) == directions
    for name, batches in made.items():
        text = ids if name == "forward" else ids[::-1]
        alone = ConsecutiveBatches(text, 7, 5, seed, rows, resets[name] if resets else Resets())
        assert are_equal(batches.batch(step), alone.batch(step))


@pytest.mark.parametrize("directions", [["forward"], ["backward"], ["forward", "backward"]])
@given(seed=seeds, step=st.integers(0, 100))
def test_both_directions_read_the_same_random_windows(directions: list[str], seed: int, step: int) -> None:
    ids, rows = np.arange(53), range(1, 4)
    made = make_batches(ids, directions, "random", 7, 5, seed, rows, {name: Resets(0.5) for name in directions})
    assert list(made) == directions
    windows = RandomBatches(ids, 7, 5, seed, rows)
    for name, batches in made.items():
        assert are_equal(batches.batch(step), (windows if name == "forward" else BackwardBatches(windows)).batch(step))


@pytest.mark.parametrize("batching", ["consecutive", "random"])
def test_without_more_settings_all_rows_are_those_of_seed_0(batching: str) -> None:
    sizes = np.arange(1000), ["forward", "backward"], batching, 7, 5
    plain, said = make_batches(*sizes), make_batches(*sizes, seed=0, rows=range(7), resets=None)
    assert all(are_equal(plain[name].batch(3), said[name].batch(3)) for name in plain)


@pytest.mark.parametrize("kind", [ConsecutiveBatches, RandomBatches])
def test_what_is_out_of_range_is_named_with_its_range(kind: type) -> None:
    for rows, window, setting in ((0, 1, "batch_size"), (1, 0, "seq_length")):
        with pytest.raises(SettingError, match=f"^{setting} is 0: it must be 1 to ") as raised:
            kind(np.arange(9), rows, window)
        assert raised.value.setting == setting
    with pytest.raises(ArgumentError, match=r"^ids of shape \(3, 3\)"):
        kind(np.zeros((3, 3), int), 1, 1)
    assert kind(np.arange(9), 1, 1).batch(2**40).inputs.shape == (1, 1)
    for step in (-1, 2**40 + 1):
        with pytest.raises(SettingError, match=rf"^step is {step}: it must be 0 to 1,099,511,627,776$"):
            kind(np.arange(9), 1, 1).batch(step)
