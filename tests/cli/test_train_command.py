"""`chargen train`: what it tells, what it takes from files, and what it refuses before it reads a text."""

import json
import math
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from chargen.model.language_model import CharModel
from chargen.storage.model_file import read_model
from chargen.training.checkpoint import Checkpointer
from tests.cli.processes import command, wait_for
from tests.commands import QUICK, TEXT, is_one_line
from tests.runs import assert_same_runs
from tests.yardstick import HANG


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
    assert is_one_line(refused.err.splitlines(keepends=True)[-1])
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


def test_the_command_line_goes_before_the_file_before_the_default(run, tmp_path) -> None:
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
        assert float(told_figure) == pytest.approx(scored[key], abs=6e-5)
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


def test_two_runs_never_share_a_folder(run, tmp_path) -> None:
    first = command("train", "text.txt", "--steps", "1000000000", "--out", "run", *QUICK, cwd=tmp_path)
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(metrics, first)
    second = run("train", "text.txt", "--steps", "1", "--out", "run", "--overwrite", *QUICK)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=HANG)
    assert second.code in (1, 2)
    assert is_one_line(second.err.splitlines(keepends=True)[-1])


def test_what_stands_between_files_may_hold_escapes_too(run, tmp_path) -> None:
    (tmp_path / "more.txt").write_text(TEXT)
    assert run("train", "text.txt", "more.txt", "--between", r"\t\n", "--steps", 2, *QUICK).code == 0
    assert "\t" in read_model("checkpoints/text").vocabulary.characters


def test_minutes_are_wall_clock_from_the_start_of_the_process(run, monkeypatch) -> None:
    """On a clock of our own: the process was a minute old, and every step and window of a validation takes a second."""
    ticks, now = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]), [1000.0]
    born = ticks / os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.clock_gettime", lambda clock: {time.CLOCK_BOOTTIME: born + 60}[clock])
    read = CharModel.read

    def slow(*arguments: Any, **options: Any) -> object:
        now[0] += 1
        return read(*arguments, **options)

    monkeypatch.setattr(CharModel, "read", slow)
    assert (
        run("train", "text.txt", "--minutes", 2, "--eval-every", 40, "--dropout", 0, "--weight-decay", 0, *QUICK).code
        == 0
    )
    assert 45 < now[0] - 1000 <= 61
    assert 20 < read_model("checkpoints/text").training["step"] < 59


def test_a_run_says_what_took_its_time_and_that_it_cannot_write_yet(run, monkeypatch) -> None:
    words = ["train", "text.txt", *QUICK, "--dropout", 0, "--weight-decay", 0, "--counts", "off", "--steps", 3]
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
    words = ["train", "text.txt", *QUICK, "--unit", unit, "--lr", 0.03, "--warmup", 1, "--counts", "off"]
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


def test_resume_says_in_one_line_that_bits_may_differ(run, monkeypatch) -> None:
    run("train", "text.txt", "--steps", 2, *QUICK)
    words = ["train", "--resume", "checkpoints/text", "--preview", 0]
    assert "byte for byte" not in run(*words, "--steps", 3).err
    machine = Checkpointer.machine
    monkeypatch.setattr(Checkpointer, "machine", lambda *values: machine(*values) | {"torch": "9.9", "processes": 7})
    said = [line for line in run(*words, "--steps", 4).err.splitlines() if "byte for byte" in line]
    assert len(said) == 1
    assert re.match(r"warning: torch 2\.\S+ before, 9\.9 now; processes 1 before, 7 now: the run goes on", said[0])


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


@pytest.mark.parametrize("folder", ["text.txt", "text.txt/run"])
def test_a_run_folder_that_cannot_be_is_refused_before_the_text_is_read(run, monkeypatch, folder) -> None:
    monkeypatch.setattr("chargen.data.corpus.Corpus.from_files", None)
    refused = run("train", "text.txt", "--out", folder)
    assert (refused.code, refused.err) == (
        2, f"chargen: cannot make the run folder {folder}: text.txt is no folder; choose another place\n"
    )  # fmt: skip


def test_nothing_is_left_in_a_folder_that_is_no_run(run, tmp_path) -> None:
    (tmp_path / "other").mkdir()
    assert run("train", "--resume", "other").code == 4
    assert list((tmp_path / "other").iterdir()) == []


def test_folding_everything_is_refused(run) -> None:
    refused = run("train", "text.txt", "--min-count", 100000)
    assert refused.code == 3
    assert "smaller --min-count" in refused.err


def test_two_processes_given_the_same_command_write_the_same_files(run, tmp_path: Path) -> None:
    """Though each orders its sets in another way, and has a cache of its own."""
    train = ["train", "text.txt", "--steps", "12", "--bidirectional", "--hidden-size", "20", "--eval-every", "5"]
    other = os.environ | {"PYTHONHASHSEED": "1", "CHARGEN_CACHE": str(tmp_path / "cache")}
    with command(*train, "--out", "other", cwd=tmp_path, env=other) as process:
        assert run(*train, "--out", "run").code == 0
        assert process.communicate()[1]
    assert process.returncode == 0
    assert_same_runs(tmp_path / "run", tmp_path / "other")
