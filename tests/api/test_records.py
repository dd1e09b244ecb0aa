"""Records in one call: `generate` with labels and filters, and texts that are a single record."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import chargen
from chargen.data.reading_config import ReadingConfig
from chargen.errors import ArgumentError, DataError, SettingError
from chargen.storage.model_file import build_model
from tests.record_models import record_model
from tests.small_models import small_model


def read_as(records: str | None, **settings: Any) -> chargen.ModelFile:
    return replace(record_model(**settings), reading=ReadingConfig(records=records))


def test_filters_write_on_until_there_are_enough() -> None:
    file, calls = read_as("line"), []

    def accept(texts: list[str]) -> list[bool]:
        calls.append(len(texts))
        return [len(text) == 5 for text in texts]

    every = chargen.generate(file, num=3000, seed=3)
    chosen = chargen.generate(file, num=20, seed=3, accept=accept, unique=True)
    assert chosen == list(dict.fromkeys(text for text in every if len(text) == 5))[:20]
    assert max(calls) > 20
    assert chargen.generate(file, seed=3, accept=accept) == chosen[0]
    primed = chargen.generate(file, "ab", num=9, seed=3, accept=accept, echo=False)
    assert {len(text) for text in primed} == {3}  # a filter sees whole records


def test_a_label_or_a_mix_of_labels_is_asked_for_by_name() -> None:
    file = read_as("line")
    texts = [chargen.generate(file, num=5, seed=1, label=label) for label in (None, "sea", "sun", {"sea": 1, "sun": 1})]
    assert len({tuple(part) for part in texts}) == 4
    model = chargen.Sampler(file, seed=1, num=5, temperature=0.8, label={"sea": 2, "sun": 2})
    assert [sample.text for sample in model.generate_all(10_000)] == texts[3]


def test_a_model_in_memory_writes_records_too() -> None:
    file = record_model()
    model = build_model(file)
    texts = chargen.generate(model, num=4, seed=1, vocabulary=file.vocabulary, unique=True)
    assert texts == chargen.generate(file, num=4, seed=1, unique=True)
    with pytest.raises(SettingError, match="novel needs to know what a record is: this model does not say it"):
        chargen.generate(model, num=4, vocabulary=file.vocabulary, novel="text.txt")


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"best_of": 0}, SettingError, "best_of is 0"),
        ({"accept": "no"}, ArgumentError, "accept is 'no'"),
        ({"accept": lambda texts: [1] * len(texts)}, ArgumentError, "needed is a bool for each"),
        ({"novel": "no such file"}, DataError, "no such file"),
        ({"novel": ["text.txt"], "state_out": "x"}, SettingError, "novel chooses among whole records"),
        ({"label": "moon"}, SettingError, "no such label"),
        ({"prime": "a\udfff"}, DataError, "a lone surrogate"),
        ({"prime": "X"}, DataError, "unknown to the model"),
        ({"num": 0}, SettingError, "num is 0"),
        ({"length": 0}, SettingError, "length is 0"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        chargen.generate(read_as("line"), **{"num": 2, **settings})
    assert "\n" not in str(raised.value)


def test_filters_are_for_records() -> None:
    for settings in ({"unique": True}, {"novel": "x"}, {"accept": len}, {"best_of": 2}, {"best_of": 0}):
        with pytest.raises(SettingError, match="is for records: this model was trained on running text"):
            chargen.generate(small_model(), **settings)


@pytest.mark.parametrize("records", ["line", "blank-line", "jsonl", "%"])
def test_a_file_of_a_prime_or_a_gap_is_a_single_record(tmp_path: Path, records: str) -> None:
    """It is no list of records and no table; of lines, the line end behind it is left out."""
    file, path = read_as(records, letters='ab\n\r"{} '), tmp_path / "text"
    path.write_bytes(b"{a\r\nb a\n")
    line_ends = "\r\n" if records == "%" else "\n"
    expected = "{a" + line_ends + "b a" + "\n" * (records != "line")
    written = chargen.generate(file, path, seed=1, num=2)
    assert [text.startswith(expected) for text in written] == [True, True]
    assert written == chargen.generate(file, expected, seed=1, num=2)
    as_read = chargen.generate(file, "{a\r\nb a", seed=1)
    assert as_read.startswith("{a" + line_ends + "b a")
    assert chargen.clean("a\r\nb", file.reading) == "a" + line_ends + "b"
    path.write_text("a___b\n")
    filled = chargen.fill_text(file, path, length=1, seed=1)[0].text
    assert filled[0] + filled[2:] == "ab" + "\n" * (records != "line")


def test_a_model_learns_from_the_beginning_of_a_record_first() -> None:
    file, prime = read_as("line"), "ab" * 60
    plain, learned = (chargen.generate(file, prime, num=99, seed=1, adapt=times) for times in (0, 9))
    assert plain != learned
    assert all(text.startswith(prime) for text in learned)
