"""`chargen corpus make`: make strings of a language whose entropy is known exactly."""

import math
from pathlib import Path

import click

from chargen.api.corpora import DEFAULT_STRINGS, MAX_STRINGS, make_corpus
from chargen.cli.options import PATH, GroupedCommand, option
from chargen.cli.signals import stop_on_signals
from chargen.cli.terminal import TextWriter, log
from chargen.errors import amount


@click.command("make", cls=GroupedCommand)
@click.argument("name", metavar="LANGUAGE")
@option("--num", group="Text", type=click.IntRange(1, MAX_STRINGS), default=DEFAULT_STRINGS, show_default=True,
        metavar="N", help="Strings to make.")  # fmt: skip
@option("--seed", group="Text", type=click.IntRange(0), default=0, show_default=True, metavar="N",
        help="Same seed, same strings; of more of them the first are the same.")  # fmt: skip
@option("--labelled", group="Text", is_flag=True,
        help="JSON lines with a text and a label: half are good, half bad, with one symbol changed so that they are "
        "not of the language.")  # fmt: skip
@option("--out", group="Files", type=PATH, metavar="FILE", help="Write to this file.", shown_default="standard output")
@option("--overwrite", group="Files", is_flag=True, help="Replace FILE.")
def command(name: str, num: int, seed: int, labelled: bool, out: Path | None, overwrite: bool) -> None:
    """Make strings of a language whose entropy is known exactly, one a line: what the best model would reach.

    LANGUAGE is embedded-reber (strings of the Reber grammar between two T or two P), counter (some a, then as many b)
    or brackets (balanced ones of two kinds).

    The lines are a text, or records with --records line; those of --labelled are records with --records jsonl and
    --label-field label.

    \b
    chargen corpus make embedded-reber --out reber.txt
    chargen corpus make brackets --labelled --out brackets.jsonl
    """
    with stop_on_signals():
        made = make_corpus(name, num=num, seed=seed, labelled=labelled, out=out, overwrite=overwrite)
    bits, length = made.nats_per_string / math.log(2), made.language.mean_length
    log(f"language {name}: {made.language.summary}; mean length {length:.2f} with the end")
    log(f"entropy  {made.nats_per_string:.4f} nats, {bits:.4f} bits per {'good ' * labelled}string")
    log(f"         {made.nats_per_character:.4f} nats, {bits / length:.4f} bits per character, ends included")
    if out is None:
        writer = TextWriter()
        for line in made:
            writer.write(line)
        writer.close()
    else:
        log(f"saved    {out}: {amount(num, 'string')}, {amount(out.stat().st_size, 'byte')}")
