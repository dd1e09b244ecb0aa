"""A vocabulary as JSON data, which model files store: the content of a `tokenizers` file and what that does not say."""

import json
from typing import Any

from chargen.data.vocabulary import END, RAW_BYTES, UNKNOWN, Vocabulary
from chargen.errors import ModelFileError, truncate


def describe_vocabulary(vocabulary: Vocabulary) -> dict[str, Any]:
    """Describe a vocabulary as JSON data.

    Args:
        vocabulary: any.

    Returns:
        {"unit", "folded", "tokenizer": the content of the `tokenizers` file}; of records also {"labels"}.
    """
    tokenizer = json.loads(vocabulary.tokenizer().to_str())
    described = {"unit": vocabulary.unit, "folded": vocabulary.folded, "tokenizer": tokenizer}
    return described | ({"labels": list(vocabulary.labels)} if vocabulary.records else {})


def read_vocabulary(described: Any, raw: bool = False) -> Vocabulary:
    """Make a vocabulary from its description. The data may be hostile; `tokenizers` never parses it.

    Args:
        described: what `describe_vocabulary` returned.
        raw: whether its bytes are any bytes, which the description does not say.

    Raises:
        ModelFileError: where it does not describe a vocabulary of single characters, with ids in code point order.
    """
    try:
        unit, folded = described["unit"], described["folded"]
        model = described["tokenizer"]["model"]
        stored, merges = model["vocab"], model["merges"]
        if not isinstance(stored, dict) or not isinstance(folded, str):
            raise ValueError("characters and ids are not a table, or the folded characters are not text")
        ordered = sorted(stored, key=stored.__getitem__)
        if merges or model["type"] != "BPE" or [stored[name] for name in ordered] != list(range(len(ordered))):
            raise ValueError("ids are not 0, 1, 2 …")
        records, labels = "labels" in described, described.get("labels", [])
        if not isinstance(labels, list) or (raw and unit != "byte"):
            raise ValueError("labels are no list, or raw bytes are no characters")
        kinds = {"folded": folded, "unit": unit, "records": records, "labels": labels}
        names = ordered[: len(ordered) - len(labels)]
        if unit == "character":
            special = [UNKNOWN] * bool(folded) + [END] * records
            names, characters = names[: len(names) - len(special)], "".join(names[: len(names) - len(special)])
            if any(len(name) != 1 for name in names):
                raise ValueError("a token is not a single character")
            vocabulary = Vocabulary(characters, **kinds)
        else:
            vocabulary = Vocabulary(RAW_BYTES if raw else "", **kinds)
        if ordered != vocabulary.names():
            raise ValueError("the ids are not those of its characters and symbols")
        return vocabulary
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"the stored vocabulary is not one that chargen wrote: {truncate(error, 200)}") from error
