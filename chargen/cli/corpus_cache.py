"""`chargen corpus cache`: show, verify or clear what is encoded."""

import json
import time
from dataclasses import asdict
from pathlib import Path

import click

from chargen.cache_folder import cache_folder
from chargen.cli.options import GroupedCommand, option
from chargen.cli.terminal import escape_control, log, print_line, quote_path
from chargen.data.corpus_cache import (
    CacheEntry,
    folder_size,
    list_entries,
    open_entry,
    remove_abandoned,
    remove_entries,
)
from chargen.data.source_index import MAX_NAMES
from chargen.errors import SettingError, amount, format_size

DAY = 86_400
OTHERS = {"corpora": "corpora that were fetched", "kernels": "compiled inner loops"}
"""What else the folder holds, by the name of a folder in it."""


@click.command("cache", cls=GroupedCommand)
@option("--verify", group="What to do", is_flag=True, help="Read all that is encoded, and remove what is damaged.")
@option("--clear", group="What to do", is_flag=True, help="Remove what is encoded.")
@option("--unused-for", "days", group="What to do", type=click.FloatRange(0, 36_500), metavar="DAYS",
        help="With --clear: only what was not used for so many days.")  # fmt: skip
@option("--json", "as_json", group="Other", is_flag=True, help="Print one JSON object.")
def command(verify: bool, clear: bool, days: float | None, as_json: bool) -> None:
    """Show, verify or clear the texts that are encoded, the last used one first.

    A text is encoded once and then taken from this folder, which CHARGEN_CACHE names. What is removed is made again
    when it is needed, as long as its text is there. Corpora that were fetched and compiled inner loops lie in the same
    folder: their sizes are shown, and they stay; each comes again when it is needed.
    """
    if days is not None and not clear:
        raise SettingError("--unused-for does nothing without --clear: leave it out, or give both")
    if verify and clear:
        raise SettingError("--verify does nothing with --clear: leave one out")
    cache = cache_folder()
    entries = list_entries(cache)
    removed: list[CacheEntry] = []
    if verify:
        removed = [entry for entry in entries if open_entry(entry.path, verify=True) is None]
    elif clear:
        removed = [entry for entry in entries if time.time() - entry.used >= DAY * (days or 0)]
        remove_abandoned(cache)
    freed = remove_entries(cache, removed)
    kept = [entry for entry in entries if entry not in removed]
    others = {name: folder_size(cache / name) for name in OTHERS}
    if as_json:
        listed = [asdict(entry) | {"path": str(entry.path)} for entry in kept]
        described = {"folder": str(cache), "texts": listed, "removed": len(removed), "freed": freed, "others": others}
        click.echo(json.dumps(described))
        return
    _print_cache(cache, kept, others)
    if verify:
        log(f"{amount(len(removed), 'damaged text')} removed" if removed else "all are whole")
    elif clear:
        log(f"{amount(len(removed), 'text')} removed, {format_size(freed)} free again")


def _print_cache(cache: Path, entries: list[CacheEntry], others: dict[str, int]) -> None:
    """Print what the folder holds."""
    total = f", {format_size(sum(entry.bytes for entry in entries))}" if entries else ""
    print_line(f"{quote_path(cache)}: {amount(len(entries), 'encoded text')}{total}")
    for entry in entries:
        print_line(f"{format_size(entry.bytes):13}  {_describe_age(entry.used):14}  {_describe_sources(entry)}")
    for name, size in others.items():
        if size:
            print_line(f"{format_size(size):13}  {OTHERS[name]}: {quote_path(cache / name)} may be deleted by hand")


def _describe_age(used: float) -> str:
    """Say how long ago something was used."""
    age = max(time.time() - used, 0)
    for seconds, name in ((DAY, "day"), (3600, "hour"), (60, "minute")):
        if age >= seconds:
            return f"{amount(int(age / seconds), name)} ago"
    return "just now"


def _describe_sources(entry: CacheEntry) -> str:
    """Name what an entry was made of."""
    if not entry.sources:
        return "a text that was given once, or has changed"
    number = "many" if len(entry.sources) >= MAX_NAMES else len(entry.sources) - 1
    more = f" and {number} more" if number else ""
    return escape_control(entry.sources[0]) + more
