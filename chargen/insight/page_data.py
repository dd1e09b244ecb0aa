"""What the script of an inspection's page reads: the text as it is shown, and arrays in few bytes."""

import base64
import math
import unicodedata
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.code_points import END_MARK
from chargen.data.vocabulary import Vocabulary
from chargen.evaluation.per_character import name_id
from chargen.insight.neurons import Neuron
from chargen.insight.predictions import Predictions, name_character
from chargen.pages.render import write_json

MISSING = 0xFFFF
"""Stands for a surprise that there is not; the largest share is 1."""
SCALE = 256
"""Steps of a bit of surprise."""
STEPS, NO_VALUE = 32, -128
"""Steps of a hidden state from 0 to 1, and what stands for none."""
WINDOW, LIMIT = 10_000, 14_800_000
"""The most characters for which a page has every hidden unit, and the most bytes of what its script reads."""
_VISIBLE = "\n\t\u200c\u200d"  # joiners are parts of words in several scripts
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def write_data(
    predictions: Predictions, vocabulary: Vocabulary, hidden: NDArray[np.float16] | None = None,
    neurons: Sequence[Neuron] = (), *, room: int = LIMIT,
) -> str:  # fmt: skip
    """Write what the page's script reads: the text as it is shown, and arrays.

    Args:
        predictions: what a model expects at the characters (N) of the text.
        vocabulary: the model's.
        hidden: (L, N, H), its hidden states, without those of the ends of records; None for none.
        neurons: hidden units that the page has for the whole text.
        room: how many bytes it may take; the first characters of the text have all hidden units, as many as there is
            room for.

    Returns:
        JSON in ASCII, which no parser of HTML takes for markup.
    """
    collected = _collect_data(predictions, vocabulary)
    if hidden is not None:
        values = (hidden[neuron.layer - 1, :, [neuron.unit]] for neuron in neurons)
        packed = [pack(_place(predictions.text, each)) for each in values]
        collected["neurons"] = [
            {"name": str(neuron), "packed": each} for neuron, each in zip(neurons, packed, strict=True)
        ]
    data = write_json(collected)
    layers = [] if hidden is None else _pack_layers(predictions.text, hidden, room - len(data) - 100)
    return f'{data[:-1]},"layers":{write_json(layers)}}}'


def _collect_data(predictions: Predictions, vocabulary: Vocabulary) -> dict[str, Any]:
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


def _pack_layers(text: str, hidden: NDArray[np.float16], room: int) -> list[dict[str, Any]]:
    """The hidden units of each layer over the beginning of the text, unit by unit; as much of it as there is room."""
    stop = min(len(text), WINDOW)
    while True:
        packed = [_pack_units(text[:stop], layer) for layer in hidden]
        size = sum(len(layer["packed"]) for layer in packed)
        if size <= room or not stop:
            return packed
        stop = max(0, min(stop - 1, int(0.97 * stop * room / size)))


def _pack_units(text: str, hidden: NDArray[np.float16]) -> dict[str, Any]:
    """The hidden units of a layer (N', H) over the first characters of a text."""
    values = _place(text, hidden.T)
    return {"units": len(values), "start": 0, "stop": len(text), "packed": pack(values)}


def _place(text: str, values: NDArray[np.float16]) -> NDArray[np.int8]:
    """The values (H, N') of hidden units at the characters (N) of a text, which has the ends of records besides."""
    places = [at for at, character in enumerate(text) if character != END_MARK]
    placed = np.full((len(values), len(text)), NO_VALUE, np.int8)
    placed[:, places] = quantize(values[:, : len(places)])
    return placed


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
