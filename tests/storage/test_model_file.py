"""One file is the whole model: read without torch, checked before it is believed, the same bytes for the same model."""

import dataclasses
import gzip
import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chargen.data.reading_config import ReadingConfig
from chargen.data.vocabulary import RAW_BYTES, Vocabulary
from chargen.errors import ModelFileError, SettingError
from chargen.model.config import ModelConfig, parameter_shapes
from chargen.storage import model_file, tensor_file
from chargen.storage.model_file import (
    FILE_NAME,
    ModelFile,
    as_model_file,
    build_model,
    check_characters,
    load_model,
    model_path,
    read_model,
    save_model,
)
from chargen.storage.quantize import quantize
from chargen.storage.stored_vocabulary import describe_vocabulary
from tests import naive
from tests.small_models import as_bf16, small_model
from tests.systems import ON_LINUX

GOLDEN = Path(__file__).parents[1] / "golden" / "model.safetensors"
GOLDEN_IDS = [0, 3, 1, 4, 2, 2]
GOLDEN_LOGITS = [
    [-0.484914, 0.788346, 0.713128, 0.637909, 0.562691],
    [-0.520154, 0.82261, 0.743773, 0.664937, 0.5861],
    [-0.360562, 0.657706, 0.632371, 0.607036, 0.5817],
    [-0.497729, 0.783093, 0.719367, 0.655641, 0.591915],
    [-0.473827, 0.759576, 0.703297, 0.647018, 0.590739],
    [-0.490174, 0.774273, 0.713437, 0.652601, 0.591765],
]


def golden_model():
    """What tests/golden/model.safetensors holds; `save_model(GOLDEN, golden_model())` made it."""
    config = ModelConfig("lstm", 2, 4, 3, dropout=0.25, output_dropout=0.5)
    vocabulary = Vocabulary("\n aé", folded="x字")
    arrays, at = {}, 0
    for name, shape in parameter_shapes(config, len(vocabulary)).items():
        numbers = np.arange(at, at + int(np.prod(shape)))
        arrays[name] = ((numbers * 7919 % 193 - 96) / 64).astype("f4").reshape(shape)
        at = int(numbers[-1]) + 1
    training = {"steps": 12, "valid_loss": 1.5, "settings": {"lr": 0.004, "seed": 0}}
    reading = ReadingConfig("utf-8", "replace", "lf", "NFC")
    return ModelFile(config, vocabulary, arrays, np.array([5, 40, 20, 3, 2]), reading, training)


def same(file, other):
    return file.describe() == other.describe() and all(
        np.array_equal(file.arrays[name], other.arrays[name]) and file.arrays[name].dtype == other.arrays[name].dtype
        for name in file.arrays | other.arrays
    )


def changed_file(path, change, file=None):
    """A file with a good checksum whose description `change` has edited."""
    file = file or small_model(num_layers=1, hidden_size=3)
    description = file.describe()
    change(description)
    tensor_file.save(path, file.arrays, description)
    return path


def complaint(path):
    with pytest.raises(ModelFileError) as caught:
        read_model(path)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_code == 4
    return str(caught.value)


def test_the_golden_file_is_still_read_and_gives_the_stored_logits():
    file = read_model(GOLDEN)
    assert same(file, golden_model())
    assert len(file.sha256) == 64
    with torch.inference_mode():
        logits = load_model(GOLDEN)(torch.tensor([GOLDEN_IDS]))[0][0].numpy()
    assert logits == pytest.approx(np.array(GOLDEN_LOGITS), abs=1e-5)
    assert naive.logits(file, GOLDEN_IDS) == pytest.approx(np.array(GOLDEN_LOGITS), abs=1e-5)


def test_the_golden_content_is_still_written_with_the_same_bytes(tmp_path):
    save_model(tmp_path / "again", golden_model())
    assert (tmp_path / "again").read_bytes() == GOLDEN.read_bytes()
    assert GOLDEN.stat().st_size <= 8000


@given(
    st.sampled_from(["lstm", "gru"]),
    st.integers(1, 3),
    st.integers(1, 6),
    st.sets(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.integers(0, 8),
    st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=3),
)
def test_a_model_comes_back_from_its_file_alone(tmp_path, cell, layers, hidden, characters, folded, training):
    known, rare = sorted(characters)[folded:], sorted(characters)[:folded]
    vocabulary = Vocabulary("".join(known), folded="".join(rare))
    config = ModelConfig(cell, layers, hidden, 2)
    draws = np.random.default_rng(0)
    shapes = parameter_shapes(config, len(vocabulary))
    arrays = {name: draws.standard_normal(shape).astype("f4") for name, shape in shapes.items()}
    file = ModelFile(config, vocabulary, arrays, np.arange(len(vocabulary)) + 1, training=training)
    save_model(tmp_path / "m", file)
    loaded = read_model(tmp_path / "m")
    assert same(loaded, file)
    assert loaded.vocabulary == vocabulary
    model = load_model(tmp_path / "m")
    assert all(torch.equal(weight, torch.from_numpy(arrays[name])) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_two_saves_are_identical_and_so_is_a_save_of_what_was_read(tmp_path, unit):
    file = small_model(unit=unit)
    turned = dataclasses.replace(file, arrays=dict(reversed(file.arrays.items())))
    for name, model in (("a", file), ("b", turned)):
        save_model(tmp_path / name, model)
    save_model(tmp_path / "c", read_model(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_reading_needs_no_torch(tmp_path):
    save_model(tmp_path / FILE_NAME, small_model())
    program = "import sys, chargen; print(len(chargen.read_model(sys.argv[1]).arrays), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "11 False\n"


def test_loading_never_touches_trained_biases(tmp_path):
    file = small_model()
    for name, array in file.arrays.items():
        if "bias" in name:
            array[:] = np.linspace(-3, 0.5, array.size, dtype="f4")
    save_model(tmp_path / "m", file)
    weights = load_model(tmp_path / "m").state_dict()
    for name, array in file.arrays.items():
        assert torch.equal(weights[name], torch.from_numpy(array)), name


def test_a_model_is_built_where_it_is_asked_for(tmp_path):
    save_model(tmp_path / "m", small_model())
    for device in ("meta", "cpu"):
        for model in (load_model(tmp_path / "m", device), build_model(read_model(tmp_path / "m"), device)):
            assert {weight.device.type for weight in model.state_dict().values()} == {device}


def test_a_loaded_model_can_be_trained_and_leaves_what_was_read_alone(tmp_path):
    save_model(tmp_path / "m", small_model())
    file = read_model(tmp_path / "m")
    model = build_model(file)
    before = file.arrays["output.bias"].copy()
    model(torch.zeros(1, 2, dtype=torch.int64))[0].sum().backward()
    with torch.no_grad():
        model.output.bias.add_(1)
    assert model.embedding.weight.grad is not None
    assert np.array_equal(file.arrays["output.bias"], before)


def test_bf16_bits_come_back_from_their_file_as_the_same_numbers(tmp_path):
    half = as_bf16(small_model())
    save_model(tmp_path / "m", half)
    assert same(read_model(tmp_path / "m"), half)
    for name, weight in load_model(tmp_path / "m").state_dict().items():
        assert weight.dtype == torch.float32
        assert np.array_equal(weight.numpy(), (half.arrays[name].astype("u4") << 16).view("f4"))


NOT_FINITE = [np.nan, np.inf, -np.inf, 0x7FC0, 0xFF80, 0x7F81, 0xFFFF]  # the whole numbers are bf16 bits


def damaged(what):
    """A model that no file can hold."""
    file = as_bf16(small_model()) if isinstance(what, int) else small_model()
    if what == "no array":
        del file.arrays["output.bias"]
    elif what == "one more array":
        file.arrays["more"] = file.arrays["output.bias"]
    elif what == "wrong shape":
        file.arrays["output.bias"] = file.arrays["output.bias"][:-1]
    elif isinstance(what, str):
        file.arrays["output.bias"] = file.arrays["output.bias"].astype(what)
    else:
        file.arrays["output.bias"][3] = what
    return file


@pytest.mark.parametrize(
    ("what", "words"),
    [(number, r"output\.bias holds numbers that are not finite") for number in NOT_FINITE]
    + [(dtype, r"output\.bias is float.*: weights are float32, bf16") for dtype in ("f8", "f2")]
    + [
        (what, "^the weights' names and shapes are not those of the model's config$")
        for what in ("no array", "one more array", "wrong shape")
    ],
)
def test_a_model_that_could_not_be_read_again_is_never_saved(tmp_path, what, words):
    save_model(tmp_path / "m", small_model())
    before = (tmp_path / "m").read_bytes()
    with pytest.raises(ValueError, match=words):
        save_model(tmp_path / "m", damaged(what))
    assert (tmp_path / "m").read_bytes() == before


def test_a_run_folder_means_the_model_in_it(tmp_path):
    save_model(tmp_path / "run" / FILE_NAME, small_model())
    assert model_path(tmp_path / "run") == model_path(tmp_path / "run" / FILE_NAME) == tmp_path / "run" / FILE_NAME
    assert same(read_model(str(tmp_path / "run")), small_model())


def test_a_missing_model_is_named_with_advice(tmp_path):
    assert complaint(tmp_path / "no") == f"no model file or run folder {tmp_path / 'no'}; training on a text makes one"
    assert complaint(tmp_path).startswith(f"folder {tmp_path} holds no {FILE_NAME}; train one there with `out`")


def test_a_name_too_long_for_the_disk_is_a_missing_model(tmp_path):
    path = tmp_path / ("n" * 300)
    assert complaint(path) == f"no model file or run folder {str(path)[:200]}…; training on a text makes one"


@ON_LINUX
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_model_file_has_the_mode_that_the_umask_asks_for(tmp_path, mask):
    before = os.umask(mask)
    try:
        save_model(tmp_path / "m", small_model(num_layers=1, hidden_size=2))
    finally:
        os.umask(before)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o666 & ~mask


def tokens(description):
    return description["vocabulary"]["tokenizer"]["model"]


HOSTILE = [
    ("hidden_size is 0", lambda d: d["config"].update(hidden_size=0)),
    ("hidden_size is 1000000000", lambda d: d["config"].update(hidden_size=10**9)),
    ("num_layers is 65", lambda d: d["config"].update(num_layers=65)),
    ("hidden_size is True", lambda d: d["config"].update(hidden_size=True)),
    ("hidden_size is 3.0", lambda d: d["config"].update(hidden_size=3.0)),
    ("dropout is 1", lambda d: d["config"].update(dropout=1)),
    ("cell is 'rnn'", lambda d: d["config"].update(cell="rnn")),
    ("arrays do not fit", lambda d: d["config"].update(bidirectional=True)),
    ("no setting", lambda d: d["config"].update(surprise=1)),
    ("argument after ** must be", lambda d: d.update(config=[])),
    ("KeyError 'config'", lambda d: d.pop("config")),
    ("dropout is 1000", lambda d: d["config"].update(dropout=10**400)),
    ("shape", lambda d: d["config"].update(cell="gru")),
    ("arrays do not fit", lambda d: d["config"].update(num_layers=64)),
    ("format 4 is not known to this version", lambda d: d.update(format=4)),
    ("format number does not fit", lambda d: d.update(format=2)),
    ("format number does not fit", lambda d: d.update(format=3)),
    ("format '1'", lambda d: d.update(format="1")),
    ("format None", lambda d: d.update(format=None)),
    ("KeyError 'format'", lambda d: d.pop("format")),
    ("another kind, 'run'", lambda d: d.update(kind="run")),
    ("do not fit its 10 characters", lambda d: d["counts"].pop()),
    ("do not fit its 10 characters", lambda d: d["counts"].append(1)),
    ("are not counts", lambda d: d.update(counts=[0] * 10)),
    ("are not counts", lambda d: d.update(counts=[-1] + [1] * 9)),
    ("are not counts", lambda d: d.update(counts=[[1]] * 10)),
    ("do not fit its 10 characters", lambda d: d.update(counts=None)),
    ("are not counts", lambda d: d.update(counts=[10**30] * 10)),
    ("encoding is 'rot13'", lambda d: d["reading"].update(encoding="rot13")),
    ("encoding is 'no\\x00'", lambda d: d["reading"].update(encoding="no\0")),
    ("newline is 'cr'", lambda d: d["reading"].update(newline="cr")),
    ("good model file: its training summary is not a table", lambda d: d.update(training=[])),
    ("good model file: its character counts are not counts", lambda d: d.update(counts=[2**60] * 8 + [0, 0])),
    ("vocabulary", lambda d: d.update(vocabulary=None)),
    ("ids are not those of its characters", lambda d: d["vocabulary"].update(unit="byte")),
    ("unit is 'word'", lambda d: d["vocabulary"].update(unit="word")),
    ("ids are not those of its characters", lambda d: d["vocabulary"].update(folded="z")),
    ("single character", lambda d: tokens(d).update(vocab={"a": 0, "bc": 1})),
    ("sorted", lambda d: tokens(d).update(vocab={"b": 0, "a": 1})),
    ("ids are not 0", lambda d: tokens(d).update(vocab={"a": 0, "b": 2})),
    ("ids are", lambda d: tokens(d).update(vocab={"a": 0, "b": 0})),
    ("ids", lambda d: tokens(d).update(merges=[["a", "b"]])),
    ("are not a table", lambda d: tokens(d).update(vocab=[])),
    ("not one that", lambda d: tokens(d).update(vocab={"a": None, "b": "0"})),
    ("are not counts", lambda d: d.update(counts=["1"] * 10)),
    ("are not counts", lambda d: d.update(counts=[1.5] * 10)),
    ("are not counts", lambda d: d.update(counts=[True] * 10)),
    ("format True", lambda d: d.update(format=True)),
    ("its begin text is no short text of its own characters", lambda d: d.update(begin="z")),
    ("its begin text is no short text of its own characters", lambda d: d.update(begin=["a"])),
    ("folded characters are not text", lambda d: d["vocabulary"].update(folded=[])),
    ("lone surrogate", lambda d: tokens(d).update(vocab={chr(65 + n): n for n in range(9)} | {"\ud800": 9})),
]


@pytest.mark.parametrize(("words", "change"), HOSTILE)
def test_a_description_that_is_wrong_is_refused_in_words(tmp_path, words, change):
    assert words in complaint(changed_file(tmp_path / "m", change))


def test_counts_may_be_0_and_as_large_as_their_sum_can_be(tmp_path):
    counts = [2**63 - 1 - 2**60, 2**60] + [0] * 8
    changed_file(tmp_path / "m", lambda d: d.update(counts=counts))
    read_counts = read_model(tmp_path / "m").counts
    assert read_counts.dtype == np.int64
    assert read_counts.tolist() == counts


@pytest.mark.parametrize("folded", [["x", "y"], ["xx", "yyy"]])
def test_folded_characters_that_are_no_text_are_refused(tmp_path, folded):
    file = small_model(characters="abc", folded="xy")
    changed_file(tmp_path / "m", lambda d: d["vocabulary"].update(folded=folded), file)
    assert "folded characters are not text" in complaint(tmp_path / "m")


def test_weights_of_another_type_are_refused(tmp_path):
    file = small_model(num_layers=1)
    tensor_file.save(tmp_path / "m", {name: a.astype("f8") for name, a in file.arrays.items()}, file.describe())
    assert "is float64: weights are float32, bf16 bits in uint16" in complaint(tmp_path / "m")


def test_a_description_is_plain_json_without_the_checksum():
    description = golden_model().describe()
    assert json.loads(json.dumps(description)) == description
    assert "sha256" not in description
    assert golden_model().sha256 == "", "there is no file yet"
    assert description["counts"] == [5, 40, 20, 3, 2]


def test_more_characters_than_a_header_holds_leave_the_file_as_it_was(tmp_path: Path) -> None:
    save_model(tmp_path / "m", small_model())
    before = (tmp_path / "m").read_bytes()
    file = small_model(num_layers=1, hidden_size=2, characters="".join(map(chr, range(0x20000, 0x20000 + 60_000))))
    line = r"cannot write .*m: its description takes [0-9,]+ bytes, more than 1,000,000; fold .* 60,000 .*`min_count`"
    with pytest.raises(SettingError, match=line):
        save_model(tmp_path / "m", file)
    assert (tmp_path / "m").read_bytes() == before


def test_raw_bytes_come_back_and_only_with_a_reading_that_says_so(tmp_path):
    raw = dataclasses.replace(
        small_model(unit="byte"), vocabulary=Vocabulary(RAW_BYTES, unit="byte"), reading=ReadingConfig("raw")
    )
    save_model(tmp_path / "m", raw)
    loaded = read_model(tmp_path / "m")
    assert loaded.vocabulary.raw
    assert loaded.vocabulary == raw.vocabulary
    assert loaded.reading == raw.reading
    for vocabulary, encoding in ((raw.vocabulary, "utf-8"), (Vocabulary(unit="byte"), "raw")):
        with pytest.raises(ValueError, match="raw goes with"):
            save_model(tmp_path / "m", dataclasses.replace(raw, vocabulary=vocabulary, reading=ReadingConfig(encoding)))


def test_what_stands_between_files_is_stored_only_where_it_was_chosen(tmp_path):
    """So that versions that know of no such setting read all other models."""
    for between in (None, "", "|"):
        file = dataclasses.replace(golden_model(), reading=ReadingConfig(between=between))
        assert ("between" in file.describe()["reading"]) == (between is not None)
        save_model(tmp_path / "m", file)
        assert read_model(tmp_path / "m").reading == file.reading


def zipped(*names):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return held.getvalue()


OTHERS = {
    "text": (("Call me Ishmael.\n" * 9).encode(), "it is a text; training on it makes a model"),
    "russian": (("Все счастливые семьи\n" * 9).encode(), "it is a text; training on it makes a model"),
    "marked": ("\ufeffCall me Ishmael.\n".encode(), "it is a text; training on it makes a model"),
    "persian": (("می\u200cرود و نمی\u200cآید\n" * 9).encode(), "it is a text; training on it makes a model"),
    "latin-1": ("Größe und Maß\n".encode("latin-1") * 9, "it is no model file$"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 270\n", "a Git LFS pointer.*lfs pull"),
    "html": (b"\n<!DOCTYPE html>\n<html><head><title>Not found</title>", "it is an HTML page"),
    "page": (b"<HTML><p>", "it is an HTML page, such as a server sends in place of a file; fetch the file itself$"),
    "pt": (zipped("archive/data.pkl", "archive/data/0"), r"it is a PyTorch file \(\.pt\)$"),
    "pickle": (pickle.dumps({"weights": [1.0] * 9}), "it is a pickle$"),
    "zip": (zipped("model.safetensors"), "it is an archive; unpack it first"),
    "gz": (gzip.compress(b"model", mtime=0), "it is a file packed with gzip; unpack it first"),
    "pdf": (b"%PDF-1.7\n", "it is a PDF document"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "it is a picture$"),
    "noise": (b"\xff" * 8 + bytes(range(256)) * 9, "it is no model file$"),
    "utf-16": ("\ufeffCall me Ishmael.".encode("utf-16-le") * 9, "it is no model file$"),
    "short": (b"hello", "it is too short: 5 bytes$"),
    "empty": (b"", "it is too short: 0 bytes$"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_that_is_something_else_is_called_what_it_is(tmp_path, name):
    content, words = OTHERS[name]
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ModelFileError, match=f"m is not a good model file: .*{words}") as caught:
        read_model(tmp_path / "m")
    assert caught.value.exit_code == 4
    assert "header" not in str(caught.value)


def test_a_damaged_model_is_called_nothing_else(tmp_path):
    save_model(tmp_path / "m", small_model())
    content = (tmp_path / "m").read_bytes()
    for at in (3, 8, 9, 40, len(content) - 1):
        (tmp_path / "m").write_bytes(content[:at] + bytes([content[at] ^ 0x21]) + content[at + 1 :])
        with pytest.raises(ModelFileError, match=r"header|checksum|damaged|chargen did not write it"):
            read_model(tmp_path / "m")


def test_a_model_file_shows_itself_in_one_line():
    assert repr(golden_model()) == (
        "ModelFile(LSTM 2 x 4, 5 characters, 322 parameters, valid loss 1.5000 nats)".replace(
            "322", f"{sum(array.size for array in golden_model().arrays.values()):,}"
        )
    )
    large = small_model("gru", hidden_size=64, unit="byte", bidirectional=True)
    kept = dataclasses.replace(large, arrays=quantize(large.arrays, "int8"), training={"step": 2744, "valid_loss": 1})
    parameters = sum(array.size for array in large.arrays.values())
    assert repr(kept) == f"ModelFile(GRU 2 x 64, both ways, 256 bytes, {parameters:,} parameters in int8, step 2,744)"
    hostile = dataclasses.replace(large, training={"step": "\x1b[2J\n", "valid_loss": ["x"] * 1000})
    assert repr(hostile) == f"ModelFile(GRU 2 x 64, both ways, 256 bytes, {parameters:,} parameters)"


@pytest.mark.parametrize("path", [5, None, b"model", ["model"]])
def test_what_is_no_path_is_named_as_such(path):
    for function in (read_model, load_model, model_path):
        with pytest.raises(SettingError, match=rf"path is {re.escape(repr(path))}: it must be a path, a str or a Path"):
            function(path)


@pytest.mark.parametrize("device", ["nowhere", "cuda:99", "", None, 1.5, "cpu:x"])
def test_a_device_that_is_not_there_is_named(device: Any) -> None:
    with pytest.raises(SettingError, match="device is") as error:
        build_model(small_model(), device)
    assert "\n" not in str(error.value)


def test_a_begin_text_is_stored_where_there_is_one_and_never_a_wrong_one(tmp_path):
    for begin in ("", "\n"):
        file = dataclasses.replace(small_model(), begin=begin)
        assert file.describe().get("begin", "") == begin
        assert ("begin" in file.describe()) == bool(begin)
        save_model(tmp_path / "m", file)
        assert read_model(tmp_path / "m").begin == begin
    before = (tmp_path / "m").read_bytes()
    with pytest.raises(ValueError, match=r"^begin is 'z': it is no short text of known characters$"):
        save_model(tmp_path / "m", dataclasses.replace(small_model(), begin="z"))
    assert (tmp_path / "m").read_bytes() == before


def test_first_logits_are_the_logs_of_the_counts():
    file = dataclasses.replace(small_model(), counts=np.array([0, 1, 4] + [2**62] * 7))
    assert file.first_logits == pytest.approx([np.log(1e-9), 0, np.log(4)] + [62 * np.log(2)] * 7, rel=1e-12)


def test_characters_are_refused_from_one_byte_too_many_on(monkeypatch):
    assert model_file.MAX_CHARACTERS == 950_000, "settings and training summary need the rest of a million"
    vocabulary, counts = Vocabulary("abc"), np.array([1, 2, 3])
    check_characters(vocabulary, counts)
    size = len(tensor_file.pack({}, {"vocabulary": describe_vocabulary(vocabulary), "counts": [1, 2, 3]})) - 8
    monkeypatch.setattr(model_file, "MAX_CHARACTERS", size)
    check_characters(vocabulary, counts)
    monkeypatch.setattr(model_file, "MAX_CHARACTERS", size - 1)
    with pytest.raises(SettingError) as caught:
        check_characters(vocabulary, counts)
    assert str(caught.value) == (
        f"the characters take {size} bytes of a model file's header, more than {size - 1}; "
        'fold some of the 3 characters with `min_count`, or train with `unit="byte"`'
    )


def test_any_form_of_a_model_becomes_what_its_file_holds(tmp_path):
    file = small_model()
    save_model(tmp_path / FILE_NAME, file)
    for form in (tmp_path, str(tmp_path / FILE_NAME), file):
        assert same(as_model_file(form), file)
    model = build_model(file)
    assert same(as_model_file(model, file.vocabulary, file.counts), file)
    assert same(as_model_file(model, file.vocabulary, file.counts.tolist()), file)
    assert as_model_file(model, file.vocabulary).counts.tolist() == [1] * 10


@pytest.mark.parametrize("place", [".", ".replaced", ".replacing"])
def test_a_run_that_has_only_a_state_is_told_from_a_folder_without_a_run(tmp_path, place):
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "state.safetensors").write_bytes(b"")
    assert complaint(tmp_path) == (
        f"the run in {tmp_path} has no model yet: its first save writes one, so wait; resume it if it was stopped"
    )
