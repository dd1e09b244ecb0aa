"""Samples in pieces: together they are what a sampler writes, and they come whenever nothing more is ready."""

from itertools import pairwise

import pytest

from chargen.sampling.pieces import write_pieces
from chargen.sampling.sampler import Sampler
from chargen.sampling.selection import Selection
from tests.record_models import record_model
from tests.small_models import small_model

FILE = small_model(bidirectional=True)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("num", [1, 3])
def test_pieces_are_the_text(direction: str, num: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chargen.sampling.sampler.CHUNK_SECONDS", 1e9)
    sampler = Sampler(FILE, seed=1, num=num, direction=direction)
    pieces = [[] for _ in range(num)]
    times = 0
    for together in write_pieces(sampler, 700):
        times += 1
        assert sampler.ahead == 0
        for number, piece in together:
            pieces[number].append(piece)
    assert times <= 12  # chunks of 1, 2, 4 … 256 characters
    order = -1 if direction == "backward" else 1
    samples = Sampler(FILE, seed=1, num=num, direction=direction).generate_all(700)
    for parts, sample in zip(pieces, samples, strict=True):
        assert "".join(part.text for part in parts[::order]) == sample.text
        assert sum((part.log_probs for part in parts[::order]), ()) == sample.log_probs


def test_a_stop_is_told_by_its_piece() -> None:
    sampler = Sampler(FILE, seed=2, stop=["a"])
    *others, last = [piece for together in write_pieces(sampler, 10_000) for _, piece in together]
    assert last.stopped
    assert last.text.endswith("a")
    assert not any(piece.stopped for piece in others)


def test_records_come_whole() -> None:
    sampler = Sampler(record_model(end=2.0), seed=3)
    pieces = [each for together in write_pieces(sampler, num=4, selection=Selection()) for each in together]
    assert [piece.number for piece in pieces] == [0, 1, 2, 3]
    assert all(piece.sample.stopped for piece in pieces)


def test_what_is_written_ahead_is_counted() -> None:
    sampler = Sampler(FILE, seed=4)
    assert sampler.ahead == 0
    ahead = [sampler.ahead for _ in sampler.write(100)]
    assert max(ahead) > 0
    assert all(after == before - 1 for before, after in pairwise(ahead) if before)
    sampler.feed("abc")
    assert sampler.ahead == 0
