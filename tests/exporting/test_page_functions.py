"""The scripts of a page's model, function by function, against those of Python."""

import json
import random
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chargen.data.reading import mark_text
from chargen.data.reading_config import ReadingConfig
from chargen.data.utf8 import utf8_before, utf8_next, utf8_unfinished
from chargen.data.vocabulary import Vocabulary
from chargen.decoding.choose import SampleConfig, choose, log_softmax
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.exporting.page_model import SCRIPTS, write_model
from chargen.pages.render import read_text
from chargen.rng import Purpose, uniform
from chargen.storage.model_file import ModelFile
from chargen.storage.quantize import quantize
from tests.browsers import needs_chromium, running_browser
from tests.pieces import CASES, cut, random_cases
from tests.record_models import record_model
from tests.small_models import small_model

pytestmark = needs_chromium
NAMES = "Network, Vocabulary, Ending, uniform, choose, surprise, likeliest"
MAX_DIFFERENCE = 2e-5
"""Of logits up to 30: float32 on both sides, but sums in another order."""


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """A tab in which `run` evaluates JavaScript with the functions of the scripts."""
    with running_browser() as browser:
        tab = browser.new_page()
        tab.goto("about:blank")
        source = "".join(read_text("chargen.exporting", f"{name}.js") for name in SCRIPTS[:-1])
        tab.evaluate(f"(source) => {{ window.lib = new Function(`${{source}}; return {{ {NAMES} }}`)(); }}", source)
        yield tab


def quantized(file: ModelFile) -> ModelFile:
    return replace(file, arrays=quantize(file.arrays, "int8"))


def test_uniforms_are_those_of_python(page: Any) -> None:
    addresses = [
        (seed, index, n)
        for seed in (0, 7, 2**32, 2**64 - 1)
        for index in (0, 1, 2**32 - 1)
        for n in (0, 5, 2**32, 2**53 - 1)
    ]
    drawn = page.evaluate(
        "(rows) => rows.map(([seed, index, n]) => lib.uniform(BigInt(seed), index, n))",
        [(str(seed), index, n) for seed, index, n in addresses],
    )
    assert drawn == [float(uniform(seed, index, n, Purpose.SAMPLE)) for seed, index, n in addresses]


def test_choices_are_those_of_python(page: Any) -> None:
    random, cases = np.random.default_rng(3), []
    for number in range(300):
        size = int(random.integers(1, 40))
        logits = np.round(random.normal(0, 4, size), int(random.integers(0, 4))).astype(np.float32)
        allowed = random.random(size) < 0.8
        allowed[random.integers(size)] = True
        temperature = (1.0, 0.0, 0.4, 1.7, 1e-300, 1e300)[number % 6]
        draw = random.random() * (number % 10 > 0)
        cases.append((logits, allowed, draw, temperature, (0.0, 0.1, 1.0)[number % 3]))
    rows = [(logits.tolist(), allowed.tolist(), *rest) for logits, allowed, *rest in cases]
    chosen = page.evaluate(
        """(rows) => rows.map(([logits, allowed, draw, temperature, minP]) => lib.choose(
             Float32Array.from(logits), Uint8Array.from(allowed), draw, temperature, minP,
             new Float64Array(logits.length)))""",
        rows,
    )
    expected = [
        choose(logits, allowed, draw, SampleConfig(temperature=temperature, min_p=min_p))
        for logits, allowed, draw, temperature, min_p in cases
    ]
    assert chosen == expected
    assert len(set(chosen)) > 20


def test_likeliest_ids_come_first_and_of_equal_ids_the_lower(page: Any) -> None:
    logits = np.float32([1, 3, 2, 3, -100, 2.5])
    costs, best = page.evaluate(
        """(logits) => [logits.map((_, id) => lib.surprise(Float32Array.from(logits), id)),
                       lib.likeliest(Float32Array.from(logits), 4)]""",
        logits.tolist(),
    )
    np.testing.assert_allclose(costs, -log_softmax(logits), rtol=1e-12)
    assert [id_ for id_, _ in best] == [1, 3, 5, 2]
    np.testing.assert_allclose([share for _, share in best], np.exp(log_softmax(logits))[[1, 3, 5, 2]], rtol=1e-12)


MODELS = {
    f"{cell} {layers} {kind}": (cell, layers, kind)
    for cell in ("gru", "lstm")
    for layers, kind in ((1, "odd"), (2, "two ways"), (3, "tied"), (1, "records"), (1, "large"))
}


def model_of(cell: str, layers: int, kind: str) -> ModelFile:
    if kind == "records":
        return record_model(cell)
    if kind == "large":  # more ids than the table of sums has rows
        characters = "".join(map(chr, range(0x4E00, 0x4E00 + 1100)))
        return small_model(cell, num_layers=layers, hidden_size=6, characters=characters)
    options: dict[str, Any] = {"two ways": {"bidirectional": True}, "tied": {"tie_weights": True}}.get(kind, {})
    return small_model(cell, num_layers=layers, hidden_size=13 if kind == "odd" else 12, **options)


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_the_numpy_engine(page: Any, name: str) -> None:
    file = quantized(model_of(*MODELS[name]))
    size, data = len(file.vocabulary), write_model(file)
    ids = np.append(np.arange(size), np.random.default_rng(1).integers(0, size, 40))
    for direction in file.config.directions:
        engine = NumpyEngine(file.config, file.arrays, direction)
        state, expected = engine.start(1), np.empty((len(ids), size), np.float32)
        for at in range(len(ids)):
            expected[at : at + 1], state = engine.step(ids[at : at + 1], state)
        logits, rows = page.evaluate(
            """([data, direction, ids]) => {
                 const model = JSON.parse(data), state = [], out = new Float32Array(model.size);
                 const network = new lib.Network(model, direction, null), text = network.memory.recall(network, []);
                 const all = ids.map((id) => { text.advance(id); text.predict(out); return Array.from(out); });
                 return [all.slice(-30), network.table.size];
               }""",
            [data, direction, ids.tolist()],
        )
        assert np.abs(np.array(logits) - expected[-30:]).max() < MAX_DIFFERENCE
        assert rows == min(size, 1000)
        assert np.ptp(expected, axis=0).min() > 0.1, "they depend on what was read"


def test_what_is_remembered_is_what_is_read(page: Any) -> None:
    file = small_model("lstm", hidden_size=8)
    random = np.random.default_rng(0)
    first = random.integers(0, 9, 300)
    texts = [first, first[:290], first[:200], [*first[:130], 1, 2, 3], [*first, *first], first[:1], []]
    texts += [first[:290], [*first[:127], 1 + first[127], 3]]
    steps = page.evaluate(
        """([data, texts]) => {
             const model = JSON.parse(data), network = new lib.Network(model, "forward", null), steps = [];
             const out = new Float32Array(model.size), fresh = new Float32Array(model.size);
             for (const ids of texts) {
               const text = network.memory.recall(network, ids), start = text.ids.length;
               for (const id of ids.slice(start)) text.advance(id);
               text.predict(out);
               text.close();
               const state = network.start();
               for (const id of ids) network.step(id, state);
               if (ids.length) network.predict(state, fresh);
               steps.push([ids.length - start, !ids.length || out.every((logit, id) => logit === fresh[id])]);
             }
             return steps;
           }""",
        [write_model(file), [[int(id_) for id_ in text] for text in texts]],
    )
    assert [same for _, same in steps] == [True] * len(texts)
    assert [read for read, _ in steps] == [300, 290 - 256, 200 - 192, 133 - 128, 300, 1, 0, 290 - 256, 129 - 64]


def test_memory_has_a_limit(page: Any) -> None:
    file = small_model("gru", num_layers=1, hidden_size=4)
    marks, texts = page.evaluate(
        """(data) => {
             const model = JSON.parse(data), network = new lib.Network(model, "forward", null);
             network.stateSize = 2 ** 15;
             for (let number = 0; number < 12; number++) {
               const text = network.memory.recall(network, []);
               text.state = network.start();
               for (let at = 0; at < 64 * 50; at++) text.advance(number % 2 ? 1 : (at + number) % 10);
               text.close();
             }
             return [network.memory.texts[0].marks.map(({ at }) => at), network.memory.texts.length];
           }""",
        write_model(file),
    )
    assert texts <= 8
    assert 16 <= len(marks) <= 32
    distances = np.diff(marks)
    assert (distances[1:] <= distances[:-1]).all(), "they are closest at the end"
    assert distances[-1] <= 128


def test_bytes_that_may_follow_are_those_of_utf8(page: Any) -> None:
    file = small_model(unit="byte", num_layers=1, hidden_size=2)

    def grow(partial: bytes, backward: bool) -> Iterator[bytes]:
        yield partial
        for byte in utf8_before(partial) if backward else utf8_next(partial):
            longer = bytes([byte]) + partial if backward else partial + bytes([byte])
            if byte % 13 in (0, 1, 4) and utf8_unfinished(longer):
                yield from grow(longer, backward)

    for backward in (False, True):
        partials = list(grow(b"", backward))
        masks = page.evaluate(
            """([data, partials, backward]) => {
                 const vocabulary = new lib.Vocabulary(JSON.parse(data));
                 const masks = partials.map((partial) => Array.from(vocabulary.allowed(partial, backward)));
                 return masks.map((mask) => mask.flatMap((may, id) => (may ? id : [])));
               }""",
            [write_model(file), [list(partial) for partial in partials], backward],
        )
        assert masks == [sorted(utf8_before(each) if backward else utf8_next(each)) for each in partials]
        assert len(partials) > 50


VOCABULARIES = {
    "characters": (Vocabulary("\n 0abcé漢😀"), "\n"),
    "folded": (Vocabulary("\n abc", folded="xyé"), "\n"),
    "folded without line ends": (Vocabulary(" abc", folded="xyé"), ""),
    "bytes": (Vocabulary(unit="byte"), "\n"),
    "records": (Vocabulary(" abcé", records=True, labels=("x", "<b>")), ""),
    "bytes of records": (Vocabulary(unit="byte", records=True, labels=("x",)), ""),
}


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_ids_are_those_of_python(page: Any, kind: str) -> None:
    vocabulary, begin = VOCABULARIES[kind]
    model = small_model(characters="".join(map(chr, range(0x4E00, 0x4E00 + len(vocabulary)))))
    config = replace(model.config, begin_symbols=vocabulary.begin_symbols)
    file = replace(model, vocabulary=vocabulary, config=config, begin=begin)
    text = "abc é\n漢 <b>😀xyz\u2028\x00\ufeff\ud800z\udfff"
    ids, unknown, extra, begins = page.evaluate(
        """([data, text]) => {
             const model = JSON.parse(data), vocabulary = new lib.Vocabulary(model), characters = Array.from(text);
             return [
               characters.map((character) => vocabulary.idsOf(character)),
               characters.filter((character) => !vocabulary.knows(character)),
               characters.map((character) => vocabulary.extraNats(character)),
               [null, ...model.labels].map((label) => vocabulary.begin(label)),
             ];
           }""",
        [write_model(file), text],
    )
    surrogates = "\ud800\udfff"
    for character, mine, nats in zip(text, ids, extra, strict=True):
        how = "replace" if vocabulary.folded else "skip"
        expected = (
            [] if character in surrogates and not vocabulary.folded else vocabulary.encode(character, how).tolist()
        )
        assert mine == expected
        assert nats == pytest.approx(vocabulary.extra_nats(character)[0])
    known = vocabulary.knows(text)
    assert unknown == [each for each, knows in zip(text, known, strict=True) if not knows or each in surrogates]
    if vocabulary.records:
        assert begins == [[vocabulary.begin_id(label)] for label in (None, *vocabulary.labels)]
    else:
        assert begins == [vocabulary.encode(begin).tolist()]


@pytest.mark.parametrize("records", ["line", "blank-line", "--", "a.c|", "file"])
def test_records_of_a_draft_are_those_of_a_file(page: Any, records: str) -> None:
    model = record_model("gru", "byte")
    file = replace(model, reading=ReadingConfig(records=records))
    text = "first\n\n \nsecond--third\n--\na.c|a.c|fourth abc|\n\nlast"
    pieces = page.evaluate(
        "([data, text]) => new lib.Vocabulary(JSON.parse(data)).split(text)", [write_model(file), text]
    )
    assert "".join(piece["text"] + piece["separator"] for piece in pieces) == text
    expected = mark_text(text, file.reading).split("\udfff")[1:]
    assert [piece["text"] for piece in pieces if piece["text"].strip() or records != "line"] == [
        each for each in expected if each.strip() or records != "line"
    ]


CUT = """(cases) => cases.map(([until, before, text]) => {
  let done = "", coming = Array.from(text), here = before;
  for (;;) {
    const ending = new lib.Ending(until, here.split("\\n").at(-1), false);
    const verdicts = coming.map((character) => ending.judge(character)), over = verdicts.indexOf("over");
    if (over < 0) return done + coming.join("");
    const piece = coming.slice(0, verdicts.lastIndexOf("go", over) + 1);
    done += piece.join("") + "|";
    here += piece.join("");
    coming = coming.slice(piece.length);
  }
})"""


def test_texts_end_where_python_ends_them(page: Any) -> None:
    texts = [(until, before, text.replace("|", "")) for until, before, text in CASES]
    assert page.evaluate(CUT, texts) == [text for _, _, text in CASES]
    texts = random_cases(2_000)
    assert page.evaluate(CUT, texts) == [cut(*each) for each in texts]


def test_characters_are_of_the_kinds_that_python_takes_them_for(page: Any) -> None:
    known = [chr(code) for code in range(0x32000) if unicodedata.category(chr(code)) not in ("Cn", "Cs")]
    characters = known[:2_000] + random.Random(1).sample(known, 4_000)
    texts = [("word", "", f"a{each}a {each}b") for each in characters]
    texts += [("paragraph", "x" * 95, f".{each * 2}\na{each}\n\n") for each in characters]
    assert page.evaluate(CUT, texts) == [cut(*each) for each in texts]


def test_texts_end_backward(page: Any) -> None:
    cases = [
        ("word", "The king of", " of"),
        ("sentence", "He sat. She lay", " She lay"),
        ("sentence", 'He said "No." She lay (so) there.', " She lay (so) there."),
        ("sentence", "他说。她。", "她。"),
        ("sentence", "他说。”她说", "她说"),
        ("paragraph", "One.\n\nTwo.\nThree.", "Two.\nThree."),
    ]
    for until, text, expected in cases:
        verdicts = page.evaluate(
            """([until, text]) => {
                 const ending = new lib.Ending(until, "", true);
                 return Array.from(text).reverse().map((character) => ending.judge(character));
               }""",
            [until, text],
        )
        over = verdicts.index("over")
        while over and verdicts[over - 1] == "wait":
            over -= 1
        assert text[len(text) - over :].strip() == expected.strip(), until


def test_a_page_holds_the_model_in_int8(page: Any) -> None:
    file = small_model(bidirectional=True, cloze=1.0)
    data = json.loads(write_model(file))
    assert data == json.loads(write_model(quantized(file)))
    assert not any("cloze" in name for name in data["arrays"])
    assert data["directions"] == ["forward", "backward"]
