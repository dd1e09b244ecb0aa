"""Weights in fewer bits: how far they are from what they were, files, and that everything reads them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chargen import Sampler, evaluate, fill, score
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.decoding.pick_engine import cpu_engine, new_engine
from chargen.errors import ModelFileError, SettingError
from chargen.storage import tensor_file
from chargen.storage.model_file import FILE_NAME, ModelFile, build_model, read_model, save_model
from chargen.storage.quantize import QUANTIZATIONS, SCALE, as_float32, quantization_of, quantize
from tests.commands import Run
from tests.small_models import small_model

TEXT = "abcdefgh \nhgfedcba abc"


def model(kind: str = "", cell: str = "lstm", bidirectional: bool = True) -> ModelFile:
    file = small_model(cell, scale=1.5, hidden_size=13, bidirectional=bidirectional)
    return replace(file, arrays=quantize(file.arrays, kind)) if kind else file


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**32), st.floats(-6, 6))
def test_rounded_weights_are_within_their_precision(rows: int, columns: int, seed: int, power: float) -> None:
    draws = np.random.default_rng(seed)
    weights = draws.normal(size=(rows, columns)).astype(np.float32) * np.float32(10**power)
    weights[0] *= draws.integers(0, 2)
    arrays = {"w": weights, "bias": weights[0].copy()}
    int8 = quantize(arrays, "int8")
    assert int8["w"].dtype == np.int8
    assert int8["w" + SCALE].dtype == np.float32
    step = np.maximum(np.abs(weights).max(axis=1), 0) / 127
    assert (np.abs(as_float32(int8, "w") - weights) <= 0.5001 * step[:, None]).all()
    bf16 = quantize(arrays, "bf16")
    assert bf16["w"].dtype == np.uint16
    assert (np.abs(as_float32(bf16, "w") - weights) <= 2.0**-8 * np.abs(weights) + 1e-38).all()
    for quantized in (int8, bf16):
        assert quantized["bias"] is arrays["bias"]
    assert [quantization_of(weights_by_name) for weights_by_name in (arrays, int8, bf16)] == ["", "int8", "bf16"]


def test_worked_example() -> None:
    quantized = quantize({"w": np.array([[1.27, -0.5, 0.004], [0, 0, 0]], np.float32)}, "int8")
    assert quantized["w"].tolist() == [[127, -50, 0], [0, 0, 0]]
    assert quantized["w.scale"] == pytest.approx([0.01, 1])
    assert quantize({"w": np.zeros((2, 0), np.float32)}, "int8")["w.scale"].tolist() == [1, 1]


@given(st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 2**16 - 1).map(lambda high: high << 16 | 1 << 15)))
def test_bf16_is_the_nearest_and_of_two_the_even_one(bits: list[int]) -> None:
    weights = np.array([bits], np.uint32).view(np.float32)
    weights = weights[np.isfinite(weights)][None]
    rounded = as_float32(quantize({"w": weights}, "bf16"), "w")
    nearest = torch.from_numpy(weights).bfloat16().float().numpy()
    assert np.array_equal(rounded[np.isfinite(nearest)], nearest[np.isfinite(nearest)])
    assert np.isfinite(rounded).all()


@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_int8_keeps_every_sign_however_small_or_large_the_numbers(weights: np.ndarray) -> None:
    quantized = quantize({"w": weights}, "int8")
    assert np.abs(quantized["w"].astype(int)).max() <= 127
    assert (quantized["w"] * np.sign(weights) >= 0).all()


def test_numbers_too_small_for_their_scale_are_cut() -> None:
    smallest = np.finfo(np.float32).smallest_subnormal
    quantized = quantize({"w": np.array([[190, -190, 127, 1]], np.float32) * smallest}, "int8")
    assert quantized["w"].tolist() == [[127, -127, 127, 1]]
    assert quantized["w" + SCALE].tolist() == [smallest]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_all_other_weights_become_float32_in_a_row(dtype: type) -> None:
    weights = np.arange(12, dtype=dtype).reshape(3, 4).T
    converted = as_float32({"w": weights}, "w")
    assert converted.dtype == np.float32
    assert converted.flags.c_contiguous
    assert np.array_equal(converted, weights)


def test_a_scale_that_is_too_large_gives_infinities() -> None:
    stored = {"w": np.array([[127, -127, 1, 0]], np.int8), "w" + SCALE: np.array([3e38], np.float32)}
    assert as_float32(stored, "w").tolist() == [[np.inf, -np.inf, float(np.float32(3e38)), 0]]


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_a_table_without_numbers_is_rounded_to_one(kind: str) -> None:
    quantized = quantize({"w": np.zeros((2, 0), np.float32)}, kind)
    assert quantized["w"].shape == as_float32(quantized, "w").shape == (2, 0)
    assert quantization_of(quantized) == kind


def test_the_largest_number_stays_finite_in_bf16() -> None:
    largest = np.finfo(np.float32).max
    rounded = as_float32(quantize({"w": np.array([[largest, -largest]])}, "bf16"), "w")
    assert np.isfinite(rounded).all()
    assert np.abs(rounded).min() > 3e38


@pytest.mark.parametrize("kind", QUANTIZATIONS)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_decoder_agrees_with_the_reference_on_rounded_weights(kind: str, cell: str, direction: str) -> None:
    file = model(kind, cell)
    fast = new_engine(file, "cpu", direction)
    slow = NumpyEngine(file.config, file.arrays, direction)
    ids = np.random.default_rng(0).integers(0, len(file.vocabulary), (3, 40))
    fast_state, slow_state = fast.start(3), slow.start(3)
    for column in ids.T:
        logits, fast_state = fast.step(column, fast_state)
        expected, slow_state = slow.step(column, slow_state)
        assert np.abs(logits - expected).max() < 1e-5
    plain = NumpyEngine(model("", cell).config, model("", cell).arrays, direction)
    assert np.abs(plain.step(ids[:, 0], plain.start(3))[0] - slow.step(ids[:, 0], slow.start(3))[0]).max() > 1e-5


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_a_file_is_smaller_and_read_as_it_was_written(kind: str, tmp_path: Path) -> None:
    letters = "".join(map(chr, range(200, 300)))
    plain = small_model(hidden_size=64, characters=letters, bidirectional=True)
    file = replace(plain, arrays=quantize(plain.arrays, kind))
    sizes = []
    for model_file in (plain, file):
        save_model(tmp_path / FILE_NAME, model_file)
        sizes.append(sum(array.nbytes for array in read_model(tmp_path).arrays.values()))
    assert sizes[1] / sizes[0] < {"int8": 0.29, "bf16": 0.52}[kind]
    loaded = read_model(tmp_path)
    assert loaded.arrays.keys() == file.arrays.keys()
    assert all(np.array_equal(loaded.arrays[name], array) for name, array in file.arrays.items())
    assert quantization_of(loaded.arrays) == kind
    save_model(tmp_path / "again", loaded)
    assert (tmp_path / "again").read_bytes() == (tmp_path / FILE_NAME).read_bytes()


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_everything_works_with_a_rounded_model(kind: str) -> None:
    file = model(kind)
    for direction in ("forward", "backward"):
        alone = Sampler(file, seed=1, direction=direction).generate(200)
        assert alone == Sampler(file, seed=1, direction=direction, num=3).generate_all(200)[0].text
    assert len(fill(file, "ab", "cd", length=5, seed=1, particles=8).alternatives[0].text) == 5
    assert len(score(file, TEXT)) == len(TEXT)
    torch_model = build_model(file)
    for name, weight in torch_model.state_dict().items():
        assert np.array_equal(weight.numpy(), as_float32(file.arrays, name))
    losses = [evaluate(build_model(stored), stored.vocabulary, TEXT * 20).nats for stored in (file, model())]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]


def test_only_float_models_are_rounded() -> None:
    with pytest.raises(SettingError, match="quantize is 'int4': it must be one of int8, bf16") as raised:
        quantize(model().arrays, "int4")
    assert raised.value.setting == "quantize"
    for kind in QUANTIZATIONS:
        with pytest.raises(SettingError, match=f"in {kind} already"):
            quantize(model(kind).arrays, "int8")


def broken(tmp_path: Path, change: dict[str, np.ndarray], description: dict[str, str]) -> Path:
    file = model("int8")
    tensor_file.save(tmp_path / "bad", {**file.arrays, **change}, {**file.describe(), **description})
    return tmp_path / "bad"


@pytest.mark.parametrize(
    ("change", "description", "words"),
    [
        ({"output.weight" + SCALE: np.full(10, np.nan, np.float32)}, {}, "not finite"),
        ({"output.weight" + SCALE: np.zeros(10, np.uint16)}, {}, "uint16"),
        ({"output.weight" + SCALE: np.zeros(9, np.float32)}, {}, "another shape"),
        ({"output.weight": np.zeros((10, 13), np.float32)}, {}, "float32"),
        ({"output.bias": np.zeros(10, np.int8)}, {}, "int8"),
        ({}, {"quantize": ""}, "do not fit its settings"),
        ({}, {"quantize": "int4"}, "'int4' are not known"),
        ({}, {"quantize": ["int8"]}, "not known"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(
    tmp_path: Path, change: dict[str, np.ndarray], description: dict[str, str], words: str
) -> None:
    with pytest.raises(ModelFileError, match=words):
        read_model(broken(tmp_path, change, description))


def test_a_file_with_some_weights_in_bf16_is_read_in_float32() -> None:
    plain = model()
    mixed = {**plain.arrays, "output.weight": quantize(plain.arrays, "bf16")["output.weight"]}
    fast, slow = cpu_engine(plain.config, mixed, "forward"), NumpyEngine(plain.config, mixed)
    ids = np.array([1, 2])
    assert np.abs(fast.step(ids, fast.start(2))[0] - slow.step(ids, slow.start(2))[0]).max() < 1e-5


@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_export_writes_what_sample_rounds(kind: str, run: Run) -> None:
    save_model(Path("run") / FILE_NAME, model())
    code, out, err = run("export", "run", "small.safetensors", "--quantize", kind)
    assert (code, out) == (0, "")
    assert f"{Path('small.safetensors').stat().st_size:,} bytes" in err
    texts = []
    for arguments in (("small.safetensors",), ("run", "--quantize", kind)):
        code, out, _ = run("sample", *arguments, "--seed", 1, "--length", 300)
        assert code == 0
        texts.append(out)
    assert texts[0] == texts[1]
    assert len(texts[0]) == 300
    code, out, _ = run("info", "small.safetensors")
    assert code == 0
    assert f"weights in {kind}" in out


def test_export_harms_nothing(run: Run) -> None:
    save_model(Path("run") / FILE_NAME, model())
    Path("letter.txt").write_text("dear")
    before = (Path("run") / FILE_NAME).read_bytes()
    for out, code in (("letter.txt", 2), ("run", 3), (f"run/{FILE_NAME}", 3)):
        refused = run("export", "run", out, "--quantize", "int8")
        assert refused.code == code
        assert refused.one_line()
    assert run("export", "run", "small.safetensors", "--quantize", "int8").code == 0
    refused = run("export", "small.safetensors", "smaller.safetensors", "--quantize", "bf16")
    assert refused.code == 2
    assert "already" in refused.err
    assert Path("letter.txt").read_text() == "dear"
    assert (Path("run") / FILE_NAME).read_bytes() == before
    assert not Path("smaller").exists()
