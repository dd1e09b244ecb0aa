"""A vocabulary as a `tokenizers` file that any program can use: a text's ids are those of chargen."""

import json
from typing import Any

from chargen.storage.model_file import ModelFile
from chargen.storage.stored_vocabulary import describe_vocabulary


def tokenizer_json(file: ModelFile) -> str:
    """Write a `tokenizers` file that gives the ids of a text in the model's vocabulary.

    It changes line ends and normal form as `clean` does. A character that the model does not know becomes the unknown
    symbol, or is left out where there is none.

    Args:
        file: the model.
    """
    described: dict[str, Any] = describe_vocabulary(file.vocabulary)["tokenizer"]
    steps: list[dict[str, Any]] = []
    if file.reading.has_lf:
        steps += [{"type": "Replace", "pattern": {"String": end}, "content": "\n"} for end in ("\r\n", "\r")]
    if file.reading.normalize == "NFC":
        steps.append({"type": "NFC"})
    if steps:
        described["normalizer"] = {"type": "Sequence", "normalizers": steps}
    return json.dumps(described, ensure_ascii=False, indent=2) + "\n"
