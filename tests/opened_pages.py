"""Pages of one file in a browser, from the disk, with what they asked for and complained of."""

from pathlib import Path
from typing import Any


class OpenedPage:
    """A page in a tab of its own, which has nothing in common with other tabs.

    Args:
        browser: which opens it.
        page: the whole of it.
        folder: gets its file.
        ready: matches what is there when the page is ready.
        script: runs before the page's own.
        **settings: of the tab.
    """

    def __init__(
        self, browser: Any, page: str, folder: Path, ready: str, script: str | None = None, **settings: Any
    ) -> None:
        self.tab = browser.new_page(**{"viewport": {"width": 900, "height": 700}, **settings})
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        if script is not None:
            self.tab.add_init_script(script)
        path = folder / "page.html"
        path.write_text(page, "utf-8")
        self.ready, self.address = ready, path.as_uri()
        self.tab.goto(self.address)
        self.tab.wait_for_selector(ready, timeout=20_000)
