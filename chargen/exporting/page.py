"""A page that is the model: one file, which writes in any browser."""

import hashlib
import os
from pathlib import Path
from typing import Any

from chargen.durable import write_durably
from chargen.errors import amount, truncate
from chargen.exporting.page_model import worker_script, write_model
from chargen.model.config import parameter_count
from chargen.pages.render import check_page_path, join_scripts, render_page, require_packages, write_json
from chargen.storage.model_file import ModelFile

SCRIPTS = ("text", "model_link", "streaming", "draft", "choices", "judged", "shelf", "write", "ahead", "buttons")
"""The page's own files of its script, in their order; the worker has `text` too."""


def page_script() -> str:
    """The script of the page; that of its worker is data."""
    return join_scripts("chargen.pages.coloured_text", *(f"chargen.exporting.{name}" for name in SCRIPTS))


def write_page(file: ModelFile, name: str) -> str:
    """Write the page of a model, which needs nothing beside it.

    Args:
        file: the model.
        name: of the model, for people.

    Raises:
        SettingError: the package jinja2 is missing, or the model is none for a page.
    """
    require_packages()
    model = write_model(file)
    key = hashlib.sha256(model.encode()).hexdigest()[:16]
    head = write_json({"name": name, "key": key, "worker": worker_script()})
    return render_page(
        "chargen.exporting", "write", page_script(), _describe(file, name), f'{head[:-1]},"model":{model}}}'
    )


def write_page_file(path: Path, file: ModelFile) -> None:
    """Write the page of a model to a file, whose name is the model's on the page.

    Args:
        path: the file; an older one is replaced where it is a page.
        file: the model.

    Raises:
        SettingError: the package jinja2 is missing, or the model is none for a page.
        DataError: there is a file that is no page.
        WriteError: the disk refuses the file.
    """
    check_page_path(path)
    name = os.fsencode(path.stem).decode("utf-8", "replace")  # a file name may be no text
    write_durably(path, [write_page(file, name).encode()])


def _describe(file: ModelFile, name: str) -> dict[str, Any]:
    """What stands on the page beside the draft."""
    config, vocabulary = file.config, file.vocabulary
    size = f"{config.cell.upper()}, {amount(config.num_layers, 'layer')} of {config.hidden_size:,}"
    alone = f"; {file.network_alone}" if file.network_alone else ""
    parameters = amount(parameter_count(config, len(vocabulary)), "parameter")
    return {
        "name": truncate(name),
        "model": f"{size}, {parameters}, {len(vocabulary):,} in its vocabulary{alone}",
        "records": vocabulary.records,
        "labels": [truncate(label) for label in vocabulary.labels],
    }
