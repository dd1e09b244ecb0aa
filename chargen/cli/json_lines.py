"""Requests and answers as lines of JSON on standard input and output, for editors and other programs."""

import json
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, BinaryIO, NamedTuple, TextIO

from chargen.api.requests import (
    CancelRequest,
    FillRequest,
    GenerateRequest,
    Id,
    Request,
    RequestError,
    ScoreRequest,
    is_id,
    make_request,
)
from chargen.api.session import Answer, Session, Steps, describe_error
from chargen.cli.signals import stop_on_signals
from chargen.errors import ChargenError, Stopped, repr_short, truncate
from chargen.storage.model_file import ModelFile

MAX_LINE = 2**20
"""Bytes of a line; what is longer is passed over without being kept."""
MAX_WAITING = 2**23
"""Bytes of the lines that wait to be answered; while there are more, none is read."""
OVERHEAD = 500
"""Bytes that a line takes beside its own."""
WAIT = 1.0
"""Seconds after which a signal is seen at the latest where it ends no waiting, as on Windows."""
CANCELLED: Answer = {"error": {"message": "cancelled", "setting": None, "kind": "cancelled"}}


class _Line(NamedTuple):
    """A line that was read.

    Args:
        id: of the request.
        request: what it asks for, or what is wrong with it.
        size: bytes that it takes.
    """

    id: Id
    request: Any
    size: int


def answer_lines(file: ModelFile, stream_in: BinaryIO, stream_out: TextIO) -> None:
    """Answer requests, a line of JSON each, until there are no more.

    The first line that is written says that the model is ready. Texts are written one after the other; everything else
    is answered at once, even between two pieces of a text, and texts to score that wait are read side by side.

    Args:
        file: the model.
        stream_in: the requests.
        stream_out: gets the answers, in ASCII, each as soon as it is there.

    Raises:
        OSError: nobody reads the answers, or requests cannot be read.
        Stopped: a signal came.
    """
    answering = _Answering(Session(file), stream_out)
    with stop_on_signals():
        answering.session.warm()
        answering.write({"ready": True, **answering.session.describe()})
        threading.Thread(target=answering.waiting.read, args=(stream_in,), daemon=True).start()
        while answering.step():
            pass


class _Answering:
    """Answers what waits.

    Args:
        session: of the model.
        stream: for the answers.
    """

    def __init__(self, session: Session, stream: TextIO) -> None:
        self.session, self.stream, self.waiting = session, stream, _Waiting()
        self.current: tuple[Id, Steps] | None = None
        """The text that is being written."""

    def step(self) -> bool:
        """Answer all that is short and go on with one text; tell whether there is more to do, or may come."""
        for texts, lines in groupby(self.waiting.take_short(wait=self.current is None), _shared):
            for batch in self._cut(lines) if texts else ():
                self.finish([line.id for line in batch], self._score([line.request for line in batch]))
            for line in () if texts else lines:
                self.finish([line.id], [self._answer(line.request)])
        if self.current is None and (taken := self.waiting.take_long()):
            self.current = taken.id, self.session.write(taken.request)
        if self.current is not None:
            self._go_on(*self.current)
        return self.current is not None or not self.waiting.over()

    def _go_on(self, id: Id, steps: Steps) -> None:
        """Write some more of a text."""
        try:
            piece = next(steps)
        except Stopped:
            raise
        except StopIteration as end:
            self.current = None
            self.finish([id], [end.value])
        except Exception as error:  # whatever is wrong with one request, others may follow
            self.current = None
            self.finish([id], [error])
        else:
            if piece is not None:
                self.write({"id": id, **piece})

    def _score(self, requests: Sequence[ScoreRequest]) -> Sequence[Answer | Exception]:
        try:
            return self.session.score(requests)
        except Stopped:
            raise
        except Exception as error:
            return [error] * len(requests)

    def _cut(self, lines: Iterator[_Line]) -> Iterator[list[_Line]]:
        """Cut lines into batches whose texts are short together, or a single one."""
        batch: list[_Line] = []
        size = 0
        for line in lines:
            ids = self.session.short_texts.count_ids(line.request.text)
            if batch and size + ids > self.session.short_texts.max_ids:
                yield batch
                batch, size = [], 0
            batch.append(line)
            size += ids
        if batch:
            yield batch

    def _answer(self, request: Request | ChargenError) -> Answer | ChargenError:
        """Answer what needs no model."""
        if isinstance(request, ChargenError):
            return request
        if not isinstance(request, CancelRequest):
            return self.session.describe()
        ids = [line.id for line in self.waiting.drop(request.request)]
        if self.current is not None and self.current[0] == request.request:
            ids.append(self.current[0])
            self.current = None
        self.finish(ids, [CANCELLED] * len(ids))
        return {"cancelled": len(ids)}

    def finish(self, ids: Sequence[Id], results: Sequence[Answer | Exception]) -> None:
        """Write the last line of requests."""
        answers = [result if isinstance(result, dict) else {"error": describe_error(result)} for result in results]
        self.write(*({"id": id, "done": True, **answer} for id, answer in zip(ids, answers, strict=True)))

    def write(self, *answers: Answer) -> None:
        """Write lines."""
        self.stream.write("".join(json.dumps(answer, separators=(",", ":")) + "\n" for answer in answers))
        self.stream.flush()


def _shared(line: _Line) -> tuple[Any, ...] | None:
    """What texts have in common that are scored side by side; None for other requests."""
    return line.request.shared if isinstance(line.request, ScoreRequest) else None


class _Waiting:
    """Lines that were read and wait to be answered; a thread of its own reads them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._short: deque[_Line] = deque()
        self._long: deque[_Line] = deque()
        self._size = 0
        self._ended = False
        self._failure: Exception | None = None

    def read(self, stream: BinaryIO) -> None:
        """Read lines until there are no more, as many as may wait."""
        try:
            for text in split_lines(stream):
                if text is None or text.strip():
                    self._add(parse_line(text))
        except (OSError, ValueError) as error:
            self._failure = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _add(self, line: _Line) -> None:
        with self._changed:
            while self._size > MAX_WAITING:
                self._changed.wait()
            long = isinstance(line.request, (GenerateRequest, FillRequest))
            (self._long if long else self._short).append(line)
            self._size += line.size
            self._changed.notify_all()

    def take_short(self, *, wait: bool) -> list[_Line]:
        """Take all lines that are answered at once; where there is nothing to do at all, wait for some."""
        with self._changed:
            while wait and not (self._short or self._long or self._ended):
                self._changed.wait(WAIT)
            taken = list(self._short)
            self._short.clear()
            return self._remove(taken)

    def take_long(self) -> _Line | None:
        """Take the next text to write, if there is one."""
        with self._changed:
            return self._remove([self._long.popleft()])[0] if self._long else None

    def drop(self, id: Id) -> list[_Line]:
        """Take all texts to write that have an id."""
        with self._changed:
            taken = [line for line in self._long if line.id == id]
            self._long = deque(line for line in self._long if line.id != id)
            return self._remove(taken)

    def _remove(self, lines: list[_Line]) -> list[_Line]:
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


def parse_line(line: bytes | None) -> _Line:
    """Read a request.

    Args:
        line: without its end; None for one that was too long.
    """
    id, size = None, OVERHEAD + len(line or b"")
    try:
        values = _parse_json(line)
        if isinstance(values, dict) and is_id(values.get("id")):
            id = values.get("id")
        return _Line(id, make_request(values), size)
    except ChargenError as error:
        return _Line(id, error, size)


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
