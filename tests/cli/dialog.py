"""Lines of JSON to and from a model, in this process: what is sent may depend on what was answered."""

import io
import json
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from chargen.cli.json_lines import answer_lines
from chargen.storage.model_file import ModelFile

Answer = dict[str, Any]


def strict_json(line: str) -> Any:
    """Parse a line as a strict reader does."""

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    assert line.isascii()
    return json.loads(line, parse_constant=refuse)


def as_lines(requests: Iterable[Any]) -> bytes:
    """Requests, values of JSON or lines as bytes, as lines."""
    lines = (each if isinstance(each, bytes) else json.dumps(each).encode() for each in requests)
    return b"".join(line + b"\n" for line in lines)


class _Input:
    """Lines that are sent later, too."""

    def __init__(self) -> None:
        self.chunks: queue.Queue[bytes] = queue.Queue()
        self.asked = threading.Event()

    def read(self, size: int) -> bytes:
        self.asked.set()
        try:
            return self.chunks.get(timeout=60)
        except queue.Empty:  # the answers ended otherwise
            return b""

    def send(self, chunk: bytes) -> None:
        """Send some lines, and wait until they have been read."""
        self.asked.clear()
        self.chunks.put(chunk)
        self.asked.wait(60)


class _Output(io.StringIO):
    """Hands every line on."""

    def __init__(self, hear: Callable[[Answer], object]) -> None:
        super().__init__()
        self.hear = hear

    def write(self, text: str) -> int:
        for line in text.splitlines():
            self.hear(strict_json(line))
        return len(text)


def converse(file: ModelFile, first: Iterable[Any], reply: Callable[[Answer], Sequence[Any] | None]) -> list[Answer]:
    """Send requests, and others as replies to answers, until `reply` returns None.

    Args:
        file: the model.
        first: requests: values of JSON, or lines as bytes.
        reply: gets each answer behind the ready line, and returns more requests.

    Returns:
        The answers.
    """
    sent, answers = _Input(), []

    def hear(answer: Answer) -> None:
        if answer.get("ready"):  # before anything is read
            sent.chunks.put(as_lines(first))
            return
        answers.append(answer)
        more = reply(answer)
        if more is None:
            sent.chunks.put(b"")
        elif more:
            sent.send(as_lines(more))

    answer_lines(file, sent, _Output(hear))
    return answers


def ask(file: ModelFile, *requests: Any) -> list[Answer]:
    """Send requests and then nothing more.

    Args:
        file: the model.
        *requests: values of JSON, or lines as bytes.

    Returns:
        All answers behind the ready line.
    """
    out = io.StringIO()
    answer_lines(file, io.BytesIO(as_lines(requests)), out)
    ready, *answers = map(strict_json, out.getvalue().splitlines())
    assert ready["ready"]
    return answers
