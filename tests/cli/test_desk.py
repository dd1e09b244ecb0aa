"""Where a person and a model write by turns, without a screen: whatever comes when, nothing is lost."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from chargen import Draft, Writer
from chargen.cli import desk as desk_module
from chargen.cli.below_draft import rows_below
from chargen.cli.desk import Desk
from chargen.cli.terminal import display_width
from chargen.storage.model_file import ModelFile
from tests.record_models import record_model
from tests.small_models import small_model
from tests.terminals import harmful

LETTERS = "abcde. \n"


@cache
def model() -> ModelFile:
    return small_model("gru", characters=LETTERS, scale=1.5)


@pytest.fixture
def at_every_character(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model pauses behind every character that it writes."""
    monkeypatch.setattr(desk_module, "SLICE", 0)


def run(path: Path, work: Callable[[Desk], Awaitable[Any]], file: ModelFile | None = None, **options: Any) -> Desk:
    """Work at a new desk while its draft is saved in the background; then save it as leaving does."""
    draft = Draft(path)
    with draft.lock():
        bookmark = draft.file.bookmark
        kept = {} if bookmark is None else {"seed": bookmark.seed, "pieces": bookmark.pieces}
        desk = Desk(draft, Writer(file or model(), **({"seed": 1} | kept | options)), lambda: None)

        async def main() -> None:
            saving = asyncio.ensure_future(desk.saver.keep_saving(desk.read_on))
            await work(desk)
            saving.cancel()
            desk.end()

        asyncio.run(main())
        assert desk.failure is None
        desk.saver.save_now()
    return desk


async def done(desk: Desk) -> None:
    while desk._task:
        await asyncio.sleep(0.001)


def type_(desk: Desk, text: str) -> None:
    draft = desk.draft
    for character in text:
        before, behind = draft.text[: draft.cursor], draft.text[draft.cursor :]
        desk.take_over(before + character + behind, draft.cursor + 1)


def pieces(number: int, text: str, until: str = "sentence", num: int = 1) -> list[str]:
    """What the model writes by itself."""
    writer, written = Writer(model(), seed=1, pieces=number), [""] * num
    for added in writer.write(text, until, num):
        written = [piece + more for piece, more in zip(written, added, strict=True)]
    return written


def test_a_draft_is_written_by_turns_and_goes_on_tomorrow(tmp_path: Path) -> None:
    async def today(desk: Desk) -> None:
        type_(desk, "ab cd ")
        for until in ("word", "sentence", "paragraph"):
            desk.go_on(until)
            await done(desk)
            type_(desk, "e ")
        desk.retry()
        assert desk.note
        desk.undo()
        desk.retry()
        await done(desk)
        desk.offer()
        await done(desk)
        assert desk.state == "choose"
        desk.choose(1)
        desk.warm(0.1)

    text = "ab cd "
    for number, until in enumerate(("word", "sentence", "paragraph")):
        before = text
        text += pieces(number, text, until)[0] + "e "
    text = before + pieces(3, before, "paragraph")[0]
    text += pieces(4, text, "paragraph", 3)[1]
    path = tmp_path / "draft.txt"
    desk = run(path, today)
    assert desk.draft.text == path.read_text() == text
    bookmark = Draft(path).file.bookmark
    assert (bookmark.pieces, bookmark.temperature, bookmark.cursor) == (7, 0.9, len(text))

    async def tomorrow(desk: Desk) -> None:
        desk.go_on("sentence")
        await done(desk)

    run(path, tomorrow)
    assert path.read_text() == text + pieces(7, text)[0]


@pytest.mark.usefixtures("at_every_character")
def test_what_was_written_until_it_was_stopped_stays(tmp_path: Path) -> None:
    whole = pieces(0, "ab ", "paragraph")[0]
    assert len(whole) > 12

    async def stop(desk: Desk) -> None:
        type_(desk, "ab ")
        desk.go_on("paragraph")
        assert desk.is_busy
        while len(desk.draft.text) < 8:
            await asyncio.sleep(0.001)
        assert desk.state == "writing"
        desk.end()
        text = desk.draft.text
        assert text == "ab " + whole[: len(text) - 3]
        await asyncio.sleep(0.02)
        assert desk.draft.text == text
        assert not desk._in_piece
        desk.undo()
        assert desk.draft.text == "ab "
        desk.redo()
        assert desk.draft.text == text

    run(tmp_path / "draft.txt", stop)


@pytest.mark.usefixtures("at_every_character")
@pytest.mark.parametrize("how", ["type", "move", "undo", "again", "choose", "label"])
def test_whatever_the_person_does_ends_what_the_model_does_first(tmp_path: Path, how: str) -> None:
    async def interrupt(desk: Desk) -> None:
        type_(desk, "ab ")
        if how == "choose":
            desk.offer()
            while not desk.choices or not all(desk.choices):
                await asyncio.sleep(0.001)
            offered = desk.choices[2]
            desk.choose(2)
            assert desk.draft.text == "ab " + offered
        else:
            desk.go_on("paragraph")
            while len(desk.draft.text) < 8:
                await asyncio.sleep(0.001)
            text = desk.draft.text
            if how == "type":
                type_(desk, "x")
                assert desk.draft.text == text + "x"
            elif how == "move":
                desk.move(1)
                assert (desk.draft.text, desk.draft.cursor) == (text, 1)
            elif how == "undo":
                desk.undo()
                assert desk.draft.text == "ab "
            elif how == "label":
                desk.relabel()
                assert desk.draft.text == text
            else:
                desk.retry()
                await done(desk)
                assert desk.draft.text == "ab " + pieces(1, "ab ", "paragraph")[0]
                desk.undo()
                assert desk.draft.text == text
        text = desk.draft.text
        await asyncio.sleep(0.02)
        assert (desk.draft.text, desk._in_piece, desk.choices) == (text, False, [])

    run(tmp_path / "draft.txt", interrupt)


def test_none_of_the_pieces_may_be_chosen(tmp_path: Path) -> None:
    async def look(desk: Desk) -> None:
        type_(desk, "ab ")
        for leave in (desk.end, lambda: desk.move(1), lambda: type_(desk, "c")):
            desk.offer()
            await done(desk)
            assert len(desk.choices) == 3
            assert not desk.draft.last_piece
            leave()
            assert desk.choices == []
        assert desk.writer.pieces == 9

    run(tmp_path / "draft.txt", look)
    assert (tmp_path / "draft.txt").read_text() == "acb "


def test_anything_may_come_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown is the draft, and all of it is in the file in the end."""
    monkeypatch.setattr(desk_module, "SLICE", 0.0005)
    path = tmp_path / "draft.txt"
    for seed in range(6):
        chance = random.Random(seed)

        async def work(desk: Desk, chance: random.Random = chance) -> None:
            for _ in range(60):
                kind = chance.randrange(9)
                if kind < 3:
                    type_(desk, chance.choice(["a", "b ", "\n", "漢"]))
                elif kind == 3:
                    desk.go_on(chance.choice(["word", "sentence", "paragraph"]))
                elif kind == 4:
                    desk.offer()
                elif kind == 5 and desk.choices:
                    desk.choose(chance.randrange(3))
                elif kind == 6:
                    chance.choice([desk.undo, desk.redo, desk.retry, desk.end])()
                elif kind == 7:
                    desk.move(chance.randrange(len(desk.draft.text) + 1))
                await asyncio.sleep(chance.choice([0, 0, 0.001, 0.004]))

        desk = run(path, work, pieces=0, seed=seed)
        assert (path.read_text() if path.exists() else "") == desk.draft.text
        assert desk.state == "saved"


def test_a_disk_that_refuses_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chargen.cli.draft_saver.AGAIN", 0.01)

    async def work(desk: Desk) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            type_(desk, "ab ")
            while not desk.saver.error:
                await asyncio.sleep(0.001)
            assert desk.state == "unsaved"
            assert "No space left on device" in desk.saver.error
            desk.go_on("word")
            await done(desk)
            await asyncio.sleep(0.1)  # and nothing changes any more
        while desk.saver.error:
            await asyncio.sleep(0.001)
        await done(desk)
        assert desk.state == "saved"

    run(tmp_path / "draft.txt", work)
    assert (tmp_path / "draft.txt").read_text() == "ab " + pieces(0, "ab ", "word")[0]


def test_nothing_is_done_where_nothing_changes(tmp_path: Path) -> None:
    saves = []

    async def work(desk: Desk) -> None:
        write = desk.saver._write
        desk.saver._write = lambda *arguments: (saves.append(arguments), write(*arguments))[1]
        type_(desk, "ab")
        await asyncio.sleep(0.2)
        assert desk.state == "saved"

    run(tmp_path / "draft.txt", work)
    assert len(saves) <= 3


def test_what_the_model_cannot_do_is_told(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        desk.go_on("word")
        await done(desk)
        assert "forbid all 8 ids" in desk.error
        type_(desk, "ab")
        desk.warm(-5)
        assert desk.writer.config.temperature == 0
        desk.warm(9)
        assert desk.writer.config.temperature == desk_module.MAX_TEMPERATURE
        desk.undo()
        desk.undo()
        assert desk.note == "there is nothing to undo"
        desk.redo()
        desk.redo()
        assert desk.note == "there is nothing to redo"

    run(tmp_path / "draft.txt", work, ban=LETTERS)


def test_what_retry_cannot_change_is_told(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        type_(desk, "ab")
        desk.retry()
        assert desk.note.startswith("nothing to retry")
        desk.go_on("word")
        await done(desk)
        desk.warm(-5)
        for again in (desk.retry, desk.offer):
            again()
            await done(desk)
            assert desk.note == "at temperature 0 the model always writes the same; ^U raises it"
        assert len(set(desk.choices)) == 1
        desk.go_on("word")
        await done(desk)
        assert not desk.note

    run(tmp_path / "draft.txt", work)


def test_long_choices_get_the_rows_that_short_ones_leave(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        for long, rows in ((1, 10), (2, 5), (3, 4)):
            desk.choices = ["abc " * 300] * long + ["abc"] * (3 - long)
            shown = "".join(text for _, text in rows_below(desk, 24, 40)).split("\n")
            numbers = [index for index, line in enumerate(shown) if line[:2] in ("1 ", "2 ", "3 ")][:3]
            assert numbers[1] - numbers[0] == rows
            assert numbers[2] - numbers[1] == (rows if long > 1 else 1)
        desk.choices = ["abc " * 300] * 3
        assert "".join(text for _, text in rows_below(desk, 5, 40)).count("\n") == 3

    run(tmp_path / "draft.txt", work)


def test_records_end_and_labels_change(tmp_path: Path) -> None:
    async def work(desk: Desk) -> None:
        for label in ("sea", "sun", None):
            desk.relabel()
            assert desk.writer.label == label
        desk.go_on("paragraph")
        await done(desk)
        assert desk.note == "the model ends here; asked once more it may go on"

    run(tmp_path / "draft.txt", work, record_model(end=1000.0))


def test_reading_is_told_while_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "PROGRESS", 0)
    (tmp_path / "draft.txt").write_text("abc de.\n" * 500)
    states = []

    async def work(desk: Desk) -> None:
        desk.refresh = lambda: states.append(desk.state)
        desk.go_on("word")
        await done(desk)
        text = desk.draft.text
        assert 4000 <= desk.writer._kept.ids_read <= len(text)
        desk.read_on()
        assert not desk.is_busy, "nobody asked for it, and no key need end it"
        await done(desk)
        assert desk.writer._kept.ids_read == len(text), "each character once"

    run(tmp_path / "draft.txt", work)
    shares = [int(state[8:-1]) for state in states if state.startswith("reading")]
    assert shares == sorted(shares)
    assert len(shares) > 3


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_what_stands_below_fits_and_steers_nothing(tmp_path: Path, columns: int) -> None:
    async def work(desk: Desk) -> None:
        type_(desk, "a\x1b[2J漢\u202e" * 4)
        desk.read_on()
        await done(desk)
        shown = []
        for rows in (5, 24):
            shown.append(rows_below(desk, rows, columns))
            desk.choices = ["a\n\nb\x07" + "漢 " * 90, "", "short\u202e"]
            shown.append(rows_below(desk, rows, columns))
            desk.choices, desk.error = [], "broken\x1b " * 30
            shown.append(rows_below(desk, rows, columns))
            desk.error = ""
        for texts in shown:
            text = "".join(piece for _, piece in texts)
            assert not harmful(text)
            assert max(map(display_width, text.split("\n"))) <= columns
        usual, choosing = ("".join(text for _, text in texts) for texts in shown[3:5])
        assert "unknown to the model" in " ".join(usual.split())
        assert all(hint in " ".join(usual.split()) for hint in ("Tab word", "^X leave", "^ is Ctrl"))
        assert "1 2 3 choose" in " ".join(choosing.split())
        assert "^X" not in "".join(text for _, text in shown[0]), "a low screen has no room for hints"

    run(tmp_path / "漢\x1b.txt", work)
