"""How far counts look back, which engine has them, and what a sampler writes with them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chargen import Sampler
from chargen.decoding import pick_engine
from chargen.decoding.compiled_engine import CompiledEngine
from chargen.decoding.mixed_engine import MixedEngine
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.decoding.pick_engine import new_engine
from chargen.decoding.torch_engine import TorchEngine
from chargen.errors import ArgumentError, ModelFileError
from chargen.storage.model_file import build_model
from tests import naive
from tests.decoding.counted_engines import V, all_kinds, both, counted, pieces
from tests.decoding.engines import (
    CLOSE,
    DIRECTIONS,
    model,
)
from tests.small_models import small_model, with_counts
from tests.trees import random_mixture


@pytest.mark.parametrize("longest", [0, 1, 2, 3])
@all_kinds
def test_a_limited_engine_is_that_of_a_limited_mixture_and_takes_over_any_state(
    cell: str, stored: str, direction: str, longest: int
) -> None:
    file, ids = counted(cell, stored), pieces(6, 3, 20, direction)
    mixture, engines = file.mixtures[direction].limited(longest), both(cell, stored, direction)
    expected, _ = naive.walk(MixedEngine(NumpyEngine(file.config, file.arrays, direction), mixture), ids)
    for engine in engines:
        limited = engine.limited(longest)
        assert np.abs(naive.walk(limited, ids)[0] - expected).max() < CLOSE
        _, state = naive.walk(engine, ids[:, :11])
        assert np.abs(naive.walk(limited, ids[:, 11:], state)[0] - expected[:, 11:]).max() < CLOSE
        assert np.abs(naive.walk(engine, ids)[0] - expected).max() > 0.01, "the engine itself is as before"
        assert limited.limited(longest) is limited
        assert engine.limited(4) is engine.limited(31) is engine


def test_an_engine_without_counts_is_never_limited() -> None:
    file = model("gru", 1, 12)
    for engine in (CompiledEngine(file.config, file.arrays), NumpyEngine(file.config, file.arrays)):
        assert engine.limited(0) is engine
        assert engine.context == 0


def test_torch_and_counts_predict_as_the_compiled_engine() -> None:
    file, ids = counted(), pieces(8, 3, 12)
    torch_engine = MixedEngine(TorchEngine(build_model(file)), file.mixtures["forward"])
    for ours, theirs in zip(naive.walk(torch_engine, ids), naive.walk(new_engine(file, "cpu"), ids), strict=True):
        assert all(np.abs(a - b).max() < CLOSE for a, b in zip(ours, theirs, strict=True))


def test_without_compiled_code_the_reference_is_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(new_engine(counted(), "cpu")) is CompiledEngine
    monkeypatch.setattr(pick_engine, "available", lambda: False)
    assert type(new_engine(counted(), "cpu")) is MixedEngine
    assert type(new_engine(model("gru", 1, 12), "cpu")) is NumpyEngine


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("looks_back", [0, 2, 31])
def test_a_seed_writes_the_same_text_with_either_engine(
    direction: str, looks_back: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"seed": 5, "num": 3, "direction": direction, "counts_max_copy": looks_back}
    samples = [sample.text for sample in Sampler(counted(), **settings).generate_all(60)]
    monkeypatch.setattr(pick_engine, "available", lambda: False)
    assert [sample.text for sample in Sampler(counted(), **settings).generate_all(60)] == samples


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_counts_that_look_back_at_nothing_write_what_the_network_writes(direction: str) -> None:
    file = counted("lstm", "int8")
    settings: dict[str, Any] = {"seed": 5, "num": 3, "direction": direction}
    plain = Sampler(replace(file, mixtures={}), **settings).generate_all(60)
    limited = Sampler(file, **settings, counts_max_copy=0).generate_all(60)
    whole = Sampler(file, **settings).generate_all(60)
    for sample, other, own in zip(plain, limited, whole, strict=True):
        assert sample.text == other.text != own.text
        shares, others = np.exp(sample.log_probs), np.exp(other.log_probs)
        assert np.abs(shares - others).max() <= 1.01e-4, "at most a ten-thousandth is left to counts"


@pytest.mark.parametrize("size", [V - 1, V + 1, 300])
def test_counts_of_another_number_of_ids_are_refused(size: int) -> None:
    file, mixture = counted(), random_mixture(0, size)
    plain = NumpyEngine(file.config, file.arrays)
    for make in (
        lambda: MixedEngine(plain, mixture),
        lambda: CompiledEngine(file.config, file.arrays, mixture=mixture),
    ):
        with pytest.raises(ArgumentError, match=rf"^counts of {size} ids: the model has {V}$"):
            make()
    with pytest.raises(ArgumentError, match="the model has 10"):
        Sampler(replace(small_model(), mixtures={"forward": mixture}))


def test_what_is_no_id_in_a_state_is_in_no_context() -> None:
    ids = pieces(9, 7, 3)
    for engine in both("gru", "float32", "forward"):
        start = engine.start(7)
        start[0][:] = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 2.0**31, -1])[:, None]
        for length in range(4):
            logits, _ = engine.read(ids[:, :length], np.full(7, length), np.zeros((7, V), np.float32), start)
            expected, _ = engine.read(
                ids[:, :length], np.full(7, length), np.zeros((7, V), np.float32), engine.start(7)
            )
            assert logits.tobytes() == expected.tobytes()


def test_a_samplers_state_goes_on_with_its_own_counts_only(tmp_path: Path) -> None:
    file = counted("lstm", "int8")
    sampler = Sampler(file, seed=5, num=2)
    sampler.generate_all(17)
    sampler.save_state(tmp_path / "s")
    texts = [sample.text for sample in sampler.generate_all(40)]
    resumed = Sampler(file, seed=0, num=2)
    resumed.load_state(tmp_path / "s")
    assert [sample.text for sample in resumed.generate_all(40)] == texts
    for other in (replace(file, mixtures={}), counted("lstm", "int8", order=4), with_counts(file, "abcabc")):
        with pytest.raises(ModelFileError, match="it was saved with another model"):
            Sampler(other, seed=0, num=2).load_state(tmp_path / "s")


@pytest.mark.parametrize("number", [3e38, -3e38, 0.5, 2.0**31, -1.0, V])
def test_a_samplers_state_with_ids_that_are_none_goes_on(number: float, tmp_path: Path) -> None:
    sampler = Sampler(counted(), seed=5)
    sampler.generate(9)
    state = sampler.snapshot()
    context = np.full_like(state.layers[0], number)
    sampler.restore(replace(state, layers=(context, *state.layers[1:])))
    sampler.save_state(tmp_path / "s")
    resumed = Sampler(counted(), seed=5)
    resumed.load_state(tmp_path / "s")
    assert len(resumed.generate(30)) == 30
