"""Names of files in any bytes, and machines that speak no UTF-8: all works, and nothing reaches the screen raw."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from chargen.storage.model_file import read_model
from chargen.storage.run_state import read_run_state
from tests.commands import QUICK, TEXT, Result, Run

NAMES = {
    "a space": b"a text",
    "quotes": b'it\'s "mine" $HOME `x`',
    "a newline": b"two\nlines",
    "an escape": b"\x1b[31mred",
    "not UTF-8": b"caf\xe9\xff",
    "other scripts": "пісня 詩 🎵".encode(),
    "right to left": "abc\u202edef".encode(),
    "like an option": b"--help",
    "long": b"n" * 200,
}


@pytest.fixture
def run(run: Run) -> Run:
    """Run commands that write nothing raw."""

    def run_command(*arguments: str) -> Result:
        result = run(*arguments)
        for character in result.out + result.err:
            assert character in "\n\t" or character.isprintable(), ascii(result)
        return result

    return run_command


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse some of these names")
@pytest.mark.parametrize("name", NAMES)
def test_a_path_may_hold_anything(name: str, run: Run) -> None:
    text = os.fsdecode(NAMES[name])
    out = f"runs/{text}"
    Path(text).write_text(TEXT)
    code, _, err = run("train", *QUICK, "--steps", "4", f"--out={out}", "--", text)
    assert code == 0, err
    model = read_model(out)
    assert model.training["step"] == 4
    state = read_run_state(out)
    assert [os.path.basename(source) for source in state.settings["corpus"]["sources"]["train"]] == [text]
    assert run("train", f"--resume={out}", "--steps", "6")[0] == 0
    code, _, err = run("sample", "--length", "5", "--seed", "1", f"--state-out={text}.state", "--", out)
    assert code == 0, err
    assert Path(f"{text}.state").exists()
    for command in (
        ["eval", "--", out, text],
        ["info", "--", out],
        ["export", "--quantize", "int8", "--", out, f"{text}2.safetensors"],
    ):
        code, _, err = run(*command)
        assert code == 0, (command, err)
    code, _, err = run("eval", "--", out, f"{text}.missing")
    assert code == 3
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("encoding", "written"), [("ascii", "\\udcc3"), pytest.param("cp437", "\\udcc3", marks=pytest.mark.slow)]
)
def test_a_machine_of_another_encoding_writes_the_same_files(encoding: str, written: str, tmp_path: Path) -> None:
    """A console of another code page gets what it can show; files and pipes of text are UTF-8 everywhere."""
    (tmp_path / "text.txt").write_text("né en été, là-bas — ça va.\n" * 100, encoding="utf-8")
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": encoding,
    }
    program = f"""
import os, sys
from chargen.cli.main import main
def run(*arguments):
    try:
        main(arguments)
    except SystemExit as error:
        return error.code
assert run("train", "text.txt", *{QUICK!r}, "--steps", "4", "--out", "run") == 0
assert run("sample", "run", "--seed", "1", "--length", "50", "--temperature", "3") == 0
assert run("sample", "run", "--prime", "\\U0001f3b5", "--length", "5") == 3
assert run("eval", os.fsdecode(b"nowhere-\\xc3\\xa9"), "text.txt") == 4
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    err = done.stderr.decode(encoding)
    assert done.returncode == 0, err
    assert set(done.stdout.decode("utf-8")) <= set("né en été, là-bas — ça va.\n")
    assert len(done.stdout.decode("utf-8")) == 50
    assert f"nowhere-{written}" in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["-run", "a run", "it's", "--resume=x"])
def test_what_a_command_says_to_run_next_can_be_run(name: str, run: Run) -> None:
    code, _, err = run("train", "text.txt", *QUICK, "--steps", "4", f"--out={name}")
    assert code == 0
    words = shlex.split(err.splitlines()[-1].partition("now: chargen ")[2])
    assert run(*words, "--seed", "1", "--length", "3")[0] == 0
