"""Lines of JSON that other programs send: read by a thread of their own, checked, and kept until they are answered."""

import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from chargen.api.requests import FillRequest, GenerateRequest, Id, RequestError, is_id, make_request
from chargen.errors import ChargenError, repr_short, truncate

MAX_LINE = 2**20
"""Bytes of a line; what is longer is passed over without being kept."""
MAX_WAITING = 2**23
"""Bytes of the lines that wait to be answered; while there are more, none is read."""
OVERHEAD = 500
"""Bytes that a line takes beside its own."""
WAIT = 1.0
"""Seconds after which a signal is seen at the latest where it ends no waiting, as on Windows."""


class Line(NamedTuple):
    """A line that was read.

    Args:
        id: of the request.
        request: what it asks for, or what is wrong with it.
        size: bytes that it takes.
    """

    id: Id
    request: Any
    size: int


class Waiting:
    """Lines that were read and wait to be answered; a thread of its own reads them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._short: deque[Line] = deque()
        self._long: deque[Line] = deque()
        self._size = 0
        self._ended = False
        self._failure: Exception | None = None

    def read(self, stream: BinaryIO) -> None:
        """Read lines until there are no more, as many as may wait.

        Args:
            stream: the lines.
        """
        try:
            for text in split_lines(stream):
                if text is None or text.strip():
                    self._add(parse_line(text))
        except (OSError, ValueError) as error:
            self._failure = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _add(self, line: Line) -> None:
        with self._changed:
            while self._size > MAX_WAITING:
                self._changed.wait()
            long = isinstance(line.request, (GenerateRequest, FillRequest))
            (self._long if long else self._short).append(line)
            self._size += line.size
            self._changed.notify_all()

    def take_short(self, *, wait: bool) -> list[Line]:
        """Take all lines that are answered at once.

        Args:
            wait: whether to wait for a line of any kind, where there is none.
        """
        with self._changed:
            while wait and not (self._short or self._long or self._ended):
                self._changed.wait(WAIT)
            taken = list(self._short)
            self._short.clear()
            return self._remove(taken)

    def take_long(self) -> Line | None:
        """Take the next text to write, if there is one."""
        with self._changed:
            return self._remove([self._long.popleft()])[0] if self._long else None

    def drop(self, id: Id) -> list[Line]:
        """Take all texts to write that have an id.

        Args:
            id: of their requests.
        """
        with self._changed:
            taken = [line for line in self._long if line.id == id]
            self._long = deque(line for line in self._long if line.id != id)
            return self._remove(taken)

    def _remove(self, lines: list[Line]) -> list[Line]:
        self._size -= sum(line.size for line in lines)
        self._changed.notify_all()
        return lines

    def over(self) -> bool:
        """Whether nothing waits and no more will come; what ended it too early is raised."""
        with self._changed:
            over = self._ended and not self._short and not self._long
            if over and self._failure:
                raise self._failure
            return over


def split_lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Read lines of a stream as they come.

    Args:
        stream: a buffered one is read past its buffer, whose lock would keep the process from ending.

    Yields:
        A line without its end; None for one that is too long.
    """
    read = getattr(stream, "raw", stream).read
    held: bytes | None = b""
    while (chunk := read(2**16)) != b"":
        if chunk is None:  # of a stream that does not wait
            time.sleep(0.01)
            continue
        for number, part in enumerate(chunk.split(b"\n")):
            if number:
                yield held
                held = b""
            held = None if held is None or len(held) + len(part) > MAX_LINE else held + part
    if held != b"":
        yield held


def parse_line(line: bytes | None) -> Line:
    """Read a request.

    Args:
        line: without its end; None for one that was too long.
    """
    id, size = None, OVERHEAD + len(line or b"")
    try:
        values = _parse_json(line)
        if isinstance(values, dict) and is_id(values.get("id")):
            id = values.get("id")
        return Line(id, make_request(values), size)
    except ChargenError as error:
        return Line(id, error, size)


def _parse_json(line: bytes | None) -> Any:
    if line is None:
        raise RequestError(f"the line has more than {MAX_LINE:,} bytes: send less at a time")
    try:
        return json.loads(line.decode("utf-8-sig"), object_pairs_hook=_as_dict, parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise RequestError(f"the line is no UTF-8: byte {error.start:,} does not fit") from error
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the line is no JSON: {truncate(error, 100)}") from error


def _as_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise RequestError(f"{repr_short(name)} occurs twice in an object: leave out one of the two")
        values[name] = value
    return values


def _refuse(name: str) -> Any:
    raise RequestError(f"the line is no JSON: {name} is no number there")
