"""ONNX files compute what chargen computes: one id at a time, and whole sequences."""

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tokenizers import Tokenizer

import chargen
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.errors import DataError, SettingError
from chargen.exporting import onnx as onnx_export
from chargen.exporting.onnx import make_onnx
from chargen.storage.model_file import ModelFile
from tests.exporting.models import CELLS, FEW, KINDS, every_id, exported_model, predict_both
from tests.small_models import small_model

SOME = [pytest.param(*case, marks=() if case in FEW else pytest.mark.slow) for case in itertools.product(CELLS, KINDS)]


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def exported(file: ModelFile, folder: Path, direction: str | None = None) -> onnxruntime.InferenceSession:
    path = chargen.export(file, folder / "model.onnx", direction=direction)
    onnx.checker.check_model(path, full_check=True)
    return open_session(path)


def zero_state(session: onnxruntime.InferenceSession, rows: int) -> np.ndarray:
    layers, _, size = session.get_inputs()[1].shape
    return np.zeros((layers, rows, size), np.float32)


@pytest.mark.parametrize(("cell", "kind"), SOME)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_steps_and_sequences_are_those_of_the_numpy_engine(
    cell: str, kind: str, direction: str, tmp_path: Path
) -> None:
    file = exported_model(cell, kind)
    session = exported(file, tmp_path, direction)
    engine = NumpyEngine(file.config, file.arrays, direction)
    ids = every_id(file, 3, 19)
    if file.vocabulary.records:
        begins = ids >= engine.first_begin
        assert begins[:, 1:].any()
    carried, state = engine.start(3), zero_state(session, 3)
    whole, after = session.run(None, {"ids": ids, "state": state})
    assert whole.shape == (*ids.shape, len(file.vocabulary))
    for column in range(ids.shape[1]):
        expected, carried = engine.step(ids[:, column], carried)
        logits, state = session.run(None, {"ids": ids[:, column : column + 1], "state": state})
        assert np.abs(logits[:, 0] - expected).max() < 1e-5
        assert np.abs(whole[:, column] - expected).max() < 1e-5
    for got in (state, after):
        assert np.abs(got - np.stack(carried)).max() < 1e-5


@pytest.mark.parametrize(("cell", "kind"), SOME)
def test_a_text_is_predicted_from_both_sides(cell: str, kind: str, tmp_path: Path) -> None:
    file = exported_model(cell, kind)
    session = exported(file, tmp_path, "both")
    ids = every_id(file, 2, 13)
    for got, expected in zip(session.run(None, {"ids": ids}), predict_both(file, ids), strict=True):
        assert got.shape == (2, 11, len(file.vocabulary))
        assert np.abs(got - expected).max() < 1e-5
    assert [value.shape[1] for value in session.run(None, {"ids": ids[:, :2]})] == [0, 0, 0]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_model_that_reads_forward(cell: str, layers: int, tmp_path: Path) -> None:
    file = small_model(cell, num_layers=layers)
    session = exported(file, tmp_path)
    engine, ids = NumpyEngine(file.config, file.arrays), every_id(file, 2, 1)
    logits, _ = session.run(None, {"ids": ids, "state": zero_state(session, 2)})
    assert np.abs(logits[:, 0] - engine.step(ids[:, 0], engine.start(2))[0]).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_file_says_what_its_ids_are(kind: str, direction: str, tmp_path: Path) -> None:
    file = exported_model("gru", kind)
    session = exported(file, tmp_path, direction)
    facts = session.get_modelmeta().custom_metadata_map
    vocabulary = file.vocabulary
    assert facts["direction"] == direction
    text = "abc cab"
    assert Tokenizer.from_str(facts["tokenizer"]).encode(text).ids == vocabulary.encode(text).tolist()
    begin, end, labels, never = (json.loads(facts[name]) for name in ("begin", "end", "labels", "never"))
    assert end == vocabulary.end_id
    assert labels == {label: vocabulary.begin_id(label) for label in vocabulary.labels}
    assert begin == ([end] if vocabulary.records else vocabulary.encode("\n").tolist())
    assert sorted(never) == sorted({vocabulary.unknown_id, *labels.values()} - {None})


def test_a_begin_text_is_told_in_the_order_of_reading(tmp_path: Path) -> None:
    file = replace(small_model("gru", bidirectional=True), begin="a\n")
    for direction, text in (("forward", "a\n"), ("backward", "\na"), ("both", "a\n")):
        facts = exported(file, tmp_path, direction).get_modelmeta().custom_metadata_map
        assert json.loads(facts["begin"]) == file.vocabulary.encode(text).tolist()


def test_equal_models_give_identical_files(tmp_path: Path) -> None:
    first = make_onnx(exported_model("lstm", "records"), "both").SerializeToString()
    assert first == make_onnx(exported_model("lstm", "records"), "both").SerializeToString()


def test_weights_are_in_the_file_once() -> None:
    file = exported_model("gru", "tied")
    for direction, less in (("both", 0), ("forward", 1)):
        weights = make_onnx(file, direction).graph.initializer
        numbers = sum(int(np.prod(weight.dims)) for weight in weights if weight.data_type == onnx.TensorProto.FLOAT)
        stack = sum(array.size for name, array in file.arrays.items() if name.startswith("backward"))
        cloze = sum(array.size for name, array in file.arrays.items() if name.startswith("cloze"))
        total = sum(array.size for array in file.arrays.values())
        assert 0 <= numbers - (total - less * (stack + cloze)) < 100


def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = small_model("gru")
    cases: list[tuple[ModelFile, dict[str, str], str]] = [
        (forward, {"direction": "backward"}, "reading backward needs a model that reads both ways"),
        (forward, {"direction": "both"}, "reading both ways needs a model that reads both ways"),
        (forward, {"direction": "sideways"}, "direction is 'sideways': it must be one of forward, backward, both"),
        (forward, {"quantize": "int8"}, "`quantize` is not for ONNX files"),
    ]
    for file, settings, words in cases:
        with pytest.raises(SettingError, match=words) as error:
            chargen.export(file, tmp_path / "model.onnx", **settings)
        assert "\n" not in str(error.value)
    monkeypatch.setattr(onnx_export, "MAX_SIZE", 1000)
    with pytest.raises(SettingError, match="ONNX files end at 2 GiB; export a folder instead"):
        chargen.export(forward, tmp_path / "model.onnx")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SettingError, match=r"pip install 'chargen\[onnx\]'"):
        chargen.export(forward, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_only_own_files_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    file = small_model("gru")
    chargen.export(small_model("lstm"), path)
    chargen.export(file, path)
    assert open_session(path).get_inputs()[1].shape[2] == file.config.hidden_size
    other = onnx.load(path)
    other.producer_name = "another"
    for content in (other.SerializeToString(), b"", b"a text"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="is no ONNX file that chargen wrote and is not overwritten"):
            chargen.export(file, path)
        assert path.read_bytes() == content
