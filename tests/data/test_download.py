"""Downloads from a server on this machine: right, wrong, cut, slow, redirected, too large, twice at once, killed."""

import contextlib
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.data import download as module
from chargen.data.download import BLOCK, ConnectionBroken, WrongFile, check_address, download
from chargen.errors import Stopped, WriteError
from tests.web import Web, allow, raw, running_web, serve, status

CONTENT = bytes(range(256)) * 800
"""More than a block."""
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def web(server: Web, monkeypatch: pytest.MonkeyPatch) -> Web:
    """The server, from which alone files may be fetched without https."""
    allow(server, monkeypatch)
    server.script(serve(CONTENT))
    return server


def get(web: Web, folder: Path, progress: Callable[[int], object] = lambda done: None, sha256: str = SHA256) -> Path:
    path = folder / "corpus" / "file.txt"
    download(f"{web.url}/file.txt", path, len(CONTENT), sha256, progress)
    return path


def left(folder: Path) -> dict[str, int]:
    """The files that there are, and their sizes; a lock holds nothing."""
    files = {path.name: path.stat().st_size for path in (folder / "corpus").iterdir()}
    assert files.pop(".lock", 0) == 0
    return files


def test_a_file_arrives_whole_and_is_fetched_once(web: Web, tmp_path: Path) -> None:
    seen: list[int] = []
    for _ in range(2):
        assert get(web, tmp_path, seen.append).read_bytes() == CONTENT
    assert web.asked == [""]
    assert left(tmp_path) == {"file.txt": len(CONTENT)}
    assert seen == sorted(set(seen))
    assert seen[-1] == len(CONTENT)
    assert len(seen) >= len(CONTENT) / BLOCK


@pytest.mark.parametrize("address", ["http://example.org/a", "ftp://example.org/a", "file:///etc/hosts", "a.txt", ""])
def test_what_is_not_https_is_never_asked(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.build_opener", lambda *handlers: pytest.fail("somebody was asked"))
    with pytest.raises(ConnectionBroken, match="not an https address"):
        download(address, tmp_path / "a", 1, SHA256, lambda done: None)
    check_address("https://example.org/a")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_but_to_https_only(code: int, web: Web, tmp_path: Path) -> None:
    web.script(status(code, Location=f"{web.url}/elsewhere"), serve(CONTENT))
    assert get(web, tmp_path / "followed").read_bytes() == CONTENT
    web.script(status(code, Location="http://localhost:9/a"))
    with pytest.raises(ConnectionBroken, match="http://localhost:9/a is not an https address"):
        get(web, tmp_path / "refused")
    assert left(tmp_path / "refused") == {}


@given(
    cuts=st.lists(st.integers(0, len(CONTENT) - 1), max_size=4), ranges=st.lists(st.booleans(), min_size=5, max_size=5)
)
def test_a_broken_transfer_goes_on_where_it_broke(
    cuts: list[int], ranges: list[bool], web: Web, tmp_path: Path
) -> None:
    web.script(*(serve(CONTENT, cut=cut, ranges=ranges[n]) for n, cut in enumerate(cuts)), serve(CONTENT))
    folder, have = tmp_path / str(time.monotonic_ns()), 0
    for number, cut in enumerate(cuts):
        expected = f"bytes={have}-" if have else ""
        have = min(cut + (have if ranges[number] else 0), len(CONTENT))
        with pytest.raises(ConnectionBroken) if have < len(CONTENT) else contextlib.nullcontext():
            get(web, folder)
        assert web.asked[-1] == expected
        if have == len(CONTENT):
            break
        assert left(folder) == {"file.txt.part": have}
    assert get(web, folder).read_bytes() == CONTENT
    assert left(folder) == {"file.txt": len(CONTENT)}


def test_a_message_says_how_far_it_got(web: Web, tmp_path: Path) -> None:
    web.script(serve(CONTENT, cut=5_000))
    with pytest.raises(ConnectionBroken, match="after 5,000 of 204,800 bytes, from where the next try goes on"):
        get(web, tmp_path)


def test_a_server_that_stops_sending_is_given_up_and_resumed(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    over = threading.Event()
    web.script(serve(CONTENT, cut=70_000, wait=over), serve(CONTENT))
    with pytest.raises(ConnectionBroken, match=r"timed out, after 70,000 of"):
        get(web, tmp_path)
    over.set()
    assert left(tmp_path) == {"file.txt.part": 70_000}
    assert get(web, tmp_path).read_bytes() == CONTENT
    assert web.asked == ["", "bytes=70000-"]


def test_another_file_of_the_same_size_is_not_kept(web: Web, tmp_path: Path) -> None:
    web.script(serve(CONTENT[::-1]))
    with pytest.raises(WrongFile, match="another SHA-256"):
        get(web, tmp_path)
    assert left(tmp_path) == {}
    assert web.asked == [""]


def test_what_was_kept_of_another_file_is_fetched_once_more(web: Web, tmp_path: Path) -> None:
    for begun in (b"something else", b"\0" * len(CONTENT), b"\0" * (len(CONTENT) + 5)):
        folder = tmp_path / str(len(begun))
        (folder / "corpus").mkdir(parents=True)
        (folder / "corpus" / "file.txt.part").write_bytes(begun)
        assert get(web, folder).read_bytes() == CONTENT
        assert left(folder) == {"file.txt": len(CONTENT)}


def test_a_part_that_is_whole_needs_no_server(web: Web, tmp_path: Path) -> None:
    """As a kill leaves it, just before the file gets its name."""
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "file.txt.part").write_bytes(CONTENT)
    assert get(web, tmp_path).read_bytes() == CONTENT
    assert web.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        serve(CONTENT + b"x"),
        serve(CONTENT[:-1]),
        serve(CONTENT, length=10**12, cut=0),
        raw(b"HTTP/1.0 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"),
        raw(b"HTTP/1.0 200 OK\r\n\r\n" + CONTENT + b"x" * 10),
        raw(b"HTTP/1.0 200 OK\r\n\r\n" + CONTENT * 20),
    ],
    ids=["larger", "smaller", "huge", "of 5,000 digits", "larger without a length", "huge without a length"],
)
def test_a_file_of_another_size_is_refused_and_not_kept(answer: Any, web: Web, tmp_path: Path) -> None:
    web.script(answer)
    with pytest.raises(WrongFile, match=r"should have .*it is another file|more than the 204,800 bytes"):
        get(web, tmp_path)
    assert left(tmp_path) == {}


def test_a_part_of_a_file_of_another_size_is_refused(web: Web, tmp_path: Path) -> None:
    web.script(serve(CONTENT, cut=9), serve(CONTENT + b"x"))
    with pytest.raises(ConnectionBroken):
        get(web, tmp_path)
    with pytest.raises(WrongFile, match="a size of 204801 and should have 204,800 bytes"):
        get(web, tmp_path)
    assert left(tmp_path) == {}


def test_a_server_that_cannot_go_on_is_asked_for_the_whole(web: Web, tmp_path: Path) -> None:
    web.script(serve(CONTENT, cut=9), status(416), serve(CONTENT))
    with pytest.raises(ConnectionBroken):
        get(web, tmp_path)
    assert get(web, tmp_path).read_bytes() == CONTENT
    assert web.asked == ["", "bytes=9-", ""]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (status(404), "the server says 404 Not Found"),
        (status(503), "the server says 503"),
        (status(206, Content_Range="bytes 7-204799/204800"), "another part of the file"),
        (status(206), "another part of the file"),
        (status(206, Content_Range=f"bytes {'9' * 5000}-1/1"), "another part of the file"),
        (raw(b"nonsense\r\n"), "nonsense"),
        (raw(b""), "closed connection without response"),
        (status(302, Location="/again"), "redirect"),
        (status(302, Location="https://[bad"), "no address"),
        (status(302, Location="https://a..b/"), "no address"),
        (status(302, Location="https://\xe4.example/"), "no address"),
    ],
)
def test_an_answer_that_is_none_is_one_line(answer: Any, message: str, web: Web, tmp_path: Path) -> None:
    web.script(answer)
    with pytest.raises(ConnectionBroken, match=message) as caught:
        get(web, tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert left(tmp_path) == {}


def test_nobody_who_answers_is_one_line(web: Web, tmp_path: Path) -> None:
    with running_web() as gone:
        pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "check_address", lambda address: None)
        with pytest.raises(ConnectionBroken, match=r"[Rr]efused"):
            get(gone, tmp_path)
    assert left(tmp_path) == {}


def test_a_full_disk_is_named(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("chargen.data.download.open", full, raising=False)
    with pytest.raises(WriteError, match="No space left on device"):
        get(web, tmp_path)


def test_two_at_once_fetch_once(web: Web, tmp_path: Path) -> None:
    begun, over = threading.Event(), threading.Event()

    def answer(handler: Any) -> None:
        begun.set()
        over.wait(60)
        serve(CONTENT)(handler)

    web.script(answer)
    threads = [threading.Thread(target=get, args=(web, tmp_path)) for _ in range(2)]
    for thread in threads:
        thread.start()
    begun.wait(60)
    over.set()
    for thread in threads:
        thread.join(60)
    assert web.asked == [""]
    assert left(tmp_path) == {"file.txt": len(CONTENT)}


@pytest.mark.parametrize("error", [Stopped("stopped"), KeyboardInterrupt()])
def test_who_stops_it_keeps_what_has_arrived(error: BaseException, web: Web, tmp_path: Path) -> None:
    def stop(done: int) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        get(web, tmp_path, stop)
    assert caught.value is error
    ((name, size),) = left(tmp_path).items()
    assert (name, size > 0) == ("file.txt.part", True)
    assert get(web, tmp_path).read_bytes() == CONTENT


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_kill_leaves_what_has_arrived_and_the_next_try_goes_on(web: Web, tmp_path: Path) -> None:
    over = threading.Event()
    web.script(serve(CONTENT, cut=3 * BLOCK, wait=over), serve(CONTENT))
    program = (
        "import sys\nfrom pathlib import Path\nfrom chargen.data import download\n"
        "download.check_address = lambda address: None\n"
        "address, path, size, sha256 = sys.argv[1:]\n"
        "show = lambda done: print(done, flush=True)\n"
        "download.download(address, Path(path), int(size), sha256, show)\n"
    )
    path = tmp_path / "corpus" / "file.txt"
    words = [sys.executable, "-c", program, f"{web.url}/a", str(path), str(len(CONTENT)), SHA256]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 3 * BLOCK:
            pass
        process.kill()
    over.set()
    ((name, size),) = left(tmp_path).items()
    assert name == "file.txt.part"
    assert get(web, tmp_path).read_bytes() == CONTENT
    assert web.asked == ["", f"bytes={size}-" if size else ""]
