"""How fast texts are prepared, and in how much memory, beside `tokenizers` alone and a plain loop.

    python -m benchmarks.preparing --megabytes 1000
    python -m benchmarks.preparing --megabytes 10000 --kind records --folder /big/disk

A file is made of random words: prose in ASCII; prose in Chinese; or records, lines of some 36 characters. Each way of
preparing it runs in a process of its own: chargen reads it (once, and once more from its cache), `tokenizers` encodes
4 KiB at a time with the same vocabulary, and a plain loop looks each character up in a dictionary; these two read the
first 20 MB. The file was just read by another program. Packages are imported before the clock starts. Memory is the
largest that was not mapped from files (`RssAnon`).
"""

import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

KINDS = ("prose", "chinese", "records")
PIECE = 20_000_000
"""Bytes that the slow ones read."""
BLOCK = 1 << 20


def make_file(path: Path, kind: str, size: int) -> None:
    """Make a text of random words.

    Args:
        path: of the file; one of this size is kept.
        kind: one of `KINDS`.
        size: bytes, about.
    """
    if path.exists() and abs(path.stat().st_size - size) < BLOCK * 8:
        return
    random = np.random.default_rng(0)
    letters = [chr(code) for code in range(0x4E00, 0x6000)] if kind == "chinese" else [*"etaoinshrdluETAOIN,.'"]
    words = ["".join(random.choice(letters, random.integers(2, 9))) for _ in range(20_000)]
    number = 6 if kind == "records" else 2_000
    with open(path, "w", encoding="utf-8") as file:
        while file.tell() < size:
            chosen = [words[index] for index in random.integers(0, len(words), 60_000).tolist()]
            lines = [" ".join(chosen[start : start + number]) for start in range(0, len(chosen), number)]
            file.write("\n".join(lines) + "\n")
    time.sleep(3)  # files that are younger than two seconds are not remembered


def watch_memory() -> list[float]:
    """A list with the largest RssAnon of this process so far, in bytes, looked at a hundred times a second on Linux."""
    largest = [0.0 if sys.platform == "linux" else math.nan]

    def look() -> None:
        while True:
            line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))  # noqa: SIM115
            largest[0] = max(largest[0], int(line.split()[1]) * 1024.0)
            time.sleep(0.01)

    if sys.platform == "linux":
        threading.Thread(target=look, daemon=True).start()
    return largest


def prepare(path: Path, kind: str) -> int:
    """Prepare a file as `chargen train` does; the bytes that were read."""
    from chargen import Corpus

    Corpus.from_files(path, records="line" if kind == "records" else None)
    return path.stat().st_size


def read_piece(path: Path) -> str:
    """The first bytes of a file, as text."""
    with open(path, "rb") as file:
        return file.read(PIECE).decode("utf-8", "ignore")


def encode_by_tokenizers(path: Path, kind: str) -> int:
    """Encode the first bytes of a file with `tokenizers` alone."""
    from chargen import Corpus

    text = read_piece(path)
    tokenizer = Corpus.from_text(text[:1_000_000] + "".join(sorted(set(text)))).vocabulary.tokenizer()
    for start in range(0, len(text), 4096):
        np.array(tokenizer.encode(text[start : start + 4096]).ids, np.uint16)
    return len(text.encode())


def encode_by_a_loop(path: Path, kind: str) -> int:
    """Look each character up in a dictionary."""
    text = read_piece(path)
    ids = {character: number for number, character in enumerate(sorted(set(text)))}
    np.array([ids[character] for character in text], np.uint16)
    return len(text.encode())


JOBS: dict[str, Callable[[Path, str], int]] = {
    "chargen": prepare, "chargen, again": prepare, "tokenizers": encode_by_tokenizers, "plain loop": encode_by_a_loop,
}  # fmt: skip


def run_apart(name: str, path: Path, kind: str, cache: str) -> dict[str, Any]:
    """Run a job in a process of its own; its speed, seconds and memory."""
    command = [sys.executable, "-m", "benchmarks.preparing", "--job", name, "--kind", kind, "--file", str(path)]
    environment = os.environ | {"CHARGEN_CACHE": cache}
    done = subprocess.run(command, capture_output=True, check=True, env=environment, text=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


@click.command()
@click.option("--megabytes", default=1000.0, show_default=True)
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), default=KINDS, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/preparing"), show_default=True)
@click.option("--job", type=click.Choice(JOBS), hidden=True)
@click.option("--file", type=click.Path(path_type=Path), hidden=True)
def main(megabytes: float, kinds: tuple[str, ...], folder: Path, job: str | None, file: Path) -> None:
    """Measure how texts are prepared."""
    if job:
        for _ in open(file, "rb"):  # noqa: SIM115
            pass
        importlib.import_module("chargen.data.corpus")
        importlib.import_module("tokenizers")
        largest, begun = watch_memory(), time.perf_counter()
        size = JOBS[job](file, kinds[0])
        seconds = time.perf_counter() - begun
        click.echo(json.dumps({"seconds": seconds, "MB/s": size / 1e6 / seconds, "memory": largest[0] / 1e6}))
        return
    folder.mkdir(parents=True, exist_ok=True)
    click.echo(f"{'':10}{'':16}{'seconds':>10}{'MB/s':>10}{'memory, MB':>12}")
    for kind in kinds:
        path = folder / f"{kind}-{megabytes:g}.txt"
        make_file(path, kind, int(megabytes * 1e6))
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            for name in JOBS:
                figures = run_apart(name, path, kind, cache)
                columns = f"{figures['seconds']:>10.3f}{figures['MB/s']:>10,.0f}{figures['memory']:>12,.0f}"
                click.echo(f"{kind:10}{name:16}{columns}")


if __name__ == "__main__":
    main()
