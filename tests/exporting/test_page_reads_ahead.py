"""The page that is a model, in a browser: it reads what stands before the cursor while nobody asks it for anything."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.browsers import needs_chromium
from tests.exporting.pages_that_write import WritingPage, browser, opened  # noqa: F401
from tests.record_models import record_model
from tests.small_models import small_model

pytestmark = needs_chromium
Open = Callable[..., WritingPage]
RECORD = """
window.posted = [];
const post = Worker.prototype.postMessage;
Worker.prototype.postMessage = function (message) {
  window.posted.push(message);
  post.call(this, message);
};
"""
"""Before the page's own script: keeps what is posted to the worker."""
TEXT = "bad cab\nfed face " * 200
SLOW = small_model(hidden_size=192)
"""Takes seconds for this text."""
READS = "posted.length && posted.at(-1).kind === 'write' && posted.at(-1).length === 0 && posted.at(-1).text"


def posted(page: WritingPage) -> list[dict[str, Any]]:
    """What was posted to the worker since the last such call."""
    messages: list[dict[str, Any]] = page.tab.evaluate("posted.splice(0)")
    return messages


def wait_for_reading(page: WritingPage, text: str) -> None:
    """Wait until a text has been read, behind which the cursor rests."""
    page.until(f"{READS} && posted.at(-1).text === {json.dumps(text)} && link.jobs.size === 0")
    assert not {message["kind"] for message in posted(page)} - {"load", "write", "stop"}


def test_it_reads_a_draft_of_last_time_and_then_where_the_cursor_rests(opened: Open) -> None:  # noqa: F811
    page = opened(small_model(), script=RECORD)
    page.type(TEXT)
    wait_for_reading(page, TEXT)
    page.until("timer === 0")
    page.tab.reload()
    wait_for_reading(page, TEXT)
    page.tab.click("#draft")
    page.tab.keyboard.press("Control+Home")
    for _ in range(3):
        page.tab.keyboard.press("ArrowRight")
    wait_for_reading(page, TEXT[:3])
    page.tab.keyboard.type("abc")
    wait_for_reading(page, "badabc")
    page.set(length=20)
    page.press("[data-until='']")
    wait_for_reading(page, page.draft[: len("badabc") + 20])


def test_it_reads_for_the_label_that_is_chosen(opened: Open) -> None:  # noqa: F811
    page = opened(record_model(), script=RECORD)
    page.type("bad")
    wait_for_reading(page, "bad")
    page.tab.select_option("#label", label="sun")
    page.until(READS)
    assert [(message["text"], message["label"]) for message in posted(page)] == [("bad", "sun")]


WORD = "[data-until=word]"
ACTIONS = {
    "write": lambda page: page.tab.click(WORD),
    "three": lambda page: page.tab.click("#three"),
    "judge": lambda page: page.tab.click("#surprise"),
    "type": lambda page: page.tab.keyboard.press("a"),
    "move": lambda page: page.tab.keyboard.press("ArrowLeft"),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_whatever_a_person_does_stops_it_first(opened: Open, action: str) -> None:  # noqa: F811
    page = opened(SLOW, script=RECORD)
    page.set(seed=7, length=30)
    page.type(TEXT)
    page.until(READS)
    reading = posted(page)[-1]
    assert page.tab.evaluate("link.jobs.size") == 1
    assert page.tab.is_disabled("#stop"), "a person has not asked for it"
    ACTIONS[action](page)
    page.until("posted.length")
    first, *rest = posted(page)
    assert (first["kind"], first["id"]) == ("stop", reading["id"])
    assert all(message.get("length") != 0 for message in rest)


def test_it_changes_nothing_of_what_is_written(opened: Open) -> None:  # noqa: F811
    drafts = []
    for condition in ("true", READS, f"{READS} && link.jobs.size === 0"):
        page = opened(SLOW, script=RECORD)
        page.set(seed=7, length=100)
        page.type(TEXT[:900])
        page.until(condition)
        page.press("[data-until='']")
        drafts.append(page.draft)
    assert len({*drafts}) == 1
    assert len(drafts[0]) == 900 + 100
