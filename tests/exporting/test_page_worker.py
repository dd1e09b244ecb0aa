"""The worker of a page, through its messages, against the samplers and the scores of Python."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import chargen
from chargen.data.reading_config import ReadingConfig
from chargen.data.vocabulary import RAW_BYTES, Vocabulary
from chargen.decoding.choose import SampleConfig
from chargen.errors import SettingError
from chargen.evaluation.per_character import name_id
from chargen.exporting import page_model
from chargen.exporting.page_model import worker_script, write_model
from chargen.insight.predictions import predict_texts
from chargen.storage.model_file import ModelFile, build_model
from chargen.storage.quantize import as_float32, quantize
from tests.browsers import needs_chromium, running_browser
from tests.insight.pages import HOSTILE
from tests.record_models import record_model
from tests.small_models import as_bf16, small_model

pytestmark = needs_chromium

START = """(script) => {
  window.started = new Worker(URL.createObjectURL(new Blob([script])));
  window.received = [];
  window.waiting = null;
  started.addEventListener("error", ({ message }) => received.push({ kind: "broken", message }));
  started.addEventListener("message", ({ data }) => {
    for (const name of ["bits", "likeliest", "shares"]) if (data[name]) data[name] = Array.from(data[name], String);
    received.push({ ...data, at: performance.now() });
    if (waiting) waiting();
  });
}"""
PROBE = """
let steps = 0;
const advance = Reading.prototype.advance;
Reading.prototype.advance = function (id) { steps++; advance.call(this, id); };
addEventListener("message", ({ data }) => { if (data.id === "steps") postMessage({ kind: "steps", steps }); });
"""
"""Behind the script of the worker: tells how many ids were read."""
ASK = """async ([messages, number]) => {
  const ends = () => received.filter(({ kind }) => kind !== "text" && kind !== "scores").length;
  for (const message of messages) {
    if (message.after) while (received.length < message.after) await new Promise((done) => { window.waiting = done; });
    started.postMessage(message);
  }
  while (ends() < number) await new Promise((done) => { window.waiting = done; });
  return received.splice(0);
}"""


class Page:
    """A worker in a tab."""

    def __init__(self, tab: Any) -> None:
        self.tab = tab
        self.tab.goto("about:blank")
        self.tab.evaluate(START, worker_script() + PROBE)

    def ask(self, *messages: dict[str, Any], ends: int | None = None) -> list[dict[str, Any]]:
        """Post messages, and wait for as many answers that end something, by default one for each."""
        received: list[dict[str, Any]] = self.tab.evaluate(ASK, [messages, len(messages) if ends is None else ends])
        return received

    def load(self, file: ModelFile) -> dict[str, Any]:
        """Load a model in a new worker; returns what it says of the model."""
        self.tab.evaluate("started.terminate()")
        self.tab.evaluate(START, worker_script() + PROBE)
        (answer,) = self.tab.evaluate(
            "async (data) => { started.postMessage({ kind: 'load', model: JSON.parse(data) }); "
            f"return ({ASK})([[], 1]); }}",
            write_model(file),
        )
        assert answer["kind"] == "ready", answer
        info: dict[str, Any] = answer["info"]
        return info

    def write(self, text: str = "", length: int = 120, seed: int = 7, **settings: Any) -> tuple[str, dict[str, Any]]:
        """What is written, and how it ends."""
        asked = {"kind": "write", "id": 1, "text": text, "length": length, "temperature": 1, "seed": str(seed)}
        return joined(self.ask(asked | settings), settings.get("direction") == "backward")

    def score(self, text: str, **settings: Any) -> dict[str, Any]:
        """The scores of a text in one table, with how they end."""
        *parts, done = self.ask({"kind": "score", "id": 3, "text": text, **settings})
        assert done["kind"] == "done", done
        assert [part["start"] for part in parts[1:]] == [part["start"] + len(part["bits"]) for part in parts[:-1]]
        columns = {name: [float(each) for part in parts for each in part[name]] for name in parts[0] if name in COLUMNS}
        return {**done, **columns, "text": "".join(part["text"] for part in parts), "start": parts[0]["start"]}


COLUMNS = ("bits", "likeliest", "shares")


def joined(received: list[dict[str, Any]], backward: bool = False) -> tuple[str, dict[str, Any]]:
    *parts, done = received
    assert {part["kind"] for part in parts} <= {"text"}, parts
    del done["at"]
    texts = [part["text"] for part in parts]
    return "".join(texts[::-1] if backward else texts), done


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with running_browser() as browser:
        yield Page(browser.new_page())


def quantized(file: ModelFile) -> ModelFile:
    return replace(file, arrays=quantize({name: as_float32(file.arrays, name) for name in file.arrays}, "int8"))


LF = {"begin": "\n"}
MODELS: dict[str, Callable[[], ModelFile]] = {
    "gru": lambda: small_model("gru", bidirectional=True),
    "lstm with a begin text": lambda: replace(small_model("lstm", num_layers=1), **LF),
    "bf16": lambda: as_bf16(small_model("gru")),
    "folded": lambda: small_model("lstm", folded="xyz", tie_weights=True),
    "records": lambda: record_model("lstm"),
    "bytes": lambda: replace(small_model("gru", unit="byte", bidirectional=True, scale=1.0), **LF),
    "bytes of records": lambda: replace(record_model(unit="byte"), reading=ReadingConfig(records="line")),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_writes_the_same_text(page: Page, name: str) -> None:
    file = quantized(MODELS[name]())
    info, records = page.load(file), file.vocabulary.records
    assert info["names"] == [name_id(file.vocabulary, number) for number in range(len(file.vocabulary))]
    settings: list[dict[str, Any]] = [{}, {"temperature": 0.7, "min_p": 0.05}, {"temperature": 0}]
    for number, chosen in enumerate(settings):
        label = "sun" if records and number else None
        for direction in file.config.directions:
            seed = 2**40 + number
            sampler = chargen.Sampler(file, SampleConfig(**chosen), seed=seed, direction=direction, label=label)
            sampler.feed("a bad fee")
            expected = sampler.generate_all(120)[0]
            asked = {"minP": chosen.get("min_p", 0), "temperature": chosen.get("temperature", 1), "label": label}
            text, done = page.write("a bad fee", seed=seed, direction=direction, **asked)
            assert text == re.sub("\r\n?", "\n", expected.text)
            assert (done["kind"], done["reason"]) == ("done", "end" if expected.stopped else "length")
            assert done["draws"] == sampler.snapshot().streams[0].draws


def test_models_in_float_and_in_int8_are_the_same(page: Page) -> None:
    file = small_model("gru")
    assert write_model(file) == write_model(quantized(file))
    assert write_model(as_bf16(file)) == write_model(quantized(as_bf16(file)))


@pytest.mark.parametrize("name", ["gru", "bytes"])
def test_writing_goes_on_as_if_it_had_never_stopped(page: Page, name: str) -> None:
    page.load(MODELS[name]())
    for direction in ("forward", "backward"):
        draft, draws = "a bad", 0
        whole, _ = page.write(draft, 90, direction=direction)
        for length in (1, 59, 30):
            text, done = page.write(draft, length, draws=draws, direction=direction)
            draws, draft = done["draws"], draft + text if direction == "forward" else text + draft
        assert draft == ("a bad" + whole if direction == "forward" else whole + "a bad")


@pytest.mark.parametrize("until", ["word", "sentence", "paragraph"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_parts_are_what_one_call_writes(page: Page, until: str, direction: str) -> None:
    file = small_model("gru", characters="ab.\n ", bidirectional=True, scale=1.0)
    page.load(file)
    whole, _ = page.write("a", 800, direction=direction)
    draft, draws, reasons = "a", 0, []
    for _ in range(6):
        text, done = page.write(draft, 200, until=until, draws=draws, direction=direction)
        draft, draws = draft + text if direction == "forward" else text + draft, done["draws"]
        reasons.append(done["reason"])
        assert text
    for length in range(1, 20):
        text, done = page.write("a", length, until=until, direction=direction)
        assert len(text) == length if done["reason"] == "length" else len(text) < length
    assert reasons == ["until"] * 6
    assert 7 < len(draft) < 800
    assert draft == (("a" + whole)[: len(draft)] if direction == "forward" else (whole + "a")[-len(draft) :])


def test_alternatives_take_turns_and_can_be_stopped(page: Page) -> None:
    file = small_model("gru", num_layers=2, hidden_size=64)
    page.load(file)
    asked = {"kind": "write", "text": "abc" * 100, "length": 10**6, "temperature": 1, "seed": "3"}
    jobs = [{**asked, "id": number, "index": number} for number in range(3)]
    stops = [{"kind": "stop", "id": number, "after": 30} for number in range(3)]
    received = page.ask(*jobs, *stops, {"kind": "stop", "id": 99}, ends=3)
    assert {message["id"] for message in received[:12]} == {0, 1, 2}, "all write at once"
    ends = [message for message in received if message["kind"] == "done"]
    assert [end["reason"] for end in ends] == ["stopped"] * 3
    assert received[-1] == ends[-1]
    assert max(end["at"] for end in ends) - received[29]["at"] < 1000
    for number in range(3):
        text = "".join(message["text"] for message in received if message["id"] == number and message["kind"] == "text")
        (end,) = (each for each in ends if each["id"] == number)
        assert len(text) == end["draws"] < 10**6
        sampler = chargen.Sampler(quantized(file), num=3, seed=3)
        sampler.feed("abc" * 100)
        assert sampler.generate_all(40)[number].text == text[:40]


def test_a_draft_is_read_once_for_all_alternatives(page: Page) -> None:
    page.load(small_model("gru", hidden_size=64))
    asked = {"kind": "write", "text": "abc" * 200, "length": 5, "temperature": 1, "seed": "3"}
    received = page.ask({**asked, "id": 9, "length": 0})
    assert [(message["kind"], message["reason"], message["draws"]) for message in received] == [("done", "length", 0)]
    page.ask(*({**asked, "text": "abc" * 200 + "d", "id": number, "index": number} for number in range(3)))
    page.ask({**asked, "id": 4, "text": "abc" * 200 + "de"})
    (answer,) = page.ask({"kind": "stop", "id": "steps"})
    assert answer["steps"] == 600 + 1 + 3 * 5 + 1 + 5


def test_of_a_record_that_would_end_nothing_is_drawn_where_nothing_is_asked_for(page: Page) -> None:
    page.load(record_model(end=50.0))
    asked = {"kind": "write", "text": "", "temperature": 1, "seed": "3"}
    for length, expected in ((0, ("length", 0)), (1, ("end", 1))):
        (done,) = page.ask({**asked, "id": length, "length": length})
        assert (done["reason"], done["draws"]) == expected


@pytest.mark.parametrize("folded", ["", "xyz"])
def test_unknown_characters_are_replaced_or_passed_over(page: Page, folded: str) -> None:
    file = small_model(folded=folded)
    page.load(file)
    text, done = page.write("abcQxab😀c\udc00Q")
    unknown = "Q😀\udc00" if folded else "Qx😀\udc00"
    assert done["unknown"] == unknown.replace("\udc00", "�") or done["unknown"] == unknown
    same, done = page.write("abcxxabxcxx" if folded else "abcabc")
    assert done["unknown"] == ""
    assert text == same


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_python(page: Page, name: str) -> None:
    file = quantized(MODELS[name]())
    info, records = page.load(file), file.vocabulary.records
    text = "a bad fée xQ😀" if records else "a bad\ncab\r\nfée xQ😀"
    label = "sea" if records else None
    scored = page.score(text, label=label)
    expected = chargen.score(file, text.replace("\r\n", "\n"), by="forward", label=label)
    assert scored["text"] == text.replace("\r\n", "\n")
    bits = [math.nan if each.forward is None else -each.forward / math.log(2) for each in expected]
    np.testing.assert_allclose(scored["bits"], bits, rtol=1e-5, atol=1e-5)
    assert scored["unknown"] == ("" if expected.unseen == "" else "".join(dict.fromkeys(
        each for each in text if each in expected.unseen)))  # fmt: skip
    if expected.end is None:
        assert scored["end"] is None
    else:
        assert scored["end"] == pytest.approx(-expected.end.forward / math.log(2), rel=1e-5)
    predictions = predict_texts(build_model(file), file, [scored["text"]], unknown="replace" if
                                file.vocabulary.folded else "skip", labels=[label])  # fmt: skip
    size = len(scored["text"])
    shares = np.reshape(scored["shares"], (size, info["kept"]))
    judged = predictions.probabilities["forward"][:size, : info["kept"]]
    np.testing.assert_allclose(shares, judged, rtol=1e-4, atol=1e-6)
    likeliest = np.reshape(scored["likeliest"], shares.shape)
    assert (likeliest == predictions.likeliest["forward"][:size])[shares > 0].all()
    part = page.score(text, label=label, **{"from": 7})
    assert (part["start"], part["text"]) == (7, scored["text"][7:])
    np.testing.assert_array_equal(part["bits"], scored["bits"][7:])


def test_a_draft_of_records_is_scored_record_by_record(page: Page) -> None:
    file = replace(record_model("gru"), reading=ReadingConfig(records="line"))
    assert page.load(file)["separator"] == "\n"
    texts, label = ["a bad", "fed", "", "cab"], "sun"
    scored = page.score("\n".join(texts), label=label)
    expected = []
    for text in texts[:2]:
        scores = chargen.score(quantized(file), text, by="forward", label=label)
        expected += [each.forward for each in (*scores, scores.end)]
    scores = chargen.score(quantized(file), texts[3], by="forward", label=label)
    expected += [math.nan, *(each.forward for each in scores)]
    np.testing.assert_allclose(scored["bits"], -np.array(expected) / math.log(2), rtol=1e-5)
    assert scored["end"] == pytest.approx(-scores.end.forward / math.log(2), rel=1e-5)
    assert np.reshape(scored["shares"], (-1, 5))[[5, 9, 10], 0].astype(bool).tolist() == [True, True, False]
    for start in (3, 6, 10, 12):
        part = page.score("\n".join(texts), label=label, **{"from": start})
        np.testing.assert_array_equal(part["bits"], scored["bits"][start:])
        assert part["end"] == scored["end"]
    assert page.write("fed\ncab", label=label) == page.write("cab", label=label)
    assert page.write("fed\ncab", direction="backward")[0] == page.write("fed", direction="backward")[0]


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_line_ends_are_those_of_the_model(page: Page, newline: str) -> None:
    file = quantized(replace(small_model("gru", characters="ab\r\n ", bidirectional=True), begin=newline))
    page.load(file)
    for direction in file.config.directions:
        sampler = chargen.Sampler(file, seed=7, direction=direction)
        sampler.feed(f"a{newline}b")
        text, _ = page.write("a\nb", 60, direction=direction)
        expected = sampler.generate(400)
        shown = re.sub("\r\n?" if newline == "\r\n" else "\r", "\n", expected)
        assert text == (shown[:60] if direction == "forward" else shown[-60:])
        assert "\r" not in text
        for length in range(1, 30):
            text, done = page.write("a\nb", length, until="paragraph", direction=direction)
            assert len(text) == length if done["reason"] == "length" else len(text) < length
        assert "\n" in text


def test_hostile_texts_and_labels_stay_text(page: Page) -> None:
    hostile = "".join(HOSTILE)
    labels = tuple(dict.fromkeys(each for each in HOSTILE if "\ud800" not in each))
    file = record_model("gru", labels=labels, letters="".join({*hostile}))
    data = write_model(file)
    assert data.isascii()
    assert not {*"<\n\r"} & {*data}
    info = page.load(file)
    assert info["labels"] == list(labels)
    text, done = page.write(hostile, label=HOSTILE[0])
    sampler = chargen.Sampler(quantized(file), seed=7, label=HOSTILE[0])
    sampler.feed(hostile)
    assert text == sampler.generate(120)
    assert done["unknown"] == ""
    assert page.score(hostile, label=HOSTILE[1])["text"] == hostile.replace("\r\n", "\n").replace("\r", "\n")


def test_what_does_not_fit_is_an_error_of_one_line(page: Page) -> None:
    page.load(small_model())
    asked = {"kind": "write", "id": 1, "text": "a", "length": 3, "temperature": 1, "seed": "0"}
    for changed, words in (
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": None}, "temperature is null"),
        ({"length": 1.5}, "whole number"),
        ({"minP": 2}, "minP is 2"),
        ({"seed": "-1"}, "seed is -1"),
        ({"seed": str(2**64)}, "seed is 18446744073709551616"),
        ({"index": 2**32}, "index is"),
        ({"draws": 0.5}, "whole number"),
        ({"until": "chapter"}, "until is chapter"),
        ({"label": "sea"}, "no such label"),
        ({"direction": "backward"}, "direction is backward"),
        ({"text": None}, "no text"),
        ({"kind": "toString"}, "kind is toString"),
        ({"kind": "score", "from": -1}, "from is -1"),
    ):
        (answer,) = page.ask(asked | changed)
        assert (answer["kind"], answer["id"]) == ("error", 1)
        assert words in answer["message"]
        assert "\n" not in answer["message"]
    answers = page.ask(asked | {"length": 10**6}, asked, {"kind": "stop", "id": 1}, ends=2)
    assert [answer["message"] for answer in answers if answer["kind"] == "error"] == ["there is a job 1 already"]
    assert page.write("a")[1]["reason"] == "length", "it goes on"


def test_numbers_that_overflow_are_an_error(page: Page) -> None:
    file = small_model("gru")
    huge = file.arrays | {"output.weight": np.full_like(file.arrays["output.weight"], 3e38)}
    page.load(replace(file, arrays=huge))
    (answer,) = page.ask({"kind": "write", "id": 1, "text": "a", "length": 3, "temperature": 1, "seed": "0"})
    assert "not finite" in answer["message"]


def test_models_that_no_page_can_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = Vocabulary(RAW_BYTES, unit="byte")
    raw = replace(small_model(unit="byte"), vocabulary=vocabulary, reading=ReadingConfig(encoding="raw"))
    with pytest.raises(SettingError, match="raw bytes"):
        write_model(raw)
    monkeypatch.setattr(page_model, "LIMIT", 1000)
    with pytest.raises(SettingError, match=r"has [0-9,]+ parameters: a page holds 1,000 at most"):
        write_model(small_model())


@pytest.mark.slow
def test_the_shipped_model_writes_the_same_text_for_nearly_all_seeds(page: Page) -> None:
    file = chargen.read_model("shakespeare")
    assert len(write_model(file)) < 3.6e6
    page.load(file)
    equal = 0
    for seed in range(50):
        text, _ = page.write("", 300, seed, temperature=0.8)
        equal += text == chargen.Sampler(file, temperature=0.8, seed=seed).generate(300)
    assert equal >= 49
