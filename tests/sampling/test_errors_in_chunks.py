"""Errors inside a chunk come behind all text before them."""

from itertools import chain, islice
from typing import Any

import numpy as np
import pytest

from chargen.errors import NOT_FINITE_MESSAGE, ChargenError
from chargen.sampling.sample import Character
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import ModelFile
from tests.sampling.written_ahead import CHUNKS, DIRECTIONS, in_chunks, new, place
from tests.small_models import small_model

pytestmark = pytest.mark.usefixtures("large_chunks")


def broken(character: str = "d") -> ModelFile:
    """Whoever has read this character has no numbers any more."""
    file = small_model()
    file.arrays["embedding.weight"][file.vocabulary.characters.index(character)] = np.inf
    return file


def until_error(sampler: Sampler) -> tuple[list[list[Character]], str]:
    columns: list[list[Character]] = []
    with pytest.raises(ChargenError) as raised:
        columns.extend(islice(sampler.write(), 3000))
    return columns, str(raised.value)


def described(sampler: Sampler) -> list[dict[str, Any]]:
    return [stream.describe() for stream in sampler._streams]


@pytest.mark.parametrize("num", [1, 2, 4])
def test_an_overflow_inside_a_chunk_is_an_error_behind_the_text_before_it(num: int) -> None:
    file = broken()

    def run(seed: int) -> tuple[Any, ...]:
        sampler = Sampler(file, seed=seed, num=num)
        columns, error = until_error(sampler)
        assert error == NOT_FINITE_MESSAGE
        last = {written.stream: written.character for written in columns[-1]}
        assert len(last) == num
        assert "d" in last.values()
        assert not any(written.character == "d" for written in chain.from_iterable(columns[:-1]))
        stand, where = described(sampler), place(sampler)
        assert all(stream["draws"] == len(columns) for stream in stand)
        for _ in range(2):  # the error changes nothing
            assert until_error(sampler) == ([], NOT_FINITE_MESSAGE)
            assert (described(sampler), place(sampler)) == (stand, where)
        return columns, stand, where

    lengths = set()
    for seed in range(12):
        expected, *others = (in_chunks(chunks, lambda seed=seed: run(seed)) for chunks in CHUNKS)
        assert all(other == expected for other in others)
        lengths.add(len(expected[0]))
    assert len(lengths) > 3


@pytest.mark.parametrize("num", [1, 3])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_rules_that_forbid_all_are_an_error_behind_all_text_before_them(num: int, direction: str) -> None:
    expected = None
    for chunks in CHUNKS:
        sampler = new(num=num, direction=direction, no_repeat=2, ban="defgh \n")
        columns, error = in_chunks(chunks, lambda sampler=sampler: until_error(sampler))
        stand, where = described(sampler), place(sampler)
        assert 3 <= len(columns) <= 10  # of 9 runs of 2 of 3 characters
        assert all(len(column) == num for column in columns)
        assert error.endswith(f"forbid all 10 ids after {len(columns)} draws; ban less, or raise `no_repeat`")
        for _ in range(2):
            assert until_error(sampler) == ([], error)
            assert (described(sampler), place(sampler)) == (stand, where)
        expected = expected or (columns, error, stand, where)
        assert (columns, error, stand, where) == expected


@pytest.mark.parametrize("num", [1, 3])
def test_a_ban_of_all_is_an_error_at_once(num: int) -> None:
    for script, ban in (("", "abcdefgh \n"), ("", "abcdefgh \nz")):
        sampler = new(script, num=num, ban=ban)
        before = described(sampler), place(sampler)
        assert until_error(sampler) == (
            [],
            "sample 0: `ban` and `no_repeat` forbid all 10 ids after 0 draws; ban less, or raise `no_repeat`",
        )
        assert (described(sampler), place(sampler)) == before
