"""What Windows and macOS lack, refuse or do otherwise has a twin. Both are only pretended here, on Linux."""

import ast
import ctypes
import errno
import os
import signal
import ssl
import sys
import time
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import click.core
import pytest

from chargen import durable
from chargen.cli import main as command_line
from chargen.cli.signals import _send
from chargen.cli.terminal import quote_path
from chargen.data.corpus import Corpus
from chargen.data.corpus_cache import list_entries, remove_entries
from chargen.data.download import ConnectionBroken, download
from chargen.durable import explain_blocked_path, move_durably, write_durably
from chargen.errors import WriteError
from chargen.kernels import cpu_features, jit, spin_barrier
from chargen.training.metrics import Metrics
from chargen.training.run_folder import free_folder, replace_run
from tests.commands import QUICK, TEXT
from tests.faults.pretended_windows import IN_USE, MODULES, run_on_windows
from tests.project.test_floors import ROOT
from tests.runs import assert_same_runs
from tests.systems import ON_LINUX

REPOSITORY = ROOT.parent
pytestmark = ON_LINUX


def test_commands_do_on_windows_what_they_do_here(tmp_path, run):
    """Train, resume, replace, judge, write: with no call that Windows lacks, no file moved while it is open."""
    words = TEXT.replace("sea", "séa “—”")
    for folder in (tmp_path / "windows", tmp_path):
        folder.mkdir(exist_ok=True)
        (folder / "text.txt").write_text(words, "utf-8")
    learn = ["train", "text.txt", "--out", "run", "--steps", "6", "--seed", "1", *QUICK]
    resume = ["train", "--resume", "run", "--steps", "9", "--preview", "0"]
    commands = [
        ["train", "text.txt", "--out", "run", "--steps", "1", "--seed", "7", *QUICK], [*learn, "--overwrite"], resume,
        ["sample", "run", "--seed", "1", "--length", "40"], ["score", "run", "--text", "séa “—”"],
        ["eval", "run", "text.txt"], ["sample", "run", "--color"], ["corpus", "cache", "--clear"],
    ]  # fmt: skip
    results, calls = run_on_windows(tmp_path / "windows", commands)
    assert [code for code, *_ in results] == [0, 0, 0, 0, 0, 0, 2, 0], results
    assert run(*learn).code == run(*resume).code == 0
    assert_same_runs(tmp_path / "run", tmp_path / "windows" / "run")
    printed = [out.encode("latin-1").decode("utf-8") for _, out, _ in results]
    assert printed[3:6] == [run(*command).out for command in commands[3:6]]
    assert "séa “—”" in printed[4]
    assert calls.count("colours") == len(commands)
    assert {"SwitchToThread", "interrupted"} <= set(calls), "Ctrl-Break asks for an end"
    assert not [path for path in (tmp_path / "windows").rglob("*") if path.name.endswith(".tmp")]


@pytest.fixture
def windows(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "colorama", SimpleNamespace(just_fix_windows_console=lambda: None))


class Busy:
    """`os.replace` on Windows: what another program has open stays so for some tries."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tries: int) -> None:
        self.left, self.real, self.slept = tries, os.replace, []
        monkeypatch.setattr(os, "replace", self)
        monkeypatch.setattr(time, "sleep", self.slept.append)

    def __call__(self, source: Path, target: Path) -> None:
        if self.left:
            self.left -= 1
            raise PermissionError(errno.EACCES, IN_USE, str(source), 32, str(target))
        self.real(source, target)


@pytest.mark.parametrize("tries", [0, 1, 8])
def test_a_file_that_is_open_for_a_moment_is_replaced_after_it(tmp_path, monkeypatch, windows, tries):
    (tmp_path / "f").write_bytes(b"old")
    busy = Busy(monkeypatch, tries)
    write_durably(tmp_path / "f", [b"new"])
    assert (tmp_path / "f").read_bytes() == b"new"
    assert len(busy.slept) == tries
    assert sum(busy.slept) < 3


@pytest.mark.parametrize("system", ["win32", "linux"])
def test_a_file_that_stays_open_is_kept_and_said(tmp_path, monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    (tmp_path / "f").write_bytes(b"old")
    busy = Busy(monkeypatch, 99)
    with pytest.raises(WriteError, match=f"cannot write .*/f: {IN_USE}; the previous file is unchanged"):
        write_durably(tmp_path / "f", [b"new"])
    assert len(busy.slept) == (8 if system == "win32" else 0), "elsewhere no permission is none later"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("refused", ["state.safetensors", "model.safetensors", "metrics.jsonl", ".replacing"])
def test_an_older_run_of_which_a_file_is_open_is_left_as_it_was(tmp_path, monkeypatch, refused):
    names, real = ["metrics.jsonl", "model.safetensors", "state.safetensors"], os.replace
    for name in names:
        (tmp_path / name).write_bytes(name.encode())

    def replace(source: Path, target: Path) -> None:
        if source == tmp_path / refused or target.is_dir():
            raise PermissionError(errno.EACCES, IN_USE, str(source))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(WriteError, match=f"cannot put the older run in .* aside: {IN_USE}; is a file of it open"):
        with replace_run(tmp_path):
            pytest.fail("nothing new is written")
    assert sorted(os.listdir(tmp_path)) == names
    assert all((tmp_path / name).read_bytes() == name.encode() for name in names)
    refused = ""
    (tmp_path / ".replaced").mkdir()  # what Windows leaves where it could not remove a folder at once
    with replace_run(tmp_path):
        assert os.listdir(tmp_path) == [".replaced"]
    assert os.listdir(tmp_path) == []


def test_a_text_that_another_program_has_open_stays_in_the_cache(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text(TEXT)
    Corpus.from_files(tmp_path / "text.txt", cache=tmp_path / "cache")
    entries, real = list_entries(tmp_path / "cache"), os.replace
    Busy(monkeypatch, 99)
    with pytest.raises(WriteError, match=f"cannot remove .*: {IN_USE}; on Windows a program that learns from it must"):
        remove_entries(tmp_path / "cache", entries)
    assert list_entries(tmp_path / "cache") == entries
    monkeypatch.setattr(os, "replace", real)
    remove_entries(tmp_path / "cache", entries)
    assert list_entries(tmp_path / "cache") == []


@pytest.mark.parametrize("knows", [True, False])
def test_on_macos_the_drive_is_flushed_too(tmp_path, monkeypatch, knows):
    calls = []

    def fcntl(descriptor: int, request: int) -> None:
        calls.append((request, os.fstat(descriptor).st_size))
        if not knows:
            raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(durable, "fcntl", SimpleNamespace(fcntl=fcntl, F_FULLFSYNC=51), raising=False)
    real_sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("fsync"), real_sync(descriptor)))
    plain = [] if knows else ["fsync"]
    write_durably(tmp_path / "f.part", [b"123"])
    assert calls == [(51, 3), *plain, "fsync"], "the file, and its folder"
    calls.clear()
    move_durably(tmp_path / "f.part", tmp_path / "f")
    assert calls == [(51, 3), *plain, "fsync"]
    calls.clear()
    metrics = Metrics(tmp_path)
    metrics.write({"step": 1})
    size = metrics.sync()
    assert calls == [(51, size), *plain]


def test_a_path_on_another_drive_is_explained(tmp_path, monkeypatch):
    def relpath(path: Path) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(os.path, "relpath", relpath)
    assert explain_blocked_path(tmp_path / "file" / "below") == f"{tmp_path / 'file'} is no folder"


@pytest.mark.parametrize(("source", "name"), [
    ("con.txt", "runcon"), ("NUL.md", "runNUL"), ("com1.txt", "runcom1"), ("Lpt³.txt", "runLpt³"), ("aux", "runaux"),
    ("console.txt", "console"), ("com10.txt", "com10"), ("a: b .txt", "a b"), ("?.txt", "run"), (" .txt", "run"),
])  # fmt: skip
def test_no_run_folder_is_named_like_a_device(source, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert free_folder(source) == Path("checkpoints") / name


def test_a_signal_that_comes_again_does_not_end_the_process(monkeypatch, windows):
    sent = []
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("on Windows that ends the process"))
    monkeypatch.setattr(signal, "raise_signal", sent.append)
    _send(signal.SIGINT)
    assert sent == [signal.SIGINT]


class Closed:
    """Standard output whose reader has gone, as Windows says it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    def flush(self) -> None:
        return


@pytest.mark.parametrize(("system", "code"), [("win32", 0), ("linux", 1)])
def test_a_reader_who_has_enough_is_no_error(run, monkeypatch, system, code):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(command_line, "redirect_to_null", lambda stream: None)
    monkeypatch.setattr(command_line, "prepare_outputs", lambda: None)
    ended = run("corpus", "list", stdout=Closed())
    assert (ended.code, ended.err) == (code, "chargen: output: Invalid argument\n" * code)


def test_no_word_of_the_command_line_is_taken_for_a_pattern_or_a_variable(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_bytes(b"")
    monkeypatch.setattr(click.core, "os", SimpleNamespace(**{**vars(os), "name": "nt"}))
    for word in ("*", "$HOME", "~", "%PATH%"):
        monkeypatch.setattr(sys, "argv", ["chargen", "sample", "shakespeare", "--temperature", word])
        with pytest.raises(SystemExit):
            command_line.main()
        assert f"--temperature is '{word}'" in capsys.readouterr().err


@pytest.mark.parametrize(("path", "written"), [
    (r"C:\Users\me\run", r"C:\Users\me\run"), (r"D:\my run", r'"D:\my run"'), ("-x", "./-x"), ("it's", "it's"),
])  # fmt: skip
def test_paths_are_quoted_for_the_shells_of_windows(path, written, windows):
    assert quote_path(path) == written


def test_a_thread_waits_with_what_the_system_has(monkeypatch, windows):
    library = SimpleNamespace(SwitchToThread=ctypes.CDLL(None).getpid)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: {"kernel32": library}[name])
    assert spin_barrier._address_of_yield() == ctypes.cast(library.SwitchToThread, ctypes.c_void_p).value


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_a_system_that_tells_nothing_of_its_processor_has_no_amx(system, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/cpuinfo")

    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("nothing is asked for"))
    assert not cpu_features.amx.__wrapped__()


def test_no_module_needs_at_once_what_one_system_lacks():
    """Nor does a test, where it would keep its whole file from being read: `pytest.importorskip` says why."""
    for folder in ("chargen", "benchmarks", "tests"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.parse(path.read_text("utf-8")).body:
                names = [alias.name for alias in getattr(node, "names", [])] + [getattr(node, "module", "")]
                assert not set(names) & set(MODULES), f"{path} imports {names}"


def test_a_line_end_is_written_as_powershell_does(run, windows):
    said = run("sample", "shakespeare", "--prime", r"a\n").err
    assert 'write a line end as "`n", in PowerShell' in said


def test_certificates_that_a_python_for_macos_lacks_are_named(tmp_path, monkeypatch):
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "unable to get local issuer certificate"

    def refuse(*arguments: object, **options: object) -> None:
        raise urllib.error.URLError(error)

    monkeypatch.setattr("urllib.request.OpenerDirector.open", refuse)
    words = "^unable to get local issuer certificate; with Python from python.org on macOS, run Install Certificates"
    with pytest.raises(ConnectionBroken, match=words):
        download("https://localhost/f", tmp_path / "f", 10, "0" * 64, lambda done: None)


def test_machine_code_is_not_kept_where_a_folder_only_seems_writable(monkeypatch):
    class Refusing:
        def __init__(self, *arguments: object) -> None:
            raise RuntimeError("cannot cache function 'add': no locator available")

    monkeypatch.setattr(jit, "_Cache", Refusing)
    assert jit.compiled(lambda value: value + 1)(1) == 2
