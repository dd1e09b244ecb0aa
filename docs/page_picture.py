"""Take the picture of the page that writes: `python -m docs.page_picture` writes docs/pages/page.png, with Chromium."""

from pathlib import Path
from tempfile import TemporaryDirectory

from chargen.exporting.page import write_page
from chargen.storage.model_file import read_model
from tests.browsers import running_browser

PICTURE = Path(__file__).parent / "pages" / "page.png"
DRAFT = "ROMEO:\nBut soft, what light through yonder window breaks?"
SEED = 3


def take_picture() -> None:
    """Write three alternatives after a draft."""
    with TemporaryDirectory() as folder, running_browser() as browser:
        page = Path(folder) / "page.html"
        page.write_text(write_page(read_model("shakespeare"), "shakespeare"), "utf-8")
        tab = browser.new_page(viewport={"width": 960, "height": 600})
        tab.goto(page.as_uri())
        tab.wait_for_selector("body[data-ready]")
        tab.evaluate("byId('settings').open = false")
        tab.fill("#draft", DRAFT)
        tab.evaluate(f"byId('seed').value = {SEED}")
        tab.click("#three")
        tab.evaluate("job.over")
        tab.mouse.move(5, 5)
        tab.wait_for_timeout(500)  # colours change gently
        tab.screenshot(path=PICTURE)


if __name__ == "__main__":
    take_picture()
