"""Chunks written ahead are invisible: whatever is done with a sampler, it goes on where the yielded text ends."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.data.vocabulary import Vocabulary
from chargen.decoding.choose import SampleConfig
from chargen.decoding.numpy_engine import Chunk, NumpyEngine
from chargen.errors import NOT_FINITE_MESSAGE, ChargenError, SettingError
from chargen.rng import MAX_SEED
from chargen.sampling import sampler as sampling
from chargen.sampling.constraints import Constraints, fit_config
from chargen.sampling.rule_table import RuleTable
from chargen.sampling.sample import Character, Sample
from chargen.sampling.sampler import Sampler
from chargen.sampling.stream import Stream
from chargen.storage.model_file import ModelFile
from tests import naive
from tests.small_models import small_model

DIRECTIONS = ("forward", "backward")
BYTES = Vocabulary(unit="byte")
CHUNKS = [(1, 10.0), (3, 10.0), (256, 10.0), (256, 0.0)]
"""MAX_CHUNK and CHUNK_SECONDS; the first, one character at a time, is what the others are compared with."""
SCRIPTS = {
    "latin": "abcdefgh éèü",
    "cyrillic": "абвгдежз и",
    "devanagari": "कखगघङच छज",
    "han": "的一是不了人我在",
    "emoji": "😀😁😂🚀🌍 ab",
}

seeds = st.integers(0, MAX_SEED)
directions = st.sampled_from(DIRECTIONS)
scripts = st.sampled_from([*SCRIPTS, ""])
choices = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.5, 1.0, 1.7]),
        "top_k": st.integers(0, 12),
        "min_p": st.floats(0, 0.2),
        "ban": st.sampled_from(["a", "ab", "é", "аб", "的", "😀a"]),
        "no_repeat": st.integers(3, 5),
    },
)


@cache
def model(script: str = "", cell: str = "lstm") -> ModelFile:
    """A model of characters, or of bytes that mostly make the characters of a script."""
    file = small_model(cell, unit="byte" if script else "character", scale=1.5 if script else 3.0, bidirectional=True)
    if script:
        likely = np.bincount([*SCRIPTS[script].encode()], minlength=256)
        bias = file.arrays["output.bias"] + 3 + np.log(likely + 0.005)
        file = replace(file, arrays={**file.arrays, "output.bias": bias.astype(np.float32)}, counts=1 + 9 * likely)
    return file


@pytest.fixture(autouse=True)
def large_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is."""
    monkeypatch.setattr(sampling, "CHUNK_SECONDS", 10.0)


def in_chunks(chunks: tuple[int, float], run: Callable[[], Any]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "MAX_CHUNK", chunks[0])
        patch.setattr(sampling, "CHUNK_SECONDS", chunks[1])
        return run()


def new(script: str = "", **given_: Any) -> Sampler:
    return Sampler(model(script), **{"seed": 1, **given_})


def possible(stop: tuple[str, ...], script: str, config: dict[str, Any]) -> tuple[str, ...]:
    """Without the stop texts that would be refused, since they can never be written."""
    kept = []
    for text in stop:
        with contextlib.suppress(SettingError):
            fit_config(SampleConfig(stop=(text,), **config), model(script).vocabulary, None)
            kept.append(text)
    return tuple(kept)


def place(sampler: Sampler) -> list[bytes]:
    return [part.tobytes() for part in sampler.hidden_and_logits()]


# Any use at any place

operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.none() | st.integers(0, 40), st.integers(0, 12)),
        st.tuples(st.just("resume"), st.integers(0, 3), st.integers(1, 9)),
        st.tuples(st.just("generate"), st.integers(0, 20)),
        st.tuples(st.just("feed"), st.text("abc ", max_size=4)),
        st.tuples(st.just("reseed"), seeds),
        st.sampled_from([("position",), ("save",), ("load",), ("reset",)]),
    ),
    min_size=2,
    max_size=9,
)


def transcript(sampler: Sampler, uses: list[Any], folder: Path) -> list[Any]:
    """What every use returned, with the place where the sampler stood at the end."""
    results: list[Any] = []
    iterations: list[Iterator[list[Character]]] = []
    saved = folder / "state"
    saved.unlink(missing_ok=True)
    for use, *values in uses:
        if use == "write":
            length, count = values
            iterations.append(sampler.write(length))
            results.append(list(islice(iterations[-1], count)))
        elif use == "resume" and iterations:
            index, count = values
            results.append(list(islice(iterations[index % len(iterations)], count)))
        elif use == "generate":
            results.append(sampler.generate_all(values[0]))
        elif use == "feed":
            sampler.feed(values[0])
        elif use == "reseed":
            sampler.reseed(values[0])
        elif use == "position":
            results.append(place(sampler))
        elif use == "save":
            sampler.save_state(saved)
            results.append(saved.read_bytes())
        elif use == "load" and saved.exists():
            sampler.load_state(saved)
        elif use == "reset":
            sampler.reset()
    sampler.save_state(saved)
    return [*results, saved.read_bytes(), place(sampler), sampler.generate_all(5)]


@settings(max_examples=60)
@given(
    scripts,
    directions,
    choices,
    seeds,
    st.sampled_from([(), ("a",), ("ab", "g", "и", "的一"), ("😀", "b a")]),
    operations,
)
def test_one_stream_is_used_as_if_nothing_was_written_ahead(
    tmp_path: Path, script: str, direction: str, config: Any, seed: int, stop: tuple[str, ...], uses: list[Any]
) -> None:
    expected, *others = (
        in_chunks(
            chunks,
            lambda: transcript(
                new(script, seed=seed, direction=direction, stop=possible(stop, script, config), **config),
                uses,
                tmp_path,
            ),
        )
        for chunks in CHUNKS
    )
    for other in others:
        assert other == expected


@settings(max_examples=60)
@given(directions, choices, seeds, st.integers(2, 4), operations)
def test_many_streams_are_used_as_if_nothing_was_written_ahead(
    tmp_path: Path, direction: str, config: Any, seed: int, num: int, uses: list[Any]
) -> None:
    expected, *others = (
        in_chunks(chunks, lambda: transcript(new(seed=seed, direction=direction, num=num, **config), uses, tmp_path))
        for chunks in CHUNKS
    )
    for other in others:
        assert other == expected


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("script", ["", "cyrillic"])
def test_leaving_after_any_number_of_characters_is_having_written_no_more(
    tmp_path: Path, script: str, direction: str
) -> None:
    """Up to and beyond the borders of the first chunks, whose sizes are 1, 2, 4, 8 …"""
    uses: list[Callable[[Sampler], Any]] = [
        lambda sampler: sampler.generate(9),
        lambda sampler: sampler.feed("ab"),
        place,
        lambda sampler: sampler.reseed(7),
        lambda sampler: sampler.save_state(tmp_path / "state"),
        lambda sampler: list(islice(sampler.stream(), 3)),
    ]
    for count in (*range(17), 30, 31, 32):
        for number, use in enumerate(uses):
            left, unbroken = new(script, direction=direction), new(script, direction=direction)
            kept = left.write() if number % 2 else left.stream()
            begun = list(islice(chain.from_iterable(kept), count))
            text = "".join(written if isinstance(written, str) else written.character for written in begun)
            expected = unbroken.generate(count)
            assert text == (expected[::-1] if direction == "backward" else expected)
            assert use(left) == use(unbroken)
            assert place(left) == place(unbroken)
            assert left.generate(12) == unbroken.generate(12)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_two_iterations_share_the_text_out(direction: str) -> None:
    plain = "".join(new(direction=direction).stream(60))
    sampler = new(direction=direction)
    first, second, text = sampler.stream(), sampler.stream(40), ""
    for some, others in [(5, 1), (1, 7), (0, 3), (9, 0), (6, 6), (2, 9)]:
        text += "".join(islice(first, some)) + "".join(islice(second, others))
    assert len(text) == 49
    assert plain.startswith(text)
    rest = "".join(second) + "".join(islice(first, 40))  # 14 of the second's 40 are left
    assert (text + rest)[:60] == plain
    assert len(rest) == 54
    assert not list(second)


def test_a_state_loaded_inside_an_iteration_is_where_it_goes_on(tmp_path: Path) -> None:
    sampler, twin = new(num=3, seed=8), new(num=3, seed=8)
    sampler.feed("abc")
    list(islice(sampler.write(), 5))
    sampler.save_state(tmp_path / "state")
    iteration = sampler.write(30)
    before = list(islice(iteration, 11))
    sampler.load_state(tmp_path / "state")
    after = list(islice(iteration, 11))
    assert [[written.character for written in column] for column in after] == [
        [written.character for written in column] for column in before
    ]
    assert len(list(iteration)) == 8  # of its own 30
    twin.load_state(tmp_path / "state")
    twin.generate_all(19)
    assert place(twin) == place(sampler)


@pytest.mark.parametrize("script", ["", "han"])
def test_two_calls_write_what_one_would_have_written(script: str) -> None:
    sizes = (1, 2, 3, 4, 7, 8, 255, 256, 257, 600)
    whole = new(script).generate(1200)
    assert len(whole) == 1200
    for first in sizes:
        for second in sizes:
            sampler = new(script)
            assert sampler.generate(first) + sampler.generate(second) == whole[: first + second]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_long_text_is_the_same_in_chunks_of_any_size(direction: str) -> None:
    def write() -> list[Any]:
        sampler = new(num=2, direction=direction)
        return [sampler.generate_all(400), sampler.generate_all(200), place(sampler)]

    expected, *others = (in_chunks(chunks, write) for chunks in [*CHUNKS, (2, 10.0), (1000, 10.0)])
    assert all(other == expected for other in others)


@settings(max_examples=75)
@given(
    scripts, directions, choices, seeds, st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 40), st.integers(1, 4)), max_size=3),
    st.lists(st.sampled_from([0, 1, 2, 3, 9, 30]), min_size=1, max_size=4), st.sampled_from(CHUNKS),
)  # fmt: skip
def test_stop_texts_end_samples_wherever_chunks_end(
    script: str, direction: str, config: Any, seed: int, num: int, places: Any, sizes: list[int], chunks: Any
) -> None:
    given_ = {"seed": seed, "num": num, "direction": direction, **config}

    def in_order(text: str) -> str:
        return text[::-1] if direction == "backward" else text

    samples = in_chunks(CHUNKS[0], lambda: new(script, **given_).generate_all(max(sum(sizes), 50)))
    plain = [in_order(sample.text) for sample in samples]
    stop = [plain[row % num][begin : begin + size] for row, begin, size in places]
    stop = [text for text in stop if text]
    sampler = new(script, stop=(*map(in_order, stop), "hgfedc"), **given_)
    calls = in_chunks(chunks, lambda: [sampler.generate_all(size) for size in sizes])
    for row in range(num):
        written = [(in_order(call[row].text), call[row].stopped) for call in calls]
        assert written == naive.cut_into_samples(plain[row], sizes, stop)
        log_probs = [sample.log_probs[:: -1 if direction == "backward" else 1] for sample in (c[row] for c in calls)]
        expected = samples[row].log_probs[:: -1 if direction == "backward" else 1]
        committed = [*chain.from_iterable(log_probs)]
        assert committed == [*expected[: len(committed)]]


@settings(max_examples=60)
@given(
    scripts,
    directions,
    choices,
    seeds,
    st.integers(1, 4),
    st.integers(0, 40),
    st.sampled_from([(), ("a", "и", "是不")]),
)
def test_leaving_many_streams_loses_nothing_of_any(
    script: str, direction: str, config: Any, seed: int, num: int, count: int, stop: tuple[str, ...]
) -> None:
    given_ = {"seed": seed, "num": num, "direction": direction, **config}
    try:
        plain = [sample.text for sample in in_chunks(CHUNKS[0], lambda: new(script, **given_).generate_all(70))]
    except ChargenError:  # no way on without a run again
        return
    sampler = new(script, stop=possible(stop, script, config), **given_)
    texts = [""] * num
    for written in chain.from_iterable(islice(sampler.write(), count)):
        texts[written.stream] += written.character
    place(sampler)
    for written in chain.from_iterable(islice(sampler.write(), 5)):
        texts[written.stream] += written.character
    for row, sample in enumerate(sampler.generate_all(9)):
        texts[row] += sample.text[::-1] if direction == "backward" else sample.text
        whole = plain[row][::-1] if direction == "backward" else plain[row]
        assert whole.startswith(texts[row])


DOORS: dict[str, Callable[[Sampler, int], str]] = {
    "generate": lambda sampler, length: sampler.generate(length),
    "generate_all": lambda sampler, length: sampler.generate_all(length)[0].text,
    "stream": lambda sampler, length: in_order(sampler, list(sampler.stream(length))),
    "write": lambda sampler, length: in_order(
        sampler, [written.character for column in sampler.write(length) for written in column]
    ),
    "a stream that is left": lambda sampler, length: in_order(sampler, list(islice(sampler.stream(), length))),
    "one by one": lambda sampler, length: in_order(sampler, [sampler.generate(1) for _ in range(length)]),
}


def in_order(sampler: Sampler, characters: list[str]) -> str:
    return "".join(reversed(characters) if sampler.direction == "backward" else characters)


@settings(max_examples=25)
@pytest.mark.parametrize("stop", [(), ("d",), ("de", "fgh" * 11)])
@given(
    st.sampled_from(["", "han"]),
    directions,
    choices,
    seeds,
    st.integers(0, 60),
    st.sampled_from(CHUNKS),
)
def test_a_state_is_the_same_by_every_door(
    tmp_path: Path,
    stop: tuple[str, ...],
    script: str,
    direction: str,
    config: dict[str, Any],
    seed: int,
    length: int,
    chunks: tuple[int, float],
) -> None:
    """The text and every byte of the saved state."""
    results = {}
    for name, door in DOORS.items():
        sampler = new(script, direction=direction, seed=seed, stop=possible(stop, script, config), **config)
        sampler.feed("ba")
        if stop and name in ("a stream that is left", "one by one"):
            length = min(length, len(results["generate"][0]))  # the others end where a stop text does
        text = in_chunks(chunks, lambda door=door, new=sampler, most=length: door(new, most))
        sampler.save_state(tmp_path / name)
        results[name] = text, (tmp_path / name).read_bytes()
    assert len(set(results.values())) == 1


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("door", DOORS)
def test_a_stop_text_may_begin_in_what_was_written_without_one(tmp_path: Path, door: str, direction: str) -> None:
    text = new(direction=direction).generate(200)
    read = text[::-1] if direction == "backward" else text
    at = next(at for at in range(20, 60) if read.find(read[at - 5 : at + 1]) == at - 5)
    stop = read[at - 5 : at + 1]
    sampler = new(direction=direction)
    DOORS[door](sampler, at)
    sampler.save_state(tmp_path / "state")
    later = new(direction=direction, stop=(stop[::-1] if direction == "backward" else stop,))
    later.load_state(tmp_path / "state")
    assert later.generate(100) == read[at]


@pytest.mark.parametrize(("script", "stop"), [("", ("ab", "dd")), ("emoji", ())])
def test_which_characters_come_together_does_not_depend_on_chunks(script: str, stop: tuple[str, ...]) -> None:
    """Otherwise what is saved after so many characters would depend on how fast the machine is."""
    expected, *others = (
        in_chunks(chunks, lambda: list(islice(new(script, num=3, stop=stop).write(), 20))) for chunks in CHUNKS
    )
    assert all(other == expected for other in others)


# What an engine is asked


class Counting(NumpyEngine):
    """Records its calls, on a clock of its own on which a time step takes a while."""

    def __init__(self, file: ModelFile, seconds: float = 0.0, direction: str = "forward") -> None:
        super().__init__(file.config, file.arrays, direction)
        self.asked: list[tuple[str, int]] = []
        self.seconds = seconds
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def read(self, ids: Any, counts: Any, logits: Any, state: Any) -> Any:
        self.asked.append(("read", int(counts.max())))
        return super().read(ids, counts, logits, state)

    def write(self, logits: Any, state: Any, uniforms: Any, *rest: Any, **named: Any) -> Chunk:
        self.asked.append(("write", uniforms.shape[1]))
        self.now += self.seconds * uniforms.shape[1]
        return super().write(logits, state, uniforms, *rest, **named)


def test_chunks_grow_up_to_the_largest() -> None:
    engine = Counting(model())
    assert len(list(new(engine=engine).stream(1100))) == 1100
    assert engine.asked == [("write", length) for length in (1, 2, 4, 8, 16, 32, 64, 128, 256, 256, 256, 77)]


@pytest.mark.parametrize(
    ("seconds", "sizes"), [(0.008, [1, 2, 4, 6, 6, 6, 5]), (0.02, [1, *[2] * 14, 1]), (1.0, [1] * 30)]
)
def test_text_is_handed_over_in_time(monkeypatch: pytest.MonkeyPatch, seconds: float, sizes: list[int]) -> None:
    monkeypatch.setattr(sampling, "CHUNK_SECONDS", 0.05)
    engine = Counting(model(), seconds)
    monkeypatch.setattr(sampling, "time", engine)
    assert len(list(new(engine=engine).stream(30))) == 30
    assert [size for _, size in engine.asked] == sizes


def test_what_is_wanted_whole_is_written_in_few_chunks_and_equals_what_is_handed_over() -> None:
    for num, direction in ((1, "forward"), (3, "backward")):
        engine = Counting(model(), direction=direction)
        samples = new(engine=engine, num=num, direction=direction).generate_all(500)
        assert [size for _, size in engine.asked] == [8, 256, 236]
        texts: list[list[Character]] = [[] for _ in range(num)]
        twin = new(engine=Counting(model(), direction=direction), num=num, direction=direction)
        for written in chain.from_iterable(twin.write(500)):
            texts[written.stream].append(written)
        assert [Sample.of(text, direction == "backward") for text in texts] == samples


def test_only_what_was_written_ahead_is_read_again(tmp_path: Path) -> None:
    engine = Counting(model())
    sampler = new(engine=engine)
    sampler.generate(20)
    place(sampler)
    sampler.save_state(tmp_path / "state")
    sampler.generate(7)
    assert {asked for asked, _ in engine.asked} == {"write"}
    list(islice(sampler.write(), 9))  # in chunks of 1, 2, 4 and 8
    engine.asked.clear()
    place(sampler)
    place(sampler)
    sampler.reseed(2)
    assert engine.asked == [("read", 2)]


def test_with_no_repeat_nothing_is_written_ahead() -> None:
    engine = Counting(model())
    new(engine=engine, no_repeat=4).generate(9)
    assert engine.asked == [("write", 1)] * 9


def test_an_interrupt_while_rewinding_loses_no_place() -> None:
    class Interrupted(NumpyEngine):
        def read(self, *given_: Any) -> Any:
            type(self).read = NumpyEngine.read  # type: ignore[method-assign]
            raise KeyboardInterrupt

    file = model()
    sampler = new(engine=Interrupted(file.config, file.arrays))
    text = "".join(islice(sampler.stream(), 5))
    with pytest.raises(KeyboardInterrupt):
        sampler.feed("a")
    assert text + sampler.generate(15) == new().generate(20)


# Errors


def broken(character: str = "d") -> ModelFile:
    """Whoever has read this character has no numbers any more."""
    file = small_model()
    file.arrays["embedding.weight"][file.vocabulary.characters.index(character)] = np.inf
    return file


def until_error(sampler: Sampler) -> tuple[list[list[Character]], str]:
    columns: list[list[Character]] = []
    with pytest.raises(ChargenError) as raised:
        columns.extend(islice(sampler.write(), 3000))
    return columns, str(raised.value)


def described(sampler: Sampler) -> list[dict[str, Any]]:
    return [stream.describe() for stream in sampler._streams]


@pytest.mark.parametrize("num", [1, 2, 4])
def test_numbers_that_overflow_inside_a_chunk_are_an_error_behind_all_text_before_them(num: int) -> None:
    file = broken()

    def run(seed: int) -> tuple[Any, ...]:
        sampler = Sampler(file, seed=seed, num=num)
        columns, error = until_error(sampler)
        assert error == NOT_FINITE_MESSAGE
        last = {written.stream: written.character for written in columns[-1]}
        assert len(last) == num
        assert "d" in last.values()
        assert not any(written.character == "d" for written in chain.from_iterable(columns[:-1]))
        stand, where = described(sampler), place(sampler)
        assert all(stream["draws"] == len(columns) for stream in stand)
        for _ in range(2):  # the error changes nothing
            assert until_error(sampler) == ([], NOT_FINITE_MESSAGE)
            assert (described(sampler), place(sampler)) == (stand, where)
        return columns, stand, where

    lengths = set()
    for seed in range(12):
        expected, *others = (in_chunks(chunks, lambda seed=seed: run(seed)) for chunks in CHUNKS)
        assert all(other == expected for other in others)
        lengths.add(len(expected[0]))
    assert len(lengths) > 3


@pytest.mark.parametrize("num", [1, 3])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_rules_that_forbid_all_are_an_error_behind_all_text_before_them(num: int, direction: str) -> None:
    expected = None
    for chunks in CHUNKS:
        sampler = new(num=num, direction=direction, no_repeat=2, ban="defgh \n")
        columns, error = in_chunks(chunks, lambda sampler=sampler: until_error(sampler))
        stand, where = described(sampler), place(sampler)
        assert 3 <= len(columns) <= 10  # of 9 runs of 2 of 3 characters
        assert all(len(column) == num for column in columns)
        assert error.endswith(f"forbid all 10 ids after {len(columns)} draws; ban less, or raise `no_repeat`")
        for _ in range(2):
            assert until_error(sampler) == ([], error)
            assert (described(sampler), place(sampler)) == (stand, where)
        expected = expected or (columns, error, stand, where)
        assert (columns, error, stand, where) == expected


@pytest.mark.parametrize("num", [1, 3])
def test_a_ban_of_all_is_an_error_at_once(num: int) -> None:
    for script, ban in (("", "abcdefgh \n"), ("", "abcdefgh \nz")):
        sampler = new(script, num=num, ban=ban)
        before = described(sampler), place(sampler)
        assert until_error(sampler) == (
            [],
            "sample 0: `ban` and `no_repeat` forbid all 10 ids after 0 draws; ban less, or raise `no_repeat`",
        )
        assert (described(sampler), place(sampler)) == before


# Rules as tables


def reachable(backward: bool, random: np.random.Generator) -> list[bytes]:
    """Unfinished characters: all of one byte, many of two, some of three."""
    rules, partials = Constraints(BYTES, backward=backward), [b""]
    level = [b""]
    for most in (100, 250, 80):
        longer = []
        for partial in level:
            for byte in np.flatnonzero(rules.mask(partial)):
                stream = Stream(rules, 0)
                stream.partial = partial
                if not stream.add_id(int(byte), BYTES):
                    longer.append(stream.partial)
        level = [longer[at] for at in random.permutation(len(longer))[:most]]
        partials += level
    return partials


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("ban", ["", "aé€😀", "".join(map(chr, range(0xC0, 0x100)))])
def test_tables_are_the_rules_after_every_unfinished_character(backward: bool, ban: str) -> None:
    random = np.random.default_rng(len(ban))
    partials = reachable(backward, random)
    assert {len(partial) for partial in partials} == {0, 1, 2, 3}
    table = RuleTable(BYTES, (), 0, backward)
    streams = [Stream(Constraints(BYTES, ban, 0, backward), row) for row in range(len(partials))]
    rules, mask_index = None, None
    for stream, at in zip(streams, random.permutation(len(partials)), strict=True):  # whatever comes first
        stream.partial = partials[at]
    for begin in range(0, len(streams), 97):
        rules, mask_index = table.rules_for(streams[: begin + 97])
    assert rules is not None
    assert mask_index is not None
    places = {stream.partial: int(at) for stream, at in zip(streams, mask_index, strict=True)}
    assert sorted(places.values()) == list(range(len(rules.masks))) == list(range(len(partials)))
    assert not rules.stop_after.any()
    for partial, at in places.items():
        mask = Constraints(BYTES, ban, 0, backward).mask(partial)
        assert np.array_equal(rules.masks[at], mask)
        for byte in np.flatnonzero(mask):
            stream = Stream(Constraints(BYTES, ban, 0, backward), 0)
            stream.partial = partial
            finished = stream.add_id(int(byte), BYTES)
            assert rules.next_mask[at, byte] == places.get(stream.partial, -1)
            assert not finished or rules.next_mask[at, byte] == places[b""]


def test_a_table_of_characters_has_one_row() -> None:
    vocabulary = Vocabulary("abcdé", folded="xy")
    streams = [Stream(Constraints(vocabulary, "b"), row) for row in range(3)]
    table = RuleTable(vocabulary, ("ca", "é", "b", "cxa", "ax", "Z"), False, False)
    for number in (3, 1):
        rules, mask_index = table.rules_for(streams[:number])
        assert np.array_equal(rules.masks, streams[0].constraints.mask()[None])
        assert not rules.next_mask.any()
        assert mask_index.tolist() == [0] * number
    assert rules.stop_after.tolist() == [True, True, False, False, True, True]
    assert table.max_ids is None
    backward = RuleTable(vocabulary, ("ca", "é"), False, True)
    assert backward.rules_for(streams)[0].stop_after.tolist() == [False, False, True, False, True, False]


@pytest.mark.parametrize(("backward", "bytes_"), [(False, b"b\xa9\xac\x80"), (True, b"a\xc3\xe2\xf0")])
def test_in_bytes_a_stream_pauses_behind_the_byte_that_ends_a_stop_text(backward: bool, bytes_: bytes) -> None:
    table = RuleTable(
        BYTES, ("ab", "éé", "€€€€€a€" if backward else "a€€€€€€", "😀x" if backward else "x😀"), False, backward
    )
    rules, _ = table.rules_for([Stream(Constraints(BYTES, backward=backward), 0)])
    assert sorted(np.flatnonzero(rules.stop_after)) == sorted(bytes_)


@settings(max_examples=40)
@given(
    st.sampled_from(["", "cyrillic", "emoji"]), directions, st.integers(1, 3), seeds, st.sampled_from(["", "a", "ае😀"])
)
def test_with_no_repeat_every_stream_has_its_own_mask(
    script: str, direction: str, num: int, seed: int, ban: str
) -> None:
    sampler = new(script, num=num, seed=seed, direction=direction, no_repeat=2, ban=ban)
    table = RuleTable(sampler.vocabulary, (), True, direction == "backward")
    assert table.max_ids == 1
    writing = sampler.write()
    for _ in range(12):
        rules, mask_index = table.rules_for(sampler._streams)
        for stream, at in zip(sampler._streams, mask_index, strict=True):
            assert np.array_equal(rules.masks[at], stream.constraints.mask(stream.partial))
        next(writing)
