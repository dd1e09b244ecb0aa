"""`chargen export`: write a model file anew, in fewer bits."""

from dataclasses import replace
from pathlib import Path

import click

from chargen.cli.options import PATH, GroupedCommand, option
from chargen.cli.terminal import log
from chargen.errors import DataError, SettingError, amount
from chargen.storage.model_file import KIND, model_path, read_model, save_model
from chargen.storage.quantize import QUANTIZATIONS, quantize
from chargen.storage.tensor_file import is_kind

OTHER_FORMATS = {
    "ONNX": (".onnx",),
    "PyTorch": (".pt", ".pth", ".ckpt", ".bin"),
    "pickle": (".pkl", ".pickle"),
    "GGUF": (".gguf", ".ggml"),
    "TensorFlow": (".tflite", ".pb", ".h5", ".keras"),
    "NumPy": (".npy", ".npz"),
    "text": (".txt", ".json", ".html", ".csv", ".py"),
    "an archive": (".zip", ".gz", ".xz", ".bz2", ".zst", ".tar"),
}
"""Formats that a file's name may promise, and that export does not write."""


@click.command("export", cls=GroupedCommand)
@click.argument("model", type=PATH)
@click.argument("out", type=PATH)
@option("--quantize", "kind", group="Form", type=click.Choice(QUANTIZATIONS), required=True,
        help="int8 with a scale for each row: a quarter of the size. bf16: half of it.")  # fmt: skip
def command(model: Path, out: Path, kind: str) -> None:
    """Write the model MODEL to the file OUT, its weights in fewer bits: smaller, and faster to sample from.

    Everything that reads a model reads such a file. `chargen eval` tells what the rounding cost.

    \b
    chargen export checkpoints/novel novel.safetensors --quantize int8
    """
    path = model_path(model)
    file = read_model(path)
    if out.is_dir():
        raise DataError(f"{out} is a folder; name a file, such as {out / 'model.safetensors'}")
    if out.exists() and not is_kind(out, KIND):
        raise DataError(f"{out} is not a model file and is not overwritten; choose another name")
    if out.exists() and out.samefile(path):
        raise DataError(f"{out} is the model itself; choose another name")
    for name, endings in OTHER_FORMATS.items():
        if out.suffix.lower() in endings:
            raise SettingError(f"{out} would not be {name}: export writes model files, named .safetensors")
    save_model(out, replace(file, arrays=quantize(file.arrays, kind)))
    sizes = f"{amount(out.stat().st_size, 'byte')}, {out.stat().st_size / path.stat().st_size:.0%}"
    log(f"{out}: {sizes} of {path}")
