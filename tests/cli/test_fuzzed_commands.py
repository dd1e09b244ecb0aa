"""Random command lines and random settings files: each ends with a known exit code, and a refusal is one clear line."""

import contextlib
import io
import os
import random
import re
import signal
import sys
import tempfile
import tomllib
import traceback
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import click
import pytest

from chargen.cli.main import NAMES, import_command, main
from chargen.storage.model_file import FILE_NAME, save_model
from tests.cli.random_lines import (
    LONE,
    ODD_FILES,
    PATHS,
    SMALL_RUN,
    allowed,
    any_file,
    any_line,
    base,
    called,
    inside,
    is_number,
    is_path,
    options_of,
    setting_line,
    with_files,
    wrong,
    wrong_in_a_file,
)
from tests.small_models import small_model
from tests.yardstick import HANG

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the traps are links, devices and odd file names")
SIZES = [pytest.param(40, 2, id="some"), pytest.param(1000, 30, id="a thousand", marks=pytest.mark.slow)]
"""How many cases of anything at all, and how many wrong values for each option."""


class Ended(NamedTuple):
    """How a command ended: its exit code, or the traceback that a person would see."""

    command: str
    code: object
    err: str

    @property
    def last(self) -> str:
        """The last line that was told."""
        return self.err.removesuffix("\n").rpartition("\n")[2]


class TooLong(BaseException):
    """A command that does not end."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with texts, models and traps, in which all commands run."""
    folder = tmp_path_factory.mktemp("world")
    for name in ("text.txt", "two\nlines.txt", "folder/inner.txt", "locked.txt", LONE + ".txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):  # not every disk takes every name
            (folder / name).write_text("abcdefgh \n" * 30)
    (folder / "locked.txt").chmod(0)
    (folder / "other.txt").write_text("xyz")
    (folder / "empty.txt").write_text("")
    (folder / "bad.txt").write_bytes(b"ab\r\n\xff\xfe\x00\xe9")
    (folder / "broken.gz").write_bytes(b"\x1f\x8b\x08nothing")
    (folder / "gaps.txt").write_text("abc___{2}de")
    (folder / "nowhere").symlink_to("missing")
    (folder / "loop").symlink_to("loop")
    save_model(folder / "model" / FILE_NAME, small_model(bidirectional=True))
    save_model(folder / "one.safetensors", small_model("gru", num_layers=1, characters="abcdefgh", folded="\n "))
    with contextlib.chdir(folder):
        assert ended("train", "text.txt", "--steps", "2", "--out", "run", *SMALL_RUN).code == 0
        yield folder


@pytest.fixture(autouse=True)
def own_cache(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for all commands."""
    monkeypatch.setenv("CHARGEN_CACHE", str(world / ".cache"))


def ended(*arguments: str, typed: bytes | None = b"") -> Ended:
    """Run a command in this process, with files as its streams; `typed` is its standard input, None a closed one."""
    stdin = None if typed is None else io.TextIOWrapper(io.BytesIO(typed))
    code: object = None
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, mock.patch.object(sys, "stdin", stdin):
        stdout = io.TextIOWrapper(out, "utf-8")
        stderr = io.TextIOWrapper(err, "utf-8", errors="backslashreplace", write_through=True)
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), alarm():
            try:
                main(list(arguments))
            except SystemExit as end:
                code = end.code
            except (Exception, TooLong):
                code = traceback.format_exc()
        if sys.stdin is not stdin:
            sys.stdin.close()
        err.seek(0)
        message = err.read().decode()
        stdout.detach()
        stderr.detach()
    command = " ".join(arguments[:2])
    return Ended(command if command in NAMES else arguments[0], code, message)


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    """Raise TooLong where a command does not end."""

    def ring(number: int, frame: object) -> None:
        raise TooLong(f"not done after {HANG} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def is_broken(data: bytes) -> bool:
    """True where a file is no TOML."""
    try:
        tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        return True
    return False


def flaws(end: Ended) -> list[str]:
    """What is wrong with the end of a command, whatever it was asked."""
    if isinstance(end.code, str):
        return [end.code[-900:]]
    wrongs = [] if end.code in range(6) else [f"exit code {end.code}"]
    raw = {char for char in end.err if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    if raw - set("\n\t\u200c\u200d"):
        wrongs.append(f"raw on standard error: {raw}")
    if end.code and not re.match(r"chargen: .*\w", end.last):
        wrongs.append("the last line does not say what is wrong")
    named = re.match(r"chargen: (?:any.toml: )?(--[\w-]+) is ", end.last)
    if (
        end.command in NAMES
        and named
        and not any(named[1] in param.opts for param in import_command(end.command).params)
    ):
        wrongs.append(f"{end.command} has no option {named[1]}")
    return wrongs


def unclear(end: Ended, option: click.Option, *places: str) -> list[str]:
    """What the refusal of a wrong value does not say: the option, its range or choices, and the `places`."""
    wrongs = flaws(end) or ([] if end.code == 2 else [f"exit code {end.code}"])
    name = called(option)[2:].replace("-", "[-_]")
    if not wrongs and not re.search(rf"(?:--|: ){name}\b", end.last):
        wrongs = [f"{called(option)} is not named"]
    needed = [*allowed(option), *({place} for place in places)]
    missing = [" or ".join(sorted(words)) for words in needed if not any(word in end.last for word in words)]
    return wrongs or ([f"not told: {', '.join(missing)}"] if missing else [])


def unnamed(end: Ended, data: bytes) -> list[str]:
    """What the end of a command with any.toml does not say of that file."""
    if re.search("no setting|it must be|Invalid value", end.last) and "any.toml" not in end.last:
        return ["the file is not named"]
    if is_broken(data) and not re.match(r"chargen: cannot read any\.toml: .*\w", end.last):
        return ["a broken file is not called so"]
    return []


def report(failures: list[tuple[Any, ...]], cases: int) -> str:
    """The first of the failures."""
    lines = [f"{number}: {words!r:.600}\n    {last!r:.300}\n    {wrongs}" for number, words, last, wrongs in failures]
    return f"{len(failures)} of {cases} cases:\n" + "\n".join(lines[:12])


@pytest.mark.parametrize(("many", "each"), SIZES)
def test_a_random_command_line_ends_with_a_known_code_and_one_clear_line(many: int, each: int) -> None:
    failures = []
    for number in range(many):
        chance = random.Random(f"line {number}")
        words, bad = any_line(chance)
        end = ended(*words, typed=chance.choice([b"", b"abc", b"\xff\xfe\x00", None]))
        wrongs = flaws(end)
        if bad and end.code == 0:
            wrongs.append(f"taken: {', '.join(bad)}")
        for name, option in bad.items():
            if end.code == 2 and re.search(rf"{name}'?(:| is )", end.last):
                wrongs += unclear(end, option)
        failures += [(number, words, end.last, wrongs)] if wrongs else []
    assert not failures, report(failures, many)


@pytest.mark.parametrize(("many", "each"), SIZES)
def test_a_wrong_value_is_refused_by_name_and_range(many: int, each: int) -> None:
    failures, cases = [], 0
    for command, option in ((name, option) for name in NAMES for option in options_of(name)):
        chance = random.Random(f"{command} {option.name}")
        for value in ["nan"] * is_number(option) + [wrong(option, chance) for _ in range(each)]:
            if value is None:
                continue
            words = [*base(command, chance), called(option), value]
            end, cases = ended(*words), cases + 1
            if wrongs := unclear(end, option):
                failures.append((cases, words, end.last, wrongs))
    assert cases > 50 * each
    assert not failures, report(failures, cases)


@pytest.mark.parametrize("command", NAMES)
def test_the_ends_of_every_range_end_well_or_are_refused_clearly(command: str) -> None:
    failures = []
    for option in filter(is_number, options_of(command)):
        assert isinstance(option, click.Option)
        for value in inside(option):
            words = [*base(command, random.Random(0), option.name), called(option), value]
            end = ended(*words)
            if wrongs := flaws(end):
                failures.append((value, words, end.last, wrongs))
    assert not failures, report(failures, len(failures))


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", sorted({*NAMES} - {"check"}))  # which takes its second, and reads as info does
def test_every_odd_path_ends_well_or_is_refused_clearly(command: str, every: bool) -> None:
    failures, shift = [], sorted(NAMES).index(command)
    arguments = [param.name or "" for param in import_command(command).params if isinstance(param, click.Argument)]
    usual = {"model": "model", "out": "small.safetensors", "source": "gaps.txt"}
    options = {"train": [*SMALL_RUN, "--steps", "2"], "export": ["--quantize", "int8"], "fill": ["--length", "2"]}
    paths = [*PATHS, LONE + ".txt"]
    for number, parameter in enumerate(filter(is_path, import_command(command).params)):
        # By default each path meets every third parameter only.
        for path in paths if every else [path for at, path in enumerate(paths) if (at + number + shift) % 3 == 0]:
            words = command.split()
            words += [path if name == parameter.name else usual.get(name, "text.txt") for name in arguments]
            words += options.get(command, [])
            if isinstance(parameter, click.Option):
                words = [*base(command, random.Random(0)), parameter.opts[0], path]
            end = ended(*words, typed=b"abcdefgh \n")
            if wrongs := flaws(end):
                failures.append((path, words, end.last, wrongs))
    assert not failures, report(failures, len(failures))


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "model", "--length"],
        ["sample", "model", "--num"],
        ["fill", "model", "--before", "a", "--length"],
        ["fill", "model", "--before", "a", "--max-length"],
        ["fill", "model", "--before", "a", "--max-length", "5", "--min-length"],
        ["fill", "model", "--before", "a", "--length", "5", "--num"],
        ["score", "model", "--text", "abc", "--alternatives"],
    ],
)
def test_more_than_any_machine_can_write_is_refused_by_name(words: list[str]) -> None:
    end = ended(*words, str(10**30))
    assert end.code == 2
    assert words[-1] in end.last
    assert "-100,000" not in end.last, "no text is shorter than 0"


@pytest.mark.parametrize(("many", "each"), SIZES)
def test_a_random_settings_file_ends_with_a_known_code_and_one_clear_line(many: int, each: int, world: Path) -> None:
    options, failures = with_files(), []
    assert {"train", "sample"} <= options.keys()
    for number in range(many):
        chance = random.Random(f"file {number}")
        command = chance.choice(list(options))
        data, known = any_file(options[command], chance)
        elsewhere = chance.choice(["folder", "missing.toml", "loop", "x" * 300, "", "two\nlines.txt", LONE])
        path = "any.toml" if chance.random() < 0.8 else elsewhere
        (world / "any.toml").write_bytes(data)
        end = ended(*base(command, chance), "--config", path)
        wrongs = flaws(end) + (unnamed(end, data) if path == "any.toml" else [])
        if known and "no setting" in end.last:
            wrongs.append("an option's name is no key")
        failures += [(number, [command, path, data], end.last, wrongs)] if wrongs else []
    assert not failures, report(failures, many)


@pytest.mark.parametrize("command", with_files())
def test_an_odd_settings_file_ends_with_a_known_code_and_one_line(command: str, world: Path) -> None:
    failures = []
    for number, data in enumerate(ODD_FILES):
        (world / "any.toml").write_bytes(data)
        end = ended(*base(command, random.Random(number)), "--config", "any.toml")
        if wrongs := flaws(end) + unnamed(end, data):
            failures.append((number, data, end.last, wrongs))
    assert not failures, report(failures, len(ODD_FILES))


@pytest.mark.parametrize(("many", "each"), SIZES)
def test_a_wrong_value_in_a_file_is_refused_by_file_name_and_range(many: int, each: int, world: Path) -> None:
    failures, cases = [], 0
    for command, option in ((name, option) for name, options in with_files().items() for option in options):
        chance = random.Random(f"{command} {option.name}")
        for data in [setting_line(option, wrong_in_a_file(option, chance), chance) for _ in range(each)]:
            (world / "one.toml").write_text(data)
            end, cases = ended(*base(command, chance, option.name), "--config", "one.toml"), cases + 1
            if wrongs := unclear(end, option, "one.toml"):
                failures.append((cases, [command, data], end.last, wrongs))
    assert cases > 50 * each
    assert not failures, report(failures, cases)
