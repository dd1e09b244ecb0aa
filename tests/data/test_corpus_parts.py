"""What a corpus knows of its parts: what stands in two of them, and whether they were cut from a sorted list."""

import random
from calendar import month_abbr
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chargen.data import repeats
from chargen.data.corpus import Corpus
from tests.pairs import all_pairs
from tests.texts import names, story


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_a_text_in_two_roles_is_found_wherever_it_stands(tmp_path: Path, unit: str):
    for name in "abcd":
        (tmp_path / name).write_text(story(ord(name)))
    a, b, c, d = (tmp_path / name for name in "abcd")
    (tmp_path / "inside").write_text(story(99)[:777] + a.read_text()[1234:] + story(98)[:777])

    def repeated(sources: Any, **roles: Any) -> dict[str, float]:
        return Corpus.from_files(sources, unit=unit, **roles).repeated

    assert repeated([a, b], valid=c, test=d) == {"train": 0, "valid": 0, "test": 0}
    assert repeated([a, b]) == {"train": 0, "valid": 0, "test": 0}
    assert repeated([a, b], valid=b)["valid"] == 1
    assert repeated([b, a], valid=c, test=[c, a]) == {"train": 0, "valid": 0, "test": pytest.approx(1, abs=0.02)}
    twice = repeated([a, a])
    assert twice["valid"] == 1
    assert 0.85 < twice["train"] < 0.92
    assert repeated([a, b, a], valid=c)["train"] == pytest.approx(2 / 3, abs=0.03)
    assert 0.85 < repeated([a, b], valid=tmp_path / "inside")["valid"] < 0.97
    assert 0.85 < repeated(tmp_path / "inside", valid=a)["valid"] < 0.97


def test_what_texts_repeat_of_their_own_accord_is_no_repetition():
    chance = random.Random(3)
    times = (f"2026-11-27 10:{n // 60:02}:{n % 60:02}" for n in range(3000))
    log = "".join(f"{time} host kernel: device eth{chance.randint(0, 3)} is up again\n" for time in times)
    poem = "".join(story(n, 4) + "And so say all of us, and so say all of us!\n\n" for n in range(100))
    for text in (log, poem, story(1)):
        assert max(Corpus.from_text(text).repeated.values()) < 0.05


def log(kind: str, count: int) -> str:
    """A text that repeats itself, of so many lines or a tenth as many reports."""
    chance = random.Random(count)
    lines = story(6, 30).splitlines(keepends=True)
    reports = [story(100 + n, 20) for n in range(10)]
    if kind == "one line":
        return lines[0] * count
    if kind == "few kinds of lines":
        return "".join(chance.choices(lines[:8], k=count))
    if kind == "a sign of life":
        return "".join("all is well\n" if chance.random() < 0.9 else chance.choice(lines) for _ in range(count))
    if kind == "a table over and over":
        return "".join(lines) * (count // len(lines))
    return "".join(chance.choice(reports) + f"--- {n} ---\n" for n in range(count // 10))


@pytest.mark.parametrize("count", [1500, 6000])
@pytest.mark.parametrize(
    "kind", ["one line", "few kinds of lines", "a sign of life", "a table over and over", "reports"]
)
def test_a_text_that_repeats_itself_is_no_copy(kind: str, count: int):
    text = log(kind, count)
    assert max(Corpus.from_text(text, test_fraction=0.1).repeated.values()) < 0.05


@pytest.mark.parametrize("times", [2, 3, 8])
@pytest.mark.parametrize("kind", ["a sign of life", "a novel"])
def test_a_copy_of_a_text_is_found_though_it_repeats_itself_too(kind: str, times: int):
    text = story(1, 600) + (log(kind, 600) if kind != "a novel" else "")
    repeated = Corpus.from_text(text * times, test_fraction=0.1).repeated
    assert min(repeated.values()) > 0.3


def test_copies_of_many_small_files_are_found():
    poems = [story(n, 45) for n in range(50)]
    repeated = Corpus.from_text("".join(poem + poem for poem in poems)).repeated
    assert repeated["train"] > 0.8


def test_short_texts_are_not_judged():
    assert Corpus.from_text("abc" * 60).repeated == {"train": 0, "valid": 0, "test": 0}
    assert Corpus.from_text("").repeated == {"train": 0, "valid": 0, "test": 0}


def test_blocks_are_counted_in_flat_memory_across_all_borders(monkeypatch: pytest.MonkeyPatch):
    ids = np.random.default_rng(0).integers(0, 90, 5000).astype(np.uint8)
    for chunk in (1, 7, 250, 4801, 1 << 16):
        monkeypatch.setattr(repeats, "_CHUNK", chunk)
        blocks = repeats.hash_blocks(ids[1000:3000])
        assert len(blocks) == repeats.MAX_BLOCKS
        assert repeats.count_blocks(blocks, ids).tolist() == [1] * len(blocks)
        assert repeats.count_blocks(blocks, np.concatenate([ids[::-1], ids, ids])).tolist() == [2] * len(blocks)
        assert not repeats.count_blocks(blocks, ids[:1100]).any()


SHUFFLED = random.Random(5).sample(names(0), 1520)
MONTHS = [
    f"{month} {day:2} 10:{minute:02}:00 host sshd: accepted"
    for month in month_abbr[1:]
    for day in range(1, 29)
    for minute in range(0, 60, 7)
]
LISTS: dict[str, tuple[list[str], bool]] = {
    "names": (names(0), True),
    "names, capitals first": (sorted(names(0)), True),
    "names, the wrong way round": (names(0)[::-1], True),
    "names, one in fifty out of place": ([name if n % 50 else "Marla" for n, name in enumerate(names(0))], True),
    "a table": ([f"{name},{n * 7919 % 1000},x" for n, name in enumerate(names(2))], True),
    "paths": ([f"src/{a}/{b}.py" for a in names(3, 40) for b in names(4, 25)], True),
    "names, shuffled": (SHUFFLED, False),
    "two lists": (names(0, 700) + names(1, 700), True),
    "two lists, a long one and a short one": (names(0, 1200) + names(1, 400), True),
    "three lists, down": ([name for n in range(3) for name in names(n, 400)[::-1]], True),
    "lists of a day each": ([name for n in range(90) for name in names(n, 20)], False),
    "ten lists": ([name for n in range(10) for name in names(n, 150)], False),
    "a list behind other lines": (SHUFFLED[:1000] + names(1, 500), True),
    "a list before other lines": (names(1, 1000) + SHUFFLED[:500], False),
    "a few lines": (story(5, 110).split("\n"), False),
    "few names": (names(0, 60), False),
    "one line over and over": (["again"] * 2000, False),
    "a novel": (story(7, 2000).split("\n"), False),
    "code": ([f"{'    ' * (n % 3)}{word} = {n}" for n, word in enumerate(SHUFFLED)], False),
    "a log": ([f"2026-11-{n // 50 + 1:02} {n % 24:02}:00 {name}" for n, name in enumerate(SHUFFLED[:1400])], False),
    "a log of a year": (MONTHS, False),
    "a log of a month": (MONTHS[:250], False),
    "seconds": ([f"[{1764235629 + 13 * n}] {name}" for n, name in enumerate(SHUFFLED)], False),
    "rows": ([f'{{"time": "10:{n // 60:02}:{n % 60:02}", "by": "{name}"}}' for n, name in enumerate(SHUFFLED)], False),
    "verses": ([f"Gen {n // 31 + 1}:{n % 31 + 1} {name}" for n, name in enumerate(SHUFFLED)], False),
}  # fmt: skip


@pytest.mark.parametrize(("name", "end", "unit"), all_pairs([*LISTS], ("\n", "\r\n", "\r"), ("character", "byte")))
def test_a_sorted_list_is_known_from_all_other_texts(name: str, end: str, unit: str):
    lines, expected = LISTS[name]
    assert Corpus.from_text(end.join(lines) + end, unit=unit).sorted_lines is expected


def test_a_sorted_list_does_no_harm_without_a_part_cut_from_its_end(tmp_path: Path):
    (tmp_path / "x").write_text("\n".join(names(0)))
    assert Corpus.from_files(tmp_path / "x").sorted_lines
    assert not Corpus.from_files(tmp_path / "x", valid_fraction=0).sorted_lines
    assert not Corpus.from_files(tmp_path / "x", valid=tmp_path / "x").sorted_lines
    assert not Corpus.from_text("").sorted_lines
    assert not Corpus.from_text("abc" * 999).sorted_lines
    assert not Corpus.from_text("\n".join(sorted(names(0))), valid_fraction=0.9995).sorted_lines


def test_of_a_long_text_the_beginning_is_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (Corpus.from_text(story(seed), valid_fraction=0).train for seed in (1, 2))
    both = np.concatenate([first, second])
    assert repeats.copied_shares([both, first])[1] == repeats.copied_shares([both, second])[1] == 1
    monkeypatch.setattr(repeats, "_CHUNK", 500)
    monkeypatch.setattr(repeats, "MAX_READ", len(first) - 1000)
    assert 0.9 < repeats.copied_shares([both, first])[1] < 1
    assert repeats.copied_shares([both, second])[1] == 0
