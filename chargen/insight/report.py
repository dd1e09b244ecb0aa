"""A page of one file, from a template: style and script are allowed by their hashes, and all else is escaped."""

import base64
import hashlib
import html
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from chargen import __version__
from chargen.errors import SettingError

DOCTYPE = "<!doctype html>"
"""What a page begins with."""


def render_page(page: Mapping[str, Any], data: str) -> str:
    """Write the page.

    Args:
        page: what it says beside the text, which is escaped.
        data: what its script reads, as `write_data` writes it.

    Raises:
        SettingError: the package jinja2 is missing.
    """
    require_packages()
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    template, style, script = (_read(f"inspect.{kind}") for kind in ("html", "css", "js"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(
        page=page, style=Markup(style), script=Markup(script), data=Markup(data),
        style_hash=_hash(style), script_hash=_hash(script), version=__version__,
    )  # fmt: skip


def require_packages() -> None:
    """Check that a page can be written.

    Raises:
        SettingError: the package jinja2 is missing.
    """
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise SettingError("the page needs one more package: pip install 'chargen[report]'") from error


def frame_page(page: str) -> str:
    """Put a page into a frame of a notebook, apart from what else is there.

    Args:
        page: the whole of it.
    """
    style = "width: 100%; height: 44em; border: 0"
    return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{html.escape(page)}"></iframe>'


def _read(name: str) -> str:
    return files("chargen.insight").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
