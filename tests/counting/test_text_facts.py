"""What one pass over a text tells: characters, lines, line ends, normal form, however the text is cut into blocks."""

import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chargen.counting import text_facts
from chargen.counting.characters import group_of
from chargen.counting.lines import LineHashes, describe_lines
from chargen.counting.text_facts import TextFacts, read_facts
from chargen.data.corpus import Corpus

texts = st.text(st.sampled_from("ab \n\r\u0301\u00e9e\u2028\u00ad\x1b漢한"), max_size=60)


def facts_of(text: str, **settings: Any) -> TextFacts:
    return read_facts(Corpus.from_text(text, **settings), lambda task, done, total: None)


@pytest.fixture(params=[5, 1 << 20], ids=["small blocks", "one block"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_facts, "BLOCK", request.param)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("settings", [{}, {"unit": "byte"}, {"valid_fraction": 0.0}, {"test_fraction": 0.3}], ids=str)
def test_facts_are_those_that_python_finds(settings: dict[str, Any]) -> None:
    @given(texts)
    @example("a\r\n\r\nb\rc\u2028")
    @example("e\u0301")
    @example("\nab\nab\n\nab")
    @example("abc\r\nabc\r\n\r\nabc\r\n\r")
    @example("abcd\r\r\nabcd\r")
    @example("abcd\r\nabcd\r\n")
    @example("a\nbc\r\nbc\na")  # a block of five ends behind the carriage return
    def check(text: str) -> None:
        facts = facts_of(text, **settings)
        counts = Counter(text)
        assert sum(group.count for group in facts.characters.groups) == len(text)
        assert facts.characters.distinct == len(counts)
        assert {each.character: each.count for each in facts.characters.common} == counts
        assert [each.character for each in facts.characters.controls] == ["\x1b"] * ("\x1b" in text)
        assert {each.character for each in facts.characters.invisible} == {"\u00ad", "\u2028"} & set(text)
        pairs = text.count("\r\n")
        ends = {"LF": text.count("\n") - pairs, "CR": text.count("\r") - pairs, "CR LF": pairs}
        ends["U+2028"] = text.count("\u2028")
        assert facts.line_ends == {name: count for name, count in ends.items() if count}
        assert bool(facts.not_nfc) == (not unicodedata.is_normalized("NFC", text))
        assert facts.not_nfc in text
        *ended, rest = text.split("\n" if "\n" in text else "\r")
        lines = [line for line in [*(line.removesuffix("\r") for line in ended), rest] if line]
        assert facts.lines.count == len(lines)
        if settings.get("valid_fraction") == 0.0:
            assert facts.lines.empty == len(ended) + bool(rest) - len(lines)
            sizes = sorted(map(len, lines)) or [0]
            assert (facts.lines.shortest, facts.lines.longest) == (sizes[0], sizes[-1])
            assert facts.lines.repeated == len(lines) - len(set(lines))
            assert facts.lines.ids == sum(sizes)

    check()


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_records_are_compared_whatever_their_labels(unit: str) -> None:
    rows = "text,label\n" + "ab,x\nab,y\nàb,x\nc,\n" * 3
    facts = facts_of(
        rows, records="csv", text_field="text", label_field="label", unit=unit, valid_fraction=0.25, shuffle=False
    )
    assert (facts.lines.count, facts.lines.repeated, facts.lines.empty) == (12, 9, 0)
    assert facts.lines.in_train == {"valid": 1.0}
    assert facts.characters.distinct == 4
    assert facts.line_ends == {}
    by_hash = facts_of(rows, records="csv", text_field="text", label_field="label", unit=unit, valid_fraction=0.5)
    assert set(by_hash.lines.in_train.values()) <= {0.0}


def test_the_share_of_lines_that_stand_in_the_training_part() -> None:
    facts = facts_of("one\ntwo\n" * 22 + "two\n" + "one\nnew\nfew\nabc\nxyz\n", valid_fraction=0.1)
    assert facts.lines.in_train == {"valid": 0.2}


def test_of_long_parts_the_first_lines_are_compared() -> None:
    lines = LineHashes(0, 0, limit=3)
    for block in ([5, 0, 5, 0, 7, 8], [0, 7, 8, 0, 9]):
        lines.add(np.array(block))
    described = describe_lines({"train": lines})
    assert (described.count, described.compared, described.repeated, described.ids) == (5, 3, 1, 4)


def test_the_hash_of_a_line_depends_on_every_character_and_its_place() -> None:
    text = "".join(f"{line}\n" for line in ("ab", "ba", "aab", "abb", "a", "b", "aa", "ab "))
    assert facts_of(text, valid_fraction=0.0).lines.repeated == 0
    assert facts_of(text * 2, valid_fraction=0.0).lines.repeated == 8


@pytest.mark.parametrize(
    ("characters", "name"),
    [
        ("aZéßÅ\uff21", "Latin"), ("λΩ", "Greek"), ("жЯ", "Cyrillic"), ("漢々", "Han"), ("한ㄱ", "Hangul"),
        ("あ", "Hiragana"), ("カｶ", "Katakana"), ("अि", "Devanagari"), ("אָ", "Hebrew"), ("𐌀", "Old Italic"),
        ("\u0301", "accents"), ("ª𝐚", "other letters"), ("0٣½", "digits"), ("€+", "symbols"), ("!—", "punctuation"),
        (" \n\t\u00a0", "blanks"), ("\x00\x9b", "controls"), ("\u200b\ufeff\u2029\u200d", "invisible"),
        ("\u0600ا", "Arabic"), ("\ue000", "private use"), ("\u0378", "unassigned"),
    ],
)  # fmt: skip
def test_every_character_has_a_script_or_a_kind(characters: str, name: str) -> None:
    assert {group_of(character) for character in characters} == {name}


def test_folded_characters_are_counted_apart() -> None:
    facts = facts_of("aaaabbbb\n\n" + "xyz", min_count=3)
    assert {each.character for each in facts.characters.common} == {"a", "b"}
    assert facts.lines.count == 1, "the line end is folded like any other character"


def test_raw_bytes_are_no_characters() -> None:
    facts = facts_of("a\udcff\n\r\n", unit="byte", encoding="raw")
    assert facts.characters is None
    assert facts.line_ends == {"LF": 1, "CR LF": 1}


def test_progress_ends_with_the_whole_text() -> None:
    calls: list[Any] = []
    report: Callable[..., None] = lambda *done: calls.append(done)  # noqa: E731
    read_facts(Corpus.from_text("ab" * 50), report)
    assert calls[-1] == ("looking", 100, 100)


def test_a_line_of_one_source_does_not_go_on_in_another(tmp_path: Path) -> None:
    for name in ("train", "valid"):
        (tmp_path / name).write_text("xyz\nab")
    corpus = Corpus.from_files(tmp_path / "train", valid=tmp_path / "valid", cache=tmp_path / "cache")
    lines = read_facts(corpus, lambda task, done, total: None).lines
    assert (lines.count, lines.repeated, lines.in_train) == (4, 2, {"valid": 1.0})


def test_common_and_rare_characters_are_ranked() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    facts = facts_of(
        "".join(letter * (1 + max(number - 1, 0)) for number, letter in enumerate(letters)) + "\ufffd\ufffd"
    )
    assert [(each.character, each.count) for each in facts.characters.common[:2]] == [("z", 25), ("y", 24)]
    assert [each.character for each in facts.characters.rare] == ["b", "a", "\ufffd", "c", "d", "e", "f"]
    assert (facts.characters.distinct, facts.characters.once, facts.characters.replaced) == (27, 2, 2)
