"""A text that is read again after a change is read from the nearest kept state, and gives the same state."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.sampling import kept_states
from chargen.sampling.kept_states import KeptStates
from chargen.sampling.sampler import Sampler
from tests.small_models import small_model


@cache
def sampler(unit: str) -> Sampler:
    return Sampler(small_model(unit=unit), seed=1)


def new(unit: str = "character") -> KeptStates:
    return KeptStates(sampler(unit).engine, sampler(unit)._start)


def state_after(unit: str, ids: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of a fresh sampler that reads all at once."""
    fresh = Sampler(small_model(unit=unit), seed=1)
    fresh.feed_ids(ids)
    return fresh.snapshot().logits, *fresh.snapshot().layers


@given(st.sampled_from(["character", "byte"]), st.lists(st.text("abc", max_size=200), max_size=6), st.data())
def test_a_text_has_the_state_of_one_that_is_read_at_once(unit: str, texts: list[str], data: Any) -> None:
    kept = new(unit)
    for text in texts:
        ids = sampler(unit).vocabulary.encode(text)
        reading = kept.read(ids)
        if data.draw(st.booleans()):
            next(reading, None)  # and is left
            reading = kept.read(ids)
        list(reading)
        position, logits, state = kept.nearest(len(ids))
        assert position == len(ids)
        for ours, theirs in zip((logits, *state), state_after(unit, ids), strict=True):
            assert np.array_equal(ours, theirs)


def test_only_what_is_new_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_states, "MAX_BLOCK", 32)
    kept, ids = new(), np.arange(3000) % 9
    assert [*kept.read(ids)][-1] == kept.ids_read == 3000
    more = np.append(ids, [1, 2, 3])
    list(kept.read(more))
    assert kept.ids_read == 3003
    list(kept.read(ids[:1000]))  # the cursor stands within the text
    assert kept.ids_read < 3003 + 32
    list(kept.read(more))  # and at its end again
    assert kept.ids_read < 3003 + 32
    changed = more.copy()
    changed[2900] = 8 - changed[2900] + (changed[2900] == 4)
    list(kept.read(changed))
    assert kept.ids_read < 3003 + 32 + 103 + 32


def test_kept_states_are_few_and_densest_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_states, "MAX_BLOCK", 16)
    monkeypatch.setattr(kept_states, "MAX_KEPT", 20)
    kept, ids = new(), np.arange(4000) % 9
    for _ in kept.read(ids):
        assert len(kept._places) <= 20
    positions = [position for position, *_ in kept._places]
    assert positions[0] == 0
    assert positions[-1] == 4000
    gaps = np.diff(positions)
    assert max(gaps) <= 2 * 4000 / 15
    assert set(gaps[-5:]) == {16}
    before = kept.ids_read
    list(kept.read(np.append(ids[:3990], [1])))
    assert kept.ids_read - before < 20


def test_a_reading_that_was_left_does_not_go_on() -> None:
    kept, ids = new(), np.arange(2000) % 9
    first = kept.read(ids)
    next(first)
    list(kept.read(ids[::-1][:500]))
    assert list(first) == []
    list(kept.read(ids))
    for ours, theirs in zip(kept.nearest(2000)[1:], (state_after("character", ids)[0],), strict=False):
        assert np.array_equal(ours, theirs)
