"""On a real terminal: no control or invisible character of a text, a name or a file reaches it raw from any command."""

import json
import os
import re
import secrets
import select
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from chargen.storage import tensor_file
from chargen.storage.model_file import FILE_NAME, ModelFile, save_model
from tests.small_models import small_model
from tests.yardstick import HANG

pty = pytest.importorskip("pty")
termios = pytest.importorskip("termios")
tty = pytest.importorskip("tty")

PASSED = "\n\t\u200c\u200d"
"""What stays as it is: line ends, tabs, and joiners, which are parts of words."""
KINDS = ("Cc", "Cf", "Zl", "Zp")
HIDDEN = "".join(c for c in map(chr, range(0x110000)) if unicodedata.category(c) in KINDS and c not in PASSED)
NAMEABLE = HIDDEN.replace("\0", "")
NAMES = [NAMEABLE[first : first + 50] for first in range(0, len(NAMEABLE), 50)]
"""File names, short enough for any disk, that hold all of them together."""
NO_TEXT = [os.fsdecode(b"\x9b2J\xff\x1b[2J")] if sys.platform == "linux" else []
"""A file name of bytes that are no UTF-8, where such may be."""
SMALL_RUN = ["--hidden-size", "8", "--embedding-size", "4", "--batch-size", "4", "--seq-length", "8", "--precision",
             "fp32", "--dropout", "0"]  # fmt: skip
OWN = re.compile(
    r"\x1b\[\d\dm\x1b\[1m(?=.)|\x1b\[0m"  # a colour, bold, and its end
    r"|\r *\r|\r(?= *\d+%(?:\||  ))|\r(?=\w+ *: +\d+%\|)"  # tqdm clears a bar, and writes it anew
)
"""What chargen and tqdm themselves send to steer the terminal."""
DRIVER = """
import json, os, sys
from chargen.cli import bars
from chargen.cli.main import main

def show(bar, progress, really=bars.TrainingBar.show):
    trap = bar.trainer.out / "trap"  # from now on the run cannot be saved
    if trap.is_symlink():
        trap.replace(trap.with_name("state.safetensors"))
    really(bar, progress)

bars.TrainingBar.show = show
bars.PREVIEW_SECONDS = 0.0
commands, terminal = os.fdopen(int(sys.argv[1])), [os.dup(1), os.dup(2)]
for line in commands:
    end, arguments = json.loads(line)
    try:
        main(arguments)
    except SystemExit as stop:
        code = stop.code
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(terminal[0], 1)  # a command that found it broken has sent it to nowhere
    os.dup2(terminal[1], 2)
    os.write(1, f"{end} {code};".encode())
"""


class Shown(NamedTuple):
    """What a terminal was sent by a command, and the command's exit code."""

    code: int
    text: str

    @property
    def rest(self) -> str:
        """What was sent, without chargen's own colours and bars."""
        return OWN.sub("", self.text)

    def raw(self) -> set[str]:
        """Every character that could steer or deceive; lone surrogates stand for bytes that are no UTF-8."""
        harmful = {char for char in self.rest if unicodedata.category(char) in (*KINDS, "Cs")}
        return harmful - set(PASSED)


Command = Callable[..., Shown]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models and texts that hold every hidden character."""
    folder = tmp_path_factory.mktemp("world")
    save_model(folder / "model" / FILE_NAME, model_of(HIDDEN + "ab \n"))
    save_model(folder / "plain" / FILE_NAME, model_of("ab \n"))
    (folder / "hidden.txt").write_text((HIDDEN + "ab \n") * 30, newline="")
    (folder / "plain.txt").write_text("ab \n" * 300)
    return folder


@pytest.fixture(scope="module")
def command(world: Path) -> Iterator[Command]:
    """Run commands, one after the other, in one process whose three streams are a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, 200))
    tty.setraw(theirs)  # what is read is what was written: no line end is changed, nothing is echoed
    reading, writing = os.pipe()
    environment = {**os.environ, "CHARGEN_CACHE": str(world / ".cache"), "TERM": "xterm", "PYTHONWARNINGS": "error"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(reading)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=world,
        env=environment,
        pass_fds=[reading],
    )
    os.close(theirs)
    os.close(reading)

    def run(*arguments: Any) -> Shown:
        end = secrets.token_hex(8)
        os.write(writing, json.dumps([end, [str(word) for word in arguments]]).encode() + b"\n")
        sent, until = b"", time.monotonic() + HANG
        while not (ended := re.search(rf"{end} (\d+);$".encode(), sent)):
            assert time.monotonic() < until, sent
            if select.select([ours], [], [], 1)[0]:
                sent += os.read(ours, 1 << 16)
            assert process.poll() is None, sent
        return Shown(int(ended[1]), sent[: ended.start()].decode(errors="surrogateescape"))

    yield run
    process.kill()
    process.wait()
    os.close(writing)
    os.close(ours)


def model_of(characters: str) -> ModelFile:
    """A model that reads both ways and finds every character as likely as any other."""
    return small_model("gru", num_layers=1, characters=characters, bidirectional=True, scale=0.0)


def escapes(characters: str) -> list[str]:
    return [char.encode("unicode_escape").decode() for char in characters]


def check(shown: Shown, characters: str = HIDDEN, code: int = 0) -> None:
    """Nothing reached the terminal raw, and all of `characters` were shown as escapes."""
    assert shown.code == code, shown.text
    assert not shown.raw()
    missing = [escape for escape in escapes(characters) if escape not in shown.rest]
    assert not missing, shown.text


def test_what_counts_as_raw_is_all_but_the_sequences_of_chargen_and_tqdm() -> None:
    own = "\x1b[31m\x1b[1mred\x1b[0m\r  3%|#  | step 1\r          \rdone\n\ta\u200db"
    assert Shown(0, own).rest == "red  3%|#  | step 1done\n\ta\u200db"
    assert not Shown(0, own).raw()
    for text in ["\r", "a\rb", "\x1b[2J", "\x1b[31m", "\x1b[A", "\x9b", "\udc9b", "\u202e", "\u2028", "\0", "\r 3%"]:
        assert Shown(0, f"text{text}").raw(), repr(text)
    assert len(HIDDEN) > 200


@pytest.mark.parametrize("options", [[], ["--reverse"], ["--num", 2], ["--quantize", "int8"]])
def test_generated_text(command: Command, options: list[object]) -> None:
    check(command("sample", "model", "--length", 4000, "--seed", 1, *options))


def test_a_prime_and_what_stops_the_text(command: Command) -> None:
    check(command("sample", "model", "--length", 0, "--seed", 1, "--prime", NAMEABLE), NAMEABLE)
    for number, stop in enumerate("\x1b\r\u202e"):
        check(command("sample", "model", "--length", 4000, "--seed", number, "--stop", stop), stop)


def test_samples_as_json(command: Command) -> None:
    shown = command("sample", "model", "--length", 4000, "--seed", 1, "--format", "jsonl", "--prime", "a\x1b\x9b")
    check(shown, "")
    assert set(HIDDEN) <= set(json.loads(shown.text)["text"])


def test_text_around_a_gap_and_in_it(command: Command, world: Path) -> None:
    words = ["--length", 4, "--particles", 30, "--seed", 1, "--num", 3]
    check(command("fill", "model", "--before", NAMEABLE, "--after", NAMEABLE, *words), NAMEABLE)
    (world / "gaps.txt").write_text(HIDDEN + "___{2}a___{20}" + HIDDEN, newline="")
    shown = command("fill", "model", "gaps.txt", *words)
    check(shown)
    assert "\x1b[32m" in shown.text, "gaps are in colour"
    check(command("fill", "model", "gaps.txt", *words, "--no-echo"), "")


def test_judged_text(command: Command, world: Path) -> None:
    (world / "once.txt").write_text(HIDDEN + "ab \n", newline="")
    shown = command("score", "model", "once.txt", "--threshold", 1, "--alternatives", 2)
    check(shown)
    judged = re.findall(r"column \d+: '(.*?)' ", shown.rest)
    assert set(escapes(HIDDEN)) <= set(judged)
    assert "\x1b[31m" in shown.text, "unlikely characters are in colour"
    check(command("score", "model", "--text", NAMEABLE, "--by", "forward", "--threshold", 0), NAMEABLE)
    check(command("score", "plain", "--text", NAMEABLE + "a", "--by", "forward", "--unknown", "skip"), NAMEABLE)
    check(command("score", "model", "once.txt", "--json"), "")


@pytest.mark.parametrize("name", [*NAMES, *NO_TEXT], ids=lambda name: ascii(name[0]))
def test_names_of_texts_models_and_folders(command: Command, world: Path, name: str) -> None:
    folder = world / name
    save_model(folder / name, model_of("ab \n"))
    os.link(folder / name, folder / FILE_NAME)
    (folder / f"{name}.txt").write_text("ab \n" * 20)
    check(command("info", f"{name}/{name}"), name)
    check(command("eval", name, f"{name}/{name}.txt"), name)
    check(command("score", name, f"{name}/{name}.txt"), "")
    check(command("sample", name, "--prime-file", f"{name}/{name}.txt", "--length", 3), "")


@pytest.mark.parametrize("name", [*NAMES, *NO_TEXT], ids=lambda name: ascii(name[0]))
def test_the_name_of_an_exported_model(command: Command, name: str) -> None:
    check(command("export", "plain", f"{name}.safetensors", "--quantize", "int8"), name)


def test_what_a_model_file_says_of_itself(command: Command, world: Path) -> None:
    training = {
        "step": HIDDEN,
        "epoch": HIDDEN,
        "valid_loss": 1.0,
        "settings": {HIDDEN: 1, "cell": HIDDEN, "x": [HIDDEN]},
    }
    model = model_of(HIDDEN + "ab \n")
    common = replace(model, counts=np.ascontiguousarray(model.counts[::-1]), training=training)
    save_model(world / "said.safetensors", common)
    check(command("info", "said.safetensors"))
    check(command("info", "said.safetensors", "--json"), "")
    description = command("info", "model").rest
    assert escapes(HIDDEN)[-1] in re.search("^most common.*", description, re.M)[0]


def test_a_text_that_is_learned(command: Command, world: Path) -> None:
    name = "/".join(NAMES)
    (world / name).mkdir(parents=True)
    os.link(world / "hidden.txt", world / name / "text.txt")
    words = ["--preview", 3000, "--eval-every", 2, "--test-fraction", 0.1, *SMALL_RUN]
    shown = command("train", f"{name}/text.txt", "--steps", 4, "--out", f"{name}/run", *words)
    check(shown)
    text, _, written = shown.rest.partition("step 2 writes:")
    for part in (text, written):
        assert not [escape for escape in escapes(NAMEABLE) if escape not in part]
    assert "\r" in shown.text, "there is a bar"
    again = command("train", "--resume", f"{name}/run", "--steps", 6, "--preview", 0)
    check(again, NAMEABLE)
    grown = command("train", "hidden.txt", "--steps", 1, "--init-from", "plain", "--out", "grown", "--preview", 0)
    check(grown, HIDDEN[:10])


def test_a_warning_above_a_bar(command: Command, world: Path) -> None:
    folder = world / "warned" / "/".join(NAMES)
    folder.mkdir(parents=True)
    (folder / "trap").symlink_to("/dev/null")  # what is no file cannot be saved to
    words = ["--steps", 40, "--save-minutes", 1e-9, "--preview", 0, *SMALL_RUN]
    shown = command("train", "hidden.txt", "--out", folder.relative_to(world), *words)
    check(shown, NAMEABLE, 1)
    before, warned, after = shown.rest.partition("warning: save 1 of")
    assert warned
    assert not [escape for escape in escapes(NAMEABLE) if escape not in before or escape not in after]


def damaged(world: Path) -> None:
    """Files that say who knows what."""
    (world / "kind.safetensors").write_bytes(tensor_file.pack({}, {"kind": NAMES[0], "format": 1}))
    odd = model_of("ab").describe()
    odd["config"][NAMES[0]] = odd["config"].pop("cell")
    (world / "odd.safetensors").write_bytes(tensor_file.pack(model_of("ab").arrays, odd))
    (world / "key.toml").write_text(f"{json.dumps(NAMES[1][:30])} = 1")
    (world / "value.toml").write_text(f"seed = {json.dumps(NAMES[1][:30])}")
    (world / "raw.toml").write_text(f"seed = 1\n{NAMES[0]}", "utf-8")


ERRORS = [
    ["NAME"],
    ["--NAME"],
    ["info", "NAME"],
    ["info", "kind.safetensors"],
    ["info", "odd.safetensors"],
    ["train", "NAME"],
    ["train", "plain.txt", "--NAME"],
    ["train", "plain.txt", "--cell", "NAME"],
    ["train", "plain.txt", "--lr", "NAME"],
    ["train", "plain.txt", "--encoding", "NAME"],
    ["train", "plain.txt", "--config", "NAME"],
    ["train", "plain.txt", "--config", "key.toml"],
    ["train", "plain.txt", "--config", "value.toml"],
    ["train", "plain.txt", "--config", "raw.toml"],
    ["train", "plain.txt", "--out", "plain.txt/NAME", "--steps", "1"],
    ["train", "--resume", "NAME"],
    ["train", "plain.txt", "--init-from", "NAME"],
    ["sample", "NAME"],
    ["sample", "plain", "--prime", "NAME"],
    ["sample", "plain", "--prime-file", "NAME"],
    ["sample", "plain", "--device", "NAME"],
    ["sample", "plain", "--state-in", "NAME"],
    ["sample", "plain", "--state-out", "plain.txt/NAME", "--length", "1"],
    ["fill", "model", "plain.txt", "--marker", "NAME"],
    ["fill", "model", "--before", "NAME", "--max-length", "NAME"],
    ["eval", "plain", "NAME"],
    ["eval", "plain", "hidden.txt", "--unknown", "error"],
    ["score", "plain", "--unknown", "error", "--text", "NAME"],
    ["score", "plain", "\x1b[2J\x9b\u202e.txt"],
    ["export", "plain", "plain.txt/NAME", "--quantize", "int8"],
    ["export", "plain", "plain", "--quantize", "NAME"],
    ["check", "NAME"],
]


@pytest.mark.parametrize("arguments", ERRORS, ids=" ".join)
def test_an_error(command: Command, world: Path, arguments: list[str]) -> None:
    damaged(world)
    for name in [*NAMES, *NO_TEXT] if any("NAME" in word for word in arguments) else [""]:
        shown = command(*(word.replace("NAME", f"no {name}") for word in arguments))
        check(shown, "", shown.code)
        assert shown.code in range(1, 6)
        last = shown.rest.splitlines()[-1]
        assert last.startswith("chargen: ")
        assert "\\x" in last or "\\u" in last.lower() or arguments[-1] == "raw.toml"
