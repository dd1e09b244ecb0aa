"""The commands as a person meets them: words, exit codes, streams, signals."""

import contextlib
import errno
import importlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
from conftest import small_model
from test_resume import assert_same_runs
from test_terminal import Terminal
from yardstick import HANG

from chargen import __version__
from chargen.cli import info
from chargen.cli.main import COMMANDS, main
from chargen.cli.options import PATH
from chargen.cli.report import describe_loss
from chargen.decoding.choose import WRITING_DEFAULTS
from chargen.model.language_model import CharModel
from chargen.sampling.rounding import MAX_LINE, MAX_WORD
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import FILE_NAME, read_model, save_model
from chargen.storage.quantize import quantization_of

TEXT = "Call me Ishmael. Some years ago, never mind how long precisely, I went to sea.\n" * 40
QUICK = [
    "--hidden-size",
    "12",
    "--embedding-size",
    "6",
    "--batch-size",
    "4",
    "--seq-length",
    "8",
    "--precision",
    "fp32",
    "--preview",
    "0",
]

COMMANDS_OF_A_MODEL = ("sample", "fill", "eval", "score", "check", "info")


class Result:
    """What a command did."""

    def __init__(self, code: object, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a command in this process, in a folder of its own with text.txt."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)

    def run_command(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(exit_info.value.code, captured.out, captured.err)

    return run_command


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A run folder with a model that writes characters of all kinds."""
    save_model(tmp_path / "model" / FILE_NAME, small_model(characters="abcdefgh \n\x1b\u202eé"))
    return tmp_path / "model"


def command(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-W", "error", "-m", "chargen", *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def one_line(text: str) -> bool:
    return text.startswith("chargen: ") and text.count("\n") == 1 and "Traceback" not in text


def test_from_a_text_to_a_text(run) -> None:
    trained = run("train", "text.txt", "--steps", 10, *QUICK)
    assert trained.code == 0
    assert trained.out == ""
    assert "chargen sample checkpoints/text" in trained.err
    sampled = run("sample", "checkpoints/text", "--length", 50, "--seed", 1)
    assert sampled.code == 0
    assert len(sampled.out) == 50
    assert set(sampled.out) <= set(TEXT)
    assert run("sample", "checkpoints/text/model.safetensors", "--length", 50, "--seed", 1).out == sampled.out


def test_the_same_name_twice_loses_nothing(run) -> None:
    for expected in ("checkpoints/text", "checkpoints/text-2", "checkpoints/text-3"):
        assert f"sample {expected}\n" in run("train", "text.txt", "--steps", 1, *QUICK).err
    refused = run("train", "text.txt", "--steps", 1, "--out", "checkpoints/text", *QUICK)
    assert refused.code == 2
    assert one_line(refused.err.splitlines(keepends=True)[-1])
    assert "already holds a run" in refused.err


def test_the_losses_told_are_of_the_whole_split_and_eval_agrees(run) -> None:
    trained = run("train", "text.txt", "--steps", 10, *QUICK)
    reported = float(re.search(r"valid +([\d.]+) nats, ([\d.]+) bits", trained.err)[1])
    size = len(TEXT) - len(TEXT) * 9 // 10
    assert f"on the whole validation text: {size - 1:,} characters" in trained.err
    scored = json.loads(run("eval", "checkpoints/text", "text.txt", "--part", "valid", "--json").out)
    assert scored["characters"] == size - 1
    assert scored["nats_per_character"] == pytest.approx(reported, abs=1e-3)
    plain = run("eval", "checkpoints/text", "text.txt")
    assert "nats per character" in plain.out
    assert "bits per byte" in plain.out
    assert f"{len(TEXT) - 1:,} characters counted" in plain.err


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
        (["xyzzy"], 2, "there is no command 'xyzzy'; there are train, sample, fill, eval, score, check, info, export"),
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
        (["export", "model", "small.safetensors"], 2, "--quantize is missing: it must be one of int8, bf16"),
        (
            ["export", "model", "small.safetensors", "--quantize", "x"],
            2,
            "--quantize is 'x': it must be one of int8, b",
        ),
        (["export", "model", "small.onnx", "--quantize", "int8"], 2, "small.onnx would not be ONNX: export writes mod"),
        (["export", "model", "a/small.PT", "--quantize", "int8"], 2, "a/small.PT would not be PyTorch: export writes"),
        (["export", "model", "small.gguf", "--quantize", "bf16"], 2, "small.gguf would not be GGUF"),
        (["export", "model", "small.txt", "--quantize", "bf16"], 2, "would not be text: export writes model files, na"),
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
    assert one_line(last), result.err
    assert words in last
    assert result.out == ""
    assert sorted(tmp_path.rglob("*")) == before, "an error leaves nothing behind"


def test_the_command_line_goes_before_the_file_and_the_file_before_the_default(run, tmp_path) -> None:
    (tmp_path / "run.toml").write_text(
        'sources = ["text.txt"]\nout = "here"\nhidden-size = 20\nsteps = 3\ncell = "gru"\npreview = 0\n'
        "tie_weights = true\n"
    )
    assert run("train", "--config", "run.toml", "--hidden-size", 12).code == 0
    file = read_model(tmp_path / "here")
    assert (file.config.hidden_size, file.config.cell, file.config.num_layers) == (12, "gru", 2)
    assert file.config.tie_weights
    assert file.training["settings"]["steps"] == 3
    assert file.training["settings"]["log_every"] == 20


def test_valid_and_test_may_be_texts_of_their_own(run, tmp_path) -> None:
    (tmp_path / "v.txt").write_text(TEXT[:500])
    (tmp_path / "w.txt").write_text(TEXT[:300])
    result = run("train", "text.txt", "--valid", "v.txt", "--test", "w.txt", "--steps", 2, *QUICK)
    assert f"train {len(TEXT):,}, valid 500, test 300" in result.err
    assert "on the whole validation text: 499 characters" in result.err
    assert "on the whole test text: 299 characters" in result.err


def test_a_model_of_bytes_tells_its_losses_per_character_and_per_byte(run, tmp_path) -> None:
    """Of a text whose characters have three bytes or one, as eval counts them."""
    text = "床前明月光，疑是地上霜。\nab 舉頭望明月\n" * 60
    (tmp_path / "poem.txt").write_text(text)
    log = run("train", "poem.txt", "--unit", "byte", "--steps", 3, "--eval-every", 1, *QUICK).err
    # A border inside a character moves back to its first byte.
    cut = len(text.encode()[: len(text.encode()) * 9 // 10].decode(errors="ignore"))
    counted = text[cut + 1 :]
    line = re.search(r"valid +([\d.]+) nats, ([\d.]+) bits per character, ([\d.]+) bits per byte, (.*)", log)
    assert line, log
    assert line[4] == f"on the whole validation text: {len(counted):,} characters, {len(counted.encode()):,} bytes"
    scored = json.loads(run("eval", "checkpoints/poem", "poem.txt", "--part", "valid", "--json").out)
    for told_figure, key in zip(
        line.groups(), ("nats_per_character", "bits_per_character", "bits_per_byte"), strict=False
    ):
        assert float(told_figure) == pytest.approx(scored[key], rel=1e-4)
    assert (scored["characters"], scored["bytes"]) == (len(counted), len(counted.encode()))
    info = run("info", "checkpoints/poem").out
    assert f"{line[2]} bits per character, {line[3]} bits per byte" in info
    # The lines while it trains: losses as in the metrics, speed in characters as chars_per_second.
    metrics = [json.loads(line) for line in (tmp_path / "checkpoints/poem/metrics.jsonl").read_text().splitlines()]
    shown = re.findall(r"valid ([\d.]+) \(([\d.]+) bits/char\)  [\d,]+ chars/s", log)
    assert len(shown) == 3
    for (nats, bits), row in zip(shown, metrics, strict=False):
        assert float(nats) == pytest.approx(row["valid_loss"], abs=1e-3)
        assert float(bits) == pytest.approx(row["valid_loss"] / math.log(2), abs=1e-3)
    assert "bits/byte" not in log
    assert "bytes/s" not in log


def test_info_says_from_what_when_and_how_long_a_model_was_trained(run, tmp_path) -> None:
    (tmp_path / "v.txt").write_text(TEXT[:300])
    train = "train", "text.txt", "--valid", "v.txt", "--lr", 1 / 300, *QUICK
    assert run(*train, "--steps", 7, "--out", "run").code == 0
    os.utime(tmp_path / "run" / FILE_NAME, (1_000_000_000, 1_000_000_000))
    shown = run("info", "run").out
    assert re.search(rf"^trained on +{len(TEXT):,} characters of text.txt, validated on v.txt$", shown, re.MULTILINE)
    written = time.strftime("%Y-%m-%d %H:%M", time.localtime(1_000_000_000))
    assert re.search(rf"^written +{written}$", shown, re.MULTILINE)
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert re.search(rf"^reached +step 7, epoch {last['epoch']:.2f}, in [\d a-z]+$", shown, re.MULTILINE)
    assert "lr 0.00333333," in shown
    assert not re.search(r"\d\.\d{9}", shown)
    fields = json.loads(run("info", "run", "--json").out)
    assert fields["written"] == "2001-09-09T01:46:40+00:00"
    assert fields["seconds"] == last["seconds"]
    assert fields["training"]["sources"] == {"train": ["text.txt"], "valid": ["v.txt"]}
    assert "seconds" not in fields["training"], "a clock would make each file another one"
    # Without its run folder, a model of a budget in steps does not know how long it took; one of minutes does.
    os.rename(tmp_path / "run" / FILE_NAME, tmp_path / "alone.safetensors")
    assert re.search(r"^reached +step 7, epoch \d+\.\d\d$", run("info", "alone.safetensors").out, re.MULTILINE)
    assert json.loads(run("info", "alone.safetensors", "--json").out)["seconds"] is None
    assert run(*train, "--minutes", 0.02, "--out", "timed").code == 0
    os.rename(tmp_path / "timed" / FILE_NAME, tmp_path / "alone.safetensors")
    assert re.search(
        r"^reached +step [\d,]+, epoch [\d.]+, in [\d a-z]+$", run("info", "alone.safetensors").out, re.MULTILINE
    )


def test_a_model_does_not_tell_where_its_texts_lay(run, tmp_path) -> None:
    """The same bytes, whatever the folder; and a name of a text may be anything, as long as any, and one of many."""
    for folder in ("here", "there/deeper"):
        (tmp_path / folder / "texts").mkdir(parents=True)
        for number in range(9):
            (tmp_path / folder / "texts" / f"{'long' * 40}{number}.txt").write_text(TEXT[number * 100 :][:100])
        train = "train", tmp_path / folder / "texts", *sorted((tmp_path / folder / "texts").iterdir())
        assert run(*train, "--steps", 2, "--out", tmp_path / folder / "run", *QUICK).code == 0
    models = [(tmp_path / folder / "run" / FILE_NAME).read_bytes() for folder in ("here", "there/deeper")]
    assert models[0] == models[1]
    names = read_model(tmp_path / "here/run").training["sources"]["train"]
    assert names == ["texts", *[f"{'long' * 40}{number}.txt"[:100] + "…" for number in range(4)], "and 5 more"]
    assert "characters of texts, long" in run("info", "here/run").out


@pytest.mark.parametrize(
    "line", [b"", b"[1]", b"{}", b'{"seconds": "x"}', b'{"seconds": -1}', b'{"seconds": NaN}', b"{" * 9999, b"\xff"]
)
def test_metrics_that_say_nothing_of_time_are_passed_over(run, model, line) -> None:
    (model / "metrics.jsonl").write_bytes(line)
    assert run("info", "model").code == 0
    assert json.loads(run("info", "model", "--json").out)["seconds"] is None


@pytest.mark.parametrize("counts", [(10**400, 10**400), (-5, 7), (10**400, 3), (9, 3), ("9", 9)])
def test_info_says_nothing_of_bytes_that_cannot_be(counts) -> None:
    summary = dict(zip(("valid_characters", "valid_bytes"), counts, strict=True))
    assert describe_loss({"valid_loss": 2.0, **summary}, "valid") == "2.0000 nats, 2.8854 bits per character"


def test_a_name_with_a_line_end_makes_no_line_of_its_own(run, tmp_path) -> None:
    (tmp_path / "b\nsaved    all is good.txt").write_text("".join(f"{n * 7919 % 1009} of {n}\n" for n in range(200)))
    result = run("train", "b\nsaved    all is good.txt", "--out", "run", *QUICK)
    assert result.code == 0
    assert not any(line.startswith("saved    all") for line in result.err.splitlines())


def test_a_file_of_an_impossible_date_has_none(run, model, monkeypatch) -> None:
    with contextlib.suppress(OSError):  # not every disk takes it
        os.utime(model / FILE_NAME, (2**60, 2**60))
    shown = run("info", "model")
    assert shown.code == 0
    assert json.loads(run("info", "model", "--json").out).keys() >= {"written", "seconds"}


def test_streams_texts_from_standard_input() -> None:
    process = command("eval", "nowhere", "-", stdin=subprocess.PIPE)
    _, err = process.communicate(b"text")
    assert process.returncode == 4
    assert one_line(err.decode())


def test_a_second_signal_exits_at_once_and_harms_nothing(tmp_path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    process = command("train", "text.txt", "--steps", "1000000000", "--out", "run", *QUICK, cwd=tmp_path)
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(metrics, process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=HANG)
    assert process.returncode in (130, 143)
    if (tmp_path / "run" / FILE_NAME).exists():
        read_model(tmp_path / "run")


def test_two_runs_never_share_a_folder(tmp_path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    first = command("train", "text.txt", "--steps", "1000000000", "--out", "run", *QUICK, cwd=tmp_path)
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(metrics, first)
    second = command("train", "text.txt", "--steps", "1", "--out", "run", *QUICK, cwd=tmp_path)
    _, err = second.communicate(timeout=HANG)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=HANG)
    assert second.returncode in (1, 2)
    assert one_line(err.decode().splitlines(keepends=True)[-1])


def wait_for(metrics: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the run has written its first line."""
    wait_until(lambda: metrics.exists() and metrics.stat().st_size > 0, process)


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Until something has happened in a process that goes on."""
    end = time.monotonic() + HANG
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def test_head_ends_quietly(model) -> None:
    process = command("sample", model, "--length", "1000000", "--seed", "1")
    assert process.stdout.read(10)
    process.stdout.close()
    _, err = process.communicate()
    assert err == b""
    assert process.returncode == 0


def test_in_a_pipe_the_text_is_raw_utf8_whatever_the_locale(model) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    out, err = command("sample", model, "--length", "400", "--seed", "1", env=environment).communicate()
    assert err == b""
    text = out.decode()
    assert len(text) == 400
    assert {"\x1b", "\u202e", "é"} <= set(text)


def test_on_a_terminal_nothing_steers_the_terminal(model) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "chargen", "sample", str(model), "--length", "400", "--seed", "1"]
    process = subprocess.Popen(words, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 4096):
            shown += block
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    text = shown.decode()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b" in text
    assert "\\u202e" in text
    assert text.endswith("\n")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["train", "--help"], ["sample", "--help"], ["info", "MODEL"],
                  ["sample", "MODEL", "--length", "5"], ["sample", "nowhere"]],
)  # fmt: skip
def test_torch_is_absent_where_it_is_not_needed(arguments, model) -> None:
    program = (
        "import sys\nfrom chargen.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    assert 'torch' not in sys.modules, 'torch was loaded'\n"
    )
    words = [str(model) if word == "MODEL" else word for word in arguments]
    done = subprocess.run([sys.executable, "-W", "error", "-c", program, *words], capture_output=True, check=False)
    assert b"torch was loaded" not in done.stderr
    assert done.returncode == (4 if "nowhere" in words else 0), done.stderr


def test_help_names_every_option_of_the_interface(run) -> None:
    shown = run("train", "--help").out
    learn = """out valid test valid-fraction test-fraction cell num-layers hidden-size embedding-size dropout
        bidirectional batching batch-size seq-length steps epochs minutes lr schedule clip-norm precision device seed
        eval-every resume"""
    for name in learn.split():
        assert f"--{name}" in shown
    shown = run("sample", "--help").out
    for name in ("length", "prime", "temperature", "top-k", "top-p", "min-p", "seed", "num", "stop"):
        assert f"--{name}" in shown
    assert {"Learn:", "Write:", "Judge:", "Files:"} <= set(run("--help").out.split("\n"))


def test_samples_in_json_lines_carry_log_probabilities(run, model) -> None:
    result = run("sample", model, "--length", 30, "--num", 3, "--seed", 5, "--prime", "abc", "--format", "jsonl")
    samples = [json.loads(line) for line in result.out.splitlines()]
    assert [sample["sample"] for sample in samples] == [0, 1, 2]
    assert all(len(sample["text"]) == len(sample["log_probs"]) == 30 for sample in samples)
    assert all(sample["prime"] == "abc" and sample["seed"] == 5 for sample in samples)
    alone = run("sample", model, "--length", 30, "--seed", 5, "--prime", "abc", "--no-echo")
    assert alone.out == samples[0]["text"]


def test_the_prime_is_printed_first_and_not_counted(run, model, tmp_path) -> None:
    plain = run("sample", model, "--length", 20, "--seed", 1, "--prime", "abc")
    assert plain.out.startswith("abc")
    assert len(plain.out) == 23
    (tmp_path / "prime.txt").write_text("abc")
    assert run("sample", model, "--length", 20, "--seed", 1, "--prime-file", "prime.txt").out == plain.out
    skipped = run("sample", model, "--length", 20, "--seed", 1, "--prime", "aXbYc", "--unknown", "skip", "--no-echo")
    assert skipped.out == plain.out[3:]


def test_a_text_goes_on_tomorrow(run, model) -> None:
    whole = run("sample", model, "--length", 60, "--seed", 3, "--prime", "ab").out
    first = run("sample", model, "--length", 25, "--seed", 3, "--prime", "ab", "--state-out", "state").out
    second = run("sample", model, "--length", 35, "--state-in", "state").out
    assert first + second == whole


def test_a_seed_that_was_drawn_is_told(run, model) -> None:
    drawn = run("sample", model, "--length", 40)
    seed = re.search(r"seed (\d+)", drawn.err)[1]
    assert run("sample", model, "--length", 40, "--seed", seed).out == drawn.out
    assert (
        run("sample", model, "--length", 40, "--seed", 0).out == run("sample", model, "--length", 40, "--seed", 0).out
    )


def test_samples_in_a_pipe_can_be_told_from_text(run, model) -> None:
    arguments = ["sample", model, "--length", 40, "--seed", 5, "--prime", "abc"]
    lines = [json.loads(line)["text"] for line in run(*arguments, "--num", 3, "--format", "jsonl").out.splitlines()]
    several = run(*arguments, "--num", 3)
    assert several.out.split("\0") == ["abc" + text for text in lines]
    assert several.err == "", "headings would stand without their texts"
    assert run(*arguments, "--num", 3, "--separator", "\n===\n").out.split("\n===\n") == several.out.split("\0")
    assert run(*arguments, "--num", 3, "--separator", "").out == several.out.replace("\0", "")
    assert run(*arguments, "--separator", "|").out == "abc" + lines[0]
    refused = run(*arguments, "--separator", "|", "--format", "jsonl")
    assert (refused.code, refused.out) == (2, "")
    assert "--separator does nothing with --format jsonl" in refused.err


def test_a_separator_may_hold_escapes_as_shells_hand_them_over(run, model) -> None:
    arguments = ["sample", model, "--length", 9, "--seed", 5, "--num", 3]
    texts = run(*arguments).out.split("\0")
    for typed, written in ((r"\n---\n", "\n---\n"), (r"\t\0\\n\d", "\t\0\\n\\d"), ("\n", "\n")):
        assert run(*arguments, "--separator", typed).out == written.join(texts)
    fill_help, sample_help, train_help = (run(name, "--help").out for name in ("fill", "sample", "train"))
    for shown in (fill_help, sample_help, train_help):
        assert r"\n is a line end, \t a tab]" in " ".join(shown.split())


def test_what_stands_between_files_may_hold_escapes_too(run, tmp_path) -> None:
    (tmp_path / "more.txt").write_text(TEXT)
    assert run("train", "text.txt", "more.txt", "--between", r"\t\n", "--steps", 2, *QUICK).code == 0
    assert "\t" in read_model("checkpoints/text").vocabulary.characters


@pytest.mark.parametrize("options", [["--stop", r"\n\n"], ["--prime", r"a\n"]])
def test_a_literal_line_end_is_told_where_the_model_has_no_backslash(run, model, options) -> None:
    refused = run("sample", model, *options)
    assert refused.code in (2, 3)
    assert one_line(refused.err)
    assert r"write a line end as $'\n', in most shells" in refused.err


def test_a_literal_line_end_is_noted_where_the_model_has_backslashes(run, tmp_path) -> None:
    save_model("code/model.safetensors", small_model(characters="".join(sorted("abn\\ewli \n"))))
    arguments = ["sample", "code", "--length", 9, "--seed", 1]
    note = r"note: --stop has a backslash and n, not a line end, which is $'\n' in most shells" + "\n"
    assert note in run(*arguments, "--stop", r"\n\n").err
    assert run(*arguments, "--stop", r"\newline", "--stop", "\n").err == ""
    assert note.replace("--stop", "--ban") in run(*arguments, "--ban", r"\n").err


def test_a_text_that_nobody_gave_a_length_ends_with_a_line_or_a_word(run, model) -> None:
    text = run("sample", model, "--seed", 1).out
    assert 500 <= len(text) <= 500 + MAX_LINE + MAX_WORD
    assert text.endswith("\n")
    whole = run("sample", model, "--seed", 1, "--length", 1000).out
    assert text == whole[: whole.index("\n", 499) + 1]
    for length in (0, 1, 499, 500):
        assert run("sample", model, "--seed", 1, "--length", length).out == whole[:length]
    begun = run("sample", model, "--seed", 1, "--state-out", "state").out
    onward = run("sample", model, "--state-in", "state", "--length", 1000 - len(text)).out
    assert begun + onward == whole


def test_sample_is_cooler_than_a_sampler_and_says_so(run, model) -> None:
    text = run("sample", model, "--seed", 1, "--length", 200).out
    file = read_model(model)
    assert text == Sampler(file, seed=1, **WRITING_DEFAULTS).generate(200) != Sampler(file, seed=1).generate(200)
    warm = run("sample", model, "--seed", 1, "--length", 200, "--temperature", 1, "--min-p", 0).out
    assert warm == Sampler(file, seed=1).generate(200)
    assert f"default: {WRITING_DEFAULTS['temperature']:g}" in " ".join(run("sample", "--help").out.split())
    assert "[default: 1; at least 0]" in " ".join(run("fill", "--help").out.split())


def test_help_says_of_what_the_log_probabilities_are(run) -> None:
    assert "log-probability of each character in nats, before temperature and filters" in " ".join(
        run("sample", "--help").out.split()
    )


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--stop", "aX"], 2, "--stop is 'aX', which is never written: the model does not have 'X' (U+0058)"),
        (["--stop", "ab", "--ban", "b"], 2, "--stop is 'ab', which is never written: --ban forbids 'b'"),
        (["--prime", "A\u00a0b"], 3, "write 'a' for 'A', ' ' for '\\xa0'; --unknown skip"),
    ],
)
def test_what_cannot_be_written_or_read_is_told_before_anything_is_written(run, model, options, code, words) -> None:
    refused = run("sample", model, *options)
    assert (refused.code, refused.out) == (code, "")
    assert one_line(refused.err)
    assert words in refused.err


def test_a_ban_that_does_nothing_is_told(run, model) -> None:
    plain = run("sample", model, "--seed", 1, "--length", 50, "--ban", "ab")
    assert plain.err == ""
    needless = run("sample", model, "--seed", 1, "--length", 50, "--ban", "aXb\u00a0")
    assert needless.out == plain.out
    words = "note: the model does not have 'X', '\\xa0': to ban that does nothing; write ' ' for '\\xa0'\n"
    assert needless.err == words


def test_stop_ends_the_text(run, model) -> None:
    text = run("sample", model, "--length", 500, "--seed", 1).out
    stopped = run("sample", model, "--length", 500, "--seed", 1, "--stop", text[100:104]).out
    assert stopped == text[: text.index(text[100:104]) + 4]


def test_info_tells_what_is_in_a_file(run, model) -> None:
    result = run("info", model)
    assert result.code == 0
    assert "LSTM 2 x 12" in result.out
    assert "\x1b" not in result.out
    fields = json.loads(run("info", model, "--json").out)
    assert fields["sha256"] == read_model(model).sha256
    assert fields["parameters"] == sum(array.size for array in read_model(model).arrays.values())
    assert fields["config"]["num_layers"] == 2


def test_minutes_are_wall_clock_from_the_start_of_the_process(run, monkeypatch) -> None:
    """On a clock of our own: the process was a minute old, and every step and window of a validation takes a second."""
    ticks, now = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]), [1000.0]
    born = ticks / os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.clock_gettime", lambda clock: {time.CLOCK_BOOTTIME: born + 60}[clock])
    read = CharModel.read

    def slow(*arguments: object, **options: object) -> object:
        now[0] += 1
        return read(*arguments, **options)

    monkeypatch.setattr(CharModel, "read", slow)
    assert (
        run("train", "text.txt", "--minutes", 2, "--eval-every", 40, "--dropout", 0, "--weight-decay", 0, *QUICK).code
        == 0
    )
    assert 45 < now[0] - 1000 <= 61
    assert 20 < read_model("checkpoints/text").training["step"] < 59


@pytest.mark.skipif(sys.platform != "linux", reason="needs to see that a process waits")
def test_a_signal_ends_a_wait_for_standard_input(tmp_path) -> None:
    process = command("train", "-", "--steps", "1", *QUICK, cwd=tmp_path, stdin=subprocess.PIPE)
    process.stdin.write(TEXT.encode() * 100)  # more than a pipe holds: when that is taken, it is being read
    process.stdin.flush()
    wait_until(lambda: state(process) == "S", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=HANG) == 143
    process.communicate()
    assert not (tmp_path / "checkpoints").exists()


def state(process: subprocess.Popen[bytes]) -> str:
    """R where it runs, S where it waits for something."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_full_device_is_one_line(model) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "wb") as full:
        words = [sys.executable, "-m", "chargen", "sample", str(model), "--length", "50", "--seed", "1"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert one_line(done.stderr.decode())


def test_eval_with_a_model_that_learns_while_it_reads(run, tmp_path) -> None:
    (tmp_path / "text.txt").write_text(TEXT[:1200])
    run("train", "text.txt", "--steps", 10, *QUICK)
    words = "eval", "checkpoints/text", "text.txt", "--part", "valid"
    plain = json.loads(run(*words, "--json").out)
    figures = json.loads(run(*words, "--dynamic", "--json").out)
    assert figures["static_nats_per_character"] == plain["nats_per_character"]
    assert figures["characters"] == plain["characters"]
    assert figures["nats_per_character"] < plain["nats_per_character"]
    assert figures["dynamic"]["tail"] == 1200 * 9 // 10
    assert figures["dynamic"]["lr"] > 0
    assert json.loads(run(*words, "--json").out) == plain
    (tmp_path / "other.txt").write_text(TEXT[:500][::-1])
    tuned = json.loads(run("eval", "checkpoints/text", "text.txt", "--dynamic", "--tune", "other.txt", "--json").out)
    assert tuned["dynamic"]["tail"] == 500
    result = run(*words, "--dynamic")
    assert f"{figures['nats_per_character']:.4f} nats per character" in result.out
    assert f"dynamic evaluation: {plain['nats_per_character']:.4f} nats without" in result.err


def test_rates_are_not_chosen_on_what_is_scored(run, tmp_path) -> None:
    """Neither on the same text, nor on one that contains it or lies within it, nor where two texts overlap."""
    draws = np.random.default_rng(0)
    text, more = ("".join(draws.choice(list("abcdefgh \n"), 6000)) for _ in range(2))
    save_model(tmp_path / "model" / FILE_NAME, small_model(scale=1.0, hidden_size=4, num_layers=1))
    texts = {
        "text.txt": text,
        "copy.txt": text,
        "longer.txt": more[:300] + text + more[300:400],
        "part.txt": text[2000:3500],
        "overlap.txt": more[:3000] + text[:2500],
        "other.txt": more,
    }
    for name, words in texts.items():
        (tmp_path / name).write_text(words)
    for name in texts:
        result = run("eval", "model", "text.txt", "--dynamic", "--tune", name, "--json")
        if name == "other.txt":
            assert result.code == 0
            continue
        assert (result.code, result.out) == (2, ""), name
        assert one_line(result.err)
        assert "--tune is part of the text that is scored, or holds it: choose rates on other text" in result.err
    # Of one file, the parts that are not scored may be used, and those are told apart.
    trained = {"settings": {"valid_fraction": 0.25, "test_fraction": 0.25}}
    file = replace(small_model(scale=1.0, hidden_size=4, num_layers=1), training=trained)
    save_model(tmp_path / "trained" / FILE_NAME, file)
    (tmp_path / "start.txt").write_text(text[:3000])
    words = "eval", "trained", "text.txt", "--part", "valid", "--dynamic", "--json"
    assert run(*words, "--tune", "start.txt").code == 0
    assert run(*words, "--tune", "text.txt").code == 2
    (tmp_path / "later.txt").write_text(text[2000:4000])
    assert run(*words, "--tune", "start.txt", "--tune", "later.txt").code == 2


def test_a_prime_that_is_learned_shapes_what_follows(run, tmp_path, model) -> None:
    (tmp_path / "prime.txt").write_text("abc" * 300)
    words = "sample", "model", "--prime-file", "prime.txt", "--no-echo", "--length", 600, "--seed", 1
    plain, learned = run(*words).out, run(*words, "--adapt", 30).out
    assert learned == run(*words, "--adapt", 30).out
    assert sum(map(learned.count, "abc")) > sum(map(plain.count, "abc")) + 50
    assert run(*words, "--adapt", 0).out == plain


def test_eval_does_not_take_a_part_of_one_text_for_another(run, tmp_path) -> None:
    (tmp_path / "v.txt").write_text(TEXT[:500])
    run("train", "text.txt", "--valid", "v.txt", "--steps", 2, "--out", "apart", *QUICK)
    refused = run("eval", "apart", "text.txt", "--part", "valid")
    assert refused.code == 2
    assert "no valid part was cut" in refused.err


@pytest.mark.parametrize("name", [name for group in COMMANDS.values() for name in group])
def test_every_command_can_be_quiet_and_help_is_short(run, name) -> None:
    result = run(name, "-h")
    assert result.code == 0
    assert re.search("-q, --quiet +Tell nothing", result.out)
    for long, short in (("--temperature", "-t"), ("--num ", "-n")):
        assert (f"{short}, {long}" in result.out) == (re.search(f" {long}", result.out) is not None)
    assert run("-V").out == run("--version").out == f"chargen, version {__version__}\n"


@pytest.mark.parametrize("words", [["sample"], ["eval", "model"], ["sample", "model", "ROMEO"]])
def test_words_that_are_missing_or_too_many_are_told_with_where_to_look(run, words) -> None:
    result = run(*words)
    assert result.code == 2
    assert result.err.endswith(f" See chargen {words[0]} --help.\n")


def test_a_quiet_command_tells_warnings_and_errors_only(run, model, tmp_path) -> None:
    (tmp_path / "long.txt").write_text("".join(f"{number * 7919 % 10007} of {number}\n" for number in range(10_000)))
    words = ["--steps", 6, "--eval-every", 1, "--preview", 50, "--quiet", *QUICK[:-2]]
    quiet = run("train", "long.txt", *words)
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    few = run("train", "text.txt", *words)
    assert few.code == 0
    assert "warning: 2,844 characters to learn from are few" in few.err
    assert all(line.startswith("warning: ") for line in few.err.splitlines())
    again = run("train", "--resume", "checkpoints/long", "-q", "--steps", 7)
    assert (again.code, again.err) == (0, "")
    assert run("train", "--resume", "checkpoints/long", "-q").err.startswith("chargen: checkpoints/long is complete")
    loud, still = run("sample", model, "--length", 9, "-t", 0), run("sample", model, "--length", 9, "-t", 0, "-q")
    assert "seed " in loud.err
    assert still.err == ""
    assert still.out == loud.out


def test_a_file_may_ask_for_quiet(run, model, tmp_path) -> None:
    (tmp_path / "some.toml").write_text("quiet = true\nlength = 9")
    quiet = run("sample", model, "--config", "some.toml")
    assert (quiet.code, quiet.err) == (0, "")


def test_a_quiet_command_shows_no_bar(run) -> None:
    with redirect_stderr(Terminal()) as terminal, pytest.raises(SystemExit):
        main(["train", "text.txt", "--steps", "3", "-q", *QUICK])
    assert "\r" not in terminal.getvalue()
    assert terminal.getvalue().startswith("warning: ")


def test_a_run_says_what_most_of_its_time_went_on_and_that_a_model_cannot_write_yet(run, monkeypatch) -> None:
    words = ["train", "text.txt", *QUICK, "--dropout", 0, "--weight-decay", 0, "--steps", 3]
    plain = run(*words)
    assert "note: after 3 steps the model cannot write yet" in plain.err
    assert "\ntime  " not in plain.err
    began = time.monotonic() - 600  # an hour of trying to load something
    monkeypatch.setattr("chargen.cli.train.process_start_time", lambda: began)
    slow = run(*words, "--minutes", 40)
    assert re.search(r"^time     \d+ s of 6\d\d were training; 6\d\d s starting", slow.err, re.M), slow.err
    assert "\ntime  " not in run(*words, "--minutes", 4_000).err


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_a_model_that_can_write_is_not_said_to_be_unable(run, tmp_path, unit) -> None:
    (tmp_path / "text.txt").write_text("äb" * 2_000)
    words = ["train", "text.txt", *QUICK, "--unit", unit, "--lr", 0.03, "--warmup", 1]
    assert "cannot write" in run(*words, "--steps", 1).err
    assert "cannot write" not in run(*words, "--steps", 150).err


def test_resume_says_what_it_changes(run) -> None:
    run("train", "text.txt", "--steps", 2, *QUICK)
    result = run("train", "--resume", "checkpoints/text", "--steps", 3, "--lr", "0.001", "--preview", 0)
    assert "changed  steps: 2 before, 3 in all" in result.err
    assert "changed  lr: 0.004 before, 0.001 from here on" in result.err
    kept = next(line for line in result.err.splitlines() if line.startswith("kept     "))
    assert "hidden_size 12, dropout 0, weight_decay 0.3, batch_size 4, seq_length 8: chosen or given" in kept
    again = run("train", "--resume", "checkpoints/text", "--steps", 3, "--eval-every", 1)
    assert "changed  eval_every" in again.err
    assert "kept  " not in again.err


def test_a_text_that_lies_elsewhere_now_is_gone_on_with(run, tmp_path) -> None:
    (tmp_path / "valid.txt").write_text(TEXT[:200])
    assert run("train", "text.txt", "--valid", "valid.txt", "--steps", 2, *QUICK).code == 0
    for name in ("text.txt", "valid.txt"):
        (tmp_path / name).rename(tmp_path / f"moved {name}")
    (tmp_path / "other.txt").write_text(TEXT + "!")
    words = ["train", "--resume", "checkpoints/text", "--steps", 3, "--preview", 0]
    shutil.rmtree(os.environ["CHARGEN_CACHE"])
    gone = run(*words)
    assert gone.code == 3
    assert "'" + str(tmp_path / "text.txt") + "'" in gone.err
    assert gone.err.endswith("; where that lies elsewhere now: chargen train --resume checkpoints/text SOURCE\n")
    for wrong in (["other.txt", "--valid", "moved valid.txt"], ["moved text.txt", "--valid", "moved text.txt"]):
        other = run(*words, *wrong)
        assert other.code == 3
        assert "is not the one that this run learned" in other.err
    assert run(*words, "moved text.txt").code == 3, "the validation text is gone too"
    result = run(*words, "moved text.txt", "--valid", "moved valid.txt")
    assert result.code == 0, result.err
    assert "text     train: the same as before, now in moved text.txt\n" in result.err
    assert "text     valid: the same as before, now in moved valid.txt\n" in result.err
    again = run("train", "--resume", "checkpoints/text", "--steps", 4, "--preview", 0)
    assert again.code == 0, "the run remembers the new place"


def test_what_is_kept_back_of_minutes_is_named(run, monkeypatch) -> None:
    assert run("train", "text.txt", "--minutes", 100, "--steps", 2, *QUICK).code == 0
    monkeypatch.setattr("chargen.training.budget.Budget.seconds", lambda self: 600.0)
    monkeypatch.setattr("chargen.training.budget.Budget._eval_speed", lambda self: 1.0)
    refused = run("train", "--resume", "checkpoints/text", "--minutes", 10.4)
    assert refused.code == 2
    assert "its budget is used after 10.00 of 10.4 minutes" in refused.err
    kept, least = map(
        float, re.search(r"as ([\d.]+) are kept back .*; give --minutes ([\d.]+) or more", refused.err).groups()
    )
    assert kept > 0.4
    assert run("train", "--resume", "checkpoints/text", "--minutes", least - 0.02).code == 2
    monkeypatch.setattr("chargen.cli.train._train", lambda *arguments: None)
    assert "is complete" not in run("train", "--resume", "checkpoints/text", "--minutes", least).err


def test_a_prime_file_may_be_in_another_encoding(run, model, tmp_path) -> None:
    (tmp_path / "prime.txt").write_bytes("é".encode("latin-1"))
    assert run("sample", model, "--prime-file", "prime.txt", "--seed", 1).code == 3
    result = run("sample", model, "--prime-file", "prime.txt", "--encoding", "latin-1", "--seed", 1, "--length", 3)
    assert result.out.startswith("é")


def test_training_goes_on_when_nobody_reads_what_it_says(tmp_path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    process = command("train", "text.txt", "--steps", "60", "--eval-every", "5", "--out", "run", *QUICK, cwd=tmp_path)
    process.stderr.close()
    process.stdout.close()
    assert process.wait(timeout=HANG) == 0
    assert read_model(tmp_path / "run").training["valid_whole"] is True


@pytest.mark.parametrize("arguments", [["sample", "MODEL", "--length", "5"], ["info", "MODEL"]])
def test_closed_streams_are_no_traceback(arguments, model) -> None:
    words = " ".join([sys.executable, "-m", "chargen", *(str(model) if a == "MODEL" else a for a in arguments)])
    done = subprocess.run(["sh", "-c", f"{words} >&-"], stderr=subprocess.PIPE, check=False)
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0


def test_the_command_line_drops_what_a_file_says_against_it(run, tmp_path) -> None:
    (tmp_path / "run.toml").write_text("minutes = 5\nvalid_fraction = 0.2\n")
    (tmp_path / "v.txt").write_text(TEXT[:500])
    command_line = ["--config", "run.toml", "--steps", 2, "--valid", "v.txt", "--out", "run", *QUICK]
    assert run("train", "text.txt", *command_line).code == 0
    assert read_model(tmp_path / "run").training["settings"]["minutes"] is None


def test_a_run_does_not_read_its_own_folder(run, tmp_path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/text.txt").write_text(TEXT)
    assert run("train", "texts", "--steps", 2, "--out", "texts/run", *QUICK).code == 0
    resumed = run("train", "--resume", "texts/run", "--steps", 3, "--preview", 0)
    assert resumed.code == 0, resumed.err


def test_a_run_in_the_folder_of_its_texts_hides_none_of_them(run, tmp_path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/text.txt").write_text(TEXT)
    assert run("train", "texts", "--steps", 2, "--out", "texts", *QUICK).code == 0
    resumed = run("train", "--resume", "texts", "--steps", 3, "--preview", 0)
    assert resumed.code == 0, resumed.err
    again = run("train", "texts", "--steps", 2, *QUICK)
    assert again.code == 0, again.err
    assert f"texts: {len(TEXT):,} characters" in again.err


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
    for name in (name for group in COMMANDS.values() for name in group):
        for parameter in importlib.import_module(f"chargen.cli.{name}").command.params:
            assert not isinstance(parameter.type, click.Path) or parameter.type is PATH, (name, parameter.name)


def test_a_state_never_replaces_another_file(run, model, tmp_path) -> None:
    before = (model / FILE_NAME).read_bytes()
    for target in (model / FILE_NAME, tmp_path / "text.txt", "/dev/null"):
        refused = run("sample", model, "--length", 3, "--seed", 1, "--state-out", target)
        assert refused.code == 1
        assert "is not overwritten" in refused.err or "something else than a file" in refused.err
    assert (model / FILE_NAME).read_bytes() == before
    assert Path("/dev/null").is_char_device()
    for _ in range(2):
        assert run("sample", model, "--length", 3, "--seed", 1, "--state-out", "state").code == 0


@pytest.mark.parametrize("target", ["text.txt", "text.txt/state", "model", "model/model.safetensors", "/dev/null"])
def test_a_state_that_cannot_be_saved_is_refused_before_anything_is_written(run, model, target) -> None:
    refused = run("sample", model, "--length", 3, "--state-out", target)
    assert (refused.code, refused.out) == (1, "")
    assert one_line(refused.err)
    assert "choose another file" in refused.err


@pytest.mark.parametrize("folder", ["text.txt", "text.txt/run"])
def test_a_run_folder_that_cannot_be_is_refused_before_the_text_is_read(run, monkeypatch, folder) -> None:
    monkeypatch.setattr("chargen.data.corpus.Corpus.from_files", None)
    refused = run("train", "text.txt", "--out", folder)
    assert (refused.code, refused.err) == (
        2, f"chargen: cannot make the run folder {folder}: text.txt is no folder; choose another place\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("text.txt", "text.txt is not a good sampler state file: it is a text\n"),
        ("model", "cannot read model: it is a folder\n"),
        ("model/model.safetensors", "it is a file of another kind, 'model'\n"),
        ("text.tx", "cannot read text.tx: No such file or directory; did you mean text.txt?\n"),
    ],
)
def test_what_is_no_state_is_called_what_it_is(run, model, name, words) -> None:
    refused = run("sample", model, "--length", 3, "--state-in", name)
    assert (refused.code, refused.out) == (4, "")
    assert one_line(refused.err)
    assert refused.err.endswith(words)


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
    assert one_line(refused.err)
    assert refused.err.endswith(f"; did you mean {meant}?\n")


def test_what_was_written_before_a_dead_end_is_printed(run, model) -> None:
    result = run("sample", model, "--num", 2, "--length", 100, "--seed", 1, "--no-repeat", 1, "--format", "jsonl")
    assert result.code == 1
    assert len(result.out.splitlines()) == 2
    assert "forbid all" in result.err


@pytest.mark.parametrize(
    "name", ["small.safetensors", "small", "small.model", "novel.v2", ".small", "a.txt.safetensors"]
)
def test_a_model_is_exported_to_any_name_that_promises_no_other_format(run, model, name) -> None:
    assert run("export", "model", name, "--quantize", "int8").code == 0
    assert quantization_of(read_model(name).arrays) == "int8"


def test_nothing_is_left_in_a_folder_that_is_no_run(run, tmp_path) -> None:
    (tmp_path / "other").mkdir()
    assert run("train", "--resume", "other").code == 4
    assert list((tmp_path / "other").iterdir()) == []


def test_folding_everything_is_refused(run) -> None:
    refused = run("train", "text.txt", "--min-count", 100000)
    assert refused.code == 3
    assert "smaller --min-count" in refused.err


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
    def failing(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(info, "read_model", failing)
    monkeypatch.setattr("chargen.cli.main.redirect_to_null", lambda stream: None)  # it would close the captured one
    result = run("info", "model")
    assert result.code == 1
    assert result.err.startswith(last)
    assert one_line(result.err)


@pytest.mark.parametrize("error", [
    RuntimeError("a bug"), ImportError("no name", name="chargen.errors"), EOFError("a file that ends too soon"),
])  # fmt: skip
def test_what_is_our_own_mistake_is_not_hidden(run, model, monkeypatch, error) -> None:
    def failing(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(info, "read_model", failing)
    monkeypatch.setattr("chargen.cli.main.redirect_to_null", lambda stream: None)  # it would close the captured one
    with pytest.raises(type(error)):
        main(["info", str(model)])


def test_two_processes_given_the_same_command_write_the_same_files(tmp_path: Path) -> None:
    train = ["train", "text.txt", "--steps", "12", "--bidirectional", "--hidden-size", "20", "--eval-every", "5"]
    runs = []
    for number in "12":
        folder = tmp_path / number
        folder.mkdir()
        (folder / "text.txt").write_text(TEXT)
        environment = os.environ | {"PYTHONHASHSEED": number, "CHARGEN_CACHE": str(folder / "cache")}
        command = f"{sys.executable} -m chargen"
        both = f"{command} {' '.join(train)} --out run && {command} sample run --seed 3 --num 2 > written"
        runs.append(subprocess.Popen(both, shell=True, cwd=folder, env=environment, stderr=subprocess.PIPE))
    for run in runs:
        assert run.communicate()[1]
        assert run.returncode == 0
    assert_same_runs(tmp_path / "1" / "run", tmp_path / "2" / "run")
    assert (tmp_path / "1" / "written").read_bytes() == (tmp_path / "2" / "written").read_bytes() != b""


@pytest.mark.parametrize("more", [[], ["--num", "3"], ["--format", "jsonl"]])
def test_a_state_is_saved_though_nobody_reads_the_text(tmp_path: Path, more: list[str]) -> None:
    save_model(tmp_path / "m", small_model())
    words = ["sample", "m", "--length", "20000", "--seed", "1", "--state-out", "state", *more]
    with command(*words, cwd=tmp_path) as process:
        assert process.stdout
        process.stdout.close()
        assert process.wait(timeout=HANG) == 0
    sampler = Sampler(read_model(tmp_path / "m"), num=3 if "--num" in more else 1)
    sampler.load_state(tmp_path / "state")
    assert len(sampler.generate_all(5)[0].text) == 5
