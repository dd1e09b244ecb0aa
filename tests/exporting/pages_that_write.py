"""Pages of small models in a browser, and what a person does there."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chargen.exporting.page import write_page
from chargen.storage.model_file import ModelFile
from tests.browsers import running_browser
from tests.opened_pages import OpenedPage


class WritingPage(OpenedPage):
    """The page of a model, ready to write."""

    def __init__(self, browser: Any, folder: Path, file: ModelFile, name: str = "a model", **settings: Any) -> None:
        super().__init__(browser, write_page(file, name), folder, "body[data-ready]", **settings)

    @property
    def draft(self) -> str:
        draft: str = self.tab.input_value("#draft")
        return draft

    @property
    def note(self) -> str:
        """What the page tells last."""
        note: str = self.tab.inner_text("#note")
        return note

    def type(self, text: str, caret: int | None = None) -> None:
        """Put a text into the draft, as a person pastes it, and the cursor behind it or elsewhere."""
        self.tab.fill("#draft", text)
        self.tab.evaluate(
            "(place) => draft.area.setSelectionRange(place, place)", len(text) if caret is None else caret
        )

    def set(self, **settings: float) -> None:
        """Settings by the names of their fields."""
        for name, value in settings.items():
            script = "([id, value]) => { byId(id).value = value; byId(id).dispatchEvent(new Event('change')); }"
            self.tab.evaluate(script, [name.replace("_", "-"), str(value)])

    def until(self, condition: str) -> None:
        """Wait until an expression of the script is true; its policy lets no text become a function."""
        script = f"""async () => {{
            const begun = performance.now();
            while (!({condition})) {{
                if (performance.now() - begun > 20_000) throw new Error("it is never so");
                await new Promise((done) => setTimeout(done, 2));
            }}
        }}"""
        self.tab.evaluate(script)

    def wait(self) -> None:
        """Wait for the end of what is written or judged."""
        self.until("job === null")

    def press(self, button: str) -> None:
        """Press a button, and wait for the end of what it begins."""
        self.tab.click(button)
        self.wait()

    def key(self, key: str) -> None:
        self.tab.keyboard.press(key)
        self.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., WritingPage]]:
    """Open a page; whatever is done with it, it asks for nothing but its worker, and complains of nothing."""
    pages: list[WritingPage] = []

    def open_page(file: ModelFile, *arguments: Any, **settings: Any) -> WritingPage:
        pages.append(WritingPage(browser, tmp_path, file, *arguments, **settings))
        return pages[-1]

    yield open_page
    for page in pages:
        assert all(url == page.address or url.startswith("blob:null/") for url in page.requests)
        assert page.complaints == []
        page.tab.context.close()
