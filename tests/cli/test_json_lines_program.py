"""`chargen write --json-lines` as a program: the clients of its page, signals, and pipes that close."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import chargen
from tests.cli.processes import command

PAGE = Path(__file__).parents[2] / "docs/pages/reference/json-lines.md"


def block(name: str) -> str:
    """A block of the page, by the comment above it."""
    block = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert block
    return block[1]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A search path on which `chargen` is this one."""
    program = tmp_path / "chargen"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W error -m chargen "$@"\n')
    program.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


def test_the_client_of_the_page_runs(path: str) -> None:
    program = block("client") + "\nmodel.stdin.close()\nassert model.wait() == 0"
    environment = os.environ | {"PATH": path}
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment)
    size, rest = ended.stdout.split(" ", 1)
    assert size == "512"
    assert -60 < float(rest.split("\n")[0]) < -10
    assert rest.split("\n", 1)[1].startswith("ROMEO:")
    assert len(rest) > 200


@pytest.mark.skipif(shutil.which("vim") is None, reason="needs vim")
@pytest.mark.slow
def test_the_plugin_of_the_page_writes_in_vim(path: str, tmp_path: Path) -> None:
    plugin, draft, prime = tmp_path / "plugin.vim", tmp_path / "draft.txt", "ROMEO:\nBut soft"
    plugin.write_text(block("vim").replace("'echo': v:false", "'echo': v:false, 'seed': 1"))
    draft.write_text(prime)
    wait = "call ch_close_in(job) | while job_status(job) ==# 'run' | sleep 50m | endwhile | sleep 200m"
    steps = [f"source {plugin}", "Continue", wait, "write", "qall!"]
    words = ["vim", "-N", "-u", "NONE", "-es", *[word for step in steps for word in ("-c", step)], str(draft)]
    subprocess.run(words, check=False, env=os.environ | {"PATH": path, "TERM": "xterm"}, timeout=100)
    assert draft.read_text().rstrip("\n") == chargen.generate("shakespeare", prime, seed=1).rstrip("\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_it_while_it_waits(number: int) -> None:
    process = command("write", "shakespeare", "--json-lines", stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b'{"ready":true,')
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert out == b""
    assert err == {signal.SIGTERM: b"chargen: terminated\n", signal.SIGINT: b"chargen: interrupted\n"}[number]


def test_an_output_that_nobody_reads_ends_it_quietly() -> None:
    process = command("write", "shakespeare", "--json-lines", stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    with process.stdout as out:
        out.readline()
    process.stdout = None
    _, err = process.communicate(b'{"do": "info"}\n{"do": "info"}\n', timeout=60)
    assert (process.returncode, err) == (0, b"")
