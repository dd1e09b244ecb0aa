"""The begin text: what a state reads before anything is fed or written, in every call that makes one."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import Corpus, Sampler, TrainConfig, Trainer, fill, read_model, save_model, score
from chargen.data.begin import MAX_BEGIN_LENGTH, begin_text
from chargen.data.code_points import count_code_points
from chargen.data.vocabulary import Vocabulary
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.errors import ModelFileError, SettingError
from chargen.infill.fill import Filler
from chargen.model.config import ModelConfig
from chargen.storage import tensor_file
from chargen.storage.model_file import ModelFile, build_model
from tests.small_models import small_model

units = st.sampled_from(["character", "byte"])
directions = st.sampled_from(["forward", "backward"])
begins = st.sampled_from(["\n", "\r\n", "ab"])
primes = st.text("abc \n", max_size=6)


@cache
def model(unit: str = "character", begin: str = "\n") -> ModelFile:
    file = small_model("gru", hidden_size=8, characters="\n\r abc", unit=unit, scale=1.5, bidirectional=True)
    return replace(file, begin=begin)


def written(sampler: Sampler, length: int = 12) -> Any:
    return sampler.generate_all(length)


@given(units, directions, begins, primes, st.integers(1, 3))
def test_a_fresh_sampler_has_read_the_begin_text_and_nothing_of_it_counts(
    unit: str, direction: str, begin: str, prime: str, num: int
) -> None:
    """Forward it stands before the prime, backward behind it."""
    config: dict[str, Any] = {"seed": 1, "num": num, "direction": direction, "no_repeat": 4, "stop": (begin + "b",)}
    ours, plain = Sampler(model(unit, begin), **config), Sampler(model(unit, ""), **config)
    plain.feed(begin)
    for stream in plain._streams:
        stream.constraints.recent = ""  # nor may what is written not repeat it
    for sampler in (ours, plain):
        sampler.feed(prime)
    assert written(ours) == written(plain)
    ours.reset()
    plain.reset()
    plain.feed(begin)
    assert ours.hidden_and_logits()[1].tobytes() == plain.hidden_and_logits()[1].tobytes()


@given(units, directions, begins, primes, st.integers(0, 9))
def test_a_sampler_fed_a_text_stands_where_its_writer_stands(
    unit: str, direction: str, begin: str, prime: str, length: int
) -> None:
    wrote, read = (Sampler(model(unit, begin), seed=2, direction=direction) for _ in range(2))
    wrote.feed(prime)
    text = wrote.generate(length)
    read.feed(text + prime if direction == "backward" else prime + text)
    assert wrote.hidden_and_logits()[1] == pytest.approx(read.hidden_and_logits()[1], abs=1e-6)


@given(units, directions, st.sampled_from(["", "\n", "\r\n"]), primes)
def test_log_probabilities_of_a_sample_are_those_of_its_score(
    unit: str, direction: str, begin: str, prime: str
) -> None:
    file = model(unit, begin)
    sampler = Sampler(file, seed=3, direction=direction)
    sampler.feed(prime)
    (sample,) = sampler.generate_all(10)
    text = sample.text + prime if direction == "backward" else prime + sample.text
    scores = [getattr(character, direction) for character in score(file, text)]
    assert len(scores) == len(text)
    expected_scores = scores[: len(sample.text)] if direction == "backward" else scores[len(prime) :]
    assert expected_scores == pytest.approx(sample.log_probs, abs=1e-4)


def test_both_ends_of_a_text_are_judged_between_the_begin_texts() -> None:
    file = model()
    inside, whole = score(file, "ab c"), score(replace(file, begin=""), "\nab c\n")
    for ours, theirs in zip(inside, whole[1:-1], strict=True):
        for judge in ("forward", "backward", "cloze"):
            assert getattr(ours, judge) == pytest.approx(getattr(theirs, judge), abs=1e-5)
        assert ours.alternatives == pytest.approx(theirs.alternatives) or ours.unlikely
    assert score(file, "") == []
    done: list[int] = []
    score(file, "ab c" * 200, progress=lambda task, count, total: done.append(count))
    assert done == sorted(done)
    assert done[-1] == 800


@pytest.mark.parametrize("before", ["", "a", "b\nca"])
@pytest.mark.parametrize("unit", ["character", "byte"])
def test_a_gap_has_before_it_what_a_sample_has(unit: str, before: str) -> None:
    file = model(unit)
    (gap,) = fill(file, before, "", length=3, seed=0, num=1).alternatives
    scores = score(file, before + gap.text)[len(before) :]
    assert sum(character.forward or 0.0 for character in scores) == pytest.approx(gap.log_prob, abs=1e-4)


def test_guesses_from_behind_a_gap_do_not_know_where_the_text_ends() -> None:
    with_begin, without = (Filler(file, seed=0, particles=8) for file in (model(), model(begin="")))
    fills = [filler.fill("ab", "ca", 20) for filler in (with_begin, without)]
    assert fills[0].particles == 8
    assert fills[0].steps > 0


def test_a_model_without_one_draws_its_first_character_by_counts(tmp_path: Path) -> None:
    file = replace(model(), begin="")
    texts = "".join(sample.text for sample in Sampler(file, seed=0, num=900).generate_all(1))
    assert abs(texts.count(file.vocabulary.characters[-1]) / 900 - file.counts[-1] / file.counts.sum()) < 0.06


def test_a_torch_model_may_be_given_its_begin_text() -> None:
    file = model()
    network = build_model(file)
    doors = [
        Sampler(file, seed=4),
        Sampler(network, seed=4, vocabulary=file.vocabulary, counts=file.counts, begin=file.begin),
    ]
    assert doors[0].generate(40) == doors[1].generate(40) != Sampler(model(begin=""), seed=4).generate(40)
    with pytest.raises(SettingError, match="begin: give none"):
        Sampler(file, begin="\n")


def test_a_state_saved_before_there_was_a_begin_text_goes_on(tmp_path: Path) -> None:
    old = Sampler(replace(model(), begin=""), seed=1)
    old.save_state(tmp_path / "state")
    new = Sampler(model(), seed=2)
    new.load_state(tmp_path / "state")
    assert new.generate(20) == old.generate(20)


# In the file


@pytest.mark.parametrize("begin", ["\n", "\r\n", "", "a" * MAX_BEGIN_LENGTH])
def test_it_comes_back_from_the_file(tmp_path: Path, begin: str) -> None:
    save_model(tmp_path / "m", model(begin=begin))
    assert read_model(tmp_path / "m").begin == begin
    assert ("begin" in model(begin=begin).describe()) == bool(begin)


HOSTILE: list[Any] = ["z", "a" * (MAX_BEGIN_LENGTH + 1), 1, None, ["\n"], {"a": 1}, True, "\ud800", "a" * 10**5]


@pytest.mark.parametrize("begin", HOSTILE, ids=lambda value: ascii(value)[:20])
@pytest.mark.parametrize("unit", ["character", "byte"])
def test_a_begin_text_that_is_none_is_refused(tmp_path: Path, unit: str, begin: Any) -> None:
    file = model(unit)
    if unit == "byte" and begin == "z":
        begin = "zz\udfff"
    tensor_file.save(tmp_path / "m", file.arrays, {**file.describe(), "begin": begin})
    with pytest.raises(ModelFileError, match="begin text is no short text of its own characters") as error:
        read_model(tmp_path / "m")
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(ValueError, match="begin is"):
        save_model(tmp_path / "n", replace(file, begin=begin))


def test_a_folded_character_is_no_begin_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no short text of known characters"):
        save_model(tmp_path / "m", replace(small_model(folded="xyz"), begin="x"))


# Which one a text has


@pytest.mark.parametrize(
    ("text", "begin"),
    [
        ("one line\nand another\n", "\n"),
        ("one line\r\nand another\r\n", "\r\n"),
        ("one line\rand another\r", "\r"),
        ("one line\r\nand\nanother\n\n\n", "\n"),
        ("no line at all", ""),
        ("x" * 20_000 + "\n", ""),
        ("x" * 9_000 + "\n", "\n"),
    ],
)
@pytest.mark.parametrize("unit", ["character", "byte"])
def test_the_begin_text_is_the_line_end_of_a_text_that_has_lines(text: str, begin: str, unit: str) -> None:
    vocabulary = Vocabulary.from_counts(count_code_points(text), unit=unit)
    counts = np.bincount(vocabulary.encode(text), minlength=len(vocabulary))
    assert begin_text(vocabulary, counts) == begin


def test_line_ends_that_share_the_unknown_symbol_are_none() -> None:
    assert begin_text(Vocabulary("ab", folded="\n\r"), np.array([3, 2, 9])) == ""


@pytest.mark.parametrize(("text", "begin"), [("ab\ncd\n" * 40, "\n"), ("abcd" * 60, "")])
def test_training_writes_it_into_the_file(tmp_path: Path, text: str, begin: str) -> None:
    shape = ModelConfig(hidden_size=4, num_layers=1, embedding_size=3)
    trainer = Trainer(Corpus.from_text(text), shape, TrainConfig(steps=1, batch_size=2, seq_length=8), tmp_path / "r")
    list(trainer.run())
    assert read_model(tmp_path / "r").begin == begin


def test_backward_what_is_written_first_stands_before_a_line_end() -> None:
    """The likeliest last character of a text is what the backward stack finds before a line end."""
    file = model()
    engine = NumpyEngine(file.config, file.arrays, "backward")
    logits, _ = engine.step(file.vocabulary.encode("\n"), engine.start(1))
    expected = file.vocabulary.characters[int(np.argmax(logits[0]))]
    assert Sampler(file, direction="backward", temperature=0).generate(1) == expected
