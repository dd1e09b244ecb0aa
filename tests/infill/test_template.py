"""Texts with several gaps: what marks them, and what fills them."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.errors import ChargenError, DataError, SettingError
from chargen.infill.fill import Filler
from chargen.infill.template import MARKER, Filled, Template, fill_gaps
from chargen.storage.model_file import ModelFile
from tests.small_models import small_model

LETTERS = "abcd "

sizes = st.integers(0, 999_999_999)
lengths = st.tuples(sizes, sizes)
markers = st.text(st.characters(exclude_characters="xyz{5}\0", exclude_categories=["Cs"]), min_size=1, max_size=5)


@cache
def model(unit: str = "character") -> ModelFile:
    return small_model(hidden_size=8, characters=LETTERS, unit=unit, scale=1.5, bidirectional=True)


def filler(**given_: Any) -> Filler:
    return Filler(model(), **{"seed": 1, "particles": 16, **given_})


def length_of(low: int, high: int | None) -> str:
    return f"{{{low}}}" if high is None else f"{{{low}-{high}}}"


# What is a gap.


@pytest.mark.parametrize(
    ("text", "parts", "lengths"),
    [
        ("___", ("", ""), ((1, 2),)),
        ("a___b", ("a", "b"), ((1, 2),)),
        ("a___{5}b", ("a", "b"), ((5, 5),)),
        ("a___{3-8}b", ("a", "b"), ((3, 8),)),
        ("a___{0}b", ("a", "b"), ((0, 0),)),
        ("a___{0-4}b", ("a", "b"), ((0, 4),)),
        ("a___b___{7}c___", ("a", "b", "c", ""), ((1, 2), (7, 7), (1, 2))),
        ("______", ("", "", ""), ((1, 2), (1, 2))),
        ("____", ("", "_"), ((1, 2),)),
        ("a__b___", ("a__b", ""), ((1, 2),)),
        ("a___{}b", ("a", "{}b"), ((1, 2),)),
        ("a___{5b", ("a", "{5b"), ((1, 2),)),
        ("a___{-5}b", ("a", "{-5}b"), ((1, 2),)),
        ("a___{5-}b", ("a", "{5-}b"), ((1, 2),)),
        ("a___{ 5}b", ("a", "{ 5}b"), ((1, 2),)),
        ("a___ {5}b", ("a", " {5}b"), ((1, 2),)),
        ("a___{5}{6}b", ("a", "{6}b"), ((5, 5),)),
        ("a{5}___b", ("a{5}", "b"), ((1, 2),)),
        ("line\n___\nline", ("line\n", "\nline"), ((1, 2),)),
    ],
)
def test_worked_examples(text: str, parts: tuple[str, ...], lengths: tuple[tuple[int, int], ...]) -> None:
    assert Template.parse(text, lengths=(1, 2)) == Template(parts, lengths)


@given(
    st.lists(st.text("abc.{}(\n", max_size=6), min_size=2, max_size=5),
    st.lists(st.none() | st.tuples(sizes, st.none()) | st.tuples(sizes, sizes).map(sorted), min_size=4),
    lengths,
)
def test_a_text_is_taken_apart_as_it_was_put_together(parts: list[str], own: list[Any], default: Any) -> None:
    text = parts[0]
    expected = []
    for part, length in zip(parts[1:], own, strict=False):
        text += MARKER + (length_of(*length) if length else "") + part
        low, high = length or default
        expected.append((low, low if high is None else high))
    assert Template.parse(text, lengths=default) == Template(tuple(parts[: len(expected) + 1]), tuple(expected))


@given(markers, st.lists(st.text("xyz{5}", max_size=4), min_size=2, max_size=4))
def test_any_text_may_mark_gaps_and_means_itself(marker: str, parts: list[str]) -> None:
    parsed = Template.parse(marker.join(f"\0{part}" for part in parts), marker, (3, 4))
    assert parsed.parts == tuple(f"\0{part}" for part in parts)
    assert parsed.lengths == ((3, 4),) * (len(parts) - 1)


@pytest.mark.parametrize("marker", [".*", "[gap]", "a|b", "(?", "\\", "$", "^", "{}", "{5}", "**", "\n"])
def test_a_marker_of_signs_that_steer_searches_is_only_text(marker: str) -> None:
    text = f"abc{marker}{{2-3}}def{marker}"
    assert Template.parse(text, marker, (1, 1)) == Template(("abc", "def", ""), ((2, 3), (1, 1)))
    with pytest.raises(DataError):
        Template.parse("ac. gap g a b []", marker, (1, 1))


@pytest.mark.parametrize("text", ["", "abc", "__", "_ _ _"])
def test_a_text_without_a_gap_is_bad_data(text: str) -> None:
    with pytest.raises(DataError, match=r"^no gap in the text: mark it with ___, or give another `marker`$"):
        Template.parse(text, lengths=(1, 2))


@pytest.mark.parametrize("text", ["a", "a\n", "a\n{3-2}"])
def test_a_marker_that_is_no_sign_is_told_in_one_line(text: str) -> None:
    with pytest.raises(ChargenError) as caught:
        Template.parse(text, "\n")
    assert str(caught.value).isprintable()


def test_an_empty_marker_is_refused() -> None:
    with pytest.raises(SettingError, match=r"marker is ''") as caught:
        Template.parse("abc", "", (1, 2))
    assert caught.value.setting == "marker"


@pytest.mark.parametrize(("text", "number"), [("a___b", 1), ("a___{3}b___", 2), ("___{1-2}___{3}___{x}", 3)])
def test_a_gap_without_a_length_is_named(text: str, number: int) -> None:
    with pytest.raises(SettingError, match=f"how long is gap {number}\\?") as caught:
        Template.parse(text)
    assert "___{5} or ___{3-8}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lengths_need_no_default_where_all_gaps_say_theirs() -> None:
    assert Template.parse("a___{1}b___{2-3}").lengths == ((1, 1), (2, 3))


# What is filled in.


def together(filled: Filled, template: Template) -> str:
    pieces = [template.parts[0]]
    for gap, part in zip(filled.gaps, template.parts[1:], strict=True):
        pieces += [gap.text, part]
    return "".join(pieces)


@settings(max_examples=15)
@given(
    st.lists(st.text(LETTERS, max_size=5), min_size=2, max_size=4),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=3, max_size=3),
    st.integers(1, 6),
    st.integers(0, 2**32),
)
def test_texts_keep_their_parts_and_differ_in_the_first_gap(
    parts: list[str], ranges: list[tuple[int, int]], num: int, seed: int
) -> None:
    template = Template(tuple(parts), tuple((low, low + more) for low, more in ranges[: len(parts) - 1]))
    results = list(fill_gaps(filler(seed=seed), template, num))
    assert 1 <= len(results) <= num
    for filled in results:
        assert filled.text == together(filled, template)
        assert len(filled.gaps) == len(filled.fills) == len(template.lengths)
        for gap, (low, high) in zip(filled.gaps, template.lengths, strict=True):
            assert low <= len(gap.text) <= high
            assert set(gap.text) <= set(LETTERS)
    assert len({filled.gaps[0].text for filled in results}) == len(results)


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("length", ["{2}", "{7}"], ids=["exact", "particles"])
def test_the_first_ones_are_the_same_however_many_are_wanted(length: str, temperature: float) -> None:
    template = Template.parse(f"ab ___{length} c ___{length}d")
    results = {num: list(fill_gaps(filler(temperature=temperature), template, num)) for num in (1, 2, 5)}
    assert [len(ways) for ways in results.values()] == [1, 2, 5]
    texts = {num: [filled.text for filled in ways] for num, ways in results.items()}
    assert texts[1] == texts[5][:1]
    assert texts[2] == texts[5][:2]
    assert len(set(texts[5])) == 5


def test_each_gap_is_filled_between_what_was_written_and_the_next_gap() -> None:
    template, writer = Template.parse("ab ___{2}cd___{1-2} a___{6}b"), filler()
    for way, filled in enumerate(fill_gaps(writer, template, 3)):
        assert filled.gaps[0] == writer.fill("ab ", "cd", 2, num=3).alternatives[way]
        second = writer.fill(f"ab {filled.gaps[0].text}cd", " a", 1, 2, number=(1 << 32) + way)
        third = writer.fill(f"ab {filled.gaps[0].text}cd{filled.gaps[1].text} a", "b", 6, number=(2 << 32) + way)
        assert filled.gaps[1:] == (second.alternatives[0], third.alternatives[0])
        assert filled.fills[1:] == (second, third)


def test_gaps_of_one_text_draw_numbers_of_their_own() -> None:
    """With the same surroundings they would else all be filled alike."""
    template = Template(("a", "a", "a", "a", "a"), ((3, 3),) * 4)
    (filled,) = fill_gaps(filler(), template)
    assert len({gap.text for gap in filled.gaps}) > 1


def test_the_same_seed_writes_the_same_text_again_and_another_another() -> None:
    template = Template.parse("ab___{7}cd___{7}")
    first, again, other = (next(iter(fill_gaps(filler(seed=seed), template))) for seed in (1, 1, 2))
    assert first == again
    assert first.text != other.text


@pytest.mark.parametrize(("num", "gaps"), [(1, 1), (1, 3), (4, 1), (4, 3)])
def test_progress_is_reported_after_every_gap(num: int, gaps: int) -> None:
    calls: list[int] = []
    template = Template(("a",) * (gaps + 1), ((1, 1),) * gaps)
    results = fill_gaps(filler(), template, num, lambda: calls.append(1))
    assert calls == []
    next(results)
    assert len(calls) == gaps
    rest = list(results)
    assert len(rest) == num - 1
    assert len(calls) == 1 + num * (gaps - 1)


def test_fewer_ways_are_returned_where_there_are_fewer() -> None:
    calls: list[int] = []
    template = Template(("a", "b", "c"), ((1, 1), (1, 1)))
    results = list(fill_gaps(filler(), template, 100, lambda: calls.append(1)))
    assert sorted(filled.gaps[0].text for filled in results) == sorted(LETTERS)
    assert len(calls) == 1 + len(LETTERS)
    assert len(list(fill_gaps(filler(), Template(("a", "a", "a"), ((0, 0), (3, 3))), 5))) == 1


def test_a_gap_whose_longest_length_is_shorter_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^gap 2 is ___\{8-3\}: the smaller length comes first$"):
        Template.parse("a___{3-3}b___{8-3}c")
    with pytest.raises(SettingError, match=r"a gap of 8 to 3 characters: give whole numbers from 0, the smaller first"):
        next(fill_gaps(filler(), Template(("a", "b"), ((8, 3),))))


def test_what_the_model_does_not_know_and_what_is_forbidden_is_an_error() -> None:
    with pytest.raises(DataError, match="unknown to the model: 'é'"):
        next(fill_gaps(filler(), Template.parse("é___{2}b")))
    with pytest.raises(DataError, match="unknown to the model: 'é'"):
        next(fill_gaps(filler(), Template.parse("a___{2}b___{2}é")))
    with pytest.raises(ChargenError):
        next(fill_gaps(filler(ban=LETTERS), Template.parse("a___{2}b")))


def test_what_is_left_out_or_replaced_stays_in_the_text() -> None:
    (filled,) = fill_gaps(filler(unknown="skip"), Template.parse("aé___{2}éb"))
    assert (filled.text[:2], filled.text[4:]) == ("aé", "éb")
    (plain,) = fill_gaps(filler(), Template.parse("a___{2}b"))
    assert filled.gaps == plain.gaps


def test_bytes_are_filled_too() -> None:
    template = Template.parse("é___{3}字___{1-2}")
    writer = Filler(model("byte"), seed=1, particles=16)
    for filled in fill_gaps(writer, template, 2):
        assert filled.text == together(filled, template)
        assert len(filled.gaps[0].text) == 3
