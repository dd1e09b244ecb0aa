"""A kill at any moment leaves the old file or the new one, whole; one process at a time holds a folder."""

import errno
import gc
import os
import random
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from chargen import durable
from chargen.durable import (
    FolderGuard,
    describe_os_error,
    explain_blocked_path,
    lock_folder,
    make_folder,
    move_durably,
    remove_leftovers,
    sync_folder,
    write_durably,
)
from chargen.errors import ChargenError, WriteError
from tests.other_processes import HOLDER, kill, start
from tests.systems import ON_LINUX

SIZE = 1 << 20
WRITER = f"""
import sys
from chargen.durable import write_durably
for version in range(10**9):
    write_durably(sys.argv[1], [bytes([version % 256]) * 65536] * {SIZE // 65536})
    if version == 0:
        print("ready", flush=True)
"""


@ON_LINUX
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    target, moments, kills, halves = tmp_path / "model", random.Random(0), 0, 0
    while halves < 10:
        assert (kills := kills + 1) < 1000, "hardly a kill comes while a file is being written: this shows nothing"
        writer = start(WRITER, target)
        time.sleep(moments.random() * 0.02)
        kill(writer)
        content = target.read_bytes()
        assert len(content) == SIZE
        assert content == content[:1] * SIZE
        halves += len(os.listdir(tmp_path)) > 1
        remove_leftovers(tmp_path)
        assert os.listdir(tmp_path) == ["model"]


def test_what_is_written_is_what_is_read(tmp_path):
    write_durably(tmp_path / "new" / "folder" / "f", (bytes([n]) * n for n in range(5)))
    assert (tmp_path / "new" / "folder" / "f").read_bytes() == b"\1\2\2\3\3\3\4\4\4\4"
    write_durably(str(tmp_path / "new" / "folder" / "f"), [])
    assert (tmp_path / "new" / "folder" / "f").read_bytes() == b""
    assert os.listdir(tmp_path / "new" / "folder") == ["f"]


@ON_LINUX
def test_bytes_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    real_sync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        calls.append(("sync", Path(path).suffix, os.path.getsize(path) if os.path.isfile(path) else path))
        real_sync(descriptor)

    def replace(source, target):
        calls.append(("rename", Path(source).parent == Path(target).parent))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_durably(tmp_path / "f", [b"12", b"345"])
    assert calls == [("sync", ".tmp", 5), ("rename", True), ("sync", "", str(tmp_path))]
    calls.clear()
    (tmp_path / "f.part").write_bytes(b"whole")
    move_durably(tmp_path / "f.part", tmp_path / "f")
    assert calls == [("sync", ".part", 5), ("rename", True), ("sync", "", str(tmp_path))]
    assert (tmp_path / "f").read_bytes() == b"whole"


def failing(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@ON_LINUX
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_keeps_the_old_file_and_says_so(tmp_path, monkeypatch, call):
    target = tmp_path / "f"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, call, failing)
    words = r"cannot write .*/f: No space left on device \(3 bytes needed, [\d,.]+ (MB|bytes) free\); the previous file"
    with pytest.raises(WriteError, match=words + " is unchanged"):
        write_durably(target, [b"new"])
    monkeypatch.undo()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


@ON_LINUX
def test_a_disk_that_fills_while_writing_keeps_the_old_file(tmp_path):
    target = tmp_path / "f"
    target.write_bytes(b"old")
    import resource  # where there is Linux

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ChargenError, match=r"cannot write .*: File too large"):
            write_durably(target, [b"new" * 10_000] * 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize(
    ("size", "needed"),
    [
        (None, ""),
        (0, "0 bytes needed, "),
        (999_999, "999,999 bytes needed, "),
        (1_000_000, "1.0 MB needed, "),
        (1_250_000, "1.2 MB needed, "),
        (10**15, "1,000,000,000.0 MB needed, "),
    ],
)
def test_a_full_disk_says_what_is_needed_and_what_is_free(tmp_path, monkeypatch, size, needed):
    monkeypatch.setattr(durable.shutil, "disk_usage", lambda folder: SimpleNamespace(free=len(str(folder))))
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert describe_os_error(error, tmp_path, size) == f"{error.strerror} ({needed}{len(str(tmp_path))} bytes free)"


def test_a_disk_that_cannot_be_measured_gives_the_reason_alone(tmp_path):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert describe_os_error(error, tmp_path / "gone", 5) == f"{error.strerror} (5 bytes needed)"
    assert describe_os_error(OSError(errno.EACCES, "Permission denied"), tmp_path, 5) == "Permission denied"
    assert describe_os_error(OSError("something odd"), tmp_path, 5) == "something odd"


def test_what_a_killed_writer_would_leave_is_removed(tmp_path):
    def blocks():
        yield b"new"
        leftovers.extend(os.listdir(tmp_path))

    leftovers = []
    write_durably(tmp_path / "f", blocks())
    assert len(leftovers) == 1
    (tmp_path / leftovers[0]).write_bytes(b"new")
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["f"]


def twice(call):
    """As if another process did the same just before."""

    def both(*arguments, **named):
        call(*arguments, **named)
        call(*arguments, **named)

    return both


def test_what_another_process_does_at_the_same_time_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "mkdir", twice(os.mkdir))
    monkeypatch.setattr(os, "unlink", twice(os.unlink))
    write_durably(tmp_path / "new" / "folder" / "f", [b"x"])
    (tmp_path / "new" / "folder" / ".f.0123456789abcdef.tmp").write_bytes(b"")
    remove_leftovers(tmp_path / "new" / "folder")
    assert os.listdir(tmp_path / "new" / "folder") == ["f"]


@ON_LINUX
def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    for call in (sync_folder, make_folder):
        with pytest.raises(OSError, match=r"Not a directory|File exists"):
            call(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, GeneratorExit])
def test_an_interruption_passes_through_and_leaves_nothing_behind(tmp_path, error):
    def blocks():
        yield b"new"
        raise error

    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(error):
        write_durably(tmp_path / "f", blocks())
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


@ON_LINUX
def test_a_path_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "file" / "below", tmp_path / "folder", tmp_path / ("n" * 300)):
        with pytest.raises(ChargenError, match="cannot write") as caught:
            write_durably(target, [b"x"])
        assert len(str(caught.value).splitlines()) == 1
        assert caught.value.exit_code == 1
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


@ON_LINUX
def test_a_failure_after_the_rename_promises_no_old_file(tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(b"old")
    monkeypatch.setattr(durable, "sync_folder", failing)
    with pytest.raises(ChargenError, match=r"/f is written, but its folder cannot be synced \(No space left") as caught:
        write_durably(tmp_path / "f", [b"new"])
    assert "unchanged" not in str(caught.value)
    assert (tmp_path / "f").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]


@ON_LINUX
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002, 0o027])
def test_the_umask_is_honoured(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_durably(tmp_path / "f", [b"x"])
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o666 & ~mask


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    leftovers = [".model.safetensors.0123456789abcdef.tmp", ".a.b.ffffffffffffffff.tmp"]
    kept = ["model.tmp", ".model.tmp", ".lock", "metrics.jsonl", "a.0123456789abcdef.tmp", ".a.0123456789ABCDEF.tmp"]
    kept += [
        ".a.0123.tmp",
        ".a.0123456789abcde.tmp",
        ".a.0123456789abcdef.tmp.txt",
        ".a.0123456789abcdef0.tmp",
        "..0123456789abcdef.tmp",
    ]
    for name in leftovers + kept:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / leftovers[0]).write_bytes(b"")
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "sub"])
    assert os.listdir(tmp_path / "sub") == [leftovers[0]]


def test_a_folder_named_like_a_leftover_is_let_be(tmp_path):
    (tmp_path / ".a.0123456789abcdef.tmp").mkdir()
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == [".a.0123456789abcdef.tmp"]


@ON_LINUX
def test_a_folder_is_held_by_one_process_and_the_lock_dies_with_it(tmp_path, monkeypatch):
    holder = start(HOLDER, tmp_path)
    try:
        with (
            pytest.raises(ChargenError, match=r"is in use by another run; .* another `out`"),
            lock_folder(tmp_path),
        ):
            pass
    finally:
        kill(holder)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits for the lock"))
    with lock_folder(tmp_path):
        with pytest.raises(ChargenError, match="in use") as caught, lock_folder(tmp_path):
            pass
        assert not isinstance(caught.value, WriteError), "a run may go on without a file, but not without its folder"
    with lock_folder(tmp_path):
        pass


@ON_LINUX
def test_the_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(KeyError), lock_folder(tmp_path):
        raise KeyError
    holder = start(HOLDER, tmp_path)
    kill(holder)


@ON_LINUX
def test_a_folder_that_cannot_be_locked_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    words = r"^cannot write in .*/file: (File exists|Not a directory); choose another `out`$"
    with pytest.raises(ChargenError, match=words), lock_folder(tmp_path / "file"):
        pass


@ON_LINUX
@pytest.mark.parametrize(("number", "facts"), [
    (errno.ENOSPC, r" \(5 bytes needed, [0-9,.]+ MB free\)"), (errno.EDQUOT, r" \(5 bytes needed\)"), (errno.EIO, ""),
])  # fmt: skip
@pytest.mark.parametrize("existing", [True, False])
def test_what_is_told_of_a_write_that_failed_is_true(tmp_path, monkeypatch, number, facts, existing):
    def failing(descriptor):
        raise OSError(number, "No")

    if existing:
        write_durably(tmp_path / "f", [b"old"])
    monkeypatch.setattr(os, "fsync", failing)
    unchanged = "; the previous file is unchanged" if existing else ""
    with pytest.raises(ChargenError, match=f"^cannot write .*/f: No{facts}{unchanged}$"):
        write_durably(tmp_path / "f", [b"12345"])


@ON_LINUX
@pytest.mark.parametrize(("call", "error", "bad"), [
    ("open", PermissionError(errno.EACCES, "No"), False), ("fsync", OSError(errno.EINVAL, "No"), False),
    ("fsync", OSError(errno.ENOTSUP, "No"), False), ("fsync", OSError(errno.EIO, "No"), True),
])  # fmt: skip
def test_a_folder_that_no_one_can_sync_is_written_all_the_same(tmp_path, monkeypatch, call, error, bad):
    real = getattr(os, call)

    def failing(what, *arguments):
        folder = os.path.isdir(what if call == "open" else os.readlink(f"/proc/self/fd/{what}"))
        if folder:
            raise error
        return real(what, *arguments)

    monkeypatch.setattr(os, call, failing)
    if bad:
        with pytest.raises(OSError, match="No"):
            make_folder(tmp_path / "new" / "folder")
        return
    make_folder(tmp_path / "new" / "folder")
    write_durably(tmp_path / "new" / "folder" / "f", [b"12345"])
    assert (tmp_path / "new" / "folder" / "f").read_bytes() == b"12345"


@ON_LINUX
def test_a_path_below_what_is_no_folder_is_explained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"")
    Path("link").symlink_to("nowhere")
    Path("folder").mkdir()
    for name in ("file", "link"):
        for below in ("a", "a/b"):
            assert explain_blocked_path(Path(name, below)) == f"{name} is no folder"
    for path in ("file", "a", "folder/a", "folder/a/b/c", "/"):
        assert explain_blocked_path(Path(path)) == ""


@ON_LINUX
@pytest.mark.parametrize("readable", [True, False])
def test_a_folder_in_the_place_of_another_is_noticed(tmp_path, monkeypatch, readable):
    folder = tmp_path / "run"
    folder.mkdir()
    with monkeypatch.context() as patch:
        if not readable:
            patch.setattr(os, "open", failing)
        guard = FolderGuard(folder)
    guard.check()
    folder.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        guard.check()
    folder.mkdir()
    if readable:
        with pytest.raises(WriteError) as caught:
            guard.check()
        assert str(caught.value) == (
            f"cannot write into {folder}: it is another folder than the one that this run began in"
        )
    else:
        guard.check()
    folder.rmdir()
    (tmp_path / "moved").rename(folder)
    guard.check()


@ON_LINUX
def test_a_system_without_a_flag_for_folders_holds_and_syncs_them(tmp_path, monkeypatch):
    """Windows has none."""
    monkeypatch.delattr(os, "O_DIRECTORY")
    folder = tmp_path / "run"
    make_folder(folder)
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    sync_folder(folder)
    assert synced == [str(folder)]
    guard = FolderGuard(folder)
    folder.rename(tmp_path / "moved")
    folder.mkdir()
    with pytest.raises(WriteError, match="it is another folder than"):
        guard.check()


@ON_LINUX
def test_no_file_stays_open(tmp_path):
    gc.collect()  # what other tests left open
    before = os.listdir("/proc/self/fd")
    guard = FolderGuard(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    del guard
    write_durably(tmp_path / "new" / "f", [b"x"])
    with lock_folder(tmp_path):
        pass
    with pytest.raises(NotADirectoryError):
        sync_folder(tmp_path / "new" / "f")
    guard = FolderGuard(tmp_path / "new" / "f")  # which would wait for a writer where it opened a pipe
    assert os.listdir("/proc/self/fd") == before
    guard.check()


@pytest.mark.parametrize("what", ["text", "folder", "link", "link to nowhere"])
def test_a_lock_that_is_something_else_is_let_be(tmp_path, what):
    lock = tmp_path / "run" / ".lock"
    lock.parent.mkdir()
    (tmp_path / "empty").write_bytes(b"")
    if what == "text":
        lock.write_bytes(b"x")
    elif what == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(tmp_path / ("empty" if what == "link" else "nowhere"))
    with pytest.raises(ChargenError) as caught, lock_folder(lock.parent):
        pass
    assert str(caught.value) == f"{lock} is not a lock that chargen made; choose another `out`"
    assert what != "text" or lock.read_bytes() == b"x"
    assert sorted(os.listdir(tmp_path)) == ["empty", "run"]
