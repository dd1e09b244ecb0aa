"""The page of an inspection: one HTML file with the text, what the model expected, its hidden units and its losses."""

import base64
import hashlib
import html
import json
import math
import unicodedata
import zlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chargen import __version__
from chargen.data.code_points import END_MARK
from chargen.errors import SettingError, amount, truncate
from chargen.insight.charts import draw_calibration, draw_distances, list_classes
from chargen.insight.predictions import name_character, name_id

if TYPE_CHECKING:
    from chargen.insight.inspection import Inspection

MISSING = 0xFFFF
"""Stands for a surprise that there is not; the largest share is 1."""
SCALE = 256
"""Steps of a bit of surprise."""
SURPRISING = 6
"""Bits of the characters that a key leads to; the script has the number too."""
TITLES = {
    "cloze": "surprise, read from both sides (cloze)",
    "forward": "surprise, read forward",
    "backward": "surprise, read backward",
}
_VISIBLE = "\n\t\u200c\u200d"  # joiners are parts of words in several scripts
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def render_page(inspection: "Inspection") -> str:
    """Write the page.

    Args:
        inspection: what it tells.

    Raises:
        SettingError: the package jinja2 is missing.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise SettingError("the page needs one more package: pip install 'chargen[report]'") from error
    template, style, script = (_read(f"inspect.{kind}") for kind in ("html", "css", "js"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    data = json.dumps(_collect_data(inspection), separators=(",", ":")).replace("<", "\\u003c")
    return environment.from_string(template).render(
        page=_describe(inspection), style=Markup(style), script=Markup(script), data=Markup(data),
        style_hash=_hash(style), script_hash=_hash(script), version=__version__,
    )  # fmt: skip


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


def _describe(inspection: "Inspection") -> dict[str, Any]:
    """What the page says beside the text."""
    predictions, config = inspection.predictions, inspection.file.config
    sides = "reads both ways" if config.bidirectional else "reads forward"
    bits = [f"{judge} {value:.3f}" for judge, value in inspection.bits.items() if not math.isnan(value)]
    mean = f"; bits per character: {', '.join(bits)}" if bits else ""
    size = f"{config.cell.upper()}, {amount(config.num_layers, 'layer')} of {config.hidden_size:,}, {sides}"
    return {
        "name": show_characters(truncate(inspection.name))[0],
        "model": f"{size}, {len(inspection.file.vocabulary):,} in its vocabulary",
        "summary": f"{amount(len(predictions.text), 'character')}{mean}",
        "surprising": SURPRISING,
        "judges": [{"name": judge, "title": TITLES[judge]} for judge in predictions.log_probs],
        "classes": list_classes(inspection.by_class),
        "distance": draw_distances(inspection.by_distance),
        "calibration": draw_calibration(inspection.calibration),
        "neurons": [],
        "layers": [],
        "saturation": [],
    }


def _collect_data(inspection: "Inspection") -> dict[str, Any]:
    """What the page's script reads: the text as it is shown, and arrays."""
    predictions, vocabulary = inspection.predictions, inspection.file.vocabulary
    used = np.unique(np.concatenate([each.ravel() for each in predictions.likeliest.values()]))
    numbers = np.searchsorted(used, np.maximum(predictions.ids, 0))  # an id that is nowhere likely matches none
    known = (numbers < len(used)) & (predictions.ids >= 0)
    known[known] = used[numbers[known]] == predictions.ids[known]
    shown, odd = show_characters(predictions.text)
    return {
        "text": shown,
        "odd": odd,
        "ends": [at for at, character in enumerate(predictions.text) if character == END_MARK],
        "names": [name_id(vocabulary, int(number)) for number in used],
        "ids": pack(np.where(known, numbers, -1).astype(np.int32)),
        "kept": next(iter(predictions.likeliest.values())).shape[1],
        "judges": [
            {
                "name": judge,
                "bits": pack(_quantize_bits(log_probs)),
                "likeliest": pack(np.searchsorted(used, predictions.likeliest[judge]).astype(np.uint32)),
                "shares": pack(np.rint(predictions.probabilities[judge] * MISSING).astype(np.uint16)),
            }
            for judge, log_probs in predictions.log_probs.items()
        ],
        "steps": 50,
        "neurons": [],
        "layers": [],
    }


def show_characters(text: str) -> tuple[str, dict[int, str]]:
    """Make a text that can be shown, of as many characters: none of them steers, hides or reorders others.

    Args:
        text: any; "\\udfff" is the end of a record.

    Returns:
        The text, in which an end is a line end, and what cannot be seen a box; and the names of these by their places.
    """
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text, {}
    shown, odd = [], {}
    for at, character in enumerate(text):
        if character == END_MARK:
            shown.append("\n")
        elif character in _VISIBLE or unicodedata.category(character) not in _UNSEEN:
            shown.append(character)
            continue
        else:
            shown.append("\u25a1")
        odd[at] = name_character(character)
    return "".join(shown), odd


def pack(array: NDArray[Any]) -> str:
    """Deflate an array, and write it in base64.

    Args:
        array: of any shape, in little-endian order.
    """
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")))).decode()


def _quantize_bits(log_probs: NDArray[np.float32]) -> NDArray[np.uint16]:
    missing = np.isnan(log_probs)
    bits = np.minimum(-np.where(missing, 0, log_probs) * (SCALE / math.log(2)), MISSING - 1)
    return np.where(missing, MISSING, np.rint(bits)).astype(np.uint16)
