"""Saving a draft beside the work: no key waits for the disk."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from chargen.api.draft import Draft
from chargen.api.draft_file import Bookmark
from chargen.errors import ChargenError

BYTES_A_SECOND = 5_000_000
"""What is written to the disk at most: a small draft is saved at every key, a large one less often."""
AGAIN = 1.0
"""Seconds after which a disk that refused is tried again."""


class DraftSaver:
    """Saves a draft and its bookmark, one after the other, each as soon as the one before is on the disk.

    Args:
        draft: what is saved.
        bookmark: makes what is to go on tomorrow.
    """

    def __init__(self, draft: Draft, bookmark: Callable[[], Bookmark]) -> None:
        self.draft = draft
        self.bookmark = bookmark
        self.error = ""
        """Why the last save failed; empty where it did not."""
        self.changed = asyncio.Event()
        """To be set by whoever changes something."""
        self._saved = draft.text
        self._thread = ThreadPoolExecutor(1)

    @property
    def is_saved(self) -> bool:
        """Whether the text is on the disk as it is here."""
        return self.draft.text == self._saved

    async def keep_saving(self, after: Callable[[], None]) -> None:
        """Save whenever something has changed.

        Args:
            after: called after every save.
        """
        while True:
            await self.changed.wait()
            self.changed.clear()
            await self.save()
            after()
            if self.error:
                self.changed.set()
            await asyncio.sleep(AGAIN if self.error else len(self.draft.text) / BYTES_A_SECOND)

    async def save(self) -> None:
        """Save what is here now; an error is noted."""
        text = self.draft.text
        try:
            await asyncio.wrap_future(self._submit(text, leaving=False))
            self._saved, self.error = text, ""
        except ChargenError as error:
            self.error = str(error)

    def save_now(self) -> None:
        """Save what is here now, behind all that is being saved.

        Raises:
            ChargenError: the disk refuses.
        """
        text = self.draft.text
        self._submit(text, leaving=True).result()
        self._saved, self.error = text, ""

    def _submit(self, text: str, *, leaving: bool) -> "Future[None]":
        bookmark = replace(self.bookmark(), cursor=self.draft.cursor)
        return self._thread.submit(self._write, text, bookmark, leaving)

    def _write(self, text: str, bookmark: Bookmark, leaving: bool) -> None:
        if file := self.draft.file:
            file.save(text)
            file.save_bookmark(bookmark, text, leaving=leaving)
