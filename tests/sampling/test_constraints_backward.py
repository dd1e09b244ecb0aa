"""Which bytes may stand before the end of a character, against what Python writes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.data.utf8 import utf8_before, utf8_capacity_before
from chargen.data.vocabulary import Vocabulary
from chargen.sampling.constraints import Constraints
from tests import naive

BYTES = Vocabulary(unit="byte")


def test_the_bytes_before_a_suffix_are_those_that_python_writes() -> None:
    for size in range(4):
        before: dict[bytes, list[int]] = {}
        for suffix in naive.utf8_edges(size + 1, end=True):
            before.setdefault(suffix[1:], []).append(suffix[0])
        unfinished = [suffix for suffix in before if not suffix or 0x80 <= suffix[0] < 0xC0]
        assert len(unfinished) == 64**size == len(before)
        for partial in unfinished[:: 1 if size < 3 else 11]:
            assert sorted(utf8_before(partial)) == before[partial], partial


def test_as_many_characters_end_with_a_suffix_as_python_knows() -> None:
    assert utf8_capacity_before(b"") == 0x110000 - 0x800 == sum(map(len, naive.utf8_encodings().values()))
    for size in range(1, 5):
        suffixes = list(naive.utf8_edges(size, end=True).items())
        for suffix, count in suffixes[:: 1 if size < 3 else 17]:
            assert utf8_capacity_before(suffix) == count, suffix


@given(st.integers(0, 2**32), st.text(max_size=20))
def test_any_walk_along_the_mask_is_valid_utf8_without_the_banned(seed: int, ban: str) -> None:
    rules, random = Constraints(BYTES, ban, backward=True), np.random.default_rng(seed)
    written, partial = b"", b""
    while len(written) < 60 or partial:
        byte = bytes([int(random.choice(np.flatnonzero(rules.mask(partial))))])
        written, partial = byte + written, byte + partial
        if not 0x80 <= byte[0] < 0xC0:
            partial = b""
    assert not set(written.decode()) & set(ban)


@pytest.mark.parametrize("suffix", [b"\xa9", b"\x82\xac", b"\x9f\x98\x80", b"\xc3\xa9", b"\xe2\x82\xac", b"a"])
def test_a_byte_is_closed_where_all_that_it_can_complete_is_banned(suffix: bytes) -> None:
    members = naive.characters_of(suffix, end=True)
    assert len(members) == utf8_capacity_before(suffix)
    closed = Constraints(BYTES, "".join(members), backward=True)
    assert not closed.mask(suffix[1:])[suffix[0]]
    assert closed.mask(suffix[1:]).sum() == len(utf8_before(suffix[1:])) - 1
    spared = Constraints(BYTES, "".join(members[:-1]), backward=True)
    assert spared.mask(suffix[1:])[suffix[0]]
    partial = suffix
    while 0x80 <= partial[0] < 0xC0:
        (byte,) = np.flatnonzero(spared.mask(partial))
        partial = bytes([byte]) + partial
    assert partial.decode() == members[-1]


@given(st.sampled_from([b"\x82\xac", b"\x9f\x98\x80", b"\x80\x80", b"\xa0\xbf"]), st.data())
def test_bans_close_exactly_the_bytes_that_no_spared_character_needs(suffix: bytes, data: st.DataObject) -> None:
    members = naive.characters_of(suffix, end=True)
    spared = set(data.draw(st.lists(st.sampled_from(members), max_size=4)))
    rules = Constraints(BYTES, "".join(set(members) - spared) + "a", backward=True)
    for partial in {suffix, *(character.encode()[-3:] for character in spared)}:
        if 0x80 <= partial[0] < 0xC0:
            expected = {
                character.encode()[-1 - len(partial)] for character in spared if character.encode().endswith(partial)
            }
            assert set(np.flatnonzero(rules.mask(partial)).tolist()) == expected
    assert rules.mask(suffix[1:])[suffix[0]] == bool(spared)
    assert not rules.mask()[ord("a")]


def test_no_repeat_counts_whole_characters_in_bytes() -> None:
    rules = Constraints(BYTES, no_repeat=1, backward=True)
    members = naive.characters_of(b"\x9f\x98\x80", end=True)
    assert "\U0001f600" in members
    for character in members:
        assert rules.mask(b"\x98\x80")[0x9F]
        assert rules.mask(b"\x9f\x98\x80")[character.encode()[0]]
        rules.note_written(character)
        assert not rules.mask(b"\x9f\x98\x80")[character.encode()[0]]
    assert not rules.mask(b"\x98\x80")[0x9F]
