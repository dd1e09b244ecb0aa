"""Every code block of the README and the guides runs, in the order of its page, on a small text and with few steps."""

import hashlib
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chargen.cli.main import main
from chargen.data.named_corpora import catalogue
from chargen.kernels.threads import set_threads, threads

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/pages/guides").glob("*.md"))]
NOT_RUN = {"quick start", "test command", "sample"}
"""Blocks of the README that install or show, by the comment above them; `tests/test_readme.py` looks at them."""
NOVEL = """\
It was a bright cold day in April, and the clocks were striking thirteen.
It was a dark and stormy night: the quick fox jumps over the lazy dog. THE END
"""
LETTER = "Dear Eve, this is what I saw: a fox and a dog, both quick and lazy, jumped over it.\n"
SMALLER = [
    (r"--(minutes|epochs|steps) \d+", "--steps 3"),
    (r"--batch-size \d+", "--batch-size 4"),
    (r"--hidden-size \d+", "--hidden-size 8"),
    (r"--device cuda", "--device cpu"),
    (r'\bdevice="cuda"', 'device="cpu"'),
    (r"^torchrun .*-m chargen train", "chargen train --steps 3"),
    (r"--(length|max-length) \d{2,}", r"--\1 9"),
    (r"--num \d{3,}", "--num 30"),
    (r"\bminutes ?= ?\d+", "steps = 3"),
    (r"\b(steps|epochs)=\d+", "steps=3"),
    (r"\bhidden_size ?= ?\d+", "hidden_size = 8"),
    (r"\blength=\d{2,}", "length=9"),
    (r"(stream|generate)\(\d+\)", r"\1(9)"),
]
"""What would take minutes takes less."""


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """A page that sets the number of threads sets it for itself alone."""
    before = threads()
    yield
    set_threads(before)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """For each fenced block: the comment above it, its language and its text."""
    return re.findall(r"^(?:<!-- (.*?) -->\n)?^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def smaller(program: str) -> str:
    for pattern, replacement in SMALLER:
        program = re.sub(pattern, replacement, program)
    return program


def run_command(line: str) -> None:
    """Run a line of shell, which is one command of chargen."""
    line = smaller(line)
    program, *arguments = shlex.split(line.replace("--steps 3", "--steps 6") if "--resume" in line else line)
    assert program == "chargen", f"only chargen's own commands can be tested: {line}"
    if arguments[0] == "train" and "--resume" not in arguments:
        arguments += ["--overwrite", "--preview", "0"]
        arguments += [] if {"--hidden-size", "--init-from"} & set(arguments) else ["--hidden-size", "8"]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0, line


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the texts that the pages name, and the run of a model of two directions."""
    folder = tmp_path_factory.mktemp("guides")
    (folder / "logs").mkdir()
    for name, text in (("novel", NOVEL), ("letters", LETTER), ("logs/monday", NOVEL), ("logs/tuesday", LETTER)):
        (folder / f"{name}.txt").write_text(text * 4)
    (folder / "poem.txt").write_text("It was a dark and stormy night\n")
    (folder / "scanned.txt").write_text("It was a drak and stormy night.\n")
    (folder / "letter.txt").write_text("It was a ___ and stormy ___{4}.\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CHARGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        run_command("chargen train novel.txt --bidirectional --steps 20")
    return folder


def put_corpus(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a corpus that has a name be a small text, which is on this machine."""
    text = (LETTER * 40).encode()
    corpus = replace(catalogue()[name], size=len(text), sha256=hashlib.sha256(text).hexdigest())
    corpus.path.parent.mkdir(parents=True)
    corpus.path.write_bytes(text)
    monkeypatch.setitem(catalogue(), name, corpus)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_runs(
    page: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shutil.copytree(trained, tmp_path / "copy"))
    for name in ("shakespeare", "war-and-peace", "names"):
        put_corpus(name, monkeypatch)
    names: dict[str, Any] = {}
    for comment, language, text in blocks(page):
        if comment in NOT_RUN:
            continue
        if language == "python":
            exec(compile(smaller(text), str(page), "exec"), names)
        elif comment == "on a terminal":
            from tests.cli.screens import on_screen

            for line in text.splitlines():
                assert on_screen(lambda screen: screen.wait(" saved "), *shlex.split(line)[1:])[0] == 0
        elif language == "bash":
            for line in filter(None, text.replace("\\\n", " ").splitlines()):
                run_command(line)
        else:
            assert comment.startswith("file "), f"{page.name} has a block that nothing runs: {text}"
            Path(comment.removeprefix("file ")).write_text(smaller(text))
