"""One of several samples of a saved state goes on alone, as it would have gone on among the others."""

from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import generate
from chargen.errors import ChargenError, ModelFileError, SettingError
from chargen.sampling.sample import Sample
from chargen.sampling.sampler import Sampler
from chargen.storage import tensor_file
from chargen.storage.model_file import FILE_NAME, ModelFile, save_model
from tests.commands import is_one_line
from tests.small_models import small_model

kinds = st.sampled_from([("lstm", "character"), ("gru", "byte")])
settings_of_draws = st.fixed_dictionaries({}, optional={"temperature": st.just(0.7), "no_repeat": st.just(5)})


@cache
def model(cell: str, unit: str) -> ModelFile:
    return small_model(cell, unit=unit)


def new(kind: Any, **arguments: Any) -> Sampler:
    return Sampler(model(*kind), **{"seed": 1} | arguments)


@given(kinds, settings_of_draws, st.integers(1, 4), st.integers(0, 9), st.data())
def test_a_picked_sample_goes_on_as_among_the_others(
    tmp_path: Path, kind: Any, config: Any, num: int, done: int, data: Any
) -> None:
    together, pick = new(kind, num=num, **config), data.draw(st.integers(1, num))
    together.feed("ab")
    list(islice(together.write(), done))  # in bytes, streams then stand inside a character
    together.save_state(tmp_path / "state")
    alone = new(kind, seed=0, **config)
    alone.load_state(tmp_path / "state", pick=pick)
    assert alone.generate_all(6) == together.generate_all(6)[pick - 1 : pick]
    together.save_state(tmp_path / "state")
    alone.save_state(tmp_path / "alone")
    again = new(kind, seed=0, **config)
    again.load_state(tmp_path / "alone")  # it knows its number
    onward = together.generate_all(4)[pick - 1]
    written = [characters[0] for characters in again.write(4)]
    assert {character.stream for character in written} == {0}
    assert Sample.of(written) == onward
    again.load_state(tmp_path / "alone", pick=1)
    assert again.generate_all(4) == [onward]


def test_a_file_of_very_many_samples_is_read(tmp_path: Path) -> None:
    together, alone = (Sampler(small_model(), seed=1, num=num) for num in (9000, 1))
    together.generate_all(2)
    together.save_state(tmp_path / "state")
    header = int.from_bytes((tmp_path / "state").read_bytes()[:8], "little")
    assert header > alone.snapshot().max_header
    alone.load_state(tmp_path / "state", pick=8999)
    assert alone.generate_all(2) == together.generate_all(2)[8998:8999]


def test_what_cannot_be_picked_is_told(tmp_path: Path) -> None:
    file, state = small_model(), tmp_path / "state"
    Sampler(file, seed=1, num=3).save_state(state)
    with pytest.raises(SettingError, match=r"^pick is 4: .*state holds 3 samples, so give 1 to 3$"):
        Sampler(file).load_state(state, pick=4)
    with pytest.raises(SettingError, match=r"^pick is 0: it must be 1 to"):
        Sampler(file).load_state(state, pick=0)
    with pytest.raises(SettingError, match=r"^num is 2: `pick` goes on from one sample; leave out `num`$"):
        Sampler(file, num=2).load_state(state, pick=1)
    with pytest.raises(
        SettingError, match=r"^pick is 2: it chooses among the samples of a saved state; give `state_in`"
    ):
        generate(file, pick=2)
    with pytest.raises(SettingError, match=r"^num is 2: `pick`"):
        generate(file, pick=2, state_in=state, num=2)
    with pytest.raises(ModelFileError, match=r"ask for as many \(`num=3`\), or for one of them \(`pick=1`\)"):
        generate(file, state_in=state)


@pytest.mark.parametrize("index", [-1, 2**63, True, 1.0, "1", None])
def test_a_number_that_no_sample_has_is_refused(tmp_path: Path, index: Any) -> None:
    sampler = Sampler(small_model(), seed=1)
    change(sampler, tmp_path / "state", lambda said: said["streams"][0].update(index=index))
    with pytest.raises(ModelFileError, match="is not a good sampler state file: sample "):
        sampler.load_state(tmp_path / "state")


@pytest.mark.parametrize("num", [0, -1, 2, 10**30, 1.0, True, "1", None])
def test_a_wrong_number_of_samples_is_refused(tmp_path: Path, num: Any) -> None:
    sampler = Sampler(small_model(), seed=1)
    change(sampler, tmp_path / "state", lambda said: said.update(num=num))
    with pytest.raises(ModelFileError, match="is not a good sampler state file"):
        sampler.load_state(tmp_path / "state", pick=1)


def change(sampler: Sampler, path: Path, change_description: Any) -> None:
    """Save a state whose description says something else, with a checksum that fits."""
    sampler.save_state(path)
    shapes = {f"state.{layer}": array.shape for layer, array in enumerate(sampler.snapshot().layers)}
    shapes |= {"logits": sampler.snapshot().logits.shape}
    arrays, description = tensor_file.load(path, "sampler state", lambda _: shapes)
    del description["sha256"]
    change_description(description)
    tensor_file.save(path, arrays, description)


def test_a_snapshot_is_a_place_to_return_to() -> None:
    first, second = (Sampler(small_model(), seed=seed) for seed in (1, 2))
    first.generate(5)
    state = first.snapshot()
    expected = Sampler(small_model(), seed=1).generate(12)[5:]
    assert np.isfinite(state.logits).all()
    second.restore(state)
    assert second.generate(7) == expected


def test_the_command_picks_as_it_counts(run: Any, tmp_path: Path) -> None:
    save_model(tmp_path / "model" / FILE_NAME, small_model(characters="abcdefgh \n"))
    first = run("sample", "model", "--seed", 3, "--num", 3, "--length", 20, "--state-out", "state").out.split("\0")
    onward = run("sample", "model", "--num", 3, "--length", 15, "--state-in", "state").out.split("\0")
    for pick in (1, 2, 3):
        arguments = ["sample", "model", "--length", 15, "--state-in", "state", "--pick", pick]
        assert run(*arguments).out == onward[pick - 1]
        assert generate("model", length=15, state_in="state", pick=pick) == onward[pick - 1]
    assert len({*first}) == len({*onward}) == 3
    run("sample", "model", "--length", 5, "--state-in", "state", "--pick", 2, "--state-out", "second")
    assert run("sample", "model", "--length", 10, "--state-in", "second").out == onward[1][5:]
    for options, words in (
        (["--state-in", "state", "--pick", 4], "--pick is 4: state holds 3 samples, so give 1 to 3"),
        (["--pick", 4], "--pick is 4: it chooses among the samples of a saved state; give --state-in"),
        (["--state-in", "state", "--pick", 1, "--num", 2], "--num is 2: --pick goes on from one sample; leave out"),
        (["--state-in", "state"], "ask for as many (--num 3), or for one of them (--pick 1)"),
    ):
        refused = run("sample", "model", *options)
        assert refused.code in (2, 4)
        assert is_one_line(refused.err)
        assert words in refused.err, refused.err


def test_an_error_while_one_goes_on_names_its_own_number(tmp_path: Path) -> None:
    together = Sampler(small_model(), seed=1, num=2)
    together.save_state(tmp_path / "state")
    alone = Sampler(small_model(), ban="abcdefgh \n")
    alone.load_state(tmp_path / "state", pick=2)
    with pytest.raises(ChargenError, match=r"^sample 1: "):
        alone.generate(1)
