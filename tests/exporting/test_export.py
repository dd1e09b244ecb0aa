"""What `export` writes depends on the ending of a name."""

import os
from pathlib import Path

import numpy as np
import pytest

import chargen
from chargen.errors import SettingError, WriteError
from chargen.exporting.folder import CARD
from chargen.storage.model_file import FILE_NAME, build_model, read_model, save_model
from chargen.storage.quantize import quantization_of
from tests.commands import Run
from tests.small_models import small_model


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.safetensors", "file"),
        ("a.SafeTensors", "file"),
        ("v1.0/a.safetensors", "file"),
        (".safetensors", "file"),
        ("a", "folder"),
        (".a", "folder"),
        ("a/", "folder"),
        ("v1.0/", "folder"),
        ("a.onnx/", "folder"),
        ("new/v1.0/a", "folder"),
        ("there.onnx", "folder"),
    ],
)
def test_an_ending_says_a_form(name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.chdir(tmp_path)
    save_model("model/" + FILE_NAME, small_model())
    Path("there.onnx").mkdir()
    path = chargen.export("model", name, quantize="int8")
    assert path == Path(name)
    assert os.path.isdir(name) == (kind == "folder")
    assert (path / CARD).exists() == (kind == "folder")
    assert quantization_of(read_model(name).arrays) == "int8"
    assert run("export", "model", name, "--quantize", "bf16").code == 0
    assert quantization_of(read_model(name).arrays) == "bf16"


@pytest.mark.parametrize("name", ["a.pt", "a.gguf", "a.txt", "v1.5", "a.onnx.gz", "a.safetensors2"])
def test_another_ending_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="has another ending than what export writes: model files") as error:
        chargen.export(small_model(), tmp_path / name, quantize="int8")
    assert "\n" not in str(error.value)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["a.safetensors", "a.onnx", "a/"])
def test_a_name_that_the_system_refuses_is_told(name: str, tmp_path: Path) -> None:
    quantize = None if name == "a.onnx" else "int8"
    (tmp_path / "file").write_text("")
    for long in (tmp_path / ("b" * 300 + name), tmp_path / "file" / name):
        with pytest.raises(WriteError, match="cannot write"):
            chargen.export(small_model(), f"{long}{'/' * (name == 'a/')}", quantize=quantize)


def test_every_form_of_a_model_is_exported(tmp_path: Path) -> None:
    file = small_model()
    save_model(tmp_path / "run" / FILE_NAME, file)
    own = {"vocabulary": file.vocabulary, "counts": file.counts}
    written = [
        chargen.export(file, tmp_path / "a"),
        chargen.export(str(tmp_path / "run"), str(tmp_path / "b")),
        chargen.export(build_model(file), tmp_path / "c", **own),
    ]
    assert len({(folder / FILE_NAME).read_bytes() for folder in written}) == 1
    assert read_model(chargen.export("shakespeare", tmp_path / "d")).training["step"] == 4668
    with pytest.raises(SettingError, match="give the vocabulary of this CharModel"):
        chargen.export(build_model(file), tmp_path / "e")


def test_what_is_not_for_a_form_is_refused(tmp_path: Path) -> None:
    cases: list[tuple[object, dict[str, object], str]] = [
        ("a.safetensors", {}, "would be a copy of the model: give `quantize`, int8 or bf16, or copy the file"),
        ("a.safetensors", {"quantize": "int4"}, "quantize is 'int4': it must be one of int8, bf16"),
        ("a.safetensors", {"quantize": "int8", "direction": "forward"}, "`direction` is not for model files, such as"),
        ("a/", {"direction": "both"}, "`direction` is not for folders, such as"),
        ("", {}, "out is '': it must be a path"),
        (b"a.onnx", {}, "out is b'a.onnx': it must be a path"),
        (np.float32(1), {}, "it must be a path"),
    ]
    for name, settings, words in cases:
        out = f"{tmp_path}/{name}" if isinstance(name, str) and name else name
        with pytest.raises(SettingError) as error:
            chargen.export(small_model(), out, **settings)
        assert words in str(error.value)
    assert not os.listdir(tmp_path)
