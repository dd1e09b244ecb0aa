"""`chargen corpus get`: fetch corpora that are known by name."""

from pathlib import Path
from typing import Any

import click

from chargen.api.corpora import get_corpus, is_offline, missing_corpora
from chargen.cli.bars import TaskBar
from chargen.cli.options import PATH, GroupedCommand, option
from chargen.cli.terminal import escape_control, log
from chargen.data.named_corpora import find_corpus
from chargen.errors import SettingError, amount

offline_option = option(
    "--offline/--no-offline", group="Files", default=None,
    help="Fetch nothing: a corpus that is named must be on this machine.",
    shown_default="no, or yes where CHARGEN_OFFLINE is set, but to 0",
)  # fmt: skip
"""Adds `--offline`."""


@click.command("get", cls=GroupedCommand)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@option("--out", group="Files", type=PATH, metavar="FILE", help="Copy the corpus to this file, as it is served.")
@option("--overwrite", group="Files", is_flag=True, help="Replace FILE.")
@offline_option
def command(names: tuple[str, ...], out: Path | None, overwrite: bool, offline: bool | None) -> None:
    """Get corpora of `chargen corpus list`, and print where their files are.

    What is not on this machine is fetched, over https, and must have the SHA-256 of the catalogue; where the connection
    broke, the next try goes on. The files are in the cache, where all commands find them by the corpus's name.

    \b
    chargen corpus get shakespeare
    chargen corpus get text8 --out text8.zip
    """
    if out is not None and len(names) > 1:
        raise SettingError(f"--out is a file for one corpus, and there are {len(names)}: get one after the other")
    for corpus in map(find_corpus, names):
        for file in get_logged(corpus.name, offline, out=out, overwrite=overwrite):
            click.echo(escape_control(str(file), newlines=True))
        for figure in corpus.figures:
            log(f"others   {figure}")
        options = "".join(f" --{name.replace('_', '-')} {value}" for name, value in corpus.settings.items())
        log(f"now      chargen train {corpus.name}{options}")


def get_logged(name: str, offline: bool | None, **copy: Any) -> list[Path]:
    """Get a corpus with a bar, and log from where.

    Args:
        name: of the corpus.
        offline: whether to fetch nothing; None: what the environment says.
        **copy: of `get_corpus`.

    Returns:
        Its files.
    """
    corpus = find_corpus(name)
    if not (corpus.is_here or is_offline(offline)):
        log(f"getting  {name}: {amount(corpus.size, 'byte')}, {corpus.licence}, from {corpus.address}")
    with TaskBar("B") as bar:
        return get_corpus(name, offline=offline, progress=bar.show, **copy)


def get_missing(offline: bool | None, *sources: tuple[str, ...]) -> None:
    """Get the corpora among sources that are not on this machine.

    Args:
        offline: whether to fetch nothing; None: what the environment says.
        *sources: names of texts.
    """
    for corpus in missing_corpora(*sources):
        get_logged(corpus.name, offline)
