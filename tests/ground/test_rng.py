"""Draws are addressed: Random123's own answers, golden numbers, whatever the order and number of calls."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chargen.kernels.uniforms import uniforms
from chargen.rng import MAX_SEED, Purpose, generator_seed, philox, philox_key, uniform
from tests import naive

seeds = st.integers(0, MAX_SEED)
indices = st.integers(0, 2**32 - 1)
numbers = st.integers(0, 2**64 - 1)
purposes = st.sampled_from(list(Purpose))

GOLDEN_SEED_0 = [0.11165289370031639, 0.1559596363948419, 0.5031550537019039, 0.7109435140791358]
GOLDEN_LAST = 0.39702457317673745
GOLDEN_INTEGER = 6929645421532008509


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 4, "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter: str, key: str, expected: str) -> None:
    keys = words(key)[0], words(key)[1]
    answer = philox(np.array(words(counter), np.uint64), keys)
    assert answer.tolist() == words(expected)
    assert philox(np.array([words(counter)] * 3, np.uint64), keys).tolist() == [words(expected)] * 3


@given(seeds, indices, numbers, purposes)
def test_a_uniform_is_philox_of_its_address(seed: int, index: int, n: int, purpose: Purpose) -> None:
    low = 2**32 - 1
    first, second, _, _ = naive.philox([n & low, n >> 32, index, int(purpose)], [seed & low, seed >> 32])
    assert float(uniform(seed, index, n, purpose)) == ((first << 32 | second) >> 11) / 2**53
    assert generator_seed(seed, index, n, purpose) == (first << 31) ^ second
    assert philox_key(seed, index, n, purpose) == (first, second)


def test_uniforms_are_the_golden_ones() -> None:
    """These numbers are a promise to every text ever made with a seed."""
    drawn = uniform(0, 0, np.arange(4), Purpose.SAMPLE).tolist()
    assert drawn == GOLDEN_SEED_0
    assert float(uniform(MAX_SEED, 2**32 - 1, 2**64 - 1, Purpose.WINDOW)) == GOLDEN_LAST
    assert generator_seed(7, 1, 2, Purpose.DROPOUT) == GOLDEN_INTEGER
    assert [int(purpose) for purpose in Purpose] == [*range(15)]


@given(seeds, indices, st.integers(0, 2**64 - 50), purposes)
def test_a_block_of_draws_is_its_single_draws(seed: int, index: int, first: int, purpose: Purpose) -> None:
    places = [first + step for step in range(20)]
    block = uniform(seed, index, np.array(places, np.uint64), purpose)
    assert block.tolist() == [float(uniform(seed, index, place, purpose)) for place in places]


def test_rows_and_draws_broadcast() -> None:
    table = uniform(3, np.arange(5)[:, None], np.arange(7), Purpose.SAMPLE)
    assert table.shape == (5, 7)
    assert table[4, 6] == uniform(3, 4, 6, Purpose.SAMPLE)
    assert table[2, 0] == uniform(3, 2, 0, Purpose.SAMPLE)


@given(seeds, indices, numbers, purposes)
@example(0, 0, 0, Purpose.INITIALIZE)
def test_every_part_of_the_address_counts(seed: int, index: int, n: int, purpose: Purpose) -> None:
    here = float(uniform(seed, index, n, purpose))
    others = [
        uniform(seed ^ 1, index, n, purpose),
        uniform(seed ^ 2**63, index, n, purpose),
        uniform(seed, index ^ 1, n, purpose),
        uniform(seed, index ^ 2**31, n, purpose),
        uniform(seed, index, n ^ 1, purpose),
        uniform(seed, index, n ^ 2**63, purpose),
        *(uniform(seed, index, n, other) for other in Purpose if other != purpose),
    ]
    assert here not in [float(other) for other in others]
    assert 0 <= here < 1


def test_uniforms_are_even_and_independent() -> None:
    table = uniform(0, np.arange(100)[:, None], np.arange(1000), Purpose.SAMPLE)
    assert abs(table.mean() - 1 / 2) < 0.004
    assert abs(table.var() - 1 / 12) < 0.002
    counts, _ = np.histogram(table, 20, (0, 1))
    assert ((counts - 5000) ** 2 / 5000).sum() < 50  # chi-square with 19 degrees of freedom
    neighbours = {
        "draw": (table[:, :-1], table[:, 1:]),
        "row": (table[:-1], table[1:]),
        "seed": (table, uniform(1, np.arange(100)[:, None], np.arange(1000), Purpose.SAMPLE)),
        "purpose": (table, uniform(0, np.arange(100)[:, None], np.arange(1000), Purpose.WINDOW)),
    }
    for name, (table_part, neighbour) in neighbours.items():
        assert abs(np.corrcoef(table_part.ravel(), neighbour.ravel())[0, 1]) < 0.02, name


def test_uniforms_carry_53_bits() -> None:
    bits = (uniform(5, 0, np.arange(2000), Purpose.SAMPLE) * 2**53).astype(np.uint64)
    for place in range(53):
        share = float(((bits >> np.uint64(place)) & np.uint64(1)).mean())
        assert 0.4 < share < 0.6, place


def test_seed_0_is_a_seed_of_its_own() -> None:
    drawn = [float(uniform(seed, 0, 0, Purpose.SAMPLE)) for seed in (0, 1, 2**32, MAX_SEED)]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"seed is {seed}: it must be from 0 to {MAX_SEED}"):
        uniform(seed, 0, 0, Purpose.SAMPLE)


@given(seeds, purposes, st.lists(st.tuples(indices, numbers), max_size=5), st.integers(0, 40))
@example(MAX_SEED, Purpose.SAMPLE, [(2**32 - 1, 2**64 - 1), (0, 2**32 - 1)], 3)
def test_compiled_draws_are_the_draws(seed: int, purpose: Purpose, places: list[tuple[int, int]], count: int) -> None:
    index, first = (np.array([place[part] for place in places], np.uint64) for part in range(2))
    compiled = np.full((len(places), count), np.nan)
    uniforms(np.uint64(seed), index, first, np.uint64(purpose), compiled)
    expected = uniform(seed, index[:, None], first[:, None] + np.arange(count, dtype=np.uint64), purpose)
    assert np.array_equal(compiled, expected)
