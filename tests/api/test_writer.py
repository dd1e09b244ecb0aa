"""Going on with a text: piece n is what sample n would write behind it, whatever was written, read or left before."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import Sampler, Writer
from chargen.data.reading_config import ReadingConfig
from chargen.errors import SettingError
from chargen.sampling.ends import MAX_PIECE, Ending
from chargen.storage.model_file import ModelFile
from tests.record_models import record_model
from tests.small_models import small_model

LETTERS = "abcde. \n"
texts = st.text(LETTERS + "Xé", max_size=30)
untils = st.sampled_from([*MAX_PIECE])


@cache
def model(kind: str) -> ModelFile:
    if kind == "byte":
        return small_model(unit="byte", num_layers=1)
    return small_model("gru", characters=LETTERS, folded="X" * (kind == "folded"), scale=1.5)


def written(writer: Writer, text: str, until: str = "sentence", num: int = 1) -> list[str]:
    pieces = [""] * num
    for added in writer.write(text, until, num):
        assert len(added) == num
        assert any(added)
        pieces = [piece + more for piece, more in zip(pieces, added, strict=True)]
    return pieces


def expected(kind: str, seed: int, number: int, text: str, until: str, temperature: float = 0.8) -> str:
    """By a sampler of many samples that reads everything."""
    file = model(kind)
    sampler = Sampler(file, seed=seed, num=number + 1, temperature=temperature)
    sampler.feed(text, file.vocabulary.default_unknown)
    ending = Ending(until, text)
    for characters in sampler.write(5_000):
        for character in characters:
            if character.stream == number and not ending.ended:
                ending.add(character.character)
        if ending.ended:
            break
    return ending.text


kinds = st.sampled_from(["character", "folded", "byte"])


@given(kinds, st.integers(0, 99), st.integers(0, 5), st.lists(st.tuples(texts, untils), min_size=1, max_size=3))
def test_a_piece_is_what_the_sample_of_its_number_writes(kind: str, seed: int, first: int, asked: Any) -> None:
    writer = Writer(model(kind), seed=seed, pieces=first, temperature=0.6)
    for number, (text, until) in enumerate(asked, start=first):
        until = "word" if kind == "byte" else until  # it ends late in noise
        assert writer.pieces == number
        assert written(writer, text, until) == [expected(kind, seed, number, text, until, 0.6)]


@given(kinds, texts, st.integers(1, 3))
def test_alternatives_are_the_next_pieces(kind: str, text: str, num: int) -> None:
    together, alone = (Writer(model(kind), seed=3, pieces=2) for _ in range(2))
    assert written(together, text, "word", num) == [written(alone, text, "word")[0] for _ in range(num)]
    assert together.pieces == alone.pieces == 2 + num


def test_a_text_goes_on_tomorrow_as_without_a_break() -> None:
    whole, text = Writer(model("character"), seed=5), ""
    for _ in range(6):
        text += written(whole, text)[0]
    today = ""
    for number in range(6):
        today += written(Writer(model("character"), seed=5, pieces=number), today)[0]
    assert today == text


def test_a_piece_may_be_left_and_the_text_changed() -> None:
    writer, fresh = Writer(model("character"), seed=5), Writer(model("character"), seed=5, pieces=2)
    left = writer.write("abc ", "paragraph")
    begun = "".join(next(left)[0] for _ in range(3))
    assert begun == written(Writer(model("character"), seed=5), "abc ", "paragraph")[0][:3]
    next(writer.write("abd", "word", 1))
    assert written(writer, "ab" + begun) == written(fresh, "ab" + begun)


def test_reading_tells_how_far_it_is_and_is_not_done_twice() -> None:
    writer, text = Writer(model("character"), seed=1), "abc de.\n" * 2000
    shares = [*writer.read(text)]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(shares) > 5
    count = writer._kept.ids_read
    piece = written(writer, text)[0]
    assert writer._kept.ids_read == count == len(text)
    list(writer.read(text + piece))
    assert writer._kept.ids_read == count + len(piece)
    assert [*writer.read("")] == []


def test_temperature_changes_on_the_fly() -> None:
    writer = Writer(model("character"), seed=1)
    assert writer.config.temperature == 0.8
    writer.set_temperature(0.1)
    assert written(writer, "ab") == [expected("character", 1, 0, "ab", "sentence", 0.1)]
    with pytest.raises(SettingError, match="temperature is -1"):
        writer.set_temperature(-1)


def test_unknown_characters_are_told() -> None:
    assert Writer(model("character")).unseen("aXbXéa") == "Xé"
    assert Writer(model("folded")).unseen("aXbXéa") == "é"
    assert Writer(model("byte")).unseen("aXbXéa") == ""
    composing = replace(small_model(characters="é "), reading=ReadingConfig(normalize="NFC"))
    assert Writer(composing).unseen("e\u0301 e") == "e"


def lines(records: str = "line") -> ModelFile:
    letters = "abcdef " + "\n" * (records != "line")
    return replace(record_model(letters=letters, end=1.0), reading=ReadingConfig(records=records))


@pytest.mark.parametrize(("records", "separator"), [("line", "\n"), ("blank-line", "\n\n"), ("%%", "%%"), ("file", "")])
def test_records_end_with_what_separates_them(records: str, separator: str) -> None:
    file, ended = lines(records), 0
    for number in range(9):
        piece = written(Writer(file, seed=2, pieces=number), "", "paragraph")[0]
        sampler = Sampler(file, seed=2, num=number + 1, temperature=0.8)
        sample = sampler.generate_all(5_000)[number]
        if sample.stopped and "\n" not in sample.text:
            assert piece == sample.text + separator
            ended += 1
    assert ended > 2


@pytest.mark.parametrize("before", ["abc\n", "\n\n", "xyz\n\n \nabc\n"])
def test_a_record_knows_nothing_of_those_before_it(before: str) -> None:
    file = lines()
    assert written(Writer(file, seed=2), before + "ab") == written(Writer(file, seed=2), "ab")
    blank = lines("blank-line")
    assert written(Writer(blank, seed=2), "f\n \n\nab") == written(Writer(blank, seed=2), "ab")
    assert written(Writer(blank, seed=2), "f\nab") != written(Writer(blank, seed=2), "ab")


def test_labels() -> None:
    writer, texts = Writer(lines(), seed=2, label="sea"), set()
    for label in ("sea", "sun", None):
        writer.set_label(label)
        writer.pieces = 0
        pieces = written(writer, "", "paragraph", 4)
        samples = Sampler(lines(), seed=2, num=4, label=label, temperature=0.8).generate_all(5_000)
        assert [piece.removesuffix("\n") for piece in pieces] == [sample.text for sample in samples]
        texts.add("".join(pieces))
    assert len(texts) == 3
    with pytest.raises(SettingError, match="label is 'see': this model has no such label; did you mean sea"):
        writer.set_label("see")


def test_what_cannot_be_written_is_told() -> None:
    raw = replace(small_model(), reading=ReadingConfig())
    writer = Writer(raw, seed=1)
    for arguments, words in ((("a", "page"), "until is 'page'"), (("a", "word", 0), "num is 0"), ((b"a",), "text is")):
        with pytest.raises(SettingError, match=words):
            writer.write(*arguments)
    assert writer.pieces == 0
    with pytest.raises(SettingError, match="pieces is -1"):
        Writer(raw, pieces=-1)
