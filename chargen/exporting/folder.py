"""A model as a folder that is ready for a hub or a release: the model file, its vocabulary, a model card."""

import contextlib
import hashlib
import os
from pathlib import Path

from chargen.durable import leftover_of, write_durably
from chargen.errors import DataError, truncate
from chargen.exporting.model_card import is_own_card, write_model_card
from chargen.exporting.model_file import shrink
from chargen.exporting.tokenizer_file import tokenizer_json
from chargen.storage.model_file import FILE_NAME, ModelFile, save_model
from chargen.storage.tensor_file import pack

TOKENIZER, CARD = "tokenizer.json", "README.md"
FILES = FILE_NAME, TOKENIZER, CARD


def write_folder(path: Path, file: ModelFile, quantize: str | None = None, no_counts: bool = False) -> None:
    """Write a folder with a model file, its vocabulary as a `tokenizers` file, and a model card.

    Args:
        path: the folder. What an earlier export wrote there is replaced, unless somebody has changed the card.
        file: the model.
        quantize: "int8" or "bf16"; None leaves the weights as they are.
        no_counts: whether to leave the counts out.

    Raises:
        SettingError: the model is quantized already, and is to be so again; or it has no counts to leave out.
        DataError: there is something else, or the folder holds something else.
        WriteError: the disk refuses a file.
    """
    leftovers = _check_folder(path)
    file = shrink(file, quantize, no_counts)
    for leftover in leftovers:
        with contextlib.suppress(OSError):  # writing tells what the system refuses
            leftover.unlink()
    digest = hashlib.sha256(pack(file.all_arrays, file.describe())).hexdigest()
    card = write_model_card(path.resolve().name or "model", file, digest)
    for name, text in ((CARD, card), (TOKENIZER, tokenizer_json(file))):  # by its card a folder is known
        write_durably(path / name, [text.encode()])
    save_model(path / FILE_NAME, file)


def _check_folder(path: Path) -> list[Path]:
    """Refuse to write where something else stands than what an export left; returns what a killed one left."""
    if not os.path.lexists(path):
        return []
    if not os.path.isdir(path):
        raise DataError(f"{path} is no folder; name one, or a file with an ending that says its form")
    entries = list(path.iterdir())
    leftovers = [entry for entry in entries if leftover_of(entry) in FILES]
    names = {entry.name for entry in entries if entry not in leftovers}
    known = {entry.name for entry in entries if entry.name in FILES and entry.is_file() and not entry.is_symlink()}
    if others := names - known:
        raise DataError(f"{path} holds {truncate(min(others))}, which export did not write; name an empty folder")
    if names and CARD not in names:
        raise DataError(f"{path} holds {min(names)}, and no {CARD} that export wrote; name an empty folder")
    if names and not is_own_card((path / CARD).read_bytes()):
        raise DataError(f"{path / CARD} is changed since it was written, and is not overwritten; move it away")
    return leftovers
