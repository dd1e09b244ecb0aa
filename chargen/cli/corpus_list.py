"""`chargen corpus list`: tell which corpora are known by name."""

import json
import sys
from dataclasses import asdict

import click

from chargen.api.corpora import list_corpora
from chargen.cli.options import GroupedCommand, option
from chargen.cli.terminal import print_line, terminal_width
from chargen.data.named_corpora import NamedCorpus

WIDTH = 76
"""Columns of a row that holds all of a corpus."""


@click.command("list", cls=GroupedCommand)
@option("--json", "as_json", group="Other", is_flag=True, help="Print one JSON object a corpus.")
def command(as_json: bool) -> None:
    """Tell which corpora are known by name: how large they are, whether they are on this machine, and their licence.

    `chargen corpus get` fetches them, and `chargen train` where it needs one. --json tells also address, SHA-256, and
    what others reached.
    """
    width = terminal_width(sys.stdout)
    narrow = width is not None and width < WIDTH
    gap = "" if narrow else " "
    form = "{:13} {:>6} {:3} {}\n  {}" if narrow else "{:13}  {:>7}  {:4}  {:14}  {}"
    if not as_json:
        print_line(form.format("name", "size", "here", "licence", "what"))
    for corpus in list_corpora():
        size = _size(corpus)
        if as_json:
            fields = {**asdict(corpus), "size": size, "path": str(corpus.path) if corpus.address else None}
            click.echo(json.dumps({**fields, "here": corpus.is_here}))
        else:
            here = "yes" if corpus.is_here else "no"
            print_line(form.format(corpus.name, f"{size / 1e6:.1f}{gap}MB", here, corpus.licence, corpus.what))


def _size(corpus: NamedCorpus) -> int:
    """Bytes of its files, packed as they are."""
    return corpus.size or sum(file.stat().st_size for file in corpus.files())
