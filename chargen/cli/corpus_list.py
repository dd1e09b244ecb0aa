"""`chargen corpus list`: tell which corpora are known by name."""

import json
from dataclasses import asdict

import click

from chargen.api.corpora import list_corpora
from chargen.cli.options import GroupedCommand, option
from chargen.cli.terminal import print_line
from chargen.data.named_corpora import NamedCorpus


@click.command("list", cls=GroupedCommand)
@option("--json", "as_json", group="Other", is_flag=True, help="Print one JSON object a corpus.")
def command(as_json: bool) -> None:
    """Tell which corpora are known by name: how large they are, whether they are on this machine, and their licence.

    `chargen corpus get` fetches them, and `chargen train` where it needs one. --json tells also address, SHA-256, and
    what others reached.
    """
    if not as_json:
        print_line(f"{'name':13}  {'size':>7}  here  {'licence':14}  what")
    for corpus in list_corpora():
        size = _size(corpus)
        if as_json:
            fields = {**asdict(corpus), "size": size, "path": str(corpus.path) if corpus.address else None}
            click.echo(json.dumps({**fields, "here": corpus.is_here}))
        else:
            here = "yes" if corpus.is_here else "no"
            print_line(f"{corpus.name:13}  {size / 1e6:4.1f} MB  {here:4}  {corpus.licence:14}  {corpus.what}")


def _size(corpus: NamedCorpus) -> int:
    """Bytes of its files, packed as they are."""
    return corpus.size or sum(file.stat().st_size for file in corpus.files())
