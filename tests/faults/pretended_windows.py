"""A process that finds what Windows has, as far as that can be pretended on Linux; run commands in it.

What only POSIX has is taken away. Files and folders that are open, or mapped, refuse to be moved and removed; folders
refuse to be opened; files opened as text are cp1252 with CR LF. What is not pretended: another linker, another C
library, drives and device names, consoles.
"""

import builtins
import ctypes
import errno
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import types
from pathlib import Path
from typing import Any

ABSENT = {
    os: ["fork", "register_at_fork", "sched_getaffinity", "sysconf", "uname", "getuid", "mkfifo", "O_DIRECTORY",
         "chown", "killpg", "setsid", "getpgid", "pread"],
    signal: ["SIGHUP", "SIGKILL", "SIGUSR1", "SIGALRM", "setitimer", "pthread_sigmask", "pthread_kill", "siginterrupt"],
    time: ["clock_gettime", "CLOCK_BOOTTIME", "CLOCK_MONOTONIC"],
}  # fmt: skip
MODULES = ["fcntl", "resource", "termios", "tty", "pty", "pwd", "grp"]
IN_USE = "The process cannot access the file because it is being used by another process"


def become_windows() -> list[str]:
    """Change this process; returns a list that gets the names of the fakes that are called."""
    calls: list[str] = []
    readlink, real_open, scandir = os.readlink, builtins.open, os.listdir

    def open_paths() -> list[str]:
        links = []
        for name in scandir("/proc/self/fd"):
            try:
                links.append(readlink(f"/proc/self/fd/{name}"))
            except FileNotFoundError:
                continue
        with real_open("/proc/self/maps") as maps:
            return links + [line.split(maxsplit=5)[5].rstrip("\n") for line in maps if "/" in line]

    def refusing(real: Any) -> Any:
        def call(*paths: Any, **options: Any) -> Any:
            for path in paths:
                whole = os.path.abspath(path)
                if any(opened == whole or opened.startswith(whole + "/") for opened in open_paths()):
                    raise PermissionError(errno.EACCES, IN_USE, os.fspath(path))
            if real.__name__ in ("replace", "rename") and os.path.isdir(paths[1]):
                raise PermissionError(errno.EACCES, "Access is denied", os.fspath(paths[0]), None, os.fspath(paths[1]))
            return real(*paths, **options)

        return call

    for name in ("replace", "rename", "unlink", "remove", "rmdir"):
        setattr(os, name, refusing(getattr(os, name)))
    shutil._use_fd_functions, tempfile.TemporaryFile = False, tempfile.NamedTemporaryFile
    real_os_open = os.open

    def os_open(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return real_os_open(path, flags, *arguments, **options)

    def text_open(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if isinstance(file, (str, os.PathLike)) and os.fspath(file).startswith("/proc"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", file)
        if "b" not in mode and len(arguments) < 2:
            options["encoding"] = options.get("encoding") or "cp1252"
            if set(mode) & set("wax+"):
                options["newline"] = "\r\n" if options.get("newline") is None else options["newline"]
        return real_open(file, mode, *arguments, **options)

    def kill(pid: int, number: int) -> None:
        raise AssertionError("on Windows os.kill ends the process")

    class Library:
        """kernel32, with the one function that is looked up."""

        SwitchToThread = ctypes.CDLL(None).sched_yield

        def __init__(self, name: str | None) -> None:
            assert name == "kernel32", name
            calls.append("SwitchToThread")

    os.open, os.kill, ctypes.CDLL = os_open, kill, Library
    builtins.open = io.open = text_open
    for module, names in ABSENT.items():
        for name in names:
            delattr(module, name)
    for name in MODULES:
        sys.modules[name] = None
    signal.SIGBREAK = 21
    fake = types.SimpleNamespace(just_fix_windows_console=lambda: calls.append("colours"))
    sys.modules["colorama"] = fake
    sys.platform = "win32"
    return calls


def run_commands(commands: list[list[str]]) -> None:
    """Run commands in a row, and print what they did as JSON: code, standard output (Latin-1) and standard error."""
    from chargen.cli.main import main

    done, streams = [], (sys.stdout, sys.stderr)
    for arguments in commands:
        files = [tempfile.NamedTemporaryFile() for _ in range(2)]  # noqa: SIM115
        sys.stdout, sys.stderr = (io.TextIOWrapper(file.file, "cp1252", newline="\r\n") for file in files)
        try:
            main(arguments)
        except SystemExit as error:
            code = error.code
        except BaseException:
            code = traceback.format_exc()
        sys.stdout.flush(), sys.stderr.flush()
        done.append([code, *(Path(file.name).read_bytes().decode("latin-1") for file in files)])
        sys.stdout, sys.stderr = streams
    print(json.dumps(done))


def run_on_windows(folder: Path, commands: list[list[str]]) -> tuple[list[Any], list[str]]:
    """What commands do in a folder, and which fakes were called."""
    words = [sys.executable, __file__, json.dumps(commands)]
    environment = {**os.environ, "CHARGEN_CACHE": str(folder / "cache")}
    ran = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    results, calls = map(json.loads, ran.stdout.splitlines())
    return results, calls


if __name__ == "__main__":
    for name in "asyncio", "click", "filelock", "numba.core.caching", "tokenizers", "torch", "tqdm", "webbrowser":
        importlib.import_module(name)  # these choose their ways when they are loaded
    calls = become_windows()
    run_commands(json.loads(sys.argv[1]))
    from chargen.cli.signals import _ENDINGS

    print(json.dumps([*calls, _ENDINGS[signal.SIGBREAK]]))
