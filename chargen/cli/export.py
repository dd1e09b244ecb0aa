"""`chargen export`: write a model for other programs."""

from pathlib import Path

import click

from chargen.api.export import export, holds_network_alone
from chargen.cli.options import PATH, PATH_TEXT, GroupedCommand, option
from chargen.cli.terminal import log, quote_path
from chargen.errors import amount
from chargen.exporting.direction import READINGS
from chargen.storage.model_file import model_path, read_model
from chargen.storage.quantize import QUANTIZATIONS

SLOW_PAGE = 60_000_000
"""Bytes from which on a browser takes long to open a page."""


@click.command("export", cls=GroupedCommand)
@click.argument("model", type=PATH)
@click.argument("out", type=PATH_TEXT)
@option("--quantize", group="Form", type=click.Choice(QUANTIZATIONS),
        help="Of model files and folders: int8 with a scale for each row, a quarter of the size; bf16, half "
             "of it.")  # fmt: skip
@option("--direction", group="Form", type=click.Choice(READINGS),
        help="Of ONNX files: which way they read, forward by default; both predicts each character from both "
             "sides.")  # fmt: skip
@option("--no-counts", group="Form", is_flag=True,
        help="Of model files and folders: the network alone, without the counts beside it.")  # fmt: skip
def command(model: Path, out: str, quantize: str | None, direction: str | None, no_counts: bool) -> None:
    """Write the model MODEL to OUT, in the form that its ending says.

    NAME.html is a page with the model in it: opened in any browser, it writes with you, offline. Its heading is NAME.

    NAME.safetensors, with --quantize or --no-counts, is a model file that is smaller and faster to sample from.
    Everything that reads a model reads it; `chargen eval` tells what that cost.

    NAME.onnx is an ONNX file, which many programs and languages can run without chargen.

    NAME/ is a folder that is ready for a hub or a release: the model, its vocabulary for the library tokenizers, and a
    model card.

    \b
    chargen export checkpoints/novel novel.html
    chargen export checkpoints/novel novel.safetensors --quantize int8
    chargen export checkpoints/novel novel.onnx
    chargen export checkpoints/novel novel/
    """
    before = model_path(model)
    path = export(model, out, quantize=quantize, direction=direction, no_counts=no_counts)
    if holds_network_alone(path) and (left_out := read_model(model).network_alone):
        log(f"note: {quote_path(path)} holds {left_out}")
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        size = file.stat().st_size
        share = f", {size / before.stat().st_size:.0%} of {quote_path(before)}" * (file.suffix == before.suffix)
        share += ", for a browser" * (file.suffix == ".html")
        log(f"{quote_path(file)}: {amount(size, 'byte')}{share}")
        if file.suffix == ".html" and size > SLOW_PAGE:
            log("note: a page of more than 60 MB is slow to open, and writes slowly")
