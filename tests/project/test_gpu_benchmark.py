"""The proof on a card, rehearsed without one: every part runs, and one that fails stops no other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PARTS = "correctness", "quality", "precisions", "sampling", "training", "cores"


def rehearse(out: Path, text: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "benchmarks.gpu", str(out), str(text), "--device", "cpu", "--rehearse", *options]
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])


@pytest.mark.slow
def test_every_part_of_the_proof_runs(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{number} is {number * number} squared, says the book.\n" for number in range(2000)))
    done = rehearse(tmp_path / "out", text)
    assert done.returncode == 0, done.stdout + (tmp_path / "out" / "log.txt").read_text()[-3000:]
    for part in PARTS:
        rows = json.loads((tmp_path / "out" / f"{part}.json").read_text())["rows"]
        assert rows
        assert not any("error" in row for row in rows), part


@pytest.mark.slow
def test_a_part_that_fails_keeps_its_traceback_and_stops_no_other(tmp_path: Path) -> None:
    done = rehearse(tmp_path, tmp_path / "missing.txt", "--part", "precisions", "--part", "sampling")
    assert done.returncode == 1
    assert [line.split(",")[0] for line in done.stdout.splitlines()[:2]] == ["precisions: 1", "sampling: done"]
    assert "Traceback" in (tmp_path / "log.txt").read_text()
    assert json.loads((tmp_path / "sampling.json").read_text())["rows"]
