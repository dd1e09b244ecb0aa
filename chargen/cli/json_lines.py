"""Requests and answers as lines of JSON on standard input and output, for editors and other programs."""

import json
import threading
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, BinaryIO, TextIO

from chargen.api.requests import CancelRequest, Id, Request, ScoreRequest
from chargen.api.session import Answer, Session, Steps, describe_error
from chargen.cli.request_lines import Line, Waiting
from chargen.cli.signals import stop_on_signals
from chargen.errors import ChargenError, Stopped
from chargen.storage.model_file import ModelFile

CANCELLED: Answer = {"error": {"message": "cancelled", "setting": None, "kind": "cancelled"}}


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
    with stop_on_signals() as stop:
        answering.session.warm()
        answering.write({"ready": True, **answering.session.describe()})
        stop.deferred = True  # what is raised while a thread starts leaves it half made
        threading.Thread(target=answering.waiting.read, args=(stream_in,), daemon=True).start()
        stop.deferred = False
        if stop:
            raise stop.error()
        while answering.step():
            pass


class _Answering:
    """Answers what waits.

    Args:
        session: of the model.
        stream: for the answers.
    """

    def __init__(self, session: Session, stream: TextIO) -> None:
        self.session, self.stream, self.waiting = session, stream, Waiting()
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

    def _cut(self, lines: Iterator[Line]) -> Iterator[list[Line]]:
        """Cut lines into batches whose texts are short together, or a single one."""
        batch: list[Line] = []
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


def _shared(line: Line) -> tuple[Any, ...] | None:
    """What texts have in common that are scored side by side; None for other requests."""
    return line.request.shared if isinstance(line.request, ScoreRequest) else None
