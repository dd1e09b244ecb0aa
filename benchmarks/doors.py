"""How soon lines of JSON are answered, beside calls in Python, and how fast the page of a model writes, in one run.

    python -m benchmarks.doors

The model is the one that comes with chargen. The page is written to in Chromium, without a window.
"""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np

import chargen
from benchmarks.common import machine, run_interleaved
from chargen.exporting.page import write_page

MODEL, LINE = "shakespeare", 20
"""The model, and characters of a line."""


class Program:
    """`chargen write --json-lines`, asked through pipes."""

    def __init__(self) -> None:
        words = [sys.executable, "-m", "chargen", "write", MODEL, "--json-lines"]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.stdout.readline()

    def ask(self, requests: list[dict[str, Any]]) -> float:
        """Send requests at once; return the seconds until the last is answered."""
        lines = "".join(json.dumps(request) + "\n" for request in requests).encode()
        begun = time.perf_counter()
        sending = threading.Thread(target=lambda: (self.stdin.write(lines), self.stdin.flush()))
        sending.start()
        for _ in requests:
            answer = json.loads(self.stdout.readline())
            assert "error" not in answer, answer
        sending.join()
        return time.perf_counter() - begun


@click.command()
@click.option("--lines", default=1000, show_default=True, help="Lines that wait together.")
@click.option("--characters", default=2000, show_default=True, help="That the page writes.")
@click.option("--repeats", default=3, show_default=True)
def main(lines: int, characters: int, repeats: int) -> None:
    """Measure both doors."""
    click.echo(json.dumps(machine()))
    text = chargen.generate(MODEL, length=lines * LINE, seed=1, echo=False)
    texts = [text[start : start + LINE] for start in range(0, lines * LINE, LINE)]
    program, file = Program(), chargen.read_model(MODEL)
    single = [1000 * program.ask([{"do": "score", "text": line}]) for line in texts[:400]]
    median, late = np.quantile(single, (0.5, 0.99))
    click.echo(f"a line of {LINE} there and back: median {median:.1f} ms, 99th of 100 {late:.1f}")

    def waiting(*, brief: bool) -> Callable[[], float]:
        requests = [{"do": "score", "text": line, "brief": brief} for line in texts]
        return lambda: lines * LINE / program.ask(requests)

    def in_python() -> float:
        begun = time.perf_counter()
        chargen.score(file, texts)
        return lines * LINE / (time.perf_counter() - begun)

    jobs = {"waiting": waiting(brief=False), "waiting, brief": waiting(brief=True), "chargen.score": in_python}
    in_python()  # compiles, or loads what was compiled
    for name, speed in run_interleaved(jobs, repeats).items():
        click.echo(f"{lines:,} lines, {name}: {speed:,.0f} characters/s")
    if shutil.which("chromium"):
        measure_page(characters, repeats)


def measure_page(characters: int, repeats: int) -> None:
    """Write with the page."""
    from tests.browsers import running_browser

    with TemporaryDirectory() as folder, running_browser() as browser:
        page = Path(folder) / "page.html"
        page.write_text(write_page(chargen.read_model(MODEL), MODEL), "utf-8")
        tab = browser.new_page()
        tab.set_default_timeout(600_000)
        tab.goto(page.as_uri())
        tab.wait_for_selector("body[data-ready]")
        tab.evaluate(f"byId('length').value = {characters}")

        def write() -> float:
            tab.fill("#draft", "")
            begun = time.perf_counter()
            tab.click("[data-until='']")
            tab.evaluate("job.over")
            assert len(tab.input_value("#draft")) == characters
            return characters / (time.perf_counter() - begun)

        speed = run_interleaved({"page": write}, repeats)["page"]
        click.echo(f"page of {page.stat().st_size:,} bytes: {speed:,.0f} characters/s")


if __name__ == "__main__":
    main()
