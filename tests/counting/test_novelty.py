"""Novelty: what is copied is found with its place, and nothing else is."""

import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import chargen
from chargen.counting.copy_finder import LENGTHS, CopyFinder, Part
from chargen.counting.near_copies import GAP, chain_spans
from chargen.counting.novelty import Novelty
from chargen.counting.placed_texts import Place, PlacedTexts, read_placed
from chargen.data.reading_report import ReadingReport
from chargen.data.records import MARK
from chargen.data.sources import Source
from chargen.errors import ChargenError, ModelFileError, SettingError
from chargen.kernels.copies import find_loops
from tests import naive
from tests.small_models import small_model

pytest.importorskip("pydivsufsort")
LETTERS = "abé\n漢\U0001f600"
texts = st.lists(st.text(LETTERS, max_size=30), max_size=4)


def place_all(*groups: Sequence[str]) -> tuple[PlacedTexts, list[tuple[int, int]]]:
    """Groups of texts behind one another, and where each group begins and ends."""
    placed, bounds = PlacedTexts(), []
    for group in groups:
        start = len(placed.data)
        for number, text in enumerate(group):
            placed.add([text], Place(f"file {number}", 1, 1))
        bounds.append((start, len(placed.data)))
    return placed, bounds


def held_out_texts(corpus: list[str], first: int, last: int) -> list[str]:
    """What stands in some texts from one of all their characters to before another one."""
    numbers = np.cumsum([0, *map(len, corpus)]).tolist()
    return [text[max(first - number, 0) : max(last - number, 0)] for text, number in zip(corpus, numbers, strict=False)]


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.fixture(scope="module")
def prose() -> str:
    """Words of which none stands twice, in lines."""
    chance = random.Random(5)
    words = ["".join(chance.choices("etaoinshrdlué漢", k=8)) for _ in range(900)]
    return "".join(word + chance.choice(" \n ") for word in words)


@settings(deadline=None, max_examples=150)
@given(texts, texts, st.tuples(st.integers(0, 40), st.integers(0, 40)))
@example(["xabcxabcd"], [], (3, 9))
def test_matches_are_those_of_a_plain_search(corpus: list[str], looked_up: list[str], borders: tuple[int, int]) -> None:
    """In the whole corpus, and of a held-out part of it in what begins outside of that."""
    placed, ((_, corpus_stop), bounds) = place_all(corpus, looked_up)
    finder = CopyFinder(placed, corpus_stop)
    places = [place for place, byte in enumerate(placed.data[:corpus_stop]) if byte != 0xFE and byte & 0xC0 != 0x80]
    rests = [text[start:] for text in corpus for start in range(len(text))]
    first, last = sorted(min(border, len(rests)) for border in borders)
    byte_first, byte_last = ([*places, corpus_stop][border] for border in (first, last))
    for (start, stop), skip, group, sources in (
        (bounds, (0, 0), looked_up, rests),
        (
            (byte_first, byte_last),
            (byte_first, byte_last),
            held_out_texts(corpus, first, last),
            rests[:first] + rests[last:],
        ),
    ):
        expected = [length for text in group for length in naive.longest_matches(text, sources)]
        part = Part.of(placed, start, stop)
        assert finder.match(part, skip).tolist() == expected
        figures = finder.measure(part, skip, min_length=2)
        assert (figures.characters, figures.longest) == (len(expected), max(expected, default=0))
        for n in LENGTHS:
            grams = [text[at : at + n] for text in group for at in range(len(text) - n + 1)]
            novel = [not any(source.startswith(gram) for source in sources) for gram in grams]
            assert figures.novel[n] == (sum(novel) / len(novel) if grams else None)


@settings(deadline=None, max_examples=300)
@given(st.text("ab漢", max_size=40), st.lists(st.text("ab漢", max_size=40), min_size=1, max_size=2), st.integers(2, 5))
@example("Z" + "a漢" * 12 + "Y", ["Z" + "a漢" * 10 + "Y"], 3)
def test_near_copies_are_those_of_a_plain_search(text: str, corpus: list[str], least: int) -> None:
    placed, ((_, corpus_stop), bounds) = place_all(corpus, [text])
    finder, part = CopyFinder(placed, corpus_stop), Part.of(placed, *bounds)
    copies = [(start, start + length) for start, length in naive.copied_spans(text, corpus, least)]
    chains = {
        (chain.start, chain.stop, chain.differing)
        for chain in chain_spans(placed.data, finder.spans(part, copies, (0, 0)))
    }
    assert chains == naive.near_copies(text, corpus, least, GAP)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.text("ab", max_size=5), st.integers(1, 9)), max_size=4),
    st.integers(1, 9),
    st.integers(2, 4),
    st.integers(0, 30),
)
def test_loops_are_those_of_a_plain_search(pieces: list[tuple[str, int]], least: int, times: int, border: int) -> None:
    """Within two texts, one behind the other."""
    text = "".join(piece * number for piece, number in pieces)
    codes = np.array([*map(ord, text)], np.uint32)
    loops: dict[tuple[int, int], int] = {}
    for start, length, period in find_loops(codes, (np.arange(len(text)) >= border) * 1, 1000, least, times):
        loops[start, length] = min(period, loops.get((start, length), period))
    behind = naive.repeated_stretches(text[border:], least, times)
    expected = naive.repeated_stretches(text[:border], least, times) | {(border + at, *rest) for at, *rest in behind}
    assert {(*span, period) for span, period in loops.items()} == expected


@settings(deadline=None, max_examples=150)
@given(
    st.text(LETTERS, min_size=1, max_size=90), st.sampled_from(["character", "byte"]), st.sampled_from([None, "line"]),
    st.booleans(), st.sampled_from([0.1, 0.25, 0.5]), st.sampled_from([0.0, 0.3]),
)  # fmt: skip
@example("ab\nc", "character", "line", False, 0.5, 0.0)
@example("a\nb\na\nb\na\nb\nabcdabcdab", "character", "line", False, 0.5, 0.0)
def test_the_validation_part_is_that_of_training(
    text: str, unit: str, records: str | None, shuffle: bool, valid: float, test: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder, "text.txt"), text)
        options = {"unit": unit, "records": records, "valid_fraction": valid, "test_fraction": test}
        config = chargen.CorpusConfig(**options, shuffle=shuffle or records is None)
        texts, (first, last) = read_placed([Source("text", path)], config, config, ReadingReport())
        corpus = chargen.Corpus.from_text(text, **options, shuffle=config.shuffle)
    part = bytes(texts.data[first:last]).decode("utf-8", "replace")
    marked = corpus.vocabulary.decode(corpus.valid)
    assert [piece for piece in part.split("\ufffd") if piece] == [piece for piece in MARK.split(marked) if piece]


def test_held_out_text_is_cut_from_the_middle_into_the_same_lengths() -> None:
    letters = ["abcdefghijkl", "mno漢rstuvwxyz"]
    placed, ((_, corpus_stop), bounds) = place_all(letters, letters)
    part = Part.of(placed, *bounds).cut_like([4, 3, 5], whole=False)
    finder = CopyFinder(placed, corpus_stop)
    assert np.diff(part.borders).tolist() == [4, 2, 1, 5]
    assert bytes(finder.data[part.starts[:5]]) == b"ghijk"
    assert finder.match(part).tolist() == [4, 3, 2, 1, 2, 1, 1, 5, 4, 3, 2, 1]


def test_what_is_held_out_is_not_looked_up_in_itself(prose: str, tmp_path: Path) -> None:
    twice = "He said it twice, he did: "
    corpus = write(tmp_path / "corpus.txt", prose[:2000] + twice * 4)
    assert chargen.novelty(twice * 4, corpus).text.copied == 1
    assert chargen.novelty(twice * 4, corpus).held_out.copied == 0


def test_no_copy_that_is_named_overlaps_a_longer_one(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus.txt", "abcdefgh123\ndefghijkl-qrs")
    copies = chargen.novelty("abcdefghijkl qrs", corpus, shortest=3).text.copies
    assert [copy.text for copy in copies] == ["defghijkl", "qrs"]
    assert len(chargen.novelty("abcdefghijkl qrs", corpus, shortest=3, show=1).text.copies) == 1


def test_the_copies_that_are_named_say_most(tmp_path: Path) -> None:
    """Programs are full of equal indentation: blanks count, but are not what is named."""
    corpus = write(tmp_path / "corpus.txt", f"a{' ' * 60}b\nmany a word is here\n")
    result = chargen.novelty(f"x{' ' * 50}y many a word ", corpus, shortest=10).text
    assert (result.longest, [copy.text for copy in result.copies]) == (50, ["many a word "])
    assert result.copied == pytest.approx(62 / result.characters)


def test_planted_copies_are_found_with_their_places(prose: str, tmp_path: Path) -> None:
    """Of every length, from the beginning, the end, anywhere; at the beginning of the text and its end."""
    corpus, chance = write(tmp_path / "corpus.txt", prose), random.Random(1)
    size = len(prose)
    for length in [*range(20, 61), 200, 1000]:
        for start in (0, chance.randrange(size - length), size - length):
            before, behind = chance.choice([("", "Z" * 9), ("X" * 7, ""), ("XYZ\nX", "ZY")])
            result = chargen.novelty(before + prose[start : start + length] + behind, corpus)
            (copy,) = result.text.copies
            assert (copy.length, copy.text, copy.sources) == (length, prose[start : start + length], 1)
            assert copy.place == Place("", 1 + before.count("\n"), len(before) - before.rfind("\n"))
            above, line = prose.count("\n", 0, start), prose.rfind("\n", 0, start) + 1
            assert copy.source == Place(str(corpus), above + 1, start - line + 1)
            assert result.text.copied == pytest.approx(length / result.text.characters)


def test_nothing_is_copied_in_shuffled_text(prose: str, tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus.txt", prose)
    for seed in range(20):
        letters = random.Random(seed).sample(prose, len(prose))
        result = chargen.novelty("".join(letters), corpus)
        assert not result.text.copies
        assert not result.text.near_copies
        assert not result.text.loops
        assert result.text.copied == 0
        assert result.text.novel[20] == 1
        assert result.text.longest < 10


def test_line_ends_and_normal_forms_make_no_difference(prose: str, tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus.txt", prose.replace("\n", "\r\n").replace("é", "e\u0301"))
    for text in (prose, prose.replace("\n", "\r\n"), prose.replace("é", "e\u0301"), prose.replace("\n", "\r")):
        for given_text in (text[:1000], write(tmp_path / "text.txt", text[:1000])):
            (copy,) = chargen.novelty(given_text, corpus).text.copies
            assert copy.length > 900
            assert copy.source == Place(str(corpus), 1, 1)


def test_a_copy_lies_in_one_file(prose: str, tmp_path: Path) -> None:
    half = len(prose) // 2
    names = [write(tmp_path / "a.txt", prose[:half]), write(tmp_path / "b.txt", prose[half:])]
    copies = chargen.novelty(prose[half - 100 : half + 60], names).text.copies
    assert [(copy.length, copy.source.name) for copy in copies] == [(100, str(names[0])), (60, str(names[1]))]
    assert copies[1].source == Place(str(names[1]), 1, 1)


def test_a_changed_word_makes_a_near_copy(prose: str, tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus.txt", prose)
    for change, differing in (("", 4), ("XX", 4), ("Z" * 10, 10)):
        text = "QQ" + prose[100:150] + change + prose[154:190]
        (near,) = chargen.novelty(text, corpus).text.near_copies
        assert (near.length, near.differing, near.text) == (len(text) - 2, differing, text[2:])
        assert near.place == Place("", 1, 3)
        assert near.source.line == 1 + prose.count("\n", 0, 100)
    for apart in (prose[100:150] + "Z" * 11 + prose[150:190], prose[150:190] + prose[100:150]):
        assert not chargen.novelty(apart, corpus).text.near_copies


def test_loops_are_named_with_their_period(prose: str, tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus.txt", prose)
    result = chargen.novelty(prose[:30] + "\n" + "the king, " * 5 + "Q", corpus)
    (loop,) = result.text.loops
    assert (loop.length, loop.period, loop.text, loop.place.column) == (50, 10, "the king, ", 1)
    assert result.text.looped == pytest.approx(50 / 82)


def test_held_out_text_is_as_long_and_not_in_what_it_is_looked_up_in(prose: str, tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus.txt", prose)
    result = chargen.novelty(prose[-500:], corpus)
    assert result.held_out is not None
    assert result.held_out.characters == result.text.characters == 500
    assert result.text.novel[10] == 0
    assert result.held_out.novel[10] == 1
    other = write(tmp_path / "other.txt", prose[-300:] + "new")
    result = chargen.novelty(prose[-500:], corpus, held_out=other)
    assert result.held_out.characters == 303
    assert result.held_out.longest == 300
    assert result.corpus_characters == len(prose)
    assert chargen.novelty("abc", write(tmp_path / "empty.txt", "")).held_out is None


@pytest.mark.parametrize(
    ("text", "corpus"), [("", ""), ("", "abc"), ("abc", ""), ("a", "a"), ("漢", "a漢"), ("\ud800", "a")]
)
def test_tiny_texts(text: str, corpus: str, tmp_path: Path) -> None:
    result = chargen.novelty(text, write(tmp_path / "corpus.txt", corpus))
    assert result.text.characters == len(text)
    assert result.text.longest == (text in corpus) * len(text)
    assert result.text.novel[1] == (None if not text else float(text not in corpus))
    assert result.text.novel[4] is None


def test_records_are_compared_as_a_whole(tmp_path: Path) -> None:
    names = ["".join(random.Random(number).choices("abcd", k=6)) for number in range(300)]
    corpus = write(tmp_path / "names.txt", "\n".join(names) + "\n")
    text = [names[5][:5], names[3], names[299], names[3] + "a", "", "dddddddd"]
    for given_text in ("\n".join(text), write(tmp_path / "text.txt", "\n".join(text))):
        result = chargen.novelty(given_text, corpus, records="line", shortest=6)
        whole = sum(name in names for name in text if name)
        assert result.text.texts == 5
        assert result.text.whole == whole >= 2
        assert result.held_out.texts == 5
        assert result.held_out.whole == 0
        assert {copy.source.line for copy in result.text.copies} >= {4, 300}


def test_a_model_writes_what_is_looked_up(tmp_path: Path) -> None:
    model = small_model()
    source = model.vocabulary.characters * 5
    corpus = write(tmp_path / "corpus.txt", source)
    result = chargen.novelty(model, corpus, length=60, num=3, seed=7, temperature=0.5)
    written = chargen.generate(model, length=60, num=3, seed=7, temperature=0.5)
    expected = max(max(naive.longest_matches(text, naive.suffixes([source]))) for text in written)
    assert (result.text.texts, result.text.characters, result.seed) == (3, 180, 7)
    assert result.text.longest == expected


def test_a_model_says_how_its_text_was_cut_and_read(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus.txt", "abc def\n" * 30 + "\xff")
    cut = {"settings": {"valid_fraction": 0.5, "test_fraction": 0.1}}
    assert chargen.novelty(replace(small_model(), training=cut), corpus, length=90).held_out.characters == 90
    assert chargen.novelty(small_model(), corpus, length=90).held_out is None
    (tmp_path / "bad.txt").write_bytes(b"abc\xffdef")
    assert chargen.novelty(small_model(), tmp_path / "bad.txt", length=9, errors="replace").replaced == 1
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "state.safetensors", "")
    with pytest.raises(ModelFileError, match="has no model yet"):
        chargen.novelty(tmp_path / "run", corpus)


def test_what_is_for_a_model_is_refused_for_a_text_and_the_other_way_round(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus.txt", "abc")
    for name in ("length", "num", "seed", "temperature"):
        with pytest.raises(SettingError, match=f"^{name} says how a model writes"):
            chargen.novelty("abc", corpus, **{name: 1})
    with pytest.raises(SettingError, match="temprature"):
        chargen.novelty("abc", corpus, temprature=1)
    for name in ("records", "text_field"):
        with pytest.raises(SettingError, match=f"^{name} is for a text"):
            chargen.novelty(small_model(), corpus, **{name: "line"})


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("chargen.counting.copy_finder.find_spec", lambda name: None)
    with pytest.raises(ChargenError, match=r"^finding copies needs pydivsufsort: pip install 'chargen\[novelty\]'$"):
        chargen.novelty("abc", write(tmp_path / "corpus.txt", "abc"))


def test_the_notebook_shows_text_as_text(tmp_path: Path) -> None:
    payload = "<script>alert(1)</script><b>&amp;"
    result: Novelty = chargen.novelty(payload, write(tmp_path / "<i>.txt", payload * 20))
    html: Any = result._repr_html_()
    assert "<script" not in html
    assert "<b>" not in html
    assert "<i>" not in html
    assert "&lt;script&gt;" in html
    assert result.as_dict()["text"]["copies"][0]["text"] == payload
