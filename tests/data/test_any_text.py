"""Whatever bytes a file holds, they come back as they were, or one line says why not."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chargen.data import text_files
from chargen.data.code_points import END_MARK
from chargen.data.corpus import Corpus
from chargen.errors import ChargenError, DataError
from tests.texts import parts

ALPHABETS = [
    "ab \n", "aé\n", "Ж\r\n", "漢字。\n", "😀a\u200d\n", "e\u0301\u1100\u1161 \n", "\0\x07\x1b\n",
    "\ufeff\uffff\ufffd", "\x85\u2028\u2029\v\f\n", '{"t": "x"}\n', 'a,b\n"\n', "".join(map(chr, range(1, 256))),
]  # fmt: skip


def any_bytes(chance: random.Random) -> bytes:
    """A file's content: text of some alphabets, bytes, or text in which bytes are changed."""
    alphabet = "".join(chance.sample(ALPHABETS, chance.randint(1, 3)))
    content = "".join(chance.choices(alphabet, k=chance.choice([0, 1, 2, 3, 30, 500]))).encode()
    kind = chance.random()
    if kind < 0.1:
        return chance.randbytes(chance.randint(0, 300))
    if kind < 0.3 and content:
        place = chance.randrange(len(content))
        return content[:place] + chance.randbytes(chance.randint(0, 2)) + content[place + 1 :]
    return content


def any_options(chance: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, values in {
        "unit": ["byte"], "encoding": ["latin-1", "utf-16", "gb18030"], "errors": ["replace"], "newline": ["lf"],
        "normalize": ["NFC"], "min_count": [2], "between": ["", "\n\n"], "valid_fraction": [0, 0.5],
        "records": ["line", "blank-line", "file", "ab"], "shuffle": [False],
    }.items():  # fmt: skip
        if chance.random() < 0.15:
            options[name] = chance.choice(values)
    return options


@pytest.mark.parametrize("number", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_file_comes_back_as_it_was_or_is_refused_in_one_line(
    number: int, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = []
    for case in range(number):
        chance = random.Random(case)
        content, options = any_bytes(chance), any_options(chance)
        monkeypatch.setattr(text_files, "BLOCK_SIZE", chance.choice([1, 7, 100, 1 << 20]))
        path = tmp_path / f"{case}.txt"
        path.write_bytes(content)
        try:
            corpus = Corpus.from_files(path, **options)
        except ChargenError as error:
            refusals.append(str(error))
            continue
        finally:
            path.unlink()
        text = "".join(parts(corpus))
        expected = content.decode(options.get("encoding", "utf-8"), options.get("errors", "strict"))
        if not {"records", "newline", "normalize", "min_count"} & options.keys() and "utf-16" not in options.values():
            assert text == expected.removeprefix("\ufeff"), (case, options)
        if options.get("records") == "line":
            lines = expected.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
            if not {"normalize", "min_count"} & options.keys():
                assert sorted(text.split(END_MARK)) == sorted(["", *filter(None, lines)]), (case, options)
    assert not [refusal for refusal in refusals if "\n" in refusal]
    assert len(refusals) < number / 2


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_every_character_that_there_is_comes_back(unit: str, tmp_path: Path) -> None:
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    (tmp_path / "all.txt").write_text(text, "utf-8", newline="")
    corpus = Corpus.from_files(tmp_path / "all.txt", unit=unit)
    assert "".join(parts(corpus)) == text
    assert len(corpus.vocabulary) == (len(text) if unit == "character" else 256)
    assert corpus.train.dtype == (np.uint32 if unit == "character" else np.uint8)


@pytest.mark.parametrize("text", ["", "a", "\0", "\n", "\ufeff", "aaaa"])
def test_the_smallest_texts_are_texts(text: str, tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text(text, "utf-8", newline="")
    assert "".join(parts(Corpus.from_files(tmp_path / "small.txt"))) == text.removeprefix("\ufeff")


@pytest.mark.parametrize("surrogate", [b"\xed\xa0\x80", b"\xed\xbf\xbf"])
def test_a_lone_surrogate_is_named(surrogate: bytes, tmp_path: Path) -> None:
    (tmp_path / "lone.txt").write_bytes(b"some text\n" + surrogate)
    with pytest.raises(DataError, match=r"lone.txt: line 2, offset 10: bytes ed"):
        Corpus.from_files(tmp_path / "lone.txt")
