"""`chargen write`: write a draft together with a model."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from chargen.api.draft import Draft
from chargen.api.draft_file import free_path
from chargen.api.writer import Writer
from chargen.cli.options import PATH, GroupedCommand, config_option, option, settings_options
from chargen.cli.signals import stop_on_signals
from chargen.cli.terminal import log, log_compiling, log_unknown_bans, quote_path
from chargen.decoding.choose import WRITING_DEFAULTS, SampleConfig
from chargen.errors import SettingError, amount
from chargen.rng import MAX_SEED
from chargen.sampling.sampler import Sampler
from chargen.settings import drop_none
from chargen.storage.model_file import read_model

NEW = Path("draft.txt")
"""The draft where none is named, or the first of draft-2.txt … that is not there."""


@click.command("write", cls=GroupedCommand)
@click.argument("model", type=PATH)
@click.argument("draft", type=PATH, required=False)
@option("--encoding", group="Text", metavar="TEXT", help="Encoding of the draft.",
        shown_default="utf-8, or what its byte order mark says")  # fmt: skip
@option("--seed", group="Text", type=click.IntRange(0, MAX_SEED), metavar="N",
        help="Same seed, same pieces.", shown_default="that of the draft's last bookmark, else drawn")  # fmt: skip
@option("--label", group="Text", metavar="NAME", help="Write records with this label, where the model has labels.")
@settings_options(SampleConfig, "Choice of characters", defaults=WRITING_DEFAULTS, without=("no_repeat", "stop"))
@config_option
def command(
    model: Path, draft: Path | None, encoding: str | None, seed: int | None, label: str | None, **settings: Any
) -> None:
    """Write a draft together with a model, in the terminal.

    Type, or let the model go on where the cursor stands: Tab to the end of a word, ^N of a sentence, ^P of a paragraph.
    Escape stops it; ^R lets it write another piece instead, ^T three to choose from; ^Z takes back, without end. The
    draft is saved as you write; DRAFT.chargen.json beside it has seed and temperature, to go on tomorrow.

    MODEL is a model file, the folder of a run, or shakespeare, a model that comes with chargen. Without DRAFT a new one
    begins: draft.txt, or draft-2.txt and so on.

    \b
    chargen write shakespeare scene.txt
    chargen write checkpoints/novel chapter.txt --temperature 1
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        raise SettingError("write needs a terminal that can move its cursor: without one, use chargen sample")
    file = read_model(model)
    path = draft or free_path(NEW)
    with ExitStack() as stack:
        text = Draft(path, encoding)
        stack.enter_context(text.lock())
        bookmark = text.file.bookmark if text.file else None
        given = drop_none({"seed": seed, "label": label, "temperature": settings.pop("temperature")})
        notes = [f"a new draft: {path}" if not path.exists() else ""]
        if bookmark:
            kept: dict[str, Any] = {
                "seed": bookmark.seed,
                "temperature": bookmark.temperature,
                "pieces": bookmark.pieces,
            }
            if bookmark.label in file.vocabulary.labels:
                kept["label"] = bookmark.label
            given = kept | given
            notes.append("the model is another one than last time" if bookmark.model != file.sha256 else "")
        log_compiling()
        writer = Writer(file, **drop_none(settings) | given)
        log_unknown_bans(writer.config.ban, file.vocabulary)
        next(Sampler(file, engine=writer.engine).write(1))  # compiles loops now, not while a person waits
        from chargen.cli.editor import Editor

        with stop_on_signals() as stop:
            stop.deferred = True
            Editor(text, writer, "; ".join(filter(None, notes))).run(stop)
        if text.text and text.file:
            left = text.file.path
            onward = f"chargen write {quote_path(model)} {quote_path(left)}"
            log(f"{left}: {amount(len(text.text), 'character')}; to go on: {onward}")
        if stop:
            raise stop.error()
