"""Lines of JSON to and from a model, in this process: what is sent may depend on what was answered."""

import io
import json
import queue
from collections.abc import Callable, Iterable
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


class _Input:
    """Lines that are sent later, too."""

    def __init__(self) -> None:
        self.chunks: queue.Queue[bytes] = queue.Queue()

    def read(self, size: int) -> bytes:
        return self.chunks.get(timeout=60)


class _Output(io.StringIO):
    """Hands every line on."""

    def __init__(self, hear: Callable[[Answer], object]) -> None:
        super().__init__()
        self.hear = hear

    def write(self, text: str) -> int:
        for line in text.splitlines():
            self.hear(strict_json(line))
        return len(text)


def converse(file: ModelFile, first: Iterable[Any], reply: Callable[[Answer], Iterable[Any] | None]) -> list[Answer]:
    """Send requests, and others as replies to answers, until `reply` returns None.

    Args:
        file: the model.
        first: requests: values of JSON, or lines as bytes.
        reply: gets each answer behind the ready line, and returns more requests.

    Returns:
        The answers.
    """
    sent, answers = _Input(), []

    def send(requests: Iterable[Any]) -> None:
        lines = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in requests]
        if lines:
            sent.chunks.put(b"\n".join(lines) + b"\n")

    def hear(answer: Answer) -> None:
        if answer.get("ready"):
            send(first)
            return
        answers.append(answer)
        if (more := reply(answer)) is None:
            sent.chunks.put(b"")
        else:
            send(more)

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
    lines = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in requests]
    out = io.StringIO()
    answer_lines(file, io.BytesIO(b"\n".join(lines)), out)
    ready, *answers = map(strict_json, out.getvalue().splitlines())
    assert ready["ready"]
    return answers
