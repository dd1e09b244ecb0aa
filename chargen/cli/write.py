"""`chargen write`: write a draft together with a model."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from chargen.api.draft import Draft
from chargen.api.draft_file import free_path
from chargen.api.writer import Writer
from chargen.cli.options import PATH, GroupedCommand, config_option, option, refuse_unused, settings_options
from chargen.cli.signals import stop_on_signals
from chargen.cli.terminal import log, log_compiling, log_unknown_bans, quote_path
from chargen.cli.threads_option import threads_option
from chargen.decoding.choose import WRITING_DEFAULTS, SampleConfig
from chargen.errors import SettingError, amount
from chargen.rng import MAX_SEED
from chargen.sampling.sampler import Sampler
from chargen.settings import drop_none, make_settings, setting_types
from chargen.storage.model_file import ModelFile, read_model

CHOICE = setting_types(SampleConfig).keys() - {"no_repeat", "stop"}
"""How characters are chosen. Pieces are short: nothing is looked for in them."""
NEW = Path("draft.txt")
"""The draft where none is named, or the first of draft-2.txt … that is not there."""


@click.command("write", cls=GroupedCommand)
@click.argument("model", type=PATH)
@click.argument("draft", type=PATH, required=False)
@option("--encoding", group="Text", metavar="TEXT", help="Encoding of the draft.",
        shown_default="utf-8, or what its byte order mark says")  # fmt: skip
@option("--seed", group="Text", type=click.IntRange(0, MAX_SEED), metavar="N",
        help="Same seed, same pieces.", shown_default="that of last time, else drawn")  # fmt: skip
@option("--label", group="Text", metavar="NAME", help="Write records with this label, where the model has labels.")
@settings_options(SampleConfig, "Choice of characters", defaults=WRITING_DEFAULTS, only=CHOICE)
@option("--json-lines", group="Files", is_flag=True,
        help="Answer requests on standard input, a line of JSON each, for editors and other programs.")  # fmt: skip
@config_option
@threads_option
def command(model: Path, draft: Path | None, json_lines: bool, encoding: str | None, **settings: Any) -> None:
    """Write a draft together with a model, in the terminal.

    Type, or let the model go on where the cursor stands: Tab to the end of a word, ^N (Ctrl and N) of a sentence, ^P of
    a paragraph. Escape stops it; ^R lets it write another piece instead, ^T three to choose from; ^Z undoes, as often
    as you like; ^X leaves. The draft is saved as you write; DRAFT.chargen.json beside it has seed and temperature, to
    go on tomorrow.

    MODEL is a model file, the folder of a run, or shakespeare, a model that comes with chargen. Without DRAFT a new one
    begins: draft.txt, or draft-2.txt and so on.

    \b
    chargen write shakespeare scene.txt
    chargen write checkpoints/novel chapter.txt --temperature 1
    """
    make_settings(SampleConfig, {name: value for name, value in drop_none(settings).items() if name in CHOICE})
    if json_lines:
        _refuse_others()
        from chargen.cli.json_lines import answer_lines

        file = read_model(model)
        log_compiling()
        answer_lines(file, sys.stdin.buffer, sys.stdout)
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        problem = "a draft is written on a terminal that can move its cursor, which this is not"
        raise SettingError(f"{problem}: use chargen sample, or --json-lines for programs")
    file = read_model(model)
    writing = Draft(free_path(NEW) if draft is None else draft, encoding)
    with writing.lock(), stop_on_signals() as stop:
        writer, notes = _make_writer(file, writing, settings)
        from chargen.cli.editor import Editor

        stop.deferred = True
        Editor(writing, writer, notes).run(stop)
        if writing.text and writing.file:
            left = quote_path(writing.file.path)
            onward = f"chargen write {quote_path(model)} {left}"
            log(f"{left}: {amount(len(writing.text), 'character')}; to go on: {onward}")
        if stop:
            raise stop.error()


def _refuse_others() -> None:
    """Refuse what does nothing with --json-lines."""
    ctx = click.get_current_context()
    if ctx.params["draft"] is not None:
        raise SettingError("a draft does nothing with --json-lines, whose requests hold texts: leave one out")
    refuse_unused(tuple(name for name in ctx.params if name not in ("model", "draft", "json_lines")), "--json-lines")


def _make_writer(file: ModelFile, draft: Draft, settings: dict[str, Any]) -> tuple[Writer, str]:
    """The writer that goes on as last time where nothing else is asked for; and what is to be known at first."""
    assert draft.file is not None
    settings, notes = drop_none(settings), []
    if not draft.text:
        notes.append(f"a new draft: {draft.file.path}")
    if bookmark := draft.file.bookmark:
        kept: dict[str, Any] = {"seed": bookmark.seed, "pieces": bookmark.pieces, "temperature": bookmark.temperature}
        kept |= {"label": bookmark.label} if bookmark.label in file.vocabulary.labels else {}
        settings = kept | settings
        if bookmark.model != file.sha256:
            notes.append("the model is another one than last time")
    log_compiling()
    writer = Writer(file, **settings)
    log_unknown_bans(writer.config.ban, file.vocabulary)
    next(Sampler(file, engine=writer.engine).write(1))  # compiles loops now, not while a person waits
    return writer, "; ".join(notes)
