"""A sampler of records: a record follows its begin symbol, and its end symbol ends it for good."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.data.code_points import END_MARK
from chargen.decoding.choose import SampleConfig
from chargen.decoding.torch_engine import TorchEngine
from chargen.errors import ArgumentError, ChargenError, DataError, ModelFileError, SettingError
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import build_model
from tests import naive
from tests.record_models import LABELS, LETTERS, record_model
from tests.sampling.strategies import cuts, seeds
from tests.small_models import small_model

LENGTH = 10
kinds = st.tuples(st.sampled_from(["gru", "lstm"]), st.sampled_from(["character", "byte"]))
directions = st.sampled_from(["forward", "backward"])
labels = st.sampled_from([None, *LABELS])
primes = st.text(LETTERS, max_size=4)
choices = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0, 0.5, 1.7]),
        "top_k": st.integers(1, 6),
        "top_p": st.floats(0.3, 1),
        "ban": st.text("ab\u00e9", max_size=2),
        "no_repeat": st.integers(2, 4),
    },
)


def new(kind: tuple[str, str] = ("gru", "character"), **arguments: Any) -> Sampler:
    return Sampler(record_model(*kind), **{"seed": 1, **arguments})


def by_hand(sampler: Sampler, index: int, label: str | None, prime: str, length: int) -> tuple[str, Any, float | None]:
    """The text of a record, its log-probabilities and that of its end, drawn one id at a time."""
    mark = sampler.vocabulary.begin_mark(label)
    read = prime + mark if sampler.direction == "backward" else mark + prime
    drawn = naive.sample(sampler.model, sampler.config, sampler.seed, index, read, sampler.direction)
    # An end comes where a next character would have.
    written = list(islice(drawn, length))
    end = written.pop()[1] if written and not written[-1][0] else None
    if sampler.direction == "backward":
        written.reverse()
    return "".join(character for character, _ in written), [log_prob for _, log_prob in written], end


@settings(max_examples=40)
@given(kinds, directions, choices, seeds, labels, primes, st.integers(1, 3))
def test_a_record_is_what_a_loop_by_hand_writes(
    kind: Any, direction: str, config: Any, seed: int, label: str | None, prime: str, num: int
) -> None:
    sampler = new(kind, seed=seed, num=num, direction=direction, label=label, **config)
    sampler.feed(prime)
    for index, sample in enumerate(sampler.generate_all(LENGTH)):
        text, log_probs, end = by_hand(sampler, index, label, prime, LENGTH)
        assert sample.text == text
        assert sample.log_probs == pytest.approx(log_probs, abs=1e-4)
        assert sample.stopped == (end is not None)
        assert sample.end_log_prob == (None if end is None else pytest.approx(end, abs=1e-4))


@given(kinds, directions, seeds, labels)
def test_the_parts_of_a_record_sum_to_its_log_probability(
    kind: Any, direction: str, seed: int, label: str | None
) -> None:
    sampler = new(kind, seed=seed, num=4, direction=direction, label=label)
    for sample in sampler.generate_all(400):
        assert sample.end_log_prob is not None
        engine, scores, state = naive.start(sampler.model, direction)
        text = sample.text[::-1] if direction == "backward" else sample.text
        mark, order = sampler.vocabulary.begin_mark(label), -1 if direction == "backward" else 1
        _, scores, state = naive.read(engine, scores, state, sampler.vocabulary.encode(mark))
        ids = [*sampler.vocabulary.encode(sample.text)][::order]
        total = naive.read(engine, scores, state, [*ids, sampler.vocabulary.end_id])[0]
        assert sum(sample.log_probs) + sample.end_log_prob == pytest.approx(total, abs=1e-3), text


@given(kinds, directions, choices, seeds, primes, cuts)
def test_pieces_are_the_whole_and_nothing_follows_an_end(
    kind: Any, direction: str, config: Any, seed: int, prime: str, pieces: list[int]
) -> None:
    arguments = {"seed": seed, "direction": direction, **config}
    whole, cut = (new(kind, **arguments) for _ in range(2))
    for sampler in (whole, cut):
        sampler.feed(prime)
    (expected,) = whole.generate_all(sum(pieces))
    parts = [cut.generate(piece) for piece in pieces]
    assert "".join(reversed(parts) if direction == "backward" else parts) == expected.text
    if expected.stopped:
        assert [whole.generate(9), cut.generate(9), *whole.stream(9), *cut.stream()] == ["", ""]
        assert list(whole.write(5)) == []
        assert whole.generate_all(7)[0].end_log_prob is None
    for sampler in (whole, cut):
        sampler.reset()
        sampler.feed(prime)
        assert sampler.generate_all(sum(pieces)) == [expected]


def test_samples_end_one_by_one_and_do_not_depend_on_their_number() -> None:
    many = new(num=20).generate_all(200)
    assert all(sample.stopped for sample in many)
    assert len({len(sample.text) for sample in many}) > 5
    assert new(num=7).generate_all(200) == many[:7]
    characters = [character for together in new(num=20).write() for character in together]
    ends = [character for character in characters if not character.character]
    assert [end.log_prob for end in sorted(ends, key=lambda end: end.stream)] == [s.end_log_prob for s in many]
    assert all(character.stopped == (not character.character) for character in characters)
    assert list(new().stream()) == [*many[0].text]


def test_a_record_may_be_empty() -> None:
    samples = Sampler(record_model(end=100.0), seed=0, num=3).generate_all(5)
    assert [(sample.text, sample.log_probs, sample.stopped) for sample in samples] == [("", (), True)] * 3


def test_a_rounded_text_does_not_wait_for_a_line_or_a_word() -> None:
    sampler = Sampler(record_model(end=-100.0, letters="ab \n"), seed=0)
    assert len(list(sampler.write(30, rounded=True))) == 30


def test_other_begin_symbols_are_never_written() -> None:
    for unit in ("character", "byte"):
        file = record_model("gru", unit)
        file.arrays["output.bias"][-len(LABELS) :] += 50
        for arguments in ({}, {"temperature": 0}, {"top_k": 1}):
            texts = [sample.text for sample in Sampler(file, seed=0, num=10, **arguments).generate_all(20)]
            assert not any(mark in text for text in texts for mark in (END_MARK, "\ud800", "\ud801"))
        file.arrays["output.bias"][-len(LABELS) :] -= 50


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_a_stop_text_stops_a_record_that_goes_on_later(unit: str) -> None:
    plain = new(("gru", unit), num=9).generate_all(400)
    stopped = new(("gru", unit), num=9, stop=("a",))
    pieces: list[list[Any]] = [[] for _ in plain]
    for _ in range(60):
        for row, sample in enumerate(stopped.generate_all(400)):
            pieces[row].append(sample)
    for sample, parts in zip(plain, pieces, strict=True):
        assert "".join(part.text for part in parts) == sample.text
        assert [part.text.count("a") for part in parts] == [1] * sample.text.count("a") + [0] * (
            60 - sample.text.count("a")
        )
        assert sum(part.end_log_prob is not None for part in parts) == 1


def test_torch_ends_records_as_the_others_do() -> None:
    file = record_model("lstm")
    engine = TorchEngine(build_model(file))
    by_torch, plain = (
        Sampler(file, seed=4, num=9, label="sun", engine=used).generate_all(99) for used in (engine, None)
    )
    assert [sample.text for sample in by_torch] == [sample.text for sample in plain]
    assert all(sample.stopped for sample in by_torch)


# Feeding.


@pytest.mark.parametrize("unit", ["character", "byte"])
@pytest.mark.parametrize("unknown", ["error", "skip", "replace"])
def test_a_mark_of_a_symbol_is_not_fed(unit: str, unknown: str) -> None:
    sampler = new(("gru", unit))
    for mark in (END_MARK, "\ud800", "\udc80"):
        with pytest.raises(DataError, match="the text holds a lone surrogate, which is not a character"):
            sampler.feed("ab" + mark, unknown)
    for symbol in range(sampler.vocabulary.begin_id(), len(sampler.vocabulary)):
        with pytest.raises(ArgumentError, match="ids"):
            sampler.feed_ids(np.array([1, symbol]))
    assert sampler.generate(20) == new(("gru", unit)).generate(20)


def test_an_ended_record_is_fed_nothing_more() -> None:
    sampler = new(num=2)
    while not any(stream.ended for stream in sampler._streams):
        sampler.generate_all(1)
    sampler.feed("")
    with pytest.raises(ChargenError, match="a record has ended: call `reset` before feeding the next"):
        sampler.feed("a")
    sampler.reset()
    sampler.feed("a")


# Saved states.


@given(kinds, directions, seeds, st.integers(0, 12))
def test_a_loaded_state_knows_which_records_have_ended(
    tmp_path: Path, kind: Any, direction: str, seed: int, done: int
) -> None:
    first, second = (new(kind, seed=seed, num=4, direction=direction) for _ in range(2))
    list(islice(first.write(), done))
    second.generate_all(9)
    first.save_state(tmp_path / "state")
    second.load_state(tmp_path / "state")
    assert [stream.ended for stream in first._streams] == [stream.ended for stream in second._streams]
    assert second.generate_all(30) == first.generate_all(30)


@pytest.mark.parametrize("ended", [1, "yes", None])
def test_a_state_that_says_wrongly_what_has_ended_is_refused(tmp_path: Path, ended: Any) -> None:
    sampler = new()
    sampler._streams[0].ended = ended
    if ended is None:
        sampler = Sampler(small_model(), seed=1)  # not of records
        sampler._streams[0].ended = True
    sampler.save_state(tmp_path / "state")
    with pytest.raises(ModelFileError, match="a stream that has ended is none of a record"):
        sampler.load_state(tmp_path / "state")


# Labels and other starts.


def test_a_label_is_read_instead_of_the_end_symbol() -> None:
    file = record_model()
    texts = {label: new(label=label).generate(30) for label in (None, *LABELS)}
    assert len(set(texts.values())) == 3
    for label in (None, *LABELS):
        assert new(label={label: 0.3}).generate(30) == texts[label]
    with pytest.raises(SettingError, match="label is 'sae': this model has no such label; did you mean sea"):
        Sampler(file, label="sae")
    with pytest.raises(SettingError, match="this model has no records: it was trained on running text"):
        Sampler(small_model(), label="sea")


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_labels_are_mixed_by_their_weights(cell: str, direction: str) -> None:
    file = record_model(cell)
    weights = {"sea": 3, "sun": 1.0, None: 4}
    mixed, scaled = (
        Sampler(file, direction=direction, label=label, num=2, seed=3)
        for label in (weights, {label: weight / 7 for label, weight in weights.items()})
    )
    engine = naive.start(file, direction)[0]
    logits, state = 0.0, 0.0
    for label, weight in weights.items():
        scores, (layer,) = engine.step(np.array([file.vocabulary.begin_id(label)]), engine.start(1))
        logits, state = logits + weight / 8 * scores[0], state + weight / 8 * layer[0]
    hidden, mixed_logits = mixed.hidden_and_logits()
    for row in range(2):
        assert hidden[row] == pytest.approx(state[:12], abs=1e-5)
        assert mixed_logits[row] == pytest.approx(logits, abs=1e-5)
    # What the output layer makes of the mean state.
    outputs = file.arrays["output.weight"] @ hidden[0] + file.arrays["output.bias"]
    assert mixed_logits[0] == pytest.approx(outputs, abs=1e-5)
    assert mixed.generate_all(30) == scaled.generate_all(30)


@pytest.mark.parametrize("label", [{}, {"sea": 0}, {"sea": -1.0}, {"sea": float("nan")}, {"sea": float("inf")},
                                   {"sea": True}, {"sea": "1"}, {3: 1.0}, 3, ["sea"], "",
                                   {"sea": 1, "moon": 1}])  # fmt: skip
def test_labels_that_cannot_be_mixed_are_refused_in_one_line(label: Any) -> None:
    with pytest.raises(SettingError, match="label ") as error:
        new(label=label)
    assert "\n" not in str(error.value)


def test_a_text_without_a_begin_goes_on_from_anywhere() -> None:
    sampler = new(begin="")
    assert sampler.hidden_and_logits()[0].any() == False  # noqa: E712
    assert np.array_equal(sampler.hidden_and_logits()[1][0], sampler.model.first_logits.astype(np.float32))
    with pytest.raises(SettingError, match="label is 'sea' and begin ''"):
        new(begin="", label="sea")


def test_logits_processors_see_the_begin_symbol_and_may_put_off_the_end() -> None:
    seen: list[list[int]] = []

    def put_off(ids: Any, logits: Any) -> Any:
        seen.append(ids.tolist())
        if len(ids) < 12:
            logits[end_id] = -np.inf
        return logits

    sampler = new(label="sun", logits_processors=[put_off])
    end_id = sampler.vocabulary.end_id
    (sample,) = sampler.generate_all(99)
    assert seen[0] == [sampler.vocabulary.begin_id("sun")]
    assert seen[-1][1:] == sampler.vocabulary.encode(sample.text).tolist()
    assert sample.stopped
    assert len(sample.text) >= 11
    assert SampleConfig() == sampler.config
