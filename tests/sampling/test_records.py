"""Many records: each is that of a sampler, whatever the rows and chunks; and which of them are kept."""

import copy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.data.reading_config import ReadingConfig
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.decoding.torch_engine import TorchEngine
from chargen.errors import ArgumentError, ChargenError, DataError, SettingError
from chargen.sampling import records, selection
from chargen.sampling.records import write_records
from chargen.sampling.sample import Sample
from chargen.sampling.sampler import Sampler
from chargen.sampling.selection import Selection, hash_sources
from chargen.sampling.stream import Stream
from chargen.storage.model_file import build_model
from tests.record_models import LABELS, LETTERS, record_model
from tests.sampling.strategies import seeds
from tests.small_models import small_model

kinds = st.tuples(st.sampled_from(["gru", "lstm"]), st.sampled_from(["character", "byte"]))
choices = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.5, 1.7]),
        "ban": st.text("ef\u00e9", max_size=2),
        "no_repeat": st.integers(2, 4),
        "stop": st.sampled_from([("a",), ("bc", "d")]),
        "label": st.sampled_from(LABELS),
        "direction": st.just("backward"),
    },
)


def new(kind: tuple[str, str] = ("gru", "character"), **arguments: Any) -> Sampler:
    return Sampler(record_model(*kind), **{"seed": 1, **arguments})


@given(kinds, choices, seeds, st.text(LETTERS, max_size=3), st.integers(1, 9), st.sampled_from([1, 5, 12, 99]),
       st.integers(1, 5), st.sampled_from([1, 3, 16]))  # fmt: skip
def test_record_i_is_sample_i_whatever_the_rows_and_chunks(
    kind: Any, config: Any, seed: int, prime: str, num: int, length: int, rows: int, chunk: int
) -> None:
    one, many = new(kind, seed=seed, **config), new(kind, seed=seed, num=num, **config)
    for sampler in (one, many):
        sampler.feed(prime)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "CHUNK", chunk)
        written = list(write_records(one, num, length=length, rows=rows))
    assert written == many.generate_all(length)
    assert one.generate_all(length) == written[:1]  # it still stands where it stood


@pytest.mark.parametrize("config", [{}, {"stop": ("cc", "bc")}, {"no_repeat": 2}, {"direction": "backward"}], ids=str)
def test_no_record_is_longer_than_it_may_be_wherever_chunks_end(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for length in range(1, 9):
        expected = new(num=40, **config).generate_all(length)
        assert any(len(sample.text) == length for sample in expected)
        for chunk in (1, 3, 5, 16):
            monkeypatch.setattr(records, "CHUNK", chunk)
            assert list(write_records(new(**config), 40, length=length, rows=7)) == expected


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_records_go_on_from_the_middle_of_one(unit: str) -> None:
    begun, many = (new(("gru", unit), seed=7, no_repeat=2, num=num) for num in (1, 30))
    list(islice(begun.write(), 5))
    here = begun.snapshot()
    assert not here.streams[0].ended
    many._streams = [copy.deepcopy(here.streams[0]) for _ in range(30)]
    for index, stream in enumerate(many._streams):
        stream.index = index
    many._logits, *many_state = (np.repeat(values, 30, axis=0) for values in (here.logits, *here.layers))
    many._state = tuple(many_state)
    written = list(write_records(begun, 30, rows=4))
    assert many.generate_all(999) == written
    assert len({sample.text for sample in written}) > 10
    assert begun.generate_all(999) == written[:1]


def test_torch_writes_the_same_records() -> None:
    engine = TorchEngine(build_model(record_model()))
    by_torch = write_records(new(engine=engine), 20, rows=7)
    assert [sample.text for sample in by_torch] == [sample.text for sample in write_records(new(), 20)]


def test_a_logits_processor_changes_records_one_by_one() -> None:
    def longer(ids: Any, logits: Any) -> Any:
        return logits - 99.0 * (np.arange(len(logits)) == 7) * (len(ids) < 6)

    many = new(num=5, logits_processors=[longer]).generate_all(99)
    assert list(write_records(new(logits_processors=[longer]), 5, rows=2)) == many
    assert min(len(sample.text) for sample in many) == 5


class Counting(NumpyEngine):
    """Counts the rows of each chunk."""

    def write(self, logits: Any, *rest: Any, **named: Any) -> Any:
        self.rows = [*getattr(self, "rows", []), len(logits)]
        return super().write(logits, *rest, **named)


def test_rows_that_end_are_refilled_at_once_and_none_is_begun_in_vain() -> None:
    file = record_model()
    engine = Counting(file.config, file.arrays)
    written = list(write_records(Sampler(file, seed=1, engine=engine), 60, rows=8))
    assert engine.rows[0] == 8
    *full, last = [rows for rows in engine.rows if rows == 8], [rows for rows in engine.rows if rows < 8]
    assert engine.rows == [*full[0], *sorted(last, reverse=True)]
    symbols = sum(len(sample.log_probs) + 1 for sample in written)
    assert 8 * records.CHUNK * len(full[0]) < 3 * symbols
    assert Counting.many_rows > 60
    fewer = Counting(file.config, file.arrays)
    list(write_records(Sampler(file, seed=1, engine=fewer), 60))
    assert fewer.rows[0] == 60


def test_records_come_as_they_are_complete() -> None:
    file = record_model()
    engine = Counting(file.config, file.arrays)
    writing = write_records(Sampler(file, seed=1, engine=engine), 1000, rows=4)
    next(writing)
    assert len(engine.rows) < 5


def test_weights_too_large_to_compute_with_are_told() -> None:
    file = record_model(scale=1.99)
    file.arrays["output.bias"][:2] = np.inf
    with pytest.raises(ChargenError, match="not finite"):
        list(write_records(Sampler(file, seed=1), 3))


def test_records_of_bytes_that_are_lines_hold_no_line_end() -> None:
    file = record_model(unit="byte", letters="\r\n ")
    assert any(set("\r\n") & set(sample.text) for sample in write_records(Sampler(file), 50, length=30))
    lines = replace(file, reading=ReadingConfig(records="line"))
    sampler = Sampler(lines)
    assert not any(set("\r\n") & set(sample.text) for sample in write_records(sampler, 50, length=30))
    again = Sampler(lines, config=sampler.config)
    assert again.config == sampler.config


def test_what_cannot_be_written_is_refused_in_one_line() -> None:
    with pytest.raises(SettingError, match="num is for records here: this model was trained on running text"):
        list(write_records(Sampler(small_model(), seed=1), 3))
    for arguments, words in (
        ({"num": 0}, "num is 0"), ({"length": 0}, "length is 0: it must be"), ({"rows": 0}, "rows is 0"),
    ):  # fmt: skip
        with pytest.raises(SettingError, match=words):
            list(write_records(new(), **{"num": 2, **arguments}))
    ended = new()
    ended.generate(999)
    for sampler in (ended, new(num=2)):
        with pytest.raises(ChargenError, match="records go on from a sampler of one sample that has not ended"):
            list(write_records(sampler, 2))


# What is kept.


def texts(samples: Any) -> list[str]:
    return [sample.text for sample in samples]


def all_texts(num: int = 400, **arguments: Any) -> list[str]:
    return texts(write_records(new(**arguments), num))


@pytest.mark.parametrize("rows", [1, 3, 50])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_filters_keep_what_a_loop_by_hand_keeps(tmp_path: Path, rows: int, direction: str) -> None:
    file, prime = record_model(), "ab"
    samplers = [Sampler(file, seed=1, direction=direction) for _ in range(2)]
    for sampler in samplers:
        sampler.feed(prime)

    def whole(text: str) -> str:
        return text + prime if direction == "backward" else prime + text

    every = list(write_records(samplers[0], 600))
    known = {whole(sample.text) for sample in every[:3]}
    (tmp_path / "known.txt").write_text("\n".join([*known, "abc", "abc"]) + "\n")
    accepted: list[str] = []

    def accept(offered: list[str]) -> list[bool]:
        assert all(isinstance(text, str) for text in offered)
        accepted.extend(offered)
        return [len(text) > 4 for text in offered]

    expected, seen, thrown = [], set(), []
    for sample in every:
        text = whole(sample.text)
        if text in known | {"abc"}:
            thrown.append("known")
        elif text in seen:
            thrown.append("repeated")
        elif len(text) <= 4:
            thrown.append("not accepted")
        else:
            expected.append(sample)
        seen |= {text} - known
    chosen = Selection(
        known=hash_sources([tmp_path / "known.txt"], ReadingConfig(records="line")), unique=True, accept=accept,
        prime=prime, backward=direction == "backward",
    )  # fmt: skip
    kept = list(write_records(samplers[1], 40, selection=chosen, rows=rows))
    assert kept == expected[:40]
    assert len(accepted) == len(set(accepted))
    if rows == 1:
        tried = every.index(expected[39]) + 1
        first = thrown[: tried - 40]
        assert chosen.thrown_away == {reason: first.count(reason) for reason in set(first)}
        assert set(first) == {"known", "repeated", "not accepted"}


@pytest.mark.parametrize("rows", [1, 4, 50])
def test_the_best_of_some_has_the_highest_mean_log_probability_of_a_symbol(rows: int) -> None:
    every = list(write_records(new(), 60, length=6))

    def mean(sample: Sample) -> float:
        values = [*sample.log_probs, *([] if sample.end_log_prob is None else [sample.end_log_prob])]
        return sum(values) / len(values)

    assert any(sample.end_log_prob is None for sample in every)
    groups = [every[first : first + 5] for first in range(0, 60, 5)]
    chosen = Selection(best_of=5)
    kept = list(write_records(new(), 12, length=6, selection=chosen, rows=rows))
    assert kept == [max(group, key=mean) for group in groups]
    assert chosen.thrown_away == {"worse than another": 48}
    # Of those that pass the filters.
    long = [sample for sample in write_records(new(), 400, length=6) if len(sample.text) > 2]
    chosen = Selection(best_of=3, accept=lambda offered: [len(text) > 2 for text in offered])
    kept = list(write_records(new(), 9, length=6, selection=chosen, rows=rows))
    assert kept == [max(long[first : first + 3], key=mean) for first in range(0, 27, 3)]


def test_many_texts_are_accepted_in_a_call() -> None:
    sizes: list[int] = []

    def accept(offered: list[str]) -> list[bool]:
        sizes.append(len(offered))
        return [True] * len(offered)

    list(write_records(new(), 400, selection=Selection(accept=accept), rows=100))
    assert max(sizes) > 20
    assert min(sizes) > 0


@pytest.mark.parametrize("answer", [True, [True], [1, 0, 1], ["yes"] * 3, None, [[True]] * 3])
def test_an_answer_that_is_none_is_refused_in_one_line(answer: Any) -> None:
    chosen = Selection(accept=lambda offered: answer)
    with pytest.raises(ArgumentError, match=r"accept returned an array .* for 3 texts: needed is a bool for each"):
        chosen.select([Sample("a", (-1.0,), True, -1.0)] * 3)
    with pytest.raises(ArgumentError, match="accept is 3: needed is a function of a list of texts"):
        Selection(accept=3)
    with pytest.raises(SettingError, match="best_of is 0"):
        Selection(best_of=0)


def test_writing_gives_up_where_nothing_is_kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MAX_TRIES", 500)
    few = Sampler(record_model(), seed=1, ban=LETTERS[2:])
    writing = write_records(few, 10_000, length=2, selection=Selection(unique=True, best_of=2))
    kept = []
    with pytest.raises(
        ChargenError, match=r"^[0-9] records of 10,000 kept, and none of the last 5\d\d \(thrown away: "
    ):
        kept.extend(writing)
    assert 1 <= len(kept) < 10
    assert len(set(texts(kept))) == len(kept)
    refused = Selection(accept=lambda offered: [False] * len(offered))
    with pytest.raises(
        ChargenError, match=r"^0 records of 3 kept, .* last 5[012][0-9] .*not accepted\); ask for fewer"
    ) as error:
        list(write_records(new(), 3, selection=refused, rows=20))
    assert "\n" not in str(error.value)
    rare = Selection(accept=lambda offered: [text.startswith("ab") and len(text) > 4 for text in offered], best_of=3)
    assert len(list(write_records(new(), 5, selection=rare))) == 5  # though many more than 500 are refused
    assert rare.thrown_away["not accepted"] > 500


def test_hashes_of_sources_are_those_of_all_their_records(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lines = ["".join(random.choice([*"abcdef"], size)) for size in random.integers(1, 9, 3000)]
    (tmp_path / "a.txt").write_text("\n".join(lines[:1000]))
    (tmp_path / "b.txt").write_text("\r\n".join(lines[1000:]))
    hashes = hash_sources([tmp_path / "a.txt", tmp_path / "b.txt"], ReadingConfig(records="line"))
    assert hashes.dtype == np.uint64
    assert len(hashes) == 3000
    assert (np.diff(hashes.astype(object)) >= 0).all()
    chosen = Selection(known=hashes)
    assert chosen.select([Sample(line, (), True) for line in lines[::7]]) == []
    assert len(chosen.select([Sample(line + "x", (), True) for line in lines])) == 3000
    assert chosen.select([]) == []
    latin = tmp_path / "latin.txt"
    latin.write_bytes("é\n".encode("latin-1"))
    with pytest.raises(DataError, match="latin"):
        hash_sources([latin], ReadingConfig(records="line"))
    again = Selection(known=hash_sources([latin], ReadingConfig(records="line"), "latin-1"))
    assert again.select([Sample("é", (), True), Sample("e", (), True)]) == [Sample("e", (), True)]
    with pytest.raises(SettingError, match="novel needs to know what a record is"):
        hash_sources([latin], ReadingConfig())
    (tmp_path / "empty.txt").write_text("")
    nothing = Selection(known=hash_sources([tmp_path / "empty.txt"], ReadingConfig(records="line")))
    assert len(nothing.select([Sample("e", (), True)])) == 1


@pytest.mark.parametrize(("num", "many", "begun"), [(3, 128, 128), (3, 4096, 128), (70, 4096, 140), (70, 99, 99)])
def test_filters_do_not_begin_many_times_as_many_records(
    num: int, many: int, begun: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, forked = new(), []
    sampler.engine.many_rows = many
    fork = Stream.fork
    monkeypatch.setattr(Stream, "fork", lambda self, index: forked.append(index) or fork(self, index))
    next(
        write_records(sampler, num, length=1, selection=Selection(accept=lambda texts: [True] * len(texts), best_of=2))
    )
    assert forked == [*range(begun)]
