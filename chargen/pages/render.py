"""A page of one file, from a template: style and script are allowed by their hashes, and all else is escaped."""

import base64
import hashlib
import html
import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from chargen import __version__
from chargen.errors import DataError, SettingError

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-"""
"""What a page begins with, and pages of others do not."""
COMMON = "chargen.pages"
"""Where the head, the style and the script are that pages share."""
STRICT = '"use strict";\n'
"""What every script begins with."""


def render_page(package: str, name: str, script: str, page: Mapping[str, Any], data: str) -> str:
    """Write a page from its template, its style behind the one that pages share, and its script.

    Args:
        package: where template and style are.
        name: of the two files, such as "inspect" for inspect.html and inspect.css.
        script: from `join_scripts`.
        page: what the template says, which is escaped.
        data: what the script reads, as `write_json` writes it.

    Raises:
        SettingError: the package jinja2 is missing.
    """
    require_packages()
    from jinja2 import DictLoader, Environment, StrictUndefined
    from markupsafe import Markup

    style = read_text(COMMON, "look.css") + read_text(package, f"{name}.css")
    loader = DictLoader({"head.html": read_text(COMMON, "head.html")})
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, loader=loader)
    return environment.from_string(read_text(package, f"{name}.html")).render(
        page=page, style=Markup(style), script=Markup(script), data=Markup(data),
        style_hash=_hash(style), script_hash=_hash(script), version=__version__,
    )  # fmt: skip


def join_scripts(*names: str) -> str:
    """Join scripts to one, whose files share one scope.

    Args:
        names: in the order in which they run, such as "chargen.pages.coloured_text".
    """
    places = (name.rpartition(".") for name in names)
    return STRICT + "".join(read_text(package, f"{name}.js").removeprefix(STRICT) for package, _, name in places)


def require_packages() -> None:
    """Check that a page can be written.

    Raises:
        SettingError: the package jinja2 is missing.
    """
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise SettingError("the page needs one more package: pip install 'chargen[report]'") from error


def check_page_path(path: Path) -> None:
    """Refuse to write over what is no page of chargen's: what stands there may be a model, or the page of a person.

    Args:
        path: of a page.

    Raises:
        DataError: there is such a thing.
    """
    if not os.path.isfile(path):  # reading a pipe would block, and writing tells what stands in its way
        return
    try:
        with open(path, "rb") as file:
            begin = file.read(len(HEAD))
    except OSError:  # it cannot be written either, which is told when it is
        return
    if begin not in (b"", HEAD.encode()):
        raise DataError(f"{path} is no page that chargen wrote and is not overwritten; choose another name")


def write_json(value: Any) -> str:
    """Write what a script reads: JSON in ASCII, which no parser of HTML takes for markup.

    Args:
        value: of what JSON has.
    """
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def read_text(package: str, name: str) -> str:
    """Read a file that comes with the package.

    Args:
        package: where it is.
        name: of the file.
    """
    return files(package).joinpath(name).read_text("utf-8")


def frame_page(page: str) -> str:
    """Put a page into a frame of a notebook, apart from what else is there.

    Args:
        page: the whole of it.
    """
    style = "width: 100%; height: 44em; border: 0"
    return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{html.escape(page)}"></iframe>'


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
