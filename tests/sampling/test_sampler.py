"""Ids to text: two calls write what one call would have written, whatever was cut, saved or written beside it."""

from dataclasses import replace
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import evaluate, score
from chargen.data.vocabulary import Vocabulary
from chargen.decoding.choose import SampleConfig
from chargen.errors import ArgumentError, ChargenError, DataError, ModelFileError, SettingError
from chargen.infill.fill import fill
from chargen.model.config import ModelConfig, parameter_shapes
from chargen.rng import MAX_SEED
from chargen.sampling.sampler import Sampler
from chargen.storage import tensor_file
from chargen.storage.model_file import ModelFile, build_model, save_model
from tests import naive
from tests.sampling.strategies import cuts, primes, seeds
from tests.small_models import small_model

model = cache(small_model)
kinds = st.sampled_from([("lstm", "character"), ("gru", "character"), ("lstm", "byte"), ("gru", "byte")])
choices = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0, 0.5, 1.0, 1.7]),
        "top_k": st.integers(0, 12),
        "top_p": st.floats(0, 1),
        "min_p": st.floats(0, 0.5),
        "ban": st.text("abc\u00e9", max_size=2),
        "no_repeat": st.integers(3, 5),
    },
)


def new(kind: tuple[str, str] = ("lstm", "character"), **settings: Any) -> Sampler:
    return Sampler(model(kind[0], unit=kind[1]), **{"seed": 1, **settings})


@given(kinds, choices, seeds, primes, st.integers(1, 3))
def test_a_sample_is_what_a_loop_by_hand_writes(kind: Any, config: Any, seed: int, prime: str, num: int) -> None:
    sampler = new(kind, seed=seed, num=num, **config)
    sampler.feed(prime)
    for index, sample in enumerate(sampler.generate_all(12)):
        expected = list(islice(naive.sample(model(kind[0], unit=kind[1]), sampler.config, seed, index, prime), 12))
        assert sample.text == "".join(character for character, _ in expected)
        assert sample.log_probs == pytest.approx([log_prob for _, log_prob in expected], abs=1e-5)
        assert not sample.stopped


@given(kinds, choices, seeds, primes, cuts)
def test_pieces_are_the_whole(kind: Any, config: Any, seed: int, prime: str, pieces: list[int]) -> None:
    whole, cut, left = (new(kind, seed=seed, **config) for _ in range(3))
    for sampler in (whole, cut, left):
        sampler.feed(prime)
    expected = whole.generate(sum(pieces))
    assert len(expected) == sum(pieces)
    assert "".join(cut.generate(piece) for piece in pieces) == expected
    # Leaving the endless iteration after any character and taking it up by a new one loses nothing.
    assert "".join(character for piece in pieces for character in islice(left.stream(), piece)) == expected


def test_leaving_the_iteration_between_two_samples_loses_nothing() -> None:
    expected = [sample.text for sample in new(num=3).generate_all(6)]
    sampler, texts = new(num=3), ["", "", ""]
    for written in chain.from_iterable([*islice(sampler.write(), 3), *sampler.write(3)]):
        texts[written.stream] += written.character
    assert texts == expected


@given(kinds, st.lists(primes, max_size=4), st.integers(1, 3))
def test_feeding_in_pieces_is_feeding_at_once(kind: Any, pieces: list[str], num: int) -> None:
    once, cut = new(kind, num=num, no_repeat=3), new(kind, num=num, no_repeat=3)
    for sampler in (once, cut):
        sampler.generate_all(len(pieces) % 2 * 3)  # fresh streams and those that have written are fed in two ways
    once.feed("".join(pieces))
    for piece in pieces:
        cut.feed(piece)
    assert once.generate_all(10) == cut.generate_all(10)


def test_a_prime_is_not_counted_and_not_returned() -> None:
    for prime in ("", "a", "abcdefgh" * 500):
        sampler = new()
        sampler.feed(prime)
        assert len(sampler.generate(7)) == 7


def test_the_first_character_follows_the_counts() -> None:
    file = model()
    firsts = "".join(sample.text for sample in new(num=3000).generate_all(1))
    for character, count in zip(file.vocabulary.characters, file.counts / file.counts.sum(), strict=True):
        assert abs(firsts.count(character) / 3000 - count) < 4 * np.sqrt(count / 3000)
    assert new(temperature=0).generate(1) == file.vocabulary.characters[-1]
    sample = new().generate_all(1)[0]
    share = file.counts[file.vocabulary.characters.index(sample.text)] / file.counts.sum()
    assert sample.log_probs == pytest.approx((np.log(share),))


@given(kinds, choices, primes, seeds)
def test_sample_i_is_the_same_whatever_num_is(kind: Any, config: Any, prime: str, seed: int) -> None:
    runs = []
    for num in (5, 2, 1):
        sampler = new(kind, seed=seed, num=num, stop=("d", "e"), **config)
        sampler.feed(prime)
        runs.append([*zip(sampler.generate_all(8), sampler.generate_all(4), strict=True)])
    assert runs[1] == runs[0][:2]
    assert runs[2] == runs[0][:1]


def test_a_sampler_says_in_one_line_what_matters() -> None:
    sampler = new(num=2, seed=7, temperature=0.8, stop=("\n",))
    sampler.generate_all(1)
    shape = "LSTM 2 x 12, 10 characters"
    settings_ = "num=2, seed=7, direction='forward', temperature=0.8, stop=('\\n',)"
    assert repr(sampler) == f"Sampler({shape}, {settings_}; 1 drawn)"
    long = new(("gru", "byte"), ban="x" * 10_000, seed=1)
    assert repr(long).startswith("Sampler(GRU 2 x 12, 256 bytes, num=1, seed=1, direction='forward', ban='xxx")
    assert len(repr(long)) < 350


def test_seeds_0_and_1_differ_and_a_seed_left_out_is_told() -> None:
    assert new(seed=0).generate(40) == new(seed=0).generate(40) != new(seed=1).generate(40)
    drawn = new(seed=None), new(seed=None)
    assert drawn[0].seed != drawn[1].seed
    assert new(seed=drawn[0].seed).generate(40) == drawn[0].generate(40)
    texts = [sample.text for sample in new(num=4).generate_all(40)]
    assert len(set(texts)) == 4


def test_the_unknown_symbol_is_never_written() -> None:
    file = small_model(folded="xyz")
    file.arrays["output.bias"][-1] += 50
    file.counts[-1] = 10**9
    for settings_ in ({}, {"temperature": 0}, {"temperature": 1e308}, {"top_k": 1}):
        text = "".join(sample.text for sample in Sampler(file, seed=0, num=10, **settings_).generate_all(30))
        assert len(text) == 300
        assert set(text) <= set(file.vocabulary.characters)


@given(kinds, st.data(), seeds)
def test_a_stop_text_ends_the_turn_wherever_the_calls_are_cut(kind: Any, data: st.DataObject, seed: int) -> None:
    plain = new(kind, seed=seed).generate(40)
    begin = data.draw(st.integers(0, 36))
    stop = plain[begin : begin + data.draw(st.integers(1, 3))]
    end = plain.index(stop) + len(stop)
    sampler = new(kind, seed=seed, stop=("hgfedc", stop, "hgfedc" + stop))
    first = data.draw(st.integers(0, end - 1))
    assert sampler.generate(first) == plain[:first]
    (sample,) = sampler.generate_all(40)
    assert sample.stopped
    assert sample.text == plain[first:end]
    more = sampler.generate(40 - end)
    assert more == plain[end : end + len(more)]
    assert len(more) == 40 - end or more.endswith(stop)


def test_a_stop_text_is_matched_in_written_text_only_and_once() -> None:
    plain = new(top_k=1)
    plain.feed("ab")
    text = plain.generate(1)
    sampler = new(top_k=1, stop=("b" + text,))
    sampler.feed("ab")
    assert sampler.generate(1) == text
    assert not Sampler(model(), seed=1, stop=("b" + text,)).generate_all(0)[0].stopped
    only = new(ban="bcdefgh \n", stop=("aa",))
    assert [only.generate(9) for _ in range(3)] == ["aa"] * 3


def test_feeding_nothing_changes_nothing() -> None:
    sampler = new(ban="bcdefgh \n", stop=("aa",))
    sampler.generate(1)
    sampler.feed("")
    assert sampler.generate(9) == "a"


def test_feeding_inside_a_character_is_refused_and_changes_nothing() -> None:
    sampler, twin = (Sampler(small_model(unit="byte", scale=1), num=3, seed=2) for _ in range(2))
    for text in (sampler, twin):
        while not any(stream.partial for stream in text._streams):
            list(islice(text.write(), 1))
    with pytest.raises(ChargenError, match="inside a character"):
        sampler.feed("a")
    assert sampler.generate_all(5) == twin.generate_all(5)


def test_weights_too_large_to_compute_with_are_told() -> None:
    model = small_model()
    model.arrays["output.bias"][:2] = np.inf
    with pytest.raises(ChargenError, match="not finite"):
        Sampler(model, seed=0).generate(50)


def test_samples_stop_one_by_one() -> None:
    plain = [sample.text for sample in new(num=6).generate_all(30)]
    samples = new(num=6, stop=("a", "b")).generate_all(30)
    for text, sample in zip(plain, samples, strict=True):
        end = min([text.index(stop) + 1 for stop in "ab" if stop in text], default=30)
        assert (sample.text, sample.stopped, len(sample.log_probs)) == (text[:end], text[end - 1] in "ab", end)
    assert len({len(sample.text) for sample in samples}) > 2


def test_an_empty_stop_text_is_refused() -> None:
    with pytest.raises(SettingError, match="stop"):
        SampleConfig(stop=("",))


@given(kinds, st.integers(3, 4), seeds, cuts)
def test_no_run_is_written_twice_even_across_calls(kind: Any, run: int, seed: int, pieces: list[int]) -> None:
    sampler = new(kind, seed=seed, no_repeat=run)
    sampler.feed("abab")
    text = "".join(sampler.generate(piece) for piece in pieces)
    runs = [text[at : at + run] for at in range(len(text) - run + 1)]
    assert len(runs) == len(set(runs))
    assert len(new(kind, no_repeat=1).generate(9)) == len(set(new(kind, no_repeat=1).generate(9))) == 9


def test_a_banned_character_is_never_written() -> None:
    assert set(new(ban="abc").generate(200)) == set("defgh \n")
    with pytest.raises(ChargenError, match="`ban` and `no_repeat` forbid all 10 ids after 2 draws"):
        new(ban="abcdefgh", no_repeat=1).generate(9)


@given(kinds, choices, seeds, primes, st.integers(0, 12), st.integers(1, 3))
def test_a_loaded_state_goes_on_identically(
    tmp_path: Path, kind: Any, config: Any, seed: int, prime: str, done: int, num: int
) -> None:
    config = {**config, "stop": ("de", "fgh", "ff")}
    first = new(kind, seed=seed, num=num, **config)
    first.feed(prime)
    list(islice(first.write(), done))  # in bytes, other streams then stand inside a character
    first.save_state(tmp_path / "state")
    second = new(kind, seed=0, num=num, **config)
    second.generate_all(2)
    second.load_state(tmp_path / "state")
    assert second.seed == seed
    assert first.generate_all(5) == second.generate_all(5)
    first.feed("ab")
    second.feed("ab")
    assert first.generate_all(3) == second.generate_all(3)


def test_a_state_can_stand_inside_a_character(tmp_path: Path) -> None:
    """Stream 0 is left after its first character, while another has written only a part of one."""
    inside = 0
    for seed in range(10):
        first, second = (new(("lstm", "byte"), num=3, seed=seed) for _ in range(2))
        next(first.write())
        inside += any(stream.partial for stream in first._streams)
        first.save_state(tmp_path / "state")
        second.load_state(tmp_path / "state")
        assert second.generate_all(3) == first.generate_all(3)
    assert inside


@pytest.mark.parametrize("settings", [{"num": 400}, {"no_repeat": 12}])
def test_a_state_of_many_samples_or_of_a_long_text_is_saved_and_loaded(
    tmp_path: Path, settings: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_file, "MAX_HEADER", 20_000)
    first, second = (Sampler(small_model(), seed=1, **settings) for _ in range(2))
    first.generate_all(4500 // first.num)
    first.save_state(tmp_path / "state")
    assert (tmp_path / "state").stat().st_size > tensor_file.MAX_HEADER
    first.save_state(tmp_path / "state")  # it knows its own
    second.load_state(tmp_path / "state")
    assert second.generate_all(3) == first.generate_all(3)


def test_a_state_of_another_model_or_number_or_kind_is_refused(tmp_path: Path) -> None:
    for name, file in (("m", model()), ("other", small_model(seed=5))):
        save_model(tmp_path / name, file)
    sampler = Sampler.from_file(tmp_path / "m", seed=1, num=2)
    sampler.save_state(tmp_path / "state")
    data = (tmp_path / "state").read_bytes()
    (tmp_path / "cut").write_bytes(data[:-3])
    (tmp_path / "flipped").write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    with pytest.raises(ModelFileError, match="another model"):
        Sampler.from_file(tmp_path / "other", num=2).load_state(tmp_path / "state")
    with pytest.raises(ModelFileError, match=r"^\S*state holds 2 samples: ask for as many \(`num=2`\)"):
        Sampler.from_file(tmp_path / "m", num=3).load_state(tmp_path / "state")
    before = sampler.generate_all(3)
    for name, reason in (("cut", "damaged"), ("flipped", "damaged"), ("m", "another kind"), ("none", "cannot read")):
        with pytest.raises(ModelFileError, match=reason):
            sampler.load_state(tmp_path / name)
    again = Sampler.from_file(tmp_path / "m", num=2)
    again.load_state(tmp_path / "state")
    assert (again.generate_all(3), again.generate_all(3)) == (before, sampler.generate_all(3))


def test_a_state_of_another_model_in_memory_is_refused(tmp_path: Path) -> None:
    new().save_state(tmp_path / "state")
    with pytest.raises(ModelFileError, match="another model"):
        Sampler(small_model(seed=5)).load_state(tmp_path / "state")


def test_reset_forgets_everything() -> None:
    sampler = new(no_repeat=4, num=2, stop=("hh",))
    fresh = sampler.generate_all(20)
    sampler.feed("abc")
    sampler.reset()
    assert sampler.generate_all(20) == fresh


def test_reseed_goes_on_with_the_draws_of_the_other_seed() -> None:
    first, second = new(seed=1), new(seed=2)
    for sampler in (first, second):
        sampler.feed("abc")
        sampler.generate(5)
    first.reset()
    first.feed("abc")
    begun = first.generate(5)
    first.reseed(2)
    twin = new(seed=1)
    twin.feed("abc")
    assert twin.generate(5) == begun
    assert first.seed == 2
    assert first.generate(30) != twin.generate(30)
    certain = [new(temperature=0), new(temperature=0)]
    certain[0].reseed(99)
    assert certain[0].generate(20) == certain[1].generate(20)
    late = new(seed=3)
    late.reseed(1)
    assert late.generate(20) == new(seed=1).generate(20)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_reseed_refuses_what_is_no_seed(seed: int) -> None:
    with pytest.raises(SettingError, match="seed is"):
        new().reseed(seed)


def test_wrong_settings_are_named_with_their_range() -> None:
    wrong = [
        ({"num": 0}, "num is 0: it must be 1 to 1,000,000"),
        ({"seed": -1}, f"seed is -1: it must be 0 to {MAX_SEED:,}"),
        ({"seed": MAX_SEED + 1}, f"it must be 0 to {MAX_SEED:,}"),
        ({"temperature": -1}, r"temperature is -1.0: it must be at least 0"),
        ({"top_p": 2}, "top_p is 2.0: it must be 0 to 1"),
        ({"stop": ("a", "")}, "stop is '': an empty text ends nothing"),
        ({"seed": 1.5}, "seed is 1.5: it must be a whole number"),
        ({"heat": 1}, "there is no setting 'heat' here; there are ban"),
        ({"config": SampleConfig(), "top_k": 1}, "give top_k in the config or beside it, not both"),
    ]
    for given_, message in wrong:
        with pytest.raises(SettingError, match=message):
            new(**given_)
    with pytest.raises(SettingError, match="give the vocabulary of this CharModel"):
        Sampler(build_model(model()))
    with pytest.raises(SettingError, match="length is -1: it must be 0 to"):
        new().generate(-1)
    for call in (lambda: new(num=2).generate(1), lambda: new(num=2).stream(1)):
        with pytest.raises(SettingError, match="one sample and this Sampler writes 2"):
            call()


@pytest.mark.parametrize("seed", [np.int64(3), np.int32(3)])
def test_a_seed_from_numpy_is_a_seed(tmp_path: Path, seed: Any) -> None:
    sampler = new(seed=seed)
    assert sampler.generate(9) == new(seed=3).generate(9)
    sampler.save_state(tmp_path / "state")


def test_a_device_that_is_not_there_is_explained() -> None:
    with pytest.raises(ChargenError, match="device"):
        new(device="no such device")


def test_length_0_writes_nothing() -> None:
    sampler = new(stop=("a",))
    assert [sampler.generate(0), list(sampler.stream(0)), list(sampler.write(0))] == ["", [], []]
    assert sampler.generate(20) == new(stop=("a",)).generate(20)


def test_an_unknown_character_is_named_and_nothing_is_fed() -> None:
    sampler = new()
    with pytest.raises(DataError, match=r"'Z' \(U\+005A\), first at position 2"):
        sampler.feed("abZ")
    assert sampler.generate(20) == new().generate(20)
    skipped, plain = new(), new()
    skipped.feed("aZbZ", unknown="skip")
    plain.feed("ab")
    assert skipped.generate(20) == plain.generate(20)


def test_a_torch_model_writes_what_its_file_writes(tmp_path: Path) -> None:
    file = model()
    save_model(tmp_path / "m", file)
    doors = [
        Sampler(file, seed=4),
        Sampler.from_file(tmp_path / "m", seed=4),
        Sampler(build_model(file), seed=4, vocabulary=file.vocabulary, counts=file.counts),
    ]
    assert len({door.generate(60) for door in doors}) == 1
    uniform_start = Sampler(build_model(file), seed=0, num=900, vocabulary=file.vocabulary).generate_all(1)
    counts = [[sample.text for sample in uniform_start].count(character) for character in file.vocabulary.characters]
    assert max(abs(count - 90) for count in counts) < 40


def fixed_model(cell: str, vocabulary: Vocabulary) -> ModelFile:
    """Weights from whole numbers alone: neither torch's nor NumPy's generators can change them."""
    config, arrays = ModelConfig(cell=cell, num_layers=2, hidden_size=10, embedding_size=6), {}
    for number, (name, shape) in enumerate(parameter_shapes(config, len(vocabulary)).items()):
        order = np.arange(np.prod(shape), dtype=np.int64) + 1000 * number + 1
        arrays[name] = ((order * order * 7919 % 10007) / 10007 * 3 - 1.5).astype(np.float32).reshape(shape)
    return ModelFile(config, vocabulary, arrays, np.arange(1, len(vocabulary) + 1))


GOLDEN = {
    ("lstm", "character"): ["mpaia piml \n\nijppfilhl\n ", "mff\nidclf\njiml jim\n  iep"],
    ("lstm", "byte"): [
        "\u0135*\u039c\x12\ubc30g\x1a\n\x11\u0270\U0003abb0S]\u0412,\x00\x12\x17\x12U\x7f\x12\x12\u0582",
        "\u052eM\x0eb\x1e\x13b9\n\u05b5|g'\u0270\u0102\x1b\x17\u01ed\u5bb5R\x13\u0775\x0b,",
    ],
    ("gru", "character"): ["ad\nd\n\nk  c\n\n\n  kf\n\n\n\n \n\n", "j\n \n     \n    \n   \n\n\n \nf"],
    ("gru", "byte"): [
        "c\u0bae\x17\x12\u0baec\x1b\x0e\x12\u0db6\u7bae\u036e\u0b9c\x00\x12\x17\x1bK\u08d7s\x00hF{",
        "\u045c4\x00I\x17;\u0b91\u0c30K4\u0c33\x00\x174\u0bb3/\u0b93\u4b84F\u44d3/<\x01e",
    ],
}


@pytest.mark.parametrize(("cell", "unit"), list(GOLDEN))
def test_the_golden_text_of_a_seed(cell: str, unit: str) -> None:
    """A change here changes every text that anyone has made with a seed."""
    vocabulary = Vocabulary(unit=unit) if unit == "byte" else Vocabulary("\n abcdefghijklmnop")
    sampler = Sampler(fixed_model(cell, vocabulary), seed=12345, num=2, temperature=0.9, top_p=0.98)
    sampler.feed("once a node")
    assert [sample.text for sample in sampler.generate_all(24)] == GOLDEN[cell, unit]


def test_a_sampler_and_a_filler_take_a_model_however_it_is_given(tmp_path):
    file = small_model("gru", bidirectional=True)
    save_model(tmp_path / "model.safetensors", file)
    network = build_model(file)
    texts = [
        Sampler(model, seed=1, **arguments).generate(30)
        for model, arguments in [
            (file, {}),
            (tmp_path, {}),
            (str(tmp_path / "model.safetensors"), {}),
            (network, {"vocabulary": file.vocabulary, "counts": file.counts}),
            (network.double(), {"vocabulary": file.vocabulary, "counts": file.counts}),
        ]
    ]
    assert len(set(texts)) == 1
    network = build_model(file)
    gaps = [fill(file, "ab", "cd", length=3, seed=1), fill(tmp_path, "ab", "cd", length=3, seed=1)]
    gaps.append(fill(network, "ab", "cd", length=3, seed=1, vocabulary=file.vocabulary))
    assert gaps[0] == gaps[1] == gaps[2]


@pytest.mark.parametrize("settings_", [{}, {"stop": ("a",)}, {"no_repeat": 3}])
def test_a_text_without_a_length_cannot_be_written_whole(settings_: dict[str, Any]) -> None:
    sampler = Sampler(small_model(), seed=1, **settings_)
    for call in (sampler.generate, sampler.generate_all):
        for wrong in (None, -1, 1.5, "9"):
            with pytest.raises(SettingError, match="length is"):
                call(wrong)


@pytest.mark.parametrize("counts", [3, np.ones(2, np.int64), np.ones((10, 1), np.int64)])
def test_counts_of_a_file_put_together_by_hand_are_looked_at(counts):
    for read in (Sampler, lambda file: score(file, "ab"), lambda file: evaluate(file, "ab")):
        with pytest.raises(ArgumentError, match=r"^counts of shape"):
            read(replace(small_model(), counts=counts))


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("ids", [np.int64(2), 3, None, [[1, 2]], [1.5]])
def test_ids_to_feed_are_looked_at(ids, direction):
    sampler = Sampler(small_model(bidirectional=True), seed=1, direction=direction)
    with pytest.raises(ArgumentError, match=r"^ids of "):
        sampler.feed_ids(ids)
