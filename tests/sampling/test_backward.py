"""Writing what comes before: the backward stack against forward twins, and many rows against one row."""

from dataclasses import replace
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.decoding.choose import log_softmax
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.decoding.pick_engine import new_engine
from chargen.decoding.torch_engine import TorchEngine
from chargen.errors import ChargenError, DataError, ModelFileError, SettingError
from chargen.sampling.sampler import Sampler
from chargen.storage import tensor_file
from chargen.storage.model_file import ModelFile, build_model, save_model
from tests import naive
from tests.sampling.strategies import cuts, primes, seeds
from tests.small_models import small_model

CELLS = ("lstm", "gru")

DIRECTIONS = ("forward", "backward")
Kind = tuple[str, int, str]

cells = st.sampled_from(CELLS)
depths = st.integers(1, 3)
kinds = st.tuples(cells, depths, st.sampled_from(["character", "byte"]))
directions = st.sampled_from(DIRECTIONS)
choices = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0, 0.5, 1.0, 1.7]),
        "top_k": st.integers(0, 12),
        "top_p": st.floats(0, 1),
        "min_p": st.floats(0, 0.5),
        "ban": st.text("abc\u00e9\u20ac", max_size=2),
        "no_repeat": st.integers(3, 5),
    },
)


@cache
def two_way(cell: str = "lstm", num_layers: int = 2, unit: str = "character", scale: float = 3.0) -> ModelFile:
    return small_model(cell, num_layers=num_layers, unit=unit, scale=scale, bidirectional=True)


def one_way(file: ModelFile, direction: str) -> ModelFile:
    """The one-way model made of one stack of a two-way model."""
    arrays = {
        name.replace(direction, "forward"): array
        for name, array in file.arrays.items()
        if name.split(".")[0] in ("embedding", "output", f"{direction}_layers")
    }
    return replace(file, config=replace(file.config, bidirectional=False), arrays=arrays)


def new(kind: Kind = ("lstm", 2, "character"), **given_: Any) -> Sampler:
    return Sampler(two_way(*kind), **{"seed": 1, "direction": "backward", **given_})


def in_order(direction: str, texts: list[str]) -> str:
    """What calls wrote, as a single text."""
    return "".join(reversed(texts) if direction == "backward" else texts)


@given(kinds, choices, seeds, primes, st.integers(1, 3))
def test_a_sample_is_what_a_loop_by_hand_writes(kind: Kind, config: Any, seed: int, prime: str, num: int) -> None:
    sampler = new(kind, seed=seed, num=num, **config)
    sampler.feed(prime)
    for index, sample in enumerate(sampler.generate_all(10)):
        expected = list(islice(naive.sample(two_way(*kind), sampler.config, seed, index, prime, "backward"), 10))[::-1]
        assert sample.text == "".join(character for character, _ in expected)
        assert sample.log_probs == pytest.approx([log_prob for _, log_prob in expected], abs=1e-5)


@given(
    cells,
    depths,
    choices,
    seeds,
    primes,
    st.integers(1, 3),
    st.lists(st.text("def", min_size=1, max_size=2), max_size=2),
)
def test_writing_backward_is_writing_a_reversed_text_forward(
    cell: str, depth: int, config: Any, seed: int, prime: str, num: int, stop: list[str]
) -> None:
    file = two_way(cell, depth)
    backward = Sampler(file, seed=seed, num=num, direction="backward", stop=tuple(stop), **config)
    reverse = tuple(text[::-1] for text in stop)
    forward = Sampler(one_way(file, "backward"), seed=seed, num=num, stop=reverse, **config)
    for fed, length in ((prime, 9), ("", 6), ("ab", 5)):
        backward.feed(fed)
        forward.feed(fed[::-1])
        for ours, theirs in zip(backward.generate_all(length), forward.generate_all(length), strict=True):
            assert ours.text == theirs.text[::-1]
            assert ours.log_probs == theirs.log_probs[::-1]
            assert ours.stopped == theirs.stopped


@given(kinds, choices, seeds, primes, st.integers(1, 3))
def test_a_second_stack_changes_nothing_of_the_first(kind: Kind, config: Any, seed: int, prime: str, num: int) -> None:
    file = two_way(*kind)
    both = Sampler(file, seed=seed, num=num, **config)
    alone = Sampler(one_way(file, "forward"), seed=seed, num=num, **config)
    for sampler in (both, alone):
        sampler.feed(prime)
    assert both.generate_all(10) == alone.generate_all(10)


@given(kinds, directions, choices, seeds, primes, cuts, st.integers(1, 3))
def test_pieces_are_the_whole(
    kind: Kind, direction: str, config: Any, seed: int, prime: str, pieces: list[int], num: int
) -> None:
    whole, cut, left = (new(kind, seed=seed, num=num, direction=direction, **config) for _ in range(3))
    for sampler in (whole, cut, left):
        sampler.feed(prime)
    expected = [sample.text for sample in whole.generate_all(sum(pieces))]
    assert [len(text) for text in expected] == [sum(pieces)] * num
    written = [[sample.text for sample in cut.generate_all(piece)] for piece in pieces]
    assert [in_order(direction, [texts[row] for texts in written]) for row in range(num)] == expected
    # Characters come one by one, the last of the text first; leaving them halfway loses nothing.
    characters = chain.from_iterable([*islice(left.write(), sum(pieces) // 2), *left.write(sum(pieces))])
    begun = [[character.character for character in characters if character.stream == 0]]
    assert in_order(direction, begun[0][: sum(pieces)]) == expected[0]


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_two_calls_write_what_one_call_writes_for_all_cuts(unit: str) -> None:
    kind: Kind = ("gru", 1, unit)
    whole = new(kind).generate(12)
    for first in range(13):
        sampler = new(kind)
        second_half = sampler.generate(first)
        assert sampler.generate(12 - first) + second_half == whole
    assert "".join(new(kind).stream(12)) == whole[::-1]


@given(kinds, st.lists(primes, max_size=4), st.integers(1, 3))
def test_a_later_feed_stands_before_an_earlier_one(kind: Kind, pieces: list[str], num: int) -> None:
    once, cut = new(kind, num=num, no_repeat=3), new(kind, num=num, no_repeat=3)
    for sampler in (once, cut):
        sampler.generate_all(len(pieces) % 2 * 3)  # fresh streams and those that have written are fed in two ways
    once.feed("".join(pieces))
    for piece in reversed(pieces):
        cut.feed(piece)
    assert once.generate_all(10) == cut.generate_all(10)


def test_ab_fed_after_cd_is_abcd_and_not_cdab() -> None:
    texts = []
    for feeds in (("cd", "ab"), ("abcd",), ("ab", "cd"), ("dcba",)):
        sampler = new()
        for text in feeds:
            sampler.feed(text)
        texts.append(sampler.generate(20))
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def test_what_is_fed_is_neither_counted_nor_returned() -> None:
    for prime in ("", "a", "abcdefgh" * 100):
        sampler = new()
        sampler.feed(prime)
        assert len(sampler.generate(7)) == 7


def test_the_last_character_of_a_text_without_a_prime_follows_the_counts() -> None:
    file = two_way()
    lasts = "".join(sample.text for sample in new(num=2000).generate_all(1))
    for character, share in zip(file.vocabulary.characters, file.counts / file.counts.sum(), strict=True):
        assert abs(lasts.count(character) / 2000 - share) < 4 * np.sqrt(share / 2000)
    assert new(temperature=0).generate(1) == file.vocabulary.characters[-1]


@pytest.mark.parametrize("cell", CELLS)
def test_each_log_probability_stands_where_its_character_stands(cell: str) -> None:
    file = two_way(cell)
    sampler = new((cell, 2, "character"), temperature=1.5)
    sampler.feed("gab")
    (sample,) = sampler.generate_all(15)
    engine = NumpyEngine(file.config, file.arrays, "backward")
    ids = file.vocabulary.encode(sample.text + "gab").astype(np.int64)
    state = engine.start(1)
    for at in reversed(range(1, len(ids))):
        logits, state = engine.step(ids[at : at + 1], state)
        if at <= 15:
            assert sample.log_probs[at - 1] == pytest.approx(log_softmax(logits[0])[ids[at - 1]], abs=1e-5)


@given(kinds, st.data(), seeds)
def test_a_stop_text_is_given_in_reading_order(kind: Kind, data: st.DataObject, seed: int) -> None:
    plain = new(kind, seed=seed).generate(40)
    begin = data.draw(st.integers(0, 36))
    stop = plain[begin : begin + data.draw(st.integers(1, 4))]
    begin = plain.rindex(stop)
    sampler = new(kind, seed=seed, stop=("hgfedc", stop, stop + "hgfedc"))
    first = data.draw(st.integers(0, 39 - begin))
    assert sampler.generate(first) == plain[40 - first :]
    (sample,) = sampler.generate_all(40)
    assert sample.stopped
    assert sample.text == plain[begin : 40 - first]
    assert len(sample.log_probs) == len(sample.text)
    more = sampler.generate(begin)
    assert plain[:begin].endswith(more)
    assert len(more) == begin or more.startswith(stop)


def test_what_is_fed_is_no_part_of_a_stop_text() -> None:
    plain = new(top_k=1)
    plain.feed("ab")
    text = plain.generate(1)
    sampler = new(top_k=1, stop=(text + "a",))
    sampler.feed("ab")
    assert not sampler.generate_all(1)[0].stopped
    between = new(ban="bcdefgh \n", stop=("aa",))
    assert between.generate(1) == "a"
    between.feed("b")
    assert between.generate(9) == "aa"


@given(kinds, st.integers(3, 4), seeds, cuts)
def test_no_run_is_written_twice_even_across_calls(kind: Kind, run: int, seed: int, pieces: list[int]) -> None:
    sampler = new(kind, seed=seed, no_repeat=run)
    sampler.feed("abab")
    text = in_order("backward", [sampler.generate(piece) for piece in pieces])
    runs = [text[at : at + run] for at in range(len(text) - run + 1)]
    assert len(runs) == len(set(runs))
    assert len(set(new(kind, no_repeat=1).generate(9))) == 9


def test_bans_and_the_unknown_symbol_are_never_written() -> None:
    assert set(new(ban="abc").generate(200)) == set("defgh \n")
    with pytest.raises(ChargenError, match="`ban` and `no_repeat` forbid all 10 ids after 2 draws"):
        new(ban="abcdefgh", no_repeat=1).generate(9)
    file = small_model(folded="xyz", bidirectional=True)
    file.arrays["output.bias"][-1] += 50
    file.counts[-1] = 10**9
    sampler = Sampler(file, seed=0, num=5, direction="backward", no_repeat=4)
    sampler.feed("axb")
    assert set("".join(sample.text for sample in sampler.generate_all(30))) <= set(file.vocabulary.characters)


def test_an_unknown_character_is_named_by_its_place_in_the_text() -> None:
    sampler = new()
    with pytest.raises(DataError, match=r"'Z' \(U\+005A\), first at position 1"):
        sampler.feed("aZbb")
    assert sampler.generate(20) == new().generate(20)
    skipped, plain = new(), new()
    skipped.feed("aZbb", unknown="skip")
    plain.feed("abb")
    assert skipped.generate(20) == plain.generate(20)


@given(kinds, choices, seeds, primes, st.integers(0, 9), st.integers(1, 3))
def test_a_loaded_state_goes_on_identically(
    tmp_path: Path, kind: Kind, config: Any, seed: int, prime: str, done: int, num: int
) -> None:
    config = {**config, "stop": ("de", "fgh", "ff")}
    first = new(kind, seed=seed, num=num, **config)
    first.feed(prime)
    list(islice(first.write(), done))  # in bytes, other streams then stand inside a character
    first.save_state(tmp_path / "state")
    second = new(kind, seed=0, num=num, **config)
    second.generate_all(2)
    second.load_state(tmp_path / "state")
    assert first.generate_all(5) == second.generate_all(5)
    first.feed("ab")
    second.feed("ab")
    assert first.generate_all(3) == second.generate_all(3)


def test_a_state_can_stand_inside_a_character(tmp_path: Path) -> None:
    """Stream 0 is left after its first character, while another has written only the end of one."""
    partials = set()
    for seed in range(12):
        samplers = [Sampler(two_way(unit="byte", scale=1), num=3, seed=seed, direction="backward") for _ in range(2)]
        first, second = samplers
        next(first.write())
        partials |= {stream.partial for stream in first._streams}
        first.save_state(tmp_path / "state")
        second.load_state(tmp_path / "state")
        if any(stream.partial for stream in second._streams):
            with pytest.raises(ChargenError, match="inside a character"):
                second.feed("a")
        assert second.generate_all(3) == first.generate_all(3)
    assert {len(partial) for partial in partials} > {0, 1}
    assert all(0x80 <= byte < 0xC0 for partial in partials for byte in partial)


def test_a_state_of_the_other_direction_is_refused(tmp_path: Path) -> None:
    for ours, other in (DIRECTIONS, DIRECTIONS[::-1]):
        new(direction=ours).save_state(tmp_path / ours)
        reader = new(direction=other)
        with pytest.raises(ModelFileError, match="other direction") as error:
            reader.load_state(tmp_path / ours)
        assert "\n" not in str(error.value)
        assert reader.generate(9) == new(direction=other).generate(9)


def test_a_state_from_before_there_were_two_directions_is_a_forward_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, file = tensor_file.save, one_way(two_way(), "forward")
    plain = Sampler(file, seed=1)
    plain.generate(5)

    def save_as_once(path: Path, arrays: Any, description: dict[str, Any], **limits: Any) -> None:
        save(path, arrays, {name: value for name, value in description.items() if name != "direction"}, **limits)

    monkeypatch.setattr(tensor_file, "save", save_as_once)
    plain.save_state(tmp_path / "state")
    again = Sampler(file)
    again.load_state(tmp_path / "state")
    assert again.generate(9) == plain.generate(9)


@pytest.mark.parametrize("cell", CELLS)
def test_bytes_are_written_as_whole_characters(cell: str) -> None:
    sampler = Sampler(two_way(cell, unit="byte", scale=1), seed=5, num=20, direction="backward", no_repeat=3)
    for prime in ("", "a\u20ac\U0001f600", "\u00e9"):
        sampler.feed(prime)
        for stream in sampler._streams if len(prime) > 1 else ():
            assert stream.constraints.recent == prime[1::-1]  # what the next run is counted with
        samples = sampler.generate_all(8)
        assert all(len(sample.text) == len(sample.log_probs) == 8 for sample in samples)
        assert {len(character.encode()) for sample in samples for character in sample.text} == {1, 2, 3, 4}


def test_a_model_that_reads_one_way_says_how_to_get_one_that_reads_both(tmp_path: Path) -> None:
    file = small_model()
    save_model(tmp_path / "m", file)
    doors: list[Any] = [
        lambda: Sampler(file, direction="backward"),
        lambda: Sampler.from_file(tmp_path / "m", direction="backward"),
        lambda: NumpyEngine(file.config, file.arrays, "backward"),
        lambda: TorchEngine(build_model(file), "backward"),
        lambda: new_engine(file, "cpu", "backward"),
    ]
    for door in doors:
        with pytest.raises(SettingError, match=r"reading backward needs .* `bidirectional=True`") as error:
            door()
        assert "\n" not in str(error.value)
    for direction in ("", "sideways", "Backward"):
        with pytest.raises(SettingError, match=f"direction is {direction!r}: it must be one of forward, backward"):
            new(direction=direction)


def test_a_file_and_a_torch_model_write_what_the_arrays_write(tmp_path: Path) -> None:
    file = two_way()
    save_model(tmp_path / "m", file)
    doors = [
        Sampler(file, seed=4, direction="backward"),
        Sampler.from_file(tmp_path / "m", seed=4, direction="backward"),
        Sampler(build_model(file), seed=4, direction="backward", vocabulary=file.vocabulary, counts=file.counts),
    ]
    assert len({door.generate(60) for door in doors}) == 1
    assert Sampler.from_file(tmp_path / "m", seed=4).generate(60) == Sampler(file, seed=4).generate(60)
