"""A web server on this machine, that answers by a script."""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from chargen.data import download
from chargen.data.named_corpora import NamedCorpus, catalogue

TALE = b"Once upon a time there was a king who counted his characters. " * 60
"""The corpus that a server has for tests."""
Answer = Callable[[BaseHTTPRequestHandler], None]


def serve(
    content: bytes, *, ranges: bool = True, length: int | None = None, cut: int | None = None, wait: Any = None
) -> Answer:
    """Answer with a file.

    Args:
        content: of the file.
        ranges: whether a part may be asked for.
        length: what the header says; None: the truth.
        cut: bytes after which the connection breaks.
        wait: an event that is waited for then, in place of breaking.
    """

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range", "") if ranges else ""
        start = int(asked.removeprefix("bytes=").removesuffix("-") or 0)
        handler.send_response(206 if asked else 200)
        handler.send_header("Content-Length", str(len(content) - start if length is None else length))
        if asked:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.end_headers()
        handler.wfile.write(content[start:] if cut is None else content[start : start + cut])
        if wait is not None:
            wait.wait(60)

    return answer


def status(code: int, **headers: str) -> Answer:
    """Answer with a status and headers, and nothing else."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def raw(content: bytes) -> Answer:
    """Answer with bytes that need not be HTTP."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(content)

    return answer


@dataclass
class Web:
    """What the server is to answer, in this order, and what it was asked.

    Args:
        url: of the server.
        answers: each is given once, the last one for ever.
        asked: the Range of each request; "" for none.
    """

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def script(self, *answers: Answer) -> None:
        """Begin anew."""
        self.answers, self.asked = list(answers), []


@contextlib.contextmanager
def running_web() -> Iterator[Web]:
    """Run a server while the context lasts."""
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.asked.append(self.headers.get("Range", ""))
            answer = web.answers.pop(0) if len(web.answers) > 1 else web.answers[0]
            with contextlib.suppress(ConnectionError):  # the other side has heard enough
                answer(self)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def allow(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files be fetched from the server, though it does not speak https."""
    check = download.check_address

    def check_others(address: str) -> None:
        if not address.startswith(f"{web.url}/"):
            check(address)

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("CHARGEN_OFFLINE", raising=False)
    monkeypatch.setattr(download, "check_address", check_others)


def name_corpus(web: Web, monkeypatch: pytest.MonkeyPatch, content: bytes, file: str = "tale.txt") -> NamedCorpus:
    """Put a corpus into the catalogue, and its file onto the server."""
    allow(web, monkeypatch)
    web.script(serve(content))
    name, digest = file.partition(".")[0], hashlib.sha256(content).hexdigest()
    corpus = NamedCorpus(
        name, "a tale", "none", f"{web.url}/{file}", len(content), digest, {"unit": "byte"}, ("a record",)
    )
    monkeypatch.setitem(catalogue(), name, corpus)
    return corpus
