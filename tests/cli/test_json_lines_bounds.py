"""Whatever comes in as lines: one last answer each, bounded memory, and an end when it is asked for."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chargen.api import requests
from chargen.api.session import Session
from chargen.cli import request_lines
from chargen.cli.json_lines import answer_lines
from chargen.cli.request_lines import MAX_LINE, split_lines
from chargen.errors import Stopped
from tests.cli.dialog import ask, converse, strict_json
from tests.record_models import record_model
from tests.small_models import small_model

FILE = small_model()
RECORDS = record_model(end=2.0)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.sampled_from([10**7, 2**70, 0.5, 1e300, float("inf")])
    | st.text("abé\ud800", max_size=4) | st.sampled_from(["skip", "forward", "cloze", "sun", "___", "___{3}"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
names = st.sampled_from(
    sorted({name for kind in requests.KINDS.values() for name in kind.__dataclass_fields__} | {"state_in", "é"})
)
objects = st.builds(
    lambda kind, settings, id: {"do": kind, **settings, **id},
    st.sampled_from([*requests.KINDS, "Generate", None]),
    st.dictionaries(names, values, max_size=4),
    st.dictionaries(st.just("id"), values, max_size=1),
)
lines = st.lists(
    st.binary(max_size=40).filter(lambda line: b"\n" not in line)
    | st.builds(lambda value: json.dumps(value).encode(), objects | values),
    max_size=6,
)


def id_of(line: bytes) -> Any:
    """The id that the answer to a line must have."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except ValueError:
        return None
    id = value.get("id") if isinstance(value, dict) else None
    return id if isinstance(id, str) or (type(id) is int and abs(id) < 2**63) else None


@settings(max_examples=150)
@given(lines, st.sampled_from([FILE, RECORDS]))
def test_every_line_gets_one_last_answer_with_its_id(sent: list[bytes], file: Any) -> None:
    answers = ask(file, *sent)
    ids = [id_of(line) for line in sent if line.strip()]
    assert sorted(map(repr, ids)) == sorted(repr(answer["id"]) for answer in answers if answer.get("done"))
    for answer in answers:
        if "error" in answer:
            assert answer["error"].keys() == {"message", "setting", "kind"}
            assert answer["error"]["kind"] in ("request", "setting", "data", "failure", "cancelled")
            assert "\n" not in answer["error"]["message"]


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        (b"nonsense", "request", "no JSON: Expecting value"),
        (b"\xff", "request", "no UTF-8: byte 0 does not fit"),
        (b"[" * 100_000, "request", "no JSON: maximum recursion depth"),
        (b"9" * 10_000, "request", "no JSON: Exceeds the limit"),
        (b'{"id": 1, "id": 2}', "request", "'id' occurs twice"),
        (b'{"do": "generate", "temperature": NaN}', "request", "NaN is no number"),
        (b"[]", "request", "a request is an object: this is []"),
        (b'{"id": 1.5, "do": "info"}', "request", "id is 1.5: it must be a short text or a whole number"),
        (b'{"id": true, "do": "info"}', "request", "id is True"),
        (b'{"do": "generat"}', "request", "do is 'generat'; did you mean generate?"),
        (b'{"text": "a"}', "request", "do is None; there are generate, score, fill, info, cancel"),
        (b'{"do": "generate", "temperature": 1e999}', "setting", "temperature is inf: it must be finite"),
        (b'{"do": "generate", "temperature": "1"}', "setting", "temperature is '1': it must be a number"),
        (b'{"do": "generate", "lenght": 1}', "setting", "no setting 'lenght' here; did you mean length?"),
        (b'{"do": "generate", "state_in": "x"}', "setting", "no setting 'state_in' here"),
        (b'{"do": "generate", "novel": "x"}', "setting", "no setting 'novel' here"),
        (b'{"do": "score", "sources": "x"}', "setting", "no setting 'sources' here"),
        (b'{"do": "generate", "length": 1000001}', "setting", "length is 1000001: it must be 0 to 1,000,000"),
        (b'{"do": "generate", "length": 100000, "num": 11}', "setting", "writes 1,000,000 characters at most"),
        (b'{"do": "generate", "num": 101}', "setting", "num is 101: it must be 1 to 100"),
        (b'{"do": "generate", "stop": ["%s"]}' % (b"a" * 1001), "setting", "stop has 1,001 characters"),
        (b'{"do": "generate", "stream": true, "reverse": true}', "setting", "contradict each other"),
        (b'{"do": "generate", "prime": "%s"}' % (b"a" * 100_001), "setting", "prime has 100,001 characters"),
        (b'{"do": "score"}', "setting", "give `text`"),
        (b'{"do": "score", "text": "a", "threshold": 2}', "setting", "threshold is 2.0: it must be 0 to 1"),
        (b'{"do": "score", "text": "\\ud800", "unknown": "error"}', "data", "surrogate"),
        (b'{"do": "fill", "text": "a ___ b", "before": "a"}', "setting", "one of the two ways"),
        (b'{"do": "fill", "text": "a ___{900} ___{101} b"}', "setting", "the gaps have 1,001 characters together"),
        (b'{"do": "fill", "before": "a"}', "setting", "how long is the gap?"),
        (b'{"do": "fill", "text": "a", "length": 1}', "data", "no gap in the text"),
        (b'{"do": "cancel", "request": []}', "setting", "request is []: it must be an id"),
        (b'{"do": "generate", "prime": "!"}', "data", "unknown to the model: '!'"),
        (b'{"do": "generate", "ban": "abcdef ", "label": "moon"}', "setting", "moon"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_a_line_and_the_next_is_answered(line: bytes, kind: str, words: str) -> None:
    wrong, right = ask(RECORDS, line, {"id": "right", "do": "info"})
    if wrong["id"] == "right":
        wrong, right = right, wrong
    assert wrong["error"]["kind"] == kind
    assert words in wrong["error"]["message"]
    assert len(wrong["error"]["message"]) < 400
    assert right["id"] == "right"


def test_blank_lines_are_none_and_a_byte_order_mark_is_no_part_of_a_line() -> None:
    lines = b"\xef\xbb\xbf" + json.dumps({"id": 1, "do": "info"}).encode() + b"\r", b"", b" \r", {"id": 2, "do": "info"}
    assert [answer["id"] for answer in ask(FILE, *lines)] == [1, 2]


def test_lines_as_long_as_they_may_be_and_longer() -> None:
    def line(size: int) -> bytes:
        request = b'{"id": 1, "do": "score", "text": "abc"}'
        return request + b" " * (size - len(request))

    short, long = ask(FILE, line(MAX_LINE), line(MAX_LINE + 1))
    assert short["text"] == "abc"
    assert long["id"] is None
    assert "more than 1,048,576 bytes" in long["error"]["message"]


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=5), max_size=8), st.integers(1, 4), st.integers(0, 6))
def test_lines_do_not_depend_on_chunks(parts: list[bytes], size: int, longest: int) -> None:
    data = b"\n".join(parts)

    class Chunks(io.BytesIO):
        def read(self, wanted: int | None = None) -> bytes:
            return super().read(size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_lines, "MAX_LINE", longest)
        read = list(split_lines(Chunks(data)))
    expected = data.split(b"\n")
    assert read == [line if len(line) <= longest else None for line in (expected if expected[-1] else expected[:-1])]


def test_a_line_without_end_takes_no_memory() -> None:
    class Endless:
        left = 200_000_000

        def read(self, size: int) -> bytes:
            self.left -= size
            return chunk if self.left > 0 else b""

    chunk = b"a" * 2**16
    tracemalloc.start()
    try:
        assert list(split_lines(Endless())) == [None]
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_lines_wait_unread_where_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_lines, "MAX_WAITING", 20 * request_lines.OVERHEAD)
    stream = io.BytesIO(b'{"do": "info"}\n' * 10_000)
    waiting = request_lines.Waiting()
    reader = threading.Thread(target=waiting.read, args=(stream,), daemon=True)
    reader.start()
    taken = 0
    while taken < 10_000:
        lines = waiting.take_short(wait=True)
        assert 1 <= len(lines) <= 21
        taken += len(lines)
    reader.join(10)
    assert waiting.over()


def test_an_input_that_breaks_ends_it_with_its_error_once_all_is_answered() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = None) -> bytes:
            if chunk := super().read(size):
                return chunk
            raise OSError(5, "Input/output error")

    out = io.StringIO()
    with pytest.raises(OSError, match="Input/output error"):
        answer_lines(FILE, Broken(b'{"id": 1, "do": "generate", "length": 5}\n'), out)
    assert strict_json(out.getvalue().splitlines()[-1])["id"] == 1


@pytest.mark.parametrize("method", ["_score", "_generate"])
@pytest.mark.parametrize("error", [RuntimeError("a bug\nof two lines"), MemoryError()])
def test_a_bug_is_the_error_of_its_request(method: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        raise error
        yield

    monkeypatch.setattr(Session, method, fail)
    first, second = ask(FILE, {"id": 1, "do": "score", "text": "a"}, {"id": 2, "do": "generate", "length": 3})
    failed, other = (first, second) if method == "_score" else (second, first)
    assert failed["error"]["kind"] == "internal"
    assert type(error).__name__ in failed["error"]["message"]
    assert "error" not in other


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_it_writes(number: int) -> None:
    def reply(answer: dict[str, Any]) -> list[Any]:
        os.kill(os.getpid(), number)
        return []

    with pytest.raises(Stopped) as caught:
        converse(FILE, [{"id": 1, "do": "generate", "length": 1_000_000, "stream": True}], reply)
    assert caught.value.exit_code == 128 + number


@pytest.mark.parametrize("method", ["_score", "_generate"])
def test_a_signal_ends_it_while_it_computes(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        yield

    monkeypatch.setattr(Session, method, stop)
    with pytest.raises(Stopped):
        ask(FILE, {"do": "score", "text": "a"}, {"do": "score", "text": "b"}, {"do": "generate", "length": 3})


def test_nobody_reads_the_answers() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            if '"ready"' in text:
                return len(text)
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        answer_lines(FILE, io.BytesIO(b'{"do": "info"}\n'), Closed())


def test_short_requests_need_no_torch() -> None:
    program = """
import io, sys
from chargen.cli.json_lines import answer_lines
from chargen.storage.model_file import read_model
lines = b'{"do": "generate", "prime": "To", "length": 9}\\n{"do": "score", "text": "To be"}\\n'
answer_lines(read_model("shakespeare"), io.BytesIO(lines), sys.stdout)
assert "torch" not in sys.modules
"""
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert len(ended.stdout.splitlines()) == 3
