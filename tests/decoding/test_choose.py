"""Logits to one id, on distributions written by hand."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.decoding.choose import (
    FILTERS,
    WRITING_DEFAULTS,
    SampleConfig,
    active_filters,
    choose,
    draw,
    log_softmax,
    log_sum_exp,
    probabilities,
)
from chargen.errors import SettingError

HAND = np.log(np.array([0.1, 0.4, 0.2, 0.3]))
temperatures = st.sampled_from([0.0, 5e-324, 1e-300, 1e-6, 0.3, 1.0, 2.5, 1e6, 1e308])
uniforms = st.floats(0, 1, exclude_max=True)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, SampleConfig]:
    """Logits with some -inf, allowed ids with at least one finite among them, and any settings."""
    size = draw(st.integers(1, 12))
    logit = st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-20, 20, width=32) | st.just(-math.inf)
    logits = np.array(draw(st.lists(logit, min_size=size, max_size=size)), np.float32)
    allowed = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    sure = draw(st.integers(0, size - 1))
    allowed[sure] = True
    logits[sure] = max(logits[sure], np.float32(-(2.0**100)))
    config = SampleConfig(
        temperature=draw(temperatures),
        top_k=draw(st.integers(0, 15)),
        top_p=draw(st.sampled_from([0.0, 1e-9, 0.5, 0.9, 1.0]) | st.floats(0, 1)),
        min_p=draw(st.sampled_from([0.0, 0.1, 1.0]) | st.floats(0, 1)),
    )
    return logits, allowed, config


@given(cases(), uniforms)
def test_a_distribution_sums_to_1_and_what_is_drawn_is_allowed(
    case: tuple[np.ndarray, np.ndarray, SampleConfig], uniform: float
) -> None:
    logits, allowed, config = case
    distribution = probabilities(logits, allowed, config)
    assert np.isfinite(distribution).all()
    assert (distribution >= 0).all()
    assert math.isclose(distribution.sum(), 1, rel_tol=1e-12)
    assert not distribution[~allowed].any()
    for place in (0.0, uniform, 1 - 2**-53):
        chosen = choose(logits, allowed, place, config)
        assert allowed[chosen]
        assert logits[chosen] > -math.inf
        assert distribution[chosen] > 0


@given(st.permutations([-7.0, 0.25, 3.0, 7.9999, 8.0]), st.sampled_from([0.0, 5e-324, 1e-300, 1e-6]))
def test_a_small_temperature_is_the_most_likely_character(logits: list[float], temperature: float) -> None:
    certain = probabilities(np.array(logits), None, SampleConfig(temperature=temperature))
    assert certain == pytest.approx([float(logit == 8.0) for logit in logits], abs=1e-12)


@pytest.mark.parametrize("temperature", [1e6, 1e308])
def test_a_huge_temperature_is_even(temperature: float) -> None:
    assert probabilities(HAND, None, SampleConfig(temperature=temperature)) == pytest.approx([0.25] * 4, rel=1e-5)


@pytest.mark.parametrize(("temperature", "power"), [(0.5, 2), (2.0, 0.5), (1.0, 1)])
def test_temperature_is_a_power_of_the_probabilities(temperature: float, power: float) -> None:
    expected = np.exp(HAND) ** power
    distribution = probabilities(HAND, None, SampleConfig(temperature=temperature))
    assert distribution == pytest.approx(expected / expected.sum(), rel=1e-12)


def test_temperature_0_takes_the_first_of_the_most_likely_allowed() -> None:
    logits = np.array([1.0, 5.0, 3.0, 3.0, 2.0])
    allowed = np.array([True, False, True, True, True])
    assert probabilities(logits, allowed, SampleConfig(temperature=0)).tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 0}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 4}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 99}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 3}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_p": 1}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 0}, [0, 1, 0, 0]),
        ({"top_p": 0.39}, [0, 1, 0, 0]),
        ({"top_p": 0.41}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.69}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.71}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_p": 0.95}, [0.1, 0.4, 0.2, 0.3]),
        ({"min_p": 0}, [0.1, 0.4, 0.2, 0.3]),
        ({"min_p": 0.26}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"min_p": 0.51}, [0, 4 / 7, 0, 3 / 7]),
        ({"min_p": 1}, [0, 1, 0, 0]),
        # One after the other: of the three kept by top-k, 4/9 and 3/9 reach 0.7; alone they would need 0.9.
        ({"top_k": 3, "top_p": 0.75}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.75}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_k": 3, "min_p": 0.74}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 3, "min_p": 0.76}, [0, 1, 0, 0]),
        # Temperature first: at 0.5 the weights are 1, 16, 4, 9, and only 16 + 9 of 30 reach 0.6.
        ({"temperature": 0.5, "top_p": 0.6}, [0, 16 / 25, 0, 9 / 25]),
        ({"temperature": 0.5, "min_p": 0.5}, [0, 16 / 25, 0, 9 / 25]),
    ],
)
def test_filters_keep_what_they_say(settings: dict[str, float], expected: list[float]) -> None:
    assert probabilities(HAND, None, SampleConfig(**settings)) == pytest.approx(expected, rel=1e-12)


def test_filters_that_are_set_are_active_in_their_order() -> None:
    assert active_filters(SampleConfig()) == {}
    settings = {"min_p": 0.1, "top_p": 0.5, "top_k": 3}
    assert list(active_filters(SampleConfig(**settings)).items()) == [("top_k", 3), ("top_p", 0.5), ("min_p", 0.1)]
    for count in (1, 107, 2**53 - 1, 2**53, 2**53 + 1, 10**18):  # the compiled filters take floats
        assert active_filters(SampleConfig(top_k=count)) == {"top_k": min(count, 9_007_199_254_740_992)}


def test_without_settings_a_character_is_drawn_from_the_model() -> None:
    plain = {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0, "ban": "", "no_repeat": 0, "stop": ()}
    plain["counts_max_copy"] = 31
    assert SampleConfig() == SampleConfig(**plain)
    assert SampleConfig(**WRITING_DEFAULTS) == SampleConfig(temperature=0.8, counts_max_copy=0)


def test_a_ban_comes_before_the_filters() -> None:
    allowed = np.array([True, False, True, True])
    assert probabilities(HAND, allowed, SampleConfig(top_k=2)) == pytest.approx([0, 0, 0.4, 0.6])
    assert probabilities(HAND, allowed, SampleConfig(top_p=0.49)) == pytest.approx([0, 0, 0, 1])
    assert probabilities(HAND, allowed, SampleConfig(min_p=0.6)) == pytest.approx([0, 0, 0.4, 0.6])


def test_ties_go_to_the_lower_id_and_min_p_1_keeps_all_equals() -> None:
    even = np.zeros(4)
    assert probabilities(even, None, SampleConfig(top_k=2)).tolist() == [0.5, 0.5, 0, 0]
    assert probabilities(even, None, SampleConfig(top_p=0.5)).tolist() == [0.5, 0.5, 0, 0]
    assert probabilities(even, None, SampleConfig(top_p=0)).tolist() == [1, 0, 0, 0]
    assert probabilities(even, None, SampleConfig(min_p=1)).tolist() == [0.25] * 4


@pytest.mark.parametrize("temperature", [1e17, 1e308])
def test_top_k_keeps_the_most_likely_at_any_temperature(temperature: float) -> None:
    kept = probabilities(HAND, None, SampleConfig(temperature=temperature, top_k=2))
    assert kept == pytest.approx([0, 0.5, 0, 0.5])


@given(st.lists(st.integers(-1, 2), min_size=1, max_size=200), st.data())
def test_top_k_keeps_the_lowest_ids_of_all_that_tie(levels: list[int], data: st.DataObject) -> None:
    top_k = data.draw(st.integers(1, len(levels)))
    logits = np.array(levels, np.float32)
    best = sorted(range(len(levels)), key=lambda id_: (-levels[id_], id_))[:top_k]
    kept = probabilities(logits, None, SampleConfig(top_k=top_k))
    assert np.flatnonzero(kept).tolist() == sorted(best)


def test_without_top_p_what_is_too_unlikely_to_change_the_sum_stays() -> None:
    kept = probabilities(np.array([0.0, -100.0, -200.0]), None, SampleConfig(top_k=2))
    assert kept == pytest.approx([1, math.exp(-100), 0], rel=1e-12, abs=0)


def test_a_draw_is_the_inverse_of_the_running_sum_in_id_order() -> None:
    distribution = np.array([0.25, 0, 0.5, 0.25, 0])
    below = np.nextafter
    borders = [(0.0, 0), (below(0.25, 0), 0), (0.25, 2), (below(0.75, 0), 2), (0.75, 3), (1 - 2**-53, 3)]
    assert [draw(distribution, uniform) for uniform, _ in borders] == [expected for _, expected in borders]
    assert draw(np.array([0, 0, 1.0, 0]), 0.0) == 2


@given(st.lists(st.floats(0, 1) | st.just(0.0) | st.just(1e-300), min_size=1, max_size=300), uniforms)
def test_a_draw_never_picks_what_has_no_probability(weights: list[float], uniform: float) -> None:
    distribution = np.array([*weights, 1e-3])
    distribution /= distribution.sum()
    for place in (0.0, uniform, 1 - 2**-53):
        assert distribution[draw(distribution, place)] > 0


def test_evenly_spread_uniforms_meet_the_probabilities() -> None:
    config = SampleConfig(temperature=0.7, top_p=0.93)
    allowed = np.array([True, True, True, True, False])
    logits = np.append(HAND, 3.0)
    count = 4000
    drawn = [choose(logits, allowed, (place + 0.5) / count, config) for place in range(count)]
    shares = np.bincount(drawn, minlength=5) / count
    assert np.abs(shares - probabilities(logits, allowed, config)).max() <= 1 / count
    assert drawn == sorted(drawn)


def test_probabilities_without_settings_are_the_softmax() -> None:
    logits = np.array([1000.0, 1001.0, -1000.0, -math.inf])
    expected = [1 / (1 + math.e), math.e / (1 + math.e), 0, 0]
    assert probabilities(logits) == pytest.approx(expected)
    assert np.exp(log_softmax(logits)) == pytest.approx(expected)
    assert log_softmax(np.zeros(4, np.float32)) == pytest.approx([-math.log(4)] * 4, rel=1e-15)


rows_of = st.integers(1, 4).flatmap(
    lambda columns: st.lists(
        st.tuples(
            st.sampled_from([-1e300, -1e6, 0.0, 1e6, 1e300]),
            st.lists(st.floats(-20, 20) | st.just(-math.inf), min_size=columns, max_size=columns),
        ),
        min_size=1,
        max_size=4,
    )
)


@given(rows_of)
def test_every_row_has_a_log_sum_of_its_own_at_any_height(rows: list[tuple[float, list[float]]]) -> None:
    values = np.array([[height + value for value in row] for height, row in rows])
    expected = []
    for row in values.tolist():
        top = max(row)
        total = math.fsum(math.exp(value - top) for value in row) if top > -math.inf else 0
        expected.append(top + math.log(total) if total else -math.inf)
    assert log_sum_exp(values).tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert log_sum_exp(values.T, axis=0).tolist() == log_sum_exp(values.T[..., None], axis=0).ravel().tolist()
    assert log_sum_exp(values.T, axis=0) == pytest.approx(log_sum_exp(values), rel=1e-12, abs=1e-12)


@given(rows_of)
def test_rows_beside_a_row_do_not_change_its_log_softmax(rows: list[tuple[float, list[float]]]) -> None:
    values = np.array([[height, *(height + value for value in row)] for height, row in rows])
    assert np.array_equal(log_softmax(values), np.array([log_softmax(row) for row in values]))


@pytest.mark.parametrize("name", FILTERS)
@given(
    st.integers(1, 6).flatmap(lambda size: st.lists(st.lists(st.floats(0, 1), min_size=size, max_size=size))), st.data()
)
def test_rows_beside_a_row_do_not_change_what_is_kept_of_it(name: str, rows: list[list[float]], data: Any) -> None:
    ranked = np.array([[1.0, *sorted(row, reverse=True)] for row in rows] or np.empty((0, 2)))
    value = data.draw(st.integers(1, 7) if name == "top_k" else st.floats(0, 1))
    copy, kept = ranked.copy(), FILTERS[name](ranked, value)
    assert kept.tolist() == [FILTERS[name](row, value).tolist() for row in ranked]
    assert np.array_equal(ranked, copy)


@given(cases())
def test_nothing_given_is_changed(case: tuple[np.ndarray, np.ndarray, SampleConfig]) -> None:
    logits, allowed, config = case
    copies = logits.copy(), allowed.copy()
    probabilities(logits, allowed, config)
    assert np.array_equal(logits, copies[0])
    assert np.array_equal(allowed, copies[1])


@pytest.mark.parametrize(
    ("setting", "value", "range_"),
    [
        ("temperature", -0.1, "at least 0"),
        ("temperature", math.nan, "finite, at least 0"),
        ("temperature", math.inf, "finite, at least 0"),
        ("temperature", "1", "a number"),
        ("top_k", -1, "at least 0"),
        ("top_k", 1.5, "a whole number"),
        ("top_p", 1.01, "0 to 1"),
        ("top_p", -0.01, "0 to 1"),
        ("min_p", 2, "0 to 1"),
        ("no_repeat", -1, "at least 0"),
        ("ban", 5, "text"),
        ("stop", "end", "a list"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value_and_range(setting: str, value: object, range_: str) -> None:
    with pytest.raises(SettingError, match=rf"^{setting} is .*: it must be {range_}") as raised:
        SampleConfig(**{setting: value})
    assert raised.value.setting == setting
    assert repr(value) in str(raised.value) or repr(float(value)) in str(raised.value)


@pytest.mark.parametrize("stop", [("",), ("end", ""), ["", "end"]])
def test_an_empty_stop_text_is_refused(stop: tuple[str, ...]) -> None:
    with pytest.raises(SettingError, match=r"^stop is '': an empty text ends nothing; leave it out$") as raised:
        SampleConfig(stop=stop)
    assert raised.value.setting == "stop"
