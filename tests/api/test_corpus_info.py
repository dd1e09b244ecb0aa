"""`corpus_info`: what is told of a text is that of the corpus that training would see, and warnings say what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

import chargen
from chargen.data.corpus import Corpus
from chargen.errors import DataError, SettingError
from chargen.training import autosize
from chargen.training.autosize import Speed, fit_sizes
from tests.texts import names, story


def warned(text: str, **settings: Any) -> str:
    return "\n".join(chargen.corpus_info(Corpus.from_text(text, **settings), order=1, sample=0).warnings)


def test_a_text_is_read_and_split_as_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text(story(1))
    Path("b.txt").write_text(story(2) + "\n")
    Path("v.txt").write_text(story(3))
    info = chargen.corpus_info(["a.txt", "b.txt"], valid="v.txt", test_fraction=0.2, unit="byte", order=2, sample=20)
    corpus = Corpus.from_files(["a.txt", "b.txt"], valid="v.txt", test_fraction=0.2, unit="byte")
    sizes = {role: len(ids) for role, ids in (("train", corpus.train), ("valid", corpus.valid), ("test", corpus.test))}
    assert {role: part.ids for role, part in info.parts.items()} == sizes
    assert (info.report.files, info.report.bytes) == (3, sum(map(len, (story(1), story(2), story(3)))) + 1)
    assert info.sources == corpus.sources
    assert info.baselines is not None
    assert info.baselines.characters == len(story(3)) - 1
    assert repr(chargen.corpus_info(corpus, order=2)) == repr(info)


def test_all_of_it_is_json(tmp_path: Path) -> None:
    info = chargen.corpus_info(Corpus.from_text(story(1), records="line"), order=2, sample=9)
    described = json.loads(json.dumps(info.as_dict()))
    assert [row["name"] for row in described["baselines"]["rows"]][2:] == ["1-gram", "2-gram"]
    row = described["baselines"]["rows"][0]
    assert row["bits_per_character"] == pytest.approx(row["nats_per_character"] / 0.6931471805599453)
    assert described["config"]["records"] == "line"
    assert repr(info).startswith("CorpusInfo(")
    assert "nats per character" in repr(info)


def test_labels_are_counted() -> None:
    corpus = Corpus.from_text("t,l\n" + "ab,x\ncd,y\nef,x\ngh,\n" * 5, records="csv", text_field="t", label_field="l")
    assert chargen.corpus_info(corpus).labels == {"": 5, "x": 10, "y": 5}


def test_a_sample_begins_with_a_line_or_a_record_and_is_fixed_by_its_seed() -> None:
    text = "".join(f"<{name}>\n" for name in names(0))
    corpus = Corpus.from_text(text)
    sample, again, other = (chargen.corpus_info(corpus, sample=40, seed=seed).sample for seed in (1, 1, 2))
    assert sample == again != other
    assert all(text[0] == "<" and len(text) == 40 for text in (sample, other))
    records = chargen.corpus_info(Corpus.from_text(text, records="line"), sample=40).sample
    assert len(records) == 40
    assert all(line.startswith("<") for line in records.split("\n") if line)
    raw = chargen.corpus_info(Corpus.from_text("\udcff" * 50, unit="byte", encoding="raw"), sample=4).sample
    assert raw == "\udcff" * 4


def test_sizes_are_those_that_train_would_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autosize, "time_reference", lambda size, training: Speed(1e-4))
    corpus = Corpus.from_text(story(1))
    assert chargen.corpus_info(corpus).sizes is None
    assert chargen.corpus_info(corpus, minutes=3).sizes == fit_sizes(corpus, {}, {"minutes": 3.0})


def test_a_good_text_is_not_warned_of() -> None:
    text = "".join(map(story, range(20)))
    assert len(text) > 120_000
    assert warned(text) == ""


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        ("e\u0301 " * 90, {}, '(not in NFC, such as U+0065 U+0301): `normalize="NFC"` makes them one'),
        ("a\nb\r\n" * 90, {}, 'line ends are mixed (LF 90 and CR LF 90): `newline="lf"` makes all of them LF'),
        ("a\x1b\x07b" * 90, {}, r"180 control characters (U+0007, U+001B), which the model would learn too; without "
                                r"them: perl -CSD -pe 's/[\x{7}\x{1b}]//g'"),
        ("a\ufeffb" * 90, {}, r"90 invisible characters (U+FEFF), which the model would learn too; without them: perl "
                              r"-CSD -pe 's/[\x{feff}]//g'"),
        ("\x93a\x94 b" * 90, {"encoding": "latin-1"}, "180 control characters (U+0093, U+0094), which the model would "
         'learn too; they are quotes and dashes where the text is `encoding="cp1252"`'),
        ("\x93a\x1b b" * 90, {"encoding": "latin-1"}, "without them: perl"),
        ("\x93a\x94 b" * 90, {}, "without them: perl"),
        ("a\ufffdb" * 90, {}, "U+FFFD occurs 90 times"),
        ("ab\ncd\n" * 90, {"records": "line"}, "99% of the records have stood there before; where"),
        ("ab" * 90, {}, "162 characters to learn from are few"),
        ("a", {}, "too little text to validate on"),
        (story(1) * 2, {"valid_fraction": 0.5}, "100% of the validation text stands in the training text too"),
        ("\n".join(names(0)), {}, "the lines are sorted"),
        ("\n".join(names(0)), {"records": "line", "shuffle": False}, "the records are sorted, so the validation part, "
         "at the end, holds other words than the training part, and its loss is too high: leave out `shuffle=False`"),
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_what_is_wrong_is_warned_of(text: str, settings: dict[str, Any], words: str) -> None:
    assert words in warned(text, **settings)


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_what_is_put_right_is_not_warned_of(unit: str) -> None:
    warnings = warned("e\u0301\u200d\r\n\n" * 90, newline="lf", normalize="NFC", unit=unit)
    assert "line ends" not in warnings
    assert "NFC" not in warnings
    assert "invisible" not in warnings, "a joiner is a part of words and of emoji"


def test_raw_bytes_have_no_line_ends_to_put_right() -> None:
    assert "line ends" not in warned("a\r\n\n" * 90, unit="byte", encoding="raw")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path, corpus = tmp_path / "a.txt", Corpus.from_text("abc" * 50)
    path.write_text("abc" * 50)
    for wrong, words in (
        ({"order": 0}, "order is 0"), ({"sample": -1}, "sample is -1"), ({"minutes": 0}, "minutes is 0"),
        ({"valid": path, "valid_fraction": 0.5}, "two ways to say one thing"), ({"units": 3}, "no setting 'units'"),
        ({"seed": -1}, "seed is -1"),
    ):  # fmt: skip
        with pytest.raises(SettingError, match=words):
            chargen.corpus_info(path, **wrong)
    for wrong in ({"unit": "byte"}, {"valid": path}):
        with pytest.raises(SettingError, match="a Corpus is read and split already"):
            chargen.corpus_info(corpus, **wrong)
    with pytest.raises(DataError, match="no text to learn"):
        chargen.corpus_info([])
