"""The model that comes with chargen is small, whole, writes, and is known by name to all that takes a model."""

import json
from pathlib import Path

import pytest

import chargen
from chargen import Sampler, read_model
from chargen.errors import ModelFileError
from chargen.storage.model_file import model_path, save_model
from chargen.storage.named_models import named_models
from tests.commands import Run
from tests.small_models import small_model

ROOT = Path(__file__).parents[2]
PATH = named_models()["shakespeare"]


def test_it_is_small_and_says_where_it_comes_from():
    file = read_model(PATH)
    assert PATH.stat().st_size <= 4_000_000
    assert len(file.vocabulary) == 65
    said = (ROOT / "checkpoints/README.md").read_text()
    assert f"{file.training['valid_loss']:.4f}" in said
    assert f"{file.training['step']:,} steps" in said


def test_it_writes_a_play():
    sampler = Sampler.from_file(PATH, seed=1, temperature=0.7)
    sampler.feed("ROMEO:")
    text = sampler.generate(600)
    assert len(text) == 600
    assert text.count("\n\n") >= 1, "speeches are told apart"
    words = text.lower().split()
    assert sum(word in {"the", "and", "to", "i", "of", "my", "you", "a", "that", "in", "is"} for word in words) > 10


def test_every_command_takes_its_name(run: Run):
    Path("text.txt").write_text("To be, or not to be.\n")
    assert run("sample", "shakespeare", "--length", "5", "--seed", "1")[0] == 0
    assert run("score", "shakespeare", "--text", "To be")[0] == 0
    assert run("eval", "shakespeare", "text.txt")[0] == 0
    assert run("check", "shakespeare")[0] == 0
    assert json.loads(run("info", "shakespeare", "--json")[1])["path"] == str(PATH)
    # The others find it too, and refuse what it is.
    assert "the model is in int8 already" in run("export", "shakespeare", "mine.safetensors", "--quantize", "int8")[2]
    gap = "--before", "To ", "--after", " or", "--length", "2"
    assert "--bidirectional" in run("fill", "shakespeare", *gap)[2]


def test_every_door_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    file = read_model("shakespeare")
    assert file.sha256 == read_model(PATH).sha256
    assert chargen.load_model("shakespeare").config == file.config
    settings = {"length": 3, "seed": 1}
    assert chargen.generate("shakespeare", **settings) == chargen.generate(file, **settings)
    assert repr(chargen.score("shakespeare", "To be")) == repr(chargen.score(file, "To be"))
    assert repr(chargen.evaluate("shakespeare", "To be")) == repr(chargen.evaluate(file, "To be"))
    assert Sampler("shakespeare", seed=1).generate(3) == Sampler.from_file("shakespeare", seed=1).generate(3)


def test_what_exists_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert model_path("shakespeare") == PATH
    save_model("shakespeare", small_model())
    assert model_path("shakespeare") == Path("shakespeare")
    Path("shakespeare").unlink()
    Path("shakespeare").mkdir()
    with pytest.raises(ModelFileError, match=r"^folder shakespeare holds no model\.safetensors"):
        model_path("shakespeare")
    Path("shakespeare").rmdir()
    for path in ("runs/shakespeare", "./shakespeare", "shakespeare/"):
        with pytest.raises(ModelFileError, match=rf"^no model file or run folder {path}"):
            model_path(path)
    Path("shakespeare").symlink_to("nowhere")
    with pytest.raises(ModelFileError, match=r"^no model file or run folder shakespeare"):
        model_path("shakespeare")


@pytest.mark.parametrize(
    ("mistyped", "there", "meant"),
    [
        ("shakespaere", [], "shakespeare"),
        ("Shakespeare", ["tinyshakespeare.txt"], "shakespeare"),
        ("shakespeare-2.safetensor", ["shakespeare-2.safetensors"], "shakespeare-2.safetensors"),
    ],
)
def test_a_mistyped_name_is_suggested(
    mistyped: str, there: list[str], meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for name in there:
        Path(name).touch()
    with pytest.raises(ModelFileError, match=f"; did you mean {meant}\\?$"):
        read_model(mistyped)


def test_help_and_readme_name_it(run: Run):
    for page in (run("--help")[1], run("sample", "--help")[1], (ROOT / "README.md").read_text("utf-8")):
        for name in named_models():
            assert name in page
