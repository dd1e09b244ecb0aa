"""`chargen info`: what is told of a model, and nothing that is not so."""

import contextlib
import json
import os
import re
import time

import pytest

from chargen.cli.report import describe_loss
from chargen.storage.model_file import FILE_NAME, read_model
from tests.commands import QUICK, TEXT


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
    result = run("train", "b\nsaved    all is good.txt", "--out", "run", "--steps", "3", *QUICK)
    assert result.code == 0
    assert not any(line.startswith("saved    all") for line in result.err.splitlines())


def test_a_file_of_an_impossible_date_has_none(run, model, monkeypatch) -> None:
    with contextlib.suppress(OSError):  # not every disk takes it
        os.utime(model / FILE_NAME, (2**60, 2**60))
    shown = run("info", "model")
    assert shown.code == 0
    assert json.loads(run("info", "model", "--json").out).keys() >= {"written", "seconds"}


def test_info_tells_what_is_in_a_file(run, model) -> None:
    result = run("info", model)
    assert result.code == 0
    assert "LSTM 2 x 12" in result.out
    assert "\x1b" not in result.out
    fields = json.loads(run("info", model, "--json").out)
    assert fields["sha256"] == read_model(model).sha256
    assert fields["parameters"] == sum(array.size for array in read_model(model).arrays.values())
    assert fields["config"]["num_layers"] == 2
