"""The page that is a model, in a browser: drafts of all kinds, what is kept of them, and how surprising they are."""

import math
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import chargen
from chargen.data.code_points import END_MARK
from chargen.data.reading_config import ReadingConfig
from tests.browsers import needs_chromium
from tests.exporting.pages_that_write import WritingPage, browser, opened  # noqa: F401
from tests.insight.pages import HOSTILE, payloads
from tests.insight.test_page_in_a_browser import CLASSES, PLACE
from tests.record_models import record_model
from tests.small_models import small_model

pytestmark = needs_chromium
Open = Callable[..., WritingPage]
HAN = "".join(map(chr, range(0x4E00, 0x4E00 + 1200))) + "。\n"
HEBREW = "אבגדהוזחטיכלמנ .\n"


def test_a_draft_and_its_settings_are_there_again(opened: Open) -> None:  # noqa: F811
    page = opened(small_model())
    page.set(temperature=1.25, min_p=0.2, seed=5, length=42)
    page.tab.check("#fixed")
    page.type("bad cab\na fed face")
    page.tab.reload()
    page.tab.wait_for_selector(page.ready)
    assert page.draft == "bad cab\na fed face"
    assert page.note == "Your draft of last time is here."
    values = [page.tab.input_value(f"#{name}") for name in ("temperature", "min-p", "seed", "length")]
    assert values == ["1.25", "0.2", "5", "42"]
    assert page.tab.is_checked("#fixed")
    assert page.tab.inner_text("output[for=temperature]") == "1.25"
    assert page.tab.evaluate("draft.place") == len("bad cab\na fed face")


def test_a_browser_that_keeps_nothing_is_told_of(opened: Open) -> None:  # noqa: F811
    for refused in ("setItem", "getItem"):
        page = opened(small_model(), script=f"Storage.prototype.{refused} = () => {{ throw new Error('no'); }}")
        page.type("bad")
        page.until("timer === 0")
        assert ("download" in page.note) == (refused == "setItem")


def test_files_are_opened_and_saved(opened: Open, tmp_path: Path) -> None:  # noqa: F811
    page = opened(small_model(), "a/model: <b>")
    page.type("my draft\n")
    with page.tab.expect_download() as download:
        page.tab.click("#download")
    assert download.value.suggested_filename == "a-model-b.txt"
    assert Path(download.value.path()).read_bytes() == b"my draft\n"
    asked: list[str] = []
    page.tab.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.accept()))
    lines = "line\n" * 300
    for name, content, expected in (
        ("other.txt", f"b\r\nä\r{lines}", f"b\nä\n{lines}"),
        ("latin.txt", b"\xe4", None),
        ("empty.txt", "", ""),
        ("next.txt", "a", "a"),
    ):
        file = tmp_path / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        before = page.draft
        page.tab.set_input_files("#file", file)
        page.until(f"byId('note').textContent.includes({name!r})")
        assert page.draft == (before if expected is None else expected)
    assert "no text in UTF-8" not in page.note
    assert len(asked) == 2, "nobody is asked about an empty draft"


def test_a_draft_is_coloured_by_surprise(opened: Open) -> None:  # noqa: F811
    file, text = small_model(), "bad cab\nfed 漢 \u202eface "
    page = opened(file)
    page.type(text, caret=4)
    assert page.tab.inner_text("#unknown b >> nth=0") == "漢"
    assert page.tab.inner_text("#unknown").split() == ["The", "model", "does", "not", "know", "漢", "U+202E"]
    page.press("#surprise")
    assert page.tab.is_hidden("#draft")
    assert page.tab.inner_text("#tip").startswith("'c', character 5"), "where the cursor was"
    judged = chargen.inspect(file, text).predictions
    bits = [-float(nats) / math.log(2) for nats in judged.log_probs["forward"]]
    levels = ["none" if math.isnan(each) else f"p{min(8, int(each))}" if each >= 1 else "" for each in bits]
    shown = page.tab.evaluate(CLASSES)
    assert sum(a != b for a, b in zip(shown, levels, strict=True)) <= 1, "int8 moves one over a border at most"
    assert page.tab.text_content("#text") == text.replace("\u202e", "□")
    rect = page.tab.evaluate(PLACE, 1)
    page.tab.mouse.move(rect["x"] + 3, rect["y"] + 9)
    page.until("view.cursor === 1")
    said = page.tab.inner_text("#tip")
    assert said.startswith("'a', character 2")
    assert repr(file.vocabulary.characters[judged.likeliest["forward"][1][0]]) in said.split("\n")[2]
    page.tab.keyboard.press("ArrowRight")
    page.tab.keyboard.press("ArrowRight")
    page.tab.keyboard.press("Enter")
    assert page.tab.is_visible("#draft")
    assert page.tab.evaluate("[document.activeElement.id, draft.place]") == ["draft", 3]
    page.press("#surprise")
    page.key("Escape")
    page.key("Escape")
    assert page.tab.is_visible("#draft")


def test_a_window_that_changes_nothing_keeps_nothing(opened: Open) -> None:  # noqa: F811
    page = opened(small_model())
    with page.tab.expect_popup() as opening:
        page.tab.evaluate("void window.open(location.href, '', 'noopener')")
    other = opening.value
    other.wait_for_selector(page.ready)
    page.until("timer === 0")
    page.type("bad")
    page.until("timer === 0")
    page.tab.goto("about:blank")
    other.reload()
    other.wait_for_selector(page.ready)
    assert other.input_value("#draft") == "bad"


@pytest.mark.parametrize("text", ["e\u0301e\u0301 abc", "\U000e0001ab😀c"])
def test_places_are_those_of_the_draft(opened: Open, text: str) -> None:  # noqa: F811
    page = opened(replace(small_model(characters="abcdé \n"), reading=ReadingConfig(normalize="NFC")))
    page.type(text, caret=len(text.encode("utf-16-le")) // 2 - 1)
    page.press("#surprise")
    read = unicodedata.normalize("NFC", text)
    assert page.tab.evaluate("view.cursor") == len(read) - 1
    page.tab.keyboard.press("Enter")
    assert page.tab.evaluate("draft.text.slice(draft.place)") == "c"


def test_typing_goes_on_while_a_draft_is_judged(opened: Open) -> None:  # noqa: F811
    page = opened(small_model(hidden_size=192))
    page.type("bad cab\n" * 400)
    page.tab.focus("#draft")
    page.tab.evaluate("byId('surprise').click()")
    page.until("byId('note').textContent.includes('characters read')")
    page.tab.keyboard.type("face")
    page.wait()
    assert page.tab.is_visible("#draft")
    assert page.draft.endswith("cab\nface")
    assert page.note == "Stopped: you took over."


def test_nothing_of_a_name_a_label_or_a_draft_becomes_markup(opened: Open) -> None:  # noqa: F811
    characters = "".join(sorted({*"".join(HOSTILE)} - {END_MARK}))
    file = record_model(letters=characters, labels=(HOSTILE[0], HOSTILE[-3]), end=-9.0)
    page = opened(file, f"{HOSTILE[-3]}{HOSTILE[0]}", offline=True)
    count = "document.querySelectorAll('*').length"
    before = page.tab.evaluate(count)
    text = "\n".join(payloads(60))
    page.type(text)
    page.set(length=200, temperature=2)
    page.press("[data-until='']")
    assert page.draft.startswith(text)
    page.tab.evaluate("keep()")
    unknown = page.tab.locator("#unknown b").count()
    assert page.tab.evaluate(count) == before + unknown
    page.press("#three")
    assert page.tab.evaluate(count) == before + unknown + 6, "three cards and their texts"
    page.press("#surprise")
    page.tab.keyboard.press("ArrowRight")
    tags = {*page.tab.evaluate("[...document.querySelectorAll('#text *, #tip *')].map((each) => each.tagName)")}
    assert tags <= {"DIV", "SPAN", "TABLE", "TBODY", "TR", "TH", "TD"}
    assert page.tab.evaluate("window.hacked === undefined && document.scripts.length === 2")
    for names in (page.tab.inner_text("h1"), page.tab.inner_text("#label"), page.tab.title()):
        assert "\u202e" not in names
        assert "□evil□" in names
    page.tab.evaluate("""document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.hacked = 1'>")""")
    page.tab.evaluate("""fetch("https://example.com").catch(() => 0)""")
    page.tab.wait_for_timeout(50)
    assert page.tab.evaluate("window.hacked === undefined"), "even what got in could not run"
    assert sum("Content Security Policy" in complaint for complaint in page.complaints) >= 2
    page.complaints.clear()
    del page.requests[2:]


def test_a_draft_is_not_touched_while_a_character_is_composed(opened: Open) -> None:  # noqa: F811
    page = opened(small_model(hidden_size=192))
    page.set(length=20_000)
    page.type("bad")
    keyboard = page.tab.context.new_cdp_session(page.tab)
    page.tab.click("[data-until='']")
    page.until("draft.text.length > 20")
    keyboard.send("Input.imeSetComposition", {"text": "ni", "selectionStart": 2, "selectionEnd": 2})
    page.wait()
    stopped = page.draft
    assert stopped.endswith("ni")
    page.tab.keyboard.press("Control+Enter")
    page.press("[data-until=word]")
    assert page.draft.startswith(stopped[:-2])
    assert page.draft in (stopped, stopped[:-2] + "ni")
    keyboard.send("Input.insertText", {"text": "你"})
    page.wait()
    assert page.draft == stopped[:-2] + "你"
    page.set(length=20)
    page.key("Control+Enter")
    assert len(page.draft) > len(stopped)


@pytest.mark.parametrize(("characters", "prime", "direction"), [(HEBREW, "אב", "rtl"), (HAN, "一丁", "ltr")])
def test_any_script_on_a_phone(opened: Open, characters: str, prime: str, direction: str) -> None:  # noqa: F811
    file = small_model(characters=characters, scale=1.0)
    page = opened(file, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.set(seed=3, length=40)
    page.type(prime)
    page.tab.tap("[data-until='']")
    page.wait()
    expected: Any = chargen.generate(file, prime, length=40, seed=3, quantize="int8")
    assert page.draft == expected
    assert page.tab.evaluate("draft.area.inputMode") == "none", "a finger on a button brings up no keyboard"
    assert page.tab.evaluate(f"draft.area.matches(':dir({direction})')")
    page.tab.tap("#three")
    page.wait()
    assert page.tab.evaluate(
        f"[...document.querySelectorAll('.choice span')].every((each) => each.matches(':dir({direction})'))"
    )
    for button in ("[data-until=word]", "#three", "#retry", "#stop"):
        box = page.tab.locator(button).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert box["y"] + box["height"] <= 844, "tools stay in reach"
    assert page.tab.evaluate("document.documentElement.scrollWidth") == 390
    page.tab.tap("#draft", position={"x": 40, "y": 40})
    assert page.tab.evaluate("draft.area.inputMode") == ""


def test_a_mouse_leaves_the_focus_in_the_draft_and_keys_where_they_were(opened: Open) -> None:  # noqa: F811
    page = opened(small_model())
    page.tab.click("#draft")
    page.press("[data-until=word]")
    assert page.tab.evaluate("document.activeElement.id") == "draft"
    page.tab.focus("#retry")
    page.key("Enter")
    assert page.tab.evaluate("document.activeElement.id") == "retry"
    reached = set()
    page.tab.focus("#surprise")
    for _ in range(25):
        reached.add(page.tab.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        page.tab.keyboard.press("Tab")
    names = {
        "surprise",
        "open",
        "download",
        "draft",
        "word",
        "sentence",
        "paragraph",
        "length",
        "characters",
        "three",
        "retry",
    }
    assert reached >= names | {"temperature", "min-p", "seed", "fixed", "Settings and keys"}
    assert page.tab.get_attribute("#status", "aria-live") == "polite"
