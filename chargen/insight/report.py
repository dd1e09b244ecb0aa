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

DOCTYPE = "<!doctype html>"
"""What a page begins with."""
MISSING = 0xFFFF
"""Stands for a surprise that there is not; the largest share is 1."""
SCALE = 256
"""Steps of a bit of surprise."""
STEPS, NO_VALUE = 32, -128
"""Steps of a hidden state from 0 to 1, and what stands for none."""
WINDOW, LIMIT = 10_000, 15_000_000
"""The most characters for which a page has every hidden unit, and the most bytes of the page."""
FRAME = 200_000
"""Bytes of a page beside what its script reads, at most."""
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
    require_packages()
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    template, style, script = (_read(f"inspect.{kind}") for kind in ("html", "css", "js"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    data = _write_json(_collect_data(inspection))
    room = LIMIT - len(data) - FRAME
    data = f'{data[:-1]},"layers":{_write_json(_pack_layers(inspection, room))}}}'
    return environment.from_string(template).render(
        page=_describe(inspection), style=Markup(style), script=Markup(script), data=Markup(data),
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


def _describe(inspection: "Inspection") -> dict[str, Any]:
    """What the page says beside the text."""
    predictions, config = inspection.predictions, inspection.file.config
    sides = "reads both ways" if config.bidirectional else "reads forward"
    bits = [f"{judge} {value:.3f}" for judge, value in inspection.bits.items() if not math.isnan(value)]
    mean = f"; bits per character: {', '.join(bits)}" if bits else ""
    rest = f" of {len(predictions.text) + inspection.left_out:,}" if inspection.left_out else ""
    size = f"{config.cell.upper()}, {amount(config.num_layers, 'layer')} of {config.hidden_size:,}, {sides}"
    return {
        "name": show_characters(truncate(inspection.name))[0],
        "model": f"{size}, {len(inspection.file.vocabulary):,} in its vocabulary",
        "summary": f"{amount(len(predictions.text), 'character')}{rest}{mean}",
        "surprising": SURPRISING,
        "judges": [{"name": judge, "title": TITLES[judge]} for judge in predictions.log_probs],
        "classes": list_classes(inspection.by_class),
        "distance": draw_distances(inspection.by_distance),
        "calibration": draw_calibration(inspection.calibration),
        "neurons": [],
        "layers": [{"units": config.hidden_size}] * (inspection.activations is not None) * config.num_layers,
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
        "steps": STEPS,
        "neurons": [],
    }


def _write_json(value: Any) -> str:
    """Write JSON in ASCII, which no parser of HTML takes for markup."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _pack_layers(inspection: "Inspection", room: int) -> list[dict[str, Any]]:
    """The hidden units of each layer over the beginning of the text, unit by unit; as much of it as there is room."""
    if inspection.activations is None:
        return []
    stop = min(len(inspection.predictions.text), WINDOW)
    while True:
        packed = _pack_units(inspection, stop)
        size = sum(len(layer["packed"]) for layer in packed)
        if size <= room or not stop:
            return packed
        stop = max(0, min(stop - 1, int(0.97 * stop * room / size)))


def _pack_units(inspection: "Inspection", stop: int) -> list[dict[str, Any]]:
    assert inspection.activations is not None
    hidden, text = inspection.activations.hidden, inspection.predictions.text
    layers, _, size = hidden.shape
    places = [at for at in range(stop) if text[at] != END_MARK]
    packed = []
    for layer in range(layers):
        values = np.full((size, stop), NO_VALUE, np.int8)
        values[:, places] = quantize(hidden[layer, : len(places)].T)
        packed.append({"units": size, "start": 0, "stop": stop, "packed": pack(values)})
    return packed


def quantize(values: NDArray[Any]) -> NDArray[np.int8]:
    """Round hidden states, which lie between -1 and 1, to whole numbers of steps.

    Args:
        values: of any shape.
    """
    steps: NDArray[np.int8] = np.rint(np.clip(values, -1, 1).astype(np.float32) * STEPS).astype(np.int8)
    return steps


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
    content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return base64.b64encode(zlib.compress(content)).decode()


def _quantize_bits(log_probs: NDArray[np.float32]) -> NDArray[np.uint16]:
    missing = np.isnan(log_probs)
    bits = np.minimum(-np.where(missing, 0, log_probs) * (SCALE / math.log(2)), MISSING - 1)
    return np.where(missing, MISSING, np.rint(bits)).astype(np.uint16)
