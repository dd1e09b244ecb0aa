"""The page that is a model, in a browser: what it writes, and what a person can do about it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import chargen
from chargen.data.reading_config import ReadingConfig
from chargen.exporting.page import write_page
from chargen.sampling.ends import MAX_PIECE
from tests.browsers import needs_chromium
from tests.exporting.pages_that_write import WritingPage, browser, opened  # noqa: F401
from tests.record_models import record_model
from tests.small_models import small_model

pytestmark = needs_chromium
Open = Callable[..., WritingPage]
FILE = small_model()
SLOW = small_model(hidden_size=192)
"""Takes seconds for what a page writes at most, so that there is time to stop it."""
PRIME = "bad cab\na"
CHARACTERS = "[data-until='']"


def written(prime: str, length: int, seed: int = 7, index: int = 0, file: Any = FILE, **settings: Any) -> str:
    """What Python writes after a text, with the same seed."""
    settings = {"length": length, "seed": seed, "num": index + 1, "echo": False, "quantize": "int8"} | settings
    return chargen.generate(file, prime, **settings)[index]


@pytest.fixture
def page(opened: Open) -> WritingPage:  # noqa: F811
    page = opened(FILE)
    page.set(seed=7, length=50)
    return page


def test_where_no_script_runs_the_page_says_what_to_do(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "page.html"
    path.write_text(write_page(FILE, "a model"), "utf-8")
    tab = browser.new_page(java_script_enabled=False)
    tab.goto(path.as_uri())
    assert "open the file in a browser" in tab.inner_text("body")
    assert not any(place.is_visible() for place in tab.query_selector_all("textarea, button, #note"))
    tab.context.close()


def test_it_goes_on_at_the_cursor_as_python_does(page: WritingPage) -> None:
    page.type(PRIME + "fed", caret=len(PRIME))
    page.press(CHARACTERS)
    first = PRIME + written(PRIME, 50)
    assert page.draft == first + "fed"
    assert "50 characters" in page.note
    assert "seed 7" in page.note
    page.key("Control+Enter")
    assert page.draft == PRIME + written(PRIME, 100) + "fed", "the same random numbers go on"
    page.set(temperature=0.3, min_p=0.1, seed=2**64 - 1)
    page.press(CHARACTERS)
    second = PRIME + written(PRIME, 100)
    third = written(second, 50, seed=2**64 - 1, temperature=0.3, min_p=0.1)
    assert page.draft == second + third + "fed"


def test_of_a_long_draft_it_knows_what_stands_before_the_cursor(page: WritingPage) -> None:
    text = "bad cab\nfed face " * 400
    page.type(text)
    places = (0, 9, 3_999, 4_000, 4_020, 5_999, len(text))
    contexts = {place: page.tab.evaluate("contextOf", place) for place in places}
    for place, context in contexts.items():
        assert text[:place].endswith(context)
        assert len(context) == place if place < 4_000 else 1_500 < len(context) < 4_000
        assert place < 4_000 or context.startswith("fed"), "a line begins there"
    assert contexts[5_999][:20] == contexts[4_020][:20], "it begins where it did"
    page.press(CHARACTERS)
    assert page.draft == text + written(contexts[len(text)], 50)


def test_what_it_wrote_is_undone_at_once_and_what_was_typed_apart(page: WritingPage) -> None:
    page.tab.click("#draft")
    page.tab.keyboard.type("bad")
    page.press(CHARACTERS)
    page.key("Control+Enter")
    whole = "bad" + written("bad", 100)
    assert page.draft == whole
    drafts = []
    for _ in range(3):
        page.tab.keyboard.press("Control+z")
        drafts.append(page.draft)
    assert drafts == ["bad" + written("bad", 50), "bad", ""]
    for _ in range(3):
        page.tab.keyboard.press("Control+Shift+z")
    assert page.draft == whole


def test_escape_stops_and_typing_takes_over(opened: Open) -> None:  # noqa: F811
    page = opened(SLOW)
    page.set(seed=7, length=20_000)
    for stop in ("Escape", "X", "ArrowLeft"):
        page.type(PRIME)
        page.tab.click(CHARACTERS)
        page.until(f"draft.text.length > {len(PRIME) + 20} && !byId('stop').disabled")
        page.key(stop)
        stopped = page.draft
        page.tab.wait_for_timeout(30)
        assert page.draft == stopped
        assert len(stopped) < 20_000
        own = stopped.removesuffix("X") if stop == "X" else stopped
        assert own == PRIME + written(PRIME, len(own) - len(PRIME), file=SLOW)
        assert page.tab.is_disabled("#stop")


def test_of_what_is_asked_for_at_once_the_last_goes_on(opened: Open) -> None:  # noqa: F811
    page = opened(SLOW)
    page.set(seed=7, length=20_000)
    page.type(PRIME)
    presses = "() => {{ for (let n = 0; n < 3; n++) byId('{}').click(); document.querySelector(\"{}\").click(); }}"
    for button in ("three", "surprise"):
        before = len(page.draft)
        page.tab.evaluate(presses.format(button, CHARACTERS))
        page.until(f"draft.text.length > {before + 20}")
        page.tab.evaluate(presses.format(button, CHARACTERS))
        page.until("job !== null && link.jobs.size === 1 && draft.text.length > 100")
        assert page.tab.is_visible("#draft")
        page.tab.evaluate("byId('three').click(), byId('stop').click()")
        page.wait()
        assert not page.tab.is_visible("#choices")
        own = page.draft
        assert own == PRIME + written(PRIME, len(own) - len(PRIME), file=SLOW)


def test_a_page_whose_model_is_gone_says_so_whatever_is_asked(opened: Open) -> None:  # noqa: F811
    page = opened(small_model())
    page.tab.evaluate("link.worker.dispatchEvent(new ErrorEvent('error', { message: 'out of memory' }))")
    assert page.note == "This browser cannot run the model: out of memory"
    page.press("[data-until='word']")
    assert page.note == "That went wrong: out of memory"


def test_without_a_seed_nothing_is_done(page: WritingPage) -> None:
    page.type(PRIME)
    page.press(CHARACTERS)
    before = page.draft
    for seed in ("nonsense", "-1", "1.5", str(2**64)):
        page.tab.fill("#seed", seed)
        for button in ("#retry", CHARACTERS, "#three"):
            page.press(button)
            assert page.note == "The seed must be digits, 0 to 2**64 - 1."
            assert page.draft == before
            assert not page.tab.is_visible("#choices")


def test_retry_writes_something_else_in_its_place(page: WritingPage) -> None:
    page.type(PRIME + "fed", caret=len(PRIME))
    assert page.tab.is_disabled("#retry")
    page.press(CHARACTERS)
    for index, retry in ((1, lambda: page.press("#retry")), (2, lambda: page.key("Control+Shift+Enter"))):
        retry()
        assert page.draft == PRIME + written(PRIME, 50, index=index) + "fed"
        assert f"seed 7, alternative {index + 1}" in page.note
    page.set(seed=8)
    page.press("#retry")
    assert page.draft == PRIME + written(PRIME, 50, seed=8) + "fed"
    last = page.draft
    page.type("bad")
    assert page.tab.is_disabled("#retry")
    page.type(last)
    assert page.tab.is_enabled("#retry"), "what was written stands there again"


def test_one_of_three_alternatives_is_chosen(page: WritingPage) -> None:
    page.type(PRIME)
    page.press(CHARACTERS)
    prime = page.draft
    ways = [written(PRIME, 100)[50:], *(written(PRIME, 100, index=index)[50:] for index in (1, 2))]
    page.press("#three")
    assert page.draft == prime
    cards = page.tab.locator(".choice span")
    ways[1:] = cards.all_text_contents()[1:]
    assert cards.all_text_contents()[0].replace("↵", "\n").split() == ways[0].split()
    assert len({*map(len, cards.all_text_contents())}) <= 2
    page.key("Escape")
    assert not page.tab.is_visible("#choices")
    assert page.draft == prime
    page.key("Alt+Enter")
    page.key("1")
    assert page.draft == prime + ways[0]
    page.key("Control+Enter")
    assert page.draft == PRIME + written(PRIME, 150)
    page.tab.keyboard.press("Control+z")
    page.tab.keyboard.press("Control+z")
    assert page.draft == prime
    page.press("#three")
    page.press(".choice >> nth=2")
    third = page.draft
    assert third[: len(prime)] == prime
    assert third != prime + ways[0]
    assert "alternative 3 of seed 7" in page.note.lower()


def test_a_choice_before_the_end_takes_what_is_there(opened: Open) -> None:  # noqa: F811
    page = opened(SLOW)
    page.set(seed=7, length=1)
    page.press(CHARACTERS)
    page.set(length=20_000)
    page.type(PRIME)
    page.tab.click("#three")
    page.until("choices.texts[1].length > 10")
    page.key("2")
    assert PRIME + written(PRIME, 9, index=1, file=SLOW) in page.draft
    assert len(page.draft) < 20_000
    stopped = page.draft
    page.tab.wait_for_timeout(30)
    assert page.draft == stopped


@pytest.mark.parametrize("button", ["word", "sentence", "paragraph"])
def test_it_goes_on_to_an_end(opened: Open, button: str) -> None:  # noqa: F811
    page = opened(small_model(characters="abcdefgh .\n", scale=1.0))
    page.set(seed=1)
    page.type("ab")
    page.press(f"[data-until={button}]")
    text = page.draft[2:]
    if button == "word":
        assert text.isalpha()
    elif button == "sentence":
        assert text.endswith(".")
    before = page.draft
    page.key("Control+Enter")
    assert len(page.draft) > len(before), "again as last time"
    assert button in page.tab.inner_text(".last")
    assert page.tab.evaluate("MOST")[button] == MAX_PIECE[button]


def test_records_are_written_whole_with_their_label(opened: Open) -> None:  # noqa: F811
    file = record_model(end=-0.5)
    page = opened(file)
    page.set(seed=7)
    settings = {"seed": 7, "num": 10, "quantize": "int8", "label": "sun"}
    page.tab.select_option("#label", label="sun")
    page.press("[data-records='10']")
    records = chargen.generate(file, **settings)
    assert page.draft.split("\n") == [record for record in records if record]
    assert page.tab.is_hidden("#unknown"), "what stands between records is no character"
    page.type("ab\ncd", caret=5)
    page.press("[data-until=record]")
    assert page.draft == "ab\ncd" + chargen.generate(file, "cd", echo=False, **settings | {"num": 1})[0]


def test_of_records_that_are_files_a_draft_is_one(opened: Open) -> None:  # noqa: F811
    file = replace(record_model(end=-0.5), reading=ReadingConfig(records="file"))
    page = opened(file)
    page.set(seed=7)
    page.type("bad")
    page.press("[data-records='1']")
    assert page.draft == chargen.generate(file, seed=7, quantize="int8")
    assert page.tab.locator("[data-records]").count() == 1
    page.tab.keyboard.press("Control+z")
    page.tab.keyboard.press("Control+z")
    assert page.draft == "bad"
