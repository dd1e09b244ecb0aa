"""Rules as tables: what may follow every unfinished character."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.data.vocabulary import Vocabulary
from chargen.sampling.constraints import Constraints
from chargen.sampling.rule_table import RuleTable
from chargen.sampling.stream import Stream
from tests.sampling.written_ahead import directions, new, seeds

BYTES = Vocabulary(unit="byte")


def reachable(backward: bool, random: np.random.Generator) -> list[bytes]:
    """Unfinished characters: all of one byte, many of two, some of three."""
    rules, partials = Constraints(BYTES, backward=backward), [b""]
    level = [b""]
    for most in (100, 250, 80):
        longer = []
        for partial in level:
            for byte in np.flatnonzero(rules.mask(partial)):
                stream = Stream(rules, 0)
                stream.partial = partial
                if not stream.add_id(int(byte), BYTES):
                    longer.append(stream.partial)
        level = [longer[at] for at in random.permutation(len(longer))[:most]]
        partials += level
    return partials


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("ban", ["", "aé€😀", "".join(map(chr, range(0xC0, 0x100)))])
def test_tables_are_the_rules_after_every_unfinished_character(backward: bool, ban: str) -> None:
    random = np.random.default_rng(len(ban))
    partials = reachable(backward, random)
    assert {len(partial) for partial in partials} == {0, 1, 2, 3}
    table = RuleTable(BYTES, (), 0, backward)
    streams = [Stream(Constraints(BYTES, ban, 0, backward), row) for row in range(len(partials))]
    rules, mask_index = None, None
    for stream, at in zip(streams, random.permutation(len(partials)), strict=True):  # whatever comes first
        stream.partial = partials[at]
    for begin in range(0, len(streams), 97):
        rules, mask_index = table.rules_for(streams[: begin + 97])
    assert rules is not None
    assert mask_index is not None
    places = {stream.partial: int(at) for stream, at in zip(streams, mask_index, strict=True)}
    assert sorted(places.values()) == list(range(len(rules.masks))) == list(range(len(partials)))
    assert not rules.stop_after.any()
    for partial, at in places.items():
        mask = Constraints(BYTES, ban, 0, backward).mask(partial)
        assert np.array_equal(rules.masks[at], mask)
        for byte in np.flatnonzero(mask):
            stream = Stream(Constraints(BYTES, ban, 0, backward), 0)
            stream.partial = partial
            finished = stream.add_id(int(byte), BYTES)
            assert rules.next_mask[at, byte] == places.get(stream.partial, -1)
            assert not finished or rules.next_mask[at, byte] == places[b""]


def test_a_table_of_characters_has_one_row() -> None:
    vocabulary = Vocabulary("abcdé", folded="xy")
    streams = [Stream(Constraints(vocabulary, "b"), row) for row in range(3)]
    table = RuleTable(vocabulary, ("ca", "é", "b", "cxa", "ax", "Z"), False, False)
    for number in (3, 1):
        rules, mask_index = table.rules_for(streams[:number])
        assert np.array_equal(rules.masks, streams[0].constraints.mask()[None])
        assert not rules.next_mask.any()
        assert mask_index.tolist() == [0] * number
    assert rules.stop_after.tolist() == [True, True, False, False, True, True]
    assert table.max_ids is None
    backward = RuleTable(vocabulary, ("ca", "é"), False, True)
    assert backward.rules_for(streams)[0].stop_after.tolist() == [False, False, True, False, True, False]


@pytest.mark.parametrize(("backward", "bytes_"), [(False, b"b\xa9\xac\x80"), (True, b"a\xc3\xe2\xf0")])
def test_in_bytes_a_stream_pauses_behind_the_byte_that_ends_a_stop_text(backward: bool, bytes_: bytes) -> None:
    table = RuleTable(
        BYTES, ("ab", "éé", "€€€€€a€" if backward else "a€€€€€€", "😀x" if backward else "x😀"), False, backward
    )
    rules, _ = table.rules_for([Stream(Constraints(BYTES, backward=backward), 0)])
    assert sorted(np.flatnonzero(rules.stop_after)) == sorted(bytes_)


@given(
    st.sampled_from(["", "cyrillic", "emoji"]), directions, st.integers(1, 3), seeds, st.sampled_from(["", "a", "ае😀"])
)
def test_with_no_repeat_every_stream_has_its_own_mask(
    script: str, direction: str, num: int, seed: int, ban: str
) -> None:
    sampler = new(script, num=num, seed=seed, direction=direction, no_repeat=2, ban=ban)
    table = RuleTable(sampler.vocabulary, (), True, direction == "backward")
    assert table.max_ids == 1
    writing = sampler.write()
    for _ in range(12):
        rules, mask_index = table.rules_for(sampler._streams)
        for stream, at in zip(sampler._streams, mask_index, strict=True):
            assert np.array_equal(rules.masks[at], stream.constraints.mask(stream.partial))
        next(writing)
