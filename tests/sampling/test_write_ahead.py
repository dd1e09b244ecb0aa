"""Chunks written ahead are invisible: whatever is done with a sampler, it goes on where the yielded text ends."""

import contextlib
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chargen.decoding.choose import SampleConfig
from chargen.errors import ChargenError, SettingError
from chargen.sampling.constraints import fit_config
from chargen.sampling.sample import Character
from chargen.sampling.sampler import Sampler
from tests import naive
from tests.sampling.written_ahead import CHUNKS, DIRECTIONS, SCRIPTS, directions, in_chunks, model, new, place, seeds

pytestmark = pytest.mark.usefixtures("large_chunks")


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


def possible(stop: tuple[str, ...], script: str, config: dict[str, Any]) -> tuple[str, ...]:
    """Without the stop texts that would be refused, since they can never be written."""
    kept = []
    for text in stop:
        with contextlib.suppress(SettingError):
            fit_config(SampleConfig(stop=(text,), **config), model(script).vocabulary, None)
            kept.append(text)
    return tuple(kept)


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
    for count in (*range(0, 17, 2), 15, 31, 32):
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
    sizes = (1, 2, 4, 7, 255, 256, 257, 600)
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


@settings(max_examples=37)
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


@settings(max_examples=12)
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
    results: dict[str, Any] = {}
    for name, door in DOORS.items():
        sampler = new(script, direction=direction, seed=seed, stop=possible(stop, script, config), **config)
        sampler.feed("ba")
        if stop and name in ("a stream that is left", "one by one"):
            length = min(length, len(results["generate"][0]))  # the others end where a stop text does
        try:
            text = in_chunks(chunks, lambda door=door, new=sampler, most=length: door(new, most))
        except ChargenError:
            assume(bool(results))  # where rules leave no way on, the first door says so
            raise
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
