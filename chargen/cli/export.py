"""`chargen export`: write a model for other programs."""

from pathlib import Path

import click

from chargen.api.export import export
from chargen.cli.options import PATH, GroupedCommand, option
from chargen.cli.terminal import log
from chargen.errors import amount
from chargen.storage.model_file import model_path
from chargen.storage.quantize import QUANTIZATIONS


@click.command("export", cls=GroupedCommand)
@click.argument("model", type=PATH)
@click.argument("out", type=PATH)
@option("--quantize", group="Form", type=click.Choice(QUANTIZATIONS),
        help="int8 with a scale for each row: a quarter of the size. bf16: half of it.")  # fmt: skip
def command(model: Path, out: Path, quantize: str | None) -> None:
    """Write the model MODEL to the file OUT, in the form that its ending says.

    NAME.safetensors, with --quantize, is a model file that is smaller and faster to sample from. Everything that reads
    a model reads it; `chargen eval` tells what the rounding cost.

    \b
    chargen export checkpoints/novel novel.safetensors --quantize int8
    """
    path = export(model, out, quantize=quantize)
    size, before = path.stat().st_size, model_path(model).stat().st_size
    log(f"{path}: {amount(size, 'byte')}, {size / before:.0%} of {model_path(model)}")
