"""Small models of all kinds with counts, to be saved."""

import dataclasses
from typing import Any

from chargen.counting.context_tree import MAX_ORDER
from chargen.storage.model_file import ModelFile
from chargen.storage.quantize import quantize
from tests.record_models import record_model
from tests.small_models import small_model, with_counts

TEXT = "abba cab\nbad cabbage\na bad cab\n" * 3
SMALL: dict[str, Any] = {"num_layers": 1, "hidden_size": 5}


def record_text() -> str:
    """Labelled records with their marks."""
    sea, sun, none = (record_model().vocabulary.begin_mark(label) for label in ("sea", "sun", None))
    return f"{sea}abc{sun}fed{none}abcd{sea}abba{none}fed{sun}abcd{sun}fed" * 2


def quantized(file: ModelFile, kind: str) -> ModelFile:
    return dataclasses.replace(file, arrays=quantize(file.arrays, kind))


FILES = {
    "one way": lambda: with_counts(small_model(**SMALL), TEXT),
    "both ways": lambda: with_counts(small_model("gru", **SMALL, bidirectional=True), TEXT),
    "int8": lambda: quantized(with_counts(small_model("gru", **SMALL, bidirectional=True), TEXT), "int8"),
    "bf16": lambda: quantized(with_counts(small_model(**SMALL), TEXT, order=MAX_ORDER), "bf16"),
    "bytes": lambda: with_counts(small_model(**SMALL, unit="byte"), TEXT * 2),
    "many": lambda: with_counts(small_model(**SMALL, characters="".join({*TEXT, *map(chr, range(500, 800))})), TEXT),
    "labelled records": lambda: with_counts(record_model(), record_text()),
    "next to none": lambda: with_counts(small_model(**SMALL), TEXT, order=1, max_bytes=0),
}
