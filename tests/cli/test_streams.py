"""Standard streams: pipes, terminals, streams that are closed, quiet commands, and signals while they wait."""

import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from chargen.cli.main import main
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import FILE_NAME, read_model, save_model
from tests.cli.processes import command, wait_for, wait_until
from tests.commands import QUICK, TEXT, is_one_line
from tests.small_models import small_model
from tests.terminals import Terminal, run_on_terminal
from tests.yardstick import HANG


def test_streams_texts_from_standard_input() -> None:
    process = command("eval", "nowhere", "-", stdin=subprocess.PIPE)
    _, err = process.communicate(b"text")
    assert process.returncode == 4
    assert is_one_line(err.decode())


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
    words = [sys.executable, "-m", "chargen", "sample", str(model), "--length", "400", "--seed", "1"]
    text = run_on_terminal(words)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b" in text
    assert "\\u202e" in text
    assert text.endswith("\n")


@pytest.mark.skipif(sys.platform != "linux", reason="needs to see that a process waits")
@pytest.mark.parametrize("words", [("train", "-", "--steps", "1", *QUICK), ("corpus", "info", "-")])
def test_a_signal_ends_a_wait_for_standard_input(words, tmp_path) -> None:
    environment = {**os.environ, "CHARGEN_CACHE": str(tmp_path / "cache")}
    process = command(*words, cwd=tmp_path, stdin=subprocess.PIPE, env=environment)
    process.stdin.write(TEXT.encode() * 100)  # more than a pipe holds: when that is taken, it is being read
    process.stdin.flush()
    wait_until(lambda: state(process) == "S", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=HANG) == 143
    process.communicate()
    assert not (tmp_path / "checkpoints").exists()
    assert not [*(tmp_path / "cache").glob("*.tmp")]


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
    assert is_one_line(done.stderr.decode())


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


def test_training_goes_on_when_nobody_reads_what_it_says(tmp_path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    process = command("train", "text.txt", "--steps", "12", "--eval-every", "4", "--out", "run", *QUICK, cwd=tmp_path)
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
