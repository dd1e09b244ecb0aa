"""Pages of small models, and what a browser makes of them."""

import base64
import json
import re
import zlib
from typing import Any

import numpy as np

from chargen.insight.inspection import Inspection
from chargen.insight.predictions import predict_texts
from chargen.storage.model_file import ModelFile, build_model
from tests.small_models import small_model

TAGS = ["script", "img", "svg", "iframe", "object", "a", "style", "base", "form", "input", "math", "template", "div"]
HOSTILE = [
    "</script><script>window.hacked = 1</script>", "<img src=x onerror=window.hacked=1>", "<!--", "-->", "<![CDATA[",
    "<svg onload=window.hacked=1>", "{{ 7 * 7 }}", "{% raw %}", "{# #}", "${window.hacked = 1}", "`", "\\u003cb\\u003e",
    "&lt;b&gt;", "&#60;b&#62;", "javascript:window.hacked=1", "\"><b onclick='hacked=1'>", "' autofocus onfocus=1",
    "<iframe srcdoc='<script>parent.hacked=1</script>'>", "<base href=//evil.example/>", "<meta http-equiv=refresh>",
    "<link rel=stylesheet href=//evil.example/a.css>", "@import url(//evil.example)", "</style><style>*{display:none}",
    "\u2028\u2029", "\x00\x1b[2J\x07", "\u202eevil\u202c", "<\u0000script>", "</textarea></title></div></body>",
]  # fmt: skip


def payloads(number: int = 1000) -> list[str]:
    """Texts that become markup, script or style wherever a place is left unescaped; all different."""
    chance = np.random.default_rng(0)
    made = list(HOSTILE)
    while len(made) < number:
        tag, other = chance.choice(TAGS), chance.choice(TAGS)
        made.append(
            f"{chance.choice(HOSTILE)}<{tag} id={len(made)} on{other}=hacked=1 src=//evil.example/>{{{{{tag}}}}}"
        )
    return made


def inspected(text: str, *, name: str = "a model", characters: str = "", **shape: Any) -> Inspection:
    """What a small model of all its characters makes of a text."""
    file = small_model(characters="".join(sorted({*text, *characters, *"abc \n"})), scale=4.0, **shape)
    return inspection_of(file, [text], name=name)


def inspection_of(file: ModelFile, texts: list[str], name: str = "a model", **settings: Any) -> Inspection:
    predictions = predict_texts(build_model(file), file, texts, unknown="skip", **settings)
    return Inspection(name, file, predictions)


def data_of(page: str) -> dict[str, Any]:
    """What the script of a page reads."""
    (data,) = re.findall(r'<script type="application/json" id="data">([^<]*)</script>', page)
    loaded: dict[str, Any] = json.loads(data)
    return loaded


def unpack(packed: str, dtype: Any) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(packed)), dtype)
