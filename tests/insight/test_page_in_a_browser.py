"""The page of an inspection in a browser: elements, pointing, the keyboard, and nothing that leaves it."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chargen
from chargen.evaluation.predicted_ids import JUDGES
from chargen.insight import page_data
from chargen.insight.activations import Activations
from chargen.insight.inspection import Inspection
from chargen.insight.neurons import Neuron, Neurons
from chargen.insight.page_data import SCALE, show_characters
from chargen.insight.predictions import Predictions
from tests.browsers import needs_chromium, running_browser
from tests.evaluation.judges import model, text_of
from tests.insight.pages import HOSTILE, data_of, inspected, payloads, unpack
from tests.opened_pages import OpenedPage
from tests.small_models import small_model

pytestmark = needs_chromium

PLACE = """(start) => {
  const walker = document.createTreeWalker(document.getElementById("text"), NodeFilter.SHOW_TEXT);
  let passed = 0;
  while (walker.nextNode()) {
    const letters = Array.from(walker.currentNode.data);
    if (passed + letters.length > start) {
      const range = document.createRange(), first = letters.slice(0, start - passed).join("").length;
      range.setStart(walker.currentNode, first);
      range.setEnd(walker.currentNode, first + letters[start - passed].length);
      const { x, y, width, height } = range.getBoundingClientRect();
      return { x, y, width, height };
    }
    passed += letters.length;
  }
}"""
"""Where a character is."""
CLASSES = """() => {
  const walker = document.createTreeWalker(document.getElementById("text"), NodeFilter.SHOW_TEXT), classes = [];
  while (walker.nextNode()) {
    const { parentNode, data } = walker.currentNode;
    const name = parentNode.tagName === "SPAN" ? parentNode.className.replace("end", "").trim() : "";
    for (const _ of data) classes.push(name);
  }
  return classes;
}"""
"""The class of each character, which is its colour."""
NOTE = "Characters 1 to 600; the others are slanted."


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as browser:
        yield browser


class Opened(OpenedPage):
    """The page of an inspection in the browser."""

    def __init__(self, browser: Any, page: str, folder: Path, **settings: Any) -> None:
        super().__init__(browser, page, folder, "body[data-shown]", **settings)

    @property
    def tip(self) -> str | None:
        """What the tooltip says; None where it is hidden."""
        return self.tab.inner_text("#tip") if self.tab.is_visible("#tip") else None

    def place(self, index: int) -> dict[str, float]:
        """The rectangle of a character."""
        rect: dict[str, float] = self.tab.evaluate(PLACE, index)
        return rect

    def point(self, index: int) -> None:
        """Move the mouse to the middle of a character."""
        rect = self.place(index)
        self.tab.mouse.move(rect["x"] + rect["width"] / 2, rect["y"] + rect["height"] / 2)
        self.tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Open a page; whatever is done with it, it asks for nothing and complains of nothing."""
    pages: list[Opened] = []

    def open_page(page: str, **settings: Any) -> Opened:
        pages.append(Opened(browser, page, tmp_path, **settings))
        return pages[-1]

    yield open_page
    for page in pages:
        assert page.requests == [page.address]
        assert page.complaints == []
        page.tab.close()


def test_pointing_and_keys_tell_what_was_expected(opened: Callable[..., Opened]) -> None:
    text = "a bad cab\nfaced a façade\n\n漢字 and שלום and 😀.\nשלום abc.\n"
    inspection = inspected(text, bidirectional=True, cloze=1.0)
    page = opened(inspection.page())
    data = data_of(inspection.page())
    judges = {judge["name"]: judge for judge in data["judges"]}
    expected = {name: unpack(judge["bits"], "<u2") / SCALE for name, judge in judges.items()}

    def assert_tells(index: int) -> None:
        said = page.tip
        assert said is not None
        assert said.startswith(f"{text[index]!r}, character {index + 1}")
        for name, judge in judges.items():
            assert f"{name} {math.floor(100 * expected[name][index] + 0.5) / 100:.2f} bits" in said
            for number in unpack(judge["likeliest"], "<u4")[5 * index : 5 * index + 5]:
                assert data["names"][number] in said

    assert page.tab.text_content("#text") == text
    assert page.tip is None
    for index, character in enumerate(text):
        if character != "\n":
            page.point(index)
            assert_tells(index)
    page.tab.mouse.move(1, 1)
    assert page.tip is None
    page.tab.focus("#text")
    for keys, index in (
        (["ArrowRight"], 0), (["ArrowRight", "ArrowRight"], 2), (["ArrowLeft"], 1), (["ArrowDown"], text.index("aced")),
        (["ArrowUp"], 1), (["End"], len(text) - 1), (["Home"], 0),
    ):  # fmt: skip
        for key in keys:
            page.tab.keyboard.press(key)
        assert_tells(index)
    surprising = [at for at, bits in enumerate(expected["cloze"]) if bits >= 6]
    for index in surprising[:3]:
        if index:
            page.tab.keyboard.press("n")
            assert_tells(index)
    page.tab.keyboard.press("Escape")
    assert page.tip is None
    hebrew = text.index("ש")
    assert page.place(hebrew)["x"] > page.place(hebrew + 3)["x"], "it runs from right to left"
    assert page.place(hebrew)["x"] < 300 < 700 < page.place(text.index("ש", hebrew + 1))["x"], "each line by its own"


def test_hidden_units_colour_the_text(opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_data, "WINDOW", 600)
    file, text = model("gru", "character", "one"), text_of("character", 900)
    inspection = chargen.inspect(file, text)
    page, hidden = opened(inspection.page()), inspection.activations.hidden.astype(float)
    tab = page.tab

    def assert_shows(layer: int, unit: int, stop: int) -> None:
        tab.wait_for_selector(f"body[data-shown='{layer}:{unit}']")
        values = np.rint(hidden[layer - 1, :, unit] * 32) / 32
        levels = [math.floor(8 * value + 0.5) for value in values]  # as JavaScript rounds
        expected = ["none" if at >= stop else f"p{level}" if level > 0 else f"n{-level}" if level else ""
                    for at, level in enumerate(levels)]  # fmt: skip
        assert tab.evaluate(CLASSES)[: len(text)] == expected
        page.point(6)
        assert page.tip is not None
        assert f"hidden unit {layer}:{unit}: {values[6]:.2f}" in page.tip.replace("\u2212", "-")
        assert tab.inner_text("#legend").split("\n")[-1] == (NOTE if stop < len(text) else "1")

    first = inspection.neurons[0]
    tab.select_option("#choice", "neuron 0")
    assert_shows(first.layer, first.unit, 900)
    assert not tab.is_visible("#unit")
    tab.select_option("#choice", "unit")
    assert_shows(first.layer, first.unit, 600)
    for name, typed, layer, unit in (("layer", "2", 2, first.unit), ("unit", "5", 2, 5), ("unit", "99", 2, 11)):
        tab.fill(f"#{name}", typed)
        tab.press(f"#{name}", "Enter")
        assert_shows(layer, unit, 600)
    last = inspection.neurons[-1]
    tab.locator("button").last.click()
    assert_shows(last.layer, last.unit, 900)
    tab.select_option("#choice", "judge 0")
    tab.wait_for_selector("body[data-shown=forward]")
    bits = unpack(data_of(inspection.page())["judges"][0]["bits"], "<u2") / SCALE
    levels = [min(8, math.floor(value)) for value in bits]
    assert tab.evaluate(CLASSES) == [f"p{level}" if level else "" for level in levels]


@pytest.mark.slow
def test_a_large_model_and_a_hundred_thousand_characters_fit(opened: Callable[..., Opened]) -> None:
    """Noise packs worse than anything that a model does."""
    size, random = 100_000, np.random.default_rng(0)
    file = small_model(characters="".join(map(chr, range(0x4E00, 0x5200))) + "ab\n", bidirectional=True)
    text = "".join(chr(0x4E00 + code) if code % 50 else "\n" for code in random.integers(0, 0x400, size))
    log_probs = {judge: -random.exponential(2, size).astype(np.float32) for judge in JUDGES}
    likeliest = {judge: random.integers(0, 0x400, (size, 5)).astype(np.uint32) for judge in JUDGES}
    probabilities = {judge: random.random((size, 5)).astype(np.float32) / 2 for judge in JUDGES}
    ids = random.integers(0, 0x400, size)
    predictions = Predictions(text, ids, log_probs, likeliest, probabilities, np.arange(size))
    hidden = np.tile(random.uniform(-1, 1, (2, 20_000, 512)).astype(np.float16), (1, 5, 1))
    values = Activations(text, np.array([0, size]), "forward", hidden)
    neurons = Neurons(Neuron(1, unit, "noise", 0.1, 0.1, 0.5, 1, 0.0, 0.1, 0.1) for unit in range(24))
    page = Inspection("large", file, predictions, values, neurons).page()
    assert 14e6 < len(page.encode()) <= 15e6
    tab = opened(page).tab
    assert tab.evaluate("performance.getEntriesByType('navigation')[0].domComplete") < 5000
    for _ in range(10):
        tab.evaluate("text.scrollTop = Math.random() * text.scrollHeight")
        tab.wait_for_timeout(60)
        assert tab.evaluate("document.querySelectorAll('*').length") < 20_000
    tab.focus("#text")
    tab.keyboard.press("End")
    assert "character 100,000" in tab.inner_text("#tip")


def test_a_thousand_hostile_payloads_add_no_element(opened: Callable[..., Opened]) -> None:
    text = "\n".join(payloads())
    page = opened(
        inspected(text, name=f"{HOSTILE[0]}{HOSTILE[-2]}").page(), offline=True, viewport={"width": 900, "height": 6000}
    )
    tab = page.tab
    assert tab.evaluate("document.getElementById('text').textContent") == show_characters(text)[0]
    assert tab.inner_text("h1") == f"Inside {HOSTILE[0]}{show_characters(HOSTILE[-2])[0]}"
    coloured = set()
    while not tab.evaluate("text.scrollTop + text.clientHeight > text.scrollHeight - 9"):
        tab.evaluate("text.scrollTop += text.clientHeight")
        tab.evaluate("() => new Promise((done) => setTimeout(done, 30))")
        inside = "[...document.querySelectorAll('#text *, #tip *, h1 *')]"
        coloured |= {*tab.evaluate(f"[...new Set({inside}.flatMap((e) => [e.tagName, ...e.getAttributeNames()]))]")}
    allowed = {"DIV", "SPAN", "BDI", "TABLE", "TBODY", "TR", "TH", "TD", "class", "dir", "style", "id", "hidden"}
    assert {"SPAN", "class"} < coloured <= allowed
    assert tab.evaluate("window.hacked === undefined && document.scripts.length === 2")
    tab.evaluate("""document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.hacked = 1'>")""")
    tab.wait_for_timeout(50)
    assert tab.evaluate("window.hacked === undefined"), "even what got in could not run"
    assert any("Content Security Policy" in complaint for complaint in page.complaints)
    page.complaints.clear()
    page.requests.pop()
