"""What is inside a model: as the reference engine has it step by step, in any block, in a file and back."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import chargen
from chargen.errors import DataError, ModelFileError, SettingError
from chargen.evaluation import layout
from chargen.insight.activations import Activations, load_activations
from chargen.storage.model_file import ModelFile, build_model, save_model
from chargen.storage.quantize import quantize
from tests import naive
from tests.new_models import FEW, MANY, every_kind, new_model, new_two_way_model, some_ids
from tests.record_models import record_model
from tests.small_models import small_model

LETTERS = "abcdefgh \n"
CLOSE = {"rtol": 1e-3, "atol": 1e-3}
"""Float16 has three digits."""


def some_text(length: int, letters: str = LETTERS, seed: int = 0) -> str:
    return "".join(letters[at] for at in np.random.default_rng(seed).integers(0, len(letters), length))


def assert_agrees(values: Activations, expected: dict[str, Any]) -> None:
    for name, array in values.arrays().items():
        assert array.dtype == np.float16
        np.testing.assert_allclose(array.astype(np.float64), expected[name], **CLOSE, err_msg=name)


@every_kind
@pytest.mark.parametrize("rows", [FEW, MANY])
def test_the_last_of_all_layers_is_what_read_returns(cell: str, layers: int, rows: int) -> None:
    network, ids = new_two_way_model(cell, layers), some_ids(rows, 11)
    fresh = torch.zeros(rows, 11, dtype=torch.bool)
    fresh[1, 4] = True
    for direction in ("forward", "backward"):
        with torch.inference_mode():
            _, state = network.read(some_ids(rows, 3, 1), direction=direction)
            outputs, after = network.read_layers(ids, state, direction, fresh)
            expected, expected_after = network.read(ids, state, None, direction, fresh)
        assert len(outputs) == len(after) == layers
        assert torch.equal(outputs[-1], expected)
        assert all(map(torch.equal, after, expected_after))
        last = [output[:, -1] for output in outputs]
        assert all(torch.equal(h, layer[:, : h.shape[1]]) for h, layer in zip(last, after, strict=True))


@pytest.mark.parametrize("unit", ["character", "byte", "folded"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("cell", "layers"), [("gru", 1), ("lstm", 1), ("gru", 2), ("lstm", 3)])
def test_every_state_is_that_of_the_reference(cell: str, layers: int, direction: str, unit: str) -> None:
    folded, kind = ("xyz", "character") if unit == "folded" else ("", unit)
    file = small_model(cell, num_layers=layers, unit=kind, folded=folded, bidirectional=True, scale=2.0)
    file = replace(file, begin="\n") if layers > 1 else file
    letters = {"byte": "ab é字😀\n", "folded": LETTERS + "xyz?", "character": LETTERS + "?"}[unit]
    texts = [some_text(length, letters, length) for length in (40, 0, 1, 3, 25, 7, 9, 11, 13, 150)]
    settings: dict[str, Any] = {"direction": direction, "gates": True, "cells": cell == "lstm", "precision": "fp32"}
    values = chargen.activations(file, texts, **settings)
    assert values.arrays().keys() == {"hidden", *(["cells"] if cell == "lstm" else []), *(
        ("gate_input", "gate_forget", "gate_output") if cell == "lstm" else ("gate_reset", "gate_update")
    )}  # fmt: skip
    assert len(values) == len(texts)
    for number, text in enumerate(texts):
        assert values[number].text == text
        if text:
            assert_agrees(values[number], naive.inside(file, text, direction))
            end = -1 if direction == "forward" else 0
            assert np.array_equal(values.last[:, number], values[number].hidden[:, end])
    assert not values.last[:, 1].any(), "an empty text has no character"
    assert_agrees(chargen.activations(file, texts[0], **settings), naive.inside(file, texts[0], direction))


@pytest.mark.parametrize("kind", ["int8", "bf16"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_quantized_files_and_tied_tables(cell: str, kind: str) -> None:
    file = small_model(cell, tie_weights=True, scale=2.0)
    file, text = replace(file, arrays=quantize(file.arrays, kind)), some_text(60)
    assert_agrees(chargen.activations(file, text, gates=True, precision="fp32"), naive.inside(file, text))


@pytest.mark.parametrize("unit", ["character", "byte"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_records_are_read_behind_the_symbol_of_their_label(direction: str, unit: str) -> None:
    file = record_model(unit=unit)
    texts, labels = ["abc def", "fed", "a"], ["sun", None, "sea"]
    values = chargen.activations(file, texts, label=labels, direction=direction, gates=True, precision="fp32")
    for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
        assert_agrees(values[number], naive.inside(file, text, direction, label))
    alone = chargen.activations(file, "fed", label="sun", direction=direction, precision="fp32")
    assert_agrees(alone, naive.inside(file, "fed", direction, "sun"))


def test_a_file_of_records_is_many_texts_and_another_is_one(tmp_path: Path) -> None:
    file = record_model()
    file = replace(file, reading=replace(file.reading, records="line"))
    (tmp_path / "names.txt").write_text("abc\n\nfed\n")
    for named in ({"text": tmp_path / "names.txt"}, {"sources": [tmp_path / "names.txt"]}):
        values = chargen.activations(file, **named, precision="fp32")
        assert [values[number].text for number in range(len(values))] == ["abc", "fed"]
    running = small_model()
    (tmp_path / "text.txt").write_text("abc\n\nfed\n")
    assert chargen.activations(running, tmp_path / "text.txt").text == "abc\n\nfed\n"


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_long_text_is_read_in_rows_and_in_blocks(direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file, text = small_model("lstm", bidirectional=True, scale=1.0), some_text(4100)
    settings: dict[str, Any] = {"direction": direction, "gates": True, "cells": True, "precision": "fp32"}
    whole, expected = chargen.activations(file, text, **settings), naive.inside(file, text, direction)
    assert_agrees(whole, expected)
    monkeypatch.setattr(layout, "CONTEXT", 200)
    blocks = list(chargen.stream_activations(file, ["ab", text, "cd", "e", text[:700]], size=1200, **settings))
    sizes = [len(block.text) for block in blocks]
    assert sizes == [2, 1200, 1200, 1200, 500, 703]
    assert [len(block) for block in blocks] == [1, 1, 1, 1, 1, 3]
    joined = {name: np.concatenate([block.arrays()[name] for block in blocks[1:5]], 1) for name in whole.arrays()}
    for name, array in joined.items():
        np.testing.assert_allclose(array.astype(np.float64), expected[name], **CLOSE, err_msg=name)
    assert_agrees(blocks[5][0], naive.inside(file, "cd", direction))


def test_bf16_rounds_no_more_than_its_digits() -> None:
    file, text = small_model("gru", scale=1.0), some_text(300)
    exact, rounded = (chargen.activations(file, text, gates=True, precision=kind) for kind in ("fp32", "bf16"))
    for name, array in exact.arrays().items():
        difference = np.abs(array.astype(np.float32) - rounded.arrays()[name])
        assert difference.max() < 0.03, name


def test_what_cannot_be_read_is_refused_in_one_line() -> None:
    file = small_model("gru")
    for settings, words in (
        ({"direction": "up"}, "direction is 'up'"),
        ({"direction": "backward"}, "needs a model that reads both ways"),
        ({"cells": True}, "cells are those of an LSTM: this model is a GRU"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"unknown": "drop"}, "unknown is 'drop'"),
        ({"label": "sea"}, "this model has no records"),
    ):
        for call in (chargen.activations, chargen.stream_activations):
            with pytest.raises(SettingError, match=words):
                call(file, "abc", **settings)
    with pytest.raises(SettingError, match="there is no text"):
        chargen.activations(file, [])
    with pytest.raises(DataError, match="first at position 2100"):
        chargen.activations(file, "ab" * 1050 + "?", unknown="error")
    network = build_model(file)
    with torch.no_grad():
        network.forward_layers[0].bias_hh_l0[20] = float("nan")
    with pytest.raises(chargen.ChargenError, match="not finite"):
        chargen.activations(network, "abc", vocabulary=file.vocabulary)
    values = chargen.activations(file, "abc")
    assert np.array_equal(values.unit(2, 5), values.hidden[1, :, 5])
    with pytest.raises(SettingError, match="there is no layer 3: this model has layers 1 to 2"):
        values.unit(3, 0)
    with pytest.raises(SettingError, match="no hidden unit 12 in layer 1: its hidden units are 0 to 11"):
        values.unit(1, 12)


def saved(folder: Path) -> tuple[Path, Activations]:
    values = chargen.activations(small_model(), ["ab", "", "cde"], gates=True, cells=True)
    values.save(folder / "values.npz")
    return folder / "values.npz", values


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    path, values = saved(tmp_path)
    loaded = load_activations(path)
    assert (loaded.text, loaded.direction, loaded.starts.tolist()) == ("abcde", "forward", [0, 2, 2, 5])
    assert loaded.arrays().keys() == values.arrays().keys()
    for name, array in values.arrays().items():
        assert np.array_equal(loaded.arrays()[name], array)
    with np.load(path, allow_pickle=False) as plain:
        assert np.array_equal(plain["hidden"], values.hidden)
    before = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == before
    assert repr(loaded) == "Activations(5 characters, 3 texts, 2 x 12, forward, cells, input, forget, output)"


def rewritten(path: Path, **changed: Any) -> None:
    with np.load(path) as plain:
        arrays = dict(plain)
    for name, array in changed.items():
        if array is None:
            del arrays[name]
        else:
            arrays[name] = array
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    "changed",
    [
        {"hidden": None},
        {"text": None},
        {"hidden": np.zeros((2, 4, 12), np.float16)},
        {"hidden": np.zeros((2, 5, 12), np.float32)},
        {"hidden": np.full((2, 5, 12), np.nan, np.float16)},
        {"cells": np.zeros((2, 5, 11), np.float16)},
        {"gate_reset": np.zeros(3, np.float16)},
        {"other": np.zeros(3)},
        {"starts": np.array([0, 6])},
        {"starts": np.array([0, 3, 2, 5])},
        {"starts": np.array([], np.int64)},
        {"text": np.full(5, 0x110000, np.uint32)},
        {"direction": np.array("up")},
        {"direction": np.array(["forward"])},
        {"hidden": np.array([{}], dtype=object)},
    ],
    ids=lambda changed: str({name: getattr(array, "shape", None) for name, array in changed.items()}),
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    path, _ = saved(tmp_path)
    rewritten(path, **changed)
    with pytest.raises(ModelFileError, match="is not a good file of activations") as refused:
        load_activations(path)
    assert "\n" not in str(refused.value)


def test_a_damaged_or_hostile_file_is_refused(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    data = path.read_bytes()
    for wrong in (b"", b"PK", data[:-30], data[: len(data) // 2], data.replace(b"\x00<", b"\x00>")):
        path.write_bytes(wrong)
        with pytest.raises(ModelFileError, match=r"values\.npz is not a good file of activations"):
            load_activations(path)
    at = data.index(b"NUMPY", data.index(b"hidden.npy")) + 200
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(ModelFileError, match="CRC"):
        load_activations(path)
    path.write_bytes(data)
    with np.load(path) as plain:
        np.savez_compressed(path, **plain)
    with pytest.raises(ModelFileError, match="is packed"):
        load_activations(path)
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f2", "fortran_order": False, "shape": (2**40,)})
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("hidden.npy", huge.getvalue())
        with pytest.raises(ModelFileError, match=r"does not have the size|is packed"):
            load_activations(path)
    for missing in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(ModelFileError, match="cannot read"):
            load_activations(missing)


@pytest.mark.parametrize(
    "header",
    [b"{'descr': (", b"-" * 9000 + b"1", b"{[]: 1}", b"{1: 2, 'a': 3}",
     b"{'descr': '<f2', 'fortran_order': False, 'shape': (%d, 0, 1), }" % 10**30],
)  # fmt: skip
def test_a_header_is_never_evaluated(tmp_path: Path, header: bytes) -> None:
    path, _ = saved(tmp_path)
    rewrite_entry(path, "hidden.npy", b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n")
    with pytest.raises(ModelFileError, match="is not a good file of activations"):
        load_activations(path)


def test_a_direction_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    entry = io.BytesIO()
    np.lib.format.write_array_header_1_0(entry, {"descr": "<U1", "fortran_order": False, "shape": ()})
    rewrite_entry(path, "direction.npy", entry.getvalue() + b"\xff" * 4)
    with pytest.raises(ModelFileError, match="its text is none, or its direction"):
        load_activations(path)


def rewrite_entry(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in (entries | {name: content}).items():
            archive.writestr(entry, data)


def test_models_come_in_every_form(tmp_path: Path) -> None:
    file: ModelFile = small_model()
    save_model(tmp_path / "model.safetensors", file)
    expected = chargen.activations(file, "abc").hidden
    for model in (tmp_path, str(tmp_path / "model.safetensors")):
        assert np.array_equal(chargen.activations(model, "abc").hidden, expected)
    network = new_model("gru", 2)
    assert chargen.activations(network, "abc", vocabulary=chargen.Vocabulary("abcdefg")).hidden.shape == (2, 3, 6)
    done = []
    chargen.activations(file, "abc", progress=lambda *figures: done.append(figures))
    assert done == [("reading", 3, 3)]
