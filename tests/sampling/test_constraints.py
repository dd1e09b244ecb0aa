"""Which ids may come next, against slow and obvious twins."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.data.code_points import END_MARK
from chargen.data.utf8 import utf8_capacity, utf8_length, utf8_next
from chargen.data.vocabulary import Vocabulary
from chargen.sampling.constraints import Constraints
from tests import naive

BYTES = Vocabulary(unit="byte")
CHARACTERS = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))


def test_the_next_bytes_are_those_python_accepts_after_every_prefix() -> None:
    prefixes = [prefix for size in range(1, 5) for prefix in naive.utf8_edges(size)]
    following: dict[bytes, list[int]] = {}
    for prefix in prefixes:
        following.setdefault(prefix[:-1], []).append(prefix[-1])
    rules = Constraints(BYTES)
    assert set(following) == {b""} | {prefix for prefix in prefixes if len(prefix) < utf8_length(prefix[0])}
    for partial, expected in following.items():
        assert utf8_next(partial) == sorted(expected), partial
    for partial in [b"", b"\xc2", b"\xe0", b"\xed", b"\xed\x9f", b"\xf0", b"\xf4", b"\xf4\x8f", b"\xf0\x90\x80"]:
        assert np.flatnonzero(rules.mask(partial)).tolist() == sorted(following[partial])


def test_a_prefix_begins_as_many_characters_as_python_knows() -> None:
    for size in range(1, 5):
        prefixes = naive.utf8_edges(size)
        assert {prefix: utf8_capacity(prefix) for prefix in prefixes} == prefixes
    assert sum(utf8_capacity(bytes([lead])) for lead in utf8_next(b"")) == 0x110000 - 0x800


@given(st.integers(0, 2**32), st.text(max_size=20))
def test_any_walk_along_the_mask_is_valid_utf8_without_the_banned(seed: int, ban: str) -> None:
    rules, random = Constraints(BYTES, ban), np.random.default_rng(seed)
    written, partial = b"", b""
    while len(written) < 60 or partial:
        byte = int(random.choice(np.flatnonzero(rules.mask(partial))))
        written, partial = written + bytes([byte]), partial + bytes([byte])
        if len(partial) == utf8_length(partial[0]):
            partial = b""
    assert not set(written.decode()) & set(ban)


@pytest.mark.parametrize("prefix", [b"\xc3", b"\xe2\x80", b"\xe2", b"\xed", b"\xe0", b"\xf0\x9f\x98"])
def test_a_wholly_banned_family_closes_the_prefix_that_leads_only_there(prefix: bytes) -> None:
    members = "".join(naive.characters_of(prefix))
    assert not Constraints(BYTES, members).mask(prefix[:-1])[prefix[-1]]
    assert not Constraints(BYTES, members).mask(prefix).any()
    spared = Constraints(BYTES, members[:-1])
    assert spared.mask(prefix[:-1])[prefix[-1]]
    partial = prefix
    while len(partial) < utf8_length(prefix[0]):
        (byte,) = np.flatnonzero(spared.mask(partial))
        partial += bytes([byte])
    assert partial.decode() == members[-1]


def test_all_two_byte_characters_banned_close_all_their_lead_bytes() -> None:
    mask = Constraints(BYTES, "".join(map(chr, range(0x80, 0x800)))).mask()
    assert np.flatnonzero(mask).tolist() == [*range(0x80), *range(0xE0, 0xF5)]


def test_a_ban_of_everything_leaves_nothing() -> None:
    assert not Constraints(BYTES, CHARACTERS).mask().any()
    assert not Constraints(Vocabulary("abc"), "abcd").mask().any()


def test_the_unknown_symbol_is_never_allowed() -> None:
    vocabulary = Vocabulary("abc", folded="xyz")
    for rules in (Constraints(vocabulary), Constraints(vocabulary, "b"), Constraints(vocabulary, "b", 1)):
        rules.note_written("a")
        mask = rules.mask()
        assert len(mask) == 4
        assert not mask[vocabulary.unknown_id]
        assert mask[2]
    assert Constraints(vocabulary, "bx").mask().tolist() == [True, False, True, False]


@pytest.mark.parametrize("backward", [False, True])
def test_an_end_symbol_is_allowed_between_two_characters_and_other_symbols_never(backward: bool) -> None:
    characters = Vocabulary("abc", folded="x", records=True, labels="yz")
    in_bytes = Vocabulary(unit="byte", records=True, labels="yz")
    for vocabulary, partial, allowed in (
        (characters, b"", True), (in_bytes, b"", True), (in_bytes, b"\xa9" if backward else b"\xc3", False)
    ):  # fmt: skip
        for ban, repeating in (("", ""), ("a", "b"), ("abc", "")):
            rules = Constraints(vocabulary, ban, backward=backward)
            mask = rules.mask(partial, frozenset(repeating))
            assert mask[vocabulary.end_id :].tolist() == [allowed, False, False]
            assert mask[: vocabulary.end_id].any() == (ban != "abc" or vocabulary is in_bytes)
            closed = Constraints(vocabulary, ban + END_MARK, backward=backward).mask(partial, frozenset(repeating))
            assert not closed[vocabulary.end_id :].any()
            assert np.array_equal(closed[: vocabulary.end_id], mask[: vocabulary.end_id])


events = st.lists(st.tuples(st.text("abc", max_size=5), st.booleans()), max_size=25)


@given(events, st.integers(0, 5))
def test_no_repeat_forbids_what_a_search_through_the_text_forbids(events: list[tuple[str, bool]], run: int) -> None:
    vocabulary = Vocabulary("abc", folded="xy")
    rules, bytewise = Constraints(vocabulary, no_repeat=run), Constraints(BYTES, no_repeat=run)
    history: list[tuple[str, bool]] = []
    for text, fed in events:
        if fed:
            rules.note_read(text)
            bytewise.note_read(text)
        for character in "" if fed else text:
            rules.note_written(character)
            bytewise.note_written(character)
        history += [(character, not fed) for character in text]
        forbidden = naive.forbidden(history, run)
        assert rules.mask().tolist() == [character not in forbidden for character in "abc"] + [False]
        assert set(b"abc") - set(np.flatnonzero(bytewise.mask()).tolist()) == {
            ord(character) for character in forbidden
        }


def test_no_repeat_counts_whole_characters_in_bytes() -> None:
    rules = Constraints(BYTES, no_repeat=1)
    for character in naive.characters_of(b"\xc3")[:-1]:
        rules.note_written(character)
    assert rules.mask()[0xC3]
    assert np.flatnonzero(rules.mask(b"\xc3")).tolist() == [0xBF]
    rules.note_written("ÿ")
    assert not rules.mask()[0xC3]
    assert rules.mask()[0xC4]


@given(st.sampled_from(range(1, 4)), st.integers(0, 2**32))
def test_a_text_written_under_no_repeat_holds_no_run_twice(run: int, seed: int) -> None:
    vocabulary, random = Vocabulary("abcd"), np.random.default_rng(seed)
    rules, written = Constraints(vocabulary, no_repeat=run), ""
    while rules.mask().any() and len(written) < 300:
        character = vocabulary.characters[int(random.choice(np.flatnonzero(rules.mask())))]
        rules.note_written(character)
        written += character
    runs = [written[at : at + run] for at in range(len(written) - run + 1)]
    assert len(runs) == len(set(runs))
    last = written[len(written) - run + 1 :]
    assert all(last + character in runs for character in "abcd")


def test_a_mask_handed_out_does_not_change_later() -> None:
    rules = Constraints(Vocabulary("abc"), no_repeat=1)
    before = rules.mask()
    rules.note_written("a")
    assert rules.mask().tolist() == [False, True, True]
    assert before.tolist() == [True, True, True]


def test_a_ban_of_a_lone_surrogate_bans_nothing_in_bytes() -> None:
    assert np.array_equal(Constraints(BYTES, "\udcffa").mask(), Constraints(BYTES, "a").mask())
