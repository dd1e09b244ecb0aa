"""An error is one line that says what was wrong and what to do, with its exit code."""

import errno
import shutil
from typing import Any

import click
import pytest

from chargen.cli import info
from chargen.cli.main import NAMES, import_command, main
from chargen.cli.options import PATH, PATH_TEXT
from chargen.storage.model_file import read_model
from chargen.storage.quantize import quantization_of
from tests.commands import TEXT, is_one_line

COMMANDS_OF_A_MODEL = ("sample", "fill", "eval", "score", "check", "info")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train"], 2, "no text to learn"),
        (["train", "nothing.txt"], 3, "'nothing.txt'"),
        (["train", "text.txt", "--hidden-size", "0"], 2, "--hidden-size is 0: it must be 1 to 65,536"),
        (["train", "text.txt", "--dropout", "1"], 2, "--dropout is 1.0: it must be at least 0 and less than 1"),
        (["train", "text.txt", "--lr", "nan"], 2, "--lr is nan"),
        (["train", "text.txt", "--steps", "x"], 2, "--steps is 'x': it must be a whole number, 1 to 1,000,000,000,000"),
        (["train", "text.txt", "--steps", "3", "--epochs", "3"], 2, "one budget twice"),
        (["train", "text.txt", "--valid", "text.txt", "--valid-fraction", "0.2"], 2, "give one"),
        (["train", "text.txt", "--device", "tpu"], 2, "tpu"),
        (["train", "text.txt", "--cell", "rnn"], 2, "rnn"),
        (["train", "text.txt", "--encoding", "klingon"], 2, "klingon"),
        (["train", "text.txt", "--hiden-size", "3"], 2, "--hidden-size"),
        (["sample", "model", "--temprature", "3"], 2, "--temperature"),
        (["trian", "text.txt"], 2, "there is no command 'trian'; did you mean train?"),
        (["smaple"], 2, "there is no command 'smaple'; did you mean sample?"),
        (
            ["xyzzy"],
            2,
            "there is no command 'xyzzy'; there are train, compare, sample, write, fill, eval, score, inspect, check, "
            "novelty, corpus, info, export",
        ),
        (["sample", "model", "-t", "-1"], 2, "--temperature is -1.0"),
        (["sample", "model", "-n", "0"], 2, "--num is '0': it must be a whole number, at least 1"),
        (["fill", "model", "-n", "0"], 2, "--num is '0': it must be a whole number, 1 to 1,000,000"),
        (["train", "bad.txt"], 3, "bad.txt: line 2, offset 5: bytes e9"),
        (["train", "tiny.txt"], 3, "at least 2 characters, found 0"),
        (["train", "empty.txt"], 3, "at least 2 characters, found 0"),
        (["train", "tiny.txt", "--batching", "random"], 3, "found 0"),
        (["train", "--resume", "nowhere"], 4, "nowhere"),
        (["train", "text.txt", "--resume", "nowhere"], 4, "nowhere"),
        (["train", "--out", "run", "--resume", "nowhere"], 2, "--out cannot be given with --resume"),
        (["train", "text.txt", "--config", "nowhere.toml"], 2, "nowhere.toml"),
        (["train", "text.txt", "--config", "bad.toml"], 2, "no setting 'hiden_size'; did you mean hidden_size?"),
        (["train", "text.txt", "--config", "wrong.toml"], 2, "hidden_size is True"),
        (["sample", "nowhere"], 4, "nowhere"),
        (["sample", "text.txt"], 4, "text.txt is not a good model file"),
        (["sample", "model", "--adapt", "1"], 2, "--adapt learns from the prime"),
        (["eval", "model", "text.txt", "--dynamic"], 2, "give --tune"),
        (["eval", "model", "text.txt", "--tune", "text.txt"], 2, "give both"),
        (["sample", "model", "--temperature", "-1"], 2, "--temperature is -1.0"),
        (["sample", "model", "--prime", "xyz"], 3, "'x' (U+0078), 'y' (U+0079), 'z' (U+007A), first at position 0"),
        (["sample", "model", "--prime", "a", "--prime-file", "text.txt"], 2, "give one"),
        (["sample", "model", "--num", "0"], 2, "--num is '0': it must be a whole number, at least 1"),
        (
            ["sample", "model", "--seed", "x"],
            2,
            "--seed is 'x': it must be a whole number, 0 to 18,446,744,073,7",
        ),
        (["sample", "model", "--temperature", "1e400"], 2, "--temperature is inf: it must be finite, at least 0"),
        (["sample", "model", "--temperature", "nan"], 2, "--temperature is nan: it must be a number, at least 0"),
        (["sample", "model", "--config", "num.toml"], 2, "chargen: num.toml: num is 0: it must be a whole number, at"),
        (["sample", "model", "--config", "stop.toml"], 2, "chargen: stop.toml: stop is 1: it must be text"),
        (
            ["train", "text.txt", "--config", "steps.toml"],
            2,
            "steps.toml: steps is 1.5: it must be a whole number, 1 to",
        ),
        (["sample", "model", "--state-in", "text.txt"], 4, "text.txt"),
        (["sample", "model", "--prime", "x", "--unknown", "replace"], 3, "no unknown symbol"),
        (["eval", "model", "text.txt", "--unknown", "error"], 3, "unknown to the model"),
        (["eval", "model", "text.txt", "--unknown", "replace"], 3, "no unknown symbol"),
        (["eval", "model", "other.txt"], 3, "at least 2 characters that the model knows, found 0; 300 unknown ones"),
        (
            ["eval", "model", "text.txt", "--dynamic", "--tune", "text.txt"],
            2,
            "--tune is part of the text that is scor",
        ),
        (["eval", "model", "nowhere.txt"], 3, "nowhere.txt"),
        (["info", "nowhere"], 4, "nowhere"),
        (["info", "."], 4, "holds no model.safetensors"),
        (["export", "model", "small.safetensors"], 2, ".safetensors would be a copy of the model: give --quantize"),
        (
            ["export", "model", "small.safetensors", "--quantize", "x"],
            2,
            "--quantize is 'x': it must be one of int8, b",
        ),
        (
            ["export", "model", "small.onnx", "--quantize", "int8"],
            2,
            "--quantize is not for ONNX files, such as small.onn",
        ),
        (["export", "model", "a/small.PT", "--quantize", "int8"], 2, "a/small.PT has another ending than what export"),
        (["export", "model", "small.gguf", "--quantize", "bf16"], 2, "what export writes: model files (.safetensors)"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(run, model, tmp_path, arguments, code, words) -> None:
    (tmp_path / "bad.txt").write_bytes(b"ab\r\nc\xe9d")
    (tmp_path / "tiny.txt").write_text("a")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "other.txt").write_text("日" * 300)
    (tmp_path / "bad.toml").write_text("hiden_size = 3")
    (tmp_path / "wrong.toml").write_text("hidden_size = true")
    (tmp_path / "num.toml").write_text("num = 0")
    (tmp_path / "stop.toml").write_text("stop = [1]")
    (tmp_path / "steps.toml").write_text("steps = 1.5")
    before = sorted(tmp_path.rglob("*"))
    result = run(*arguments)
    assert result.code == code
    last = result.err.splitlines(keepends=True)[-1]
    assert is_one_line(last), result.err
    assert words in last
    assert result.out == ""
    assert sorted(tmp_path.rglob("*")) == before, "an error leaves nothing behind"


@pytest.mark.parametrize("words", [["sample"], ["eval", "model"], ["sample", "model", "ROMEO"]])
def test_words_that_are_missing_or_too_many_are_told_with_where_to_look(run, words) -> None:
    result = run(*words)
    assert result.code == 2
    assert result.err.endswith(f" See chargen {words[0]} --help.\n")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["train", "text.txt", "--out", ""], "--out"),
        (["train", "--resume", ""], "--resume"),
        (["train", "text.txt", "--init-from", ""], "--init-from"),
        (["train", "text.txt", "--config", ""], "--config"),
        (["train", "text.txt", "--config", "out.toml"], "out.toml: out"),
        (["sample", "model", "--state-in", ""], "--state-in"),
        (["sample", "model", "--state-out", ""], "--state-out"),
        (["export", "model", "", "--quantize", "int8"], "OUT"),
        *(([name, ""] + ["x"] * (name == "eval"), "MODEL") for name in COMMANDS_OF_A_MODEL),
    ],
)
def test_an_empty_path_is_not_the_folder_that_one_is_in(run, model, tmp_path, arguments, name) -> None:
    (tmp_path / "out.toml").write_text("out = ''")
    refused = run(*arguments)
    assert (refused.code, refused.out, refused.err) == (2, "", f"chargen: {name} is '': it must be a path\n")


def test_every_path_is_of_the_type_that_refuses_an_empty_one() -> None:
    for name in NAMES:
        for parameter in import_command(name).params:
            assert not isinstance(parameter.type, click.Path) or parameter.type in (PATH, PATH_TEXT), (
                name,
                parameter.name,
            )


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["train", "txet.txt"], "text.txt"),
        (["train", "text"], "text.txt"),
        (["train", "pyhton"], "python"),
        (["train", "text.txt", "--valid", "books/on.txt"], "books/one.txt"),
        (["train", "boosk/noe.txt"], "books/one.txt"),
        (["train", "--resume", "modle"], "model"),
        (["train", "text.txt", "--init-from", "modle"], "model"),
        (["train", "text.txt", "--config", "text.tml"], "text.toml"),
        (["sample", "modle"], "model"),
        (["sample", "model/model.safetensor"], "model/model.safetensors"),
        (["sample", "novel"], "checkpoints/novel"),
        (["sample", "model", "--prime-file", "txet.txt"], "text.txt"),
        (["eval", "model", "txet.txt"], "text.txt"),
        (["info", "modle"], "model"),
    ],
)
def test_a_name_mistyped_is_suggested(run, model, tmp_path, arguments, meant) -> None:
    (tmp_path / "books").mkdir()
    (tmp_path / "books/one.txt").write_text(TEXT)
    (tmp_path / "text.toml").write_text("")
    shutil.copytree(model, tmp_path / "checkpoints/novel")
    refused = run(*arguments)
    assert refused.code in (2, 3, 4)
    assert is_one_line(refused.err)
    assert refused.err.endswith(f"; did you mean {meant}?\n")


@pytest.mark.parametrize("name", ["small.safetensors", "SMALL.SAFETENSORS", "a.txt.safetensors"])
def test_a_model_file_has_an_ending_that_says_so(run, model, name) -> None:
    assert run("export", "model", name, "--quantize", "int8").code == 0
    assert quantization_of(read_model(name).arrays) == "int8"


@pytest.mark.parametrize(("error", "last"), [
    (MemoryError(), "chargen: out of memory; lower --batch-size"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "chargen: out of memory; lower"),
    (OSError(errno.ENOMEM, "Cannot allocate memory", "text.txt"), "chargen: out of memory; lower"),
    (PermissionError(errno.EACCES, "Permission denied", "out of memory.txt"), "chargen: out of memory.txt: Permission"),
    (OSError(errno.EIO, "Input/output error"), "chargen: output: Input/output error"),
    (shutil.SameFileError("a and a are the same file"), "chargen: a and a are the same file"),
    (ImportError("libx.so: cannot open", name="x"), "chargen: a package cannot be loaded: libx.so: cannot open; is"),
    (SystemError("error return without exception set"), "chargen: a package cannot be loaded: error return"),
])  # fmt: skip
def test_what_a_library_raises_is_told_for_what_it_is(run, model, monkeypatch, error, last) -> None:
    def failing(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(info, "read_model", failing)
    monkeypatch.setattr("chargen.cli.main.redirect_to_null", lambda stream: None)  # it would close the captured one
    result = run("info", "model")
    assert result.code == 1
    assert result.err.startswith(last)
    assert is_one_line(result.err)


@pytest.mark.parametrize("error", [
    RuntimeError("a bug"), ImportError("no name", name="chargen.errors"), EOFError("a file that ends too soon"),
])  # fmt: skip
def test_what_is_our_own_mistake_is_not_hidden(run, model, monkeypatch, error) -> None:
    def failing(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(info, "read_model", failing)
    monkeypatch.setattr("chargen.cli.main.redirect_to_null", lambda stream: None)  # it would close the captured one
    with pytest.raises(type(error)):
        main(["info", str(model)])
