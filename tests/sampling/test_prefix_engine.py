"""An engine that goes on from what it has read: the same numbers, and only new ids are computed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.decoding.pick_engine import new_engine
from chargen.sampling import prefix_engine
from chargen.sampling.kept_states import MAX_BLOCK
from chargen.sampling.prefix_engine import PrefixEngine
from chargen.sampling.sampler import Sampler
from tests.small_models import small_model

FILE = small_model()
ENGINE = new_engine(FILE, "cpu")


class Counting(PrefixEngine):
    """Counts the ids that single rows have computed."""

    def __init__(self) -> None:
        super().__init__(new_engine(FILE, "cpu"))
        self.ids = 0
        read = self.engine._read

        def count(ids, counts, logits, state):
            self.ids += int(counts.sum())
            return read(ids, counts, logits, state)

        self.engine._read = count


@given(st.lists(st.text("abcdefgh", min_size=25, max_size=200), min_size=1, max_size=6), st.sampled_from([1, 8]))
def test_texts_read_in_any_order_stand_where_a_fresh_engine_stands(texts: list[str], kept: int) -> None:
    engine = PrefixEngine(ENGINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_engine, "MAX_TEXTS", kept)
        for text in [*texts, texts[0][:-3], "".join(texts)]:
            ids = FILE.vocabulary.encode(text).astype(np.int64)[None]
            first = np.zeros((1, engine.size), np.float32), engine.start(1)
            count = np.array([ids.shape[1]])
            logits, state = engine.read(ids, count, *first)
            expected_logits, expected_state = ENGINE.read(ids, count, *first)
            assert logits.tobytes() == expected_logits.tobytes()
            assert all(a.tobytes() == b.tobytes() for a, b in zip(state, expected_state, strict=True))
            for array in (logits, *state):
                array += 1  # what is handed over is the caller's


def test_only_what_is_new_is_computed() -> None:
    engine = Counting()
    text = "abcdefgh" * 500

    def feed(fed: str) -> int:
        before = engine.ids
        Sampler(FILE, engine=engine, seed=1).feed(fed)
        return engine.ids - before

    assert feed(text) == 4000
    assert feed(text) == 0
    assert feed(text + "abc") == 3
    assert feed(text[:-10] + "b") <= MAX_BLOCK
    other = "b" + text
    assert feed(other) == 4001
    assert feed(text) <= MAX_BLOCK
    assert feed(other + "a") == 1
    assert [feed(other) for _ in range(9)] == [0] * 9
    assert feed(text) <= MAX_BLOCK
    for number in range(prefix_engine.MAX_TEXTS):
        assert feed("abcdefgh"[number] * 9) == 9  # too short to push out what is remembered
    assert feed(other) == 0
    for number in range(prefix_engine.MAX_TEXTS):
        assert feed("abcdefgh"[number] * 40) == 40
    assert feed(other) == 4001
    assert len(engine._texts) == prefix_engine.MAX_TEXTS


def test_starts_are_told_apart() -> None:
    engine, ids, count = PrefixEngine(ENGINE), np.arange(40)[None] % 8, np.array([40])
    zero = np.zeros((1, engine.size), np.float32), engine.start(1)
    for start in (zero, ENGINE.read(ids, count, *zero), zero):
        logits, _ = engine.read(ids, count, *start)
        assert logits.tobytes() == ENGINE.read(ids, count, *start)[0].tobytes()


def test_rows_side_by_side_and_written_texts_are_the_same() -> None:
    sampler, twin = Sampler(FILE, engine=PrefixEngine(ENGINE), seed=3, num=3), Sampler(FILE, seed=3, num=3)
    for each in (sampler, twin):
        each.feed("abba" * 10)
    assert sampler.generate_all(40) == twin.generate_all(40)
    for each in (sampler, twin):
        each.feed("ab")
    assert sampler.generate_all(40) == twin.generate_all(40)
