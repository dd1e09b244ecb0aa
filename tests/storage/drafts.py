"""Model files and sampler states in pieces, which can be changed and signed anew."""

import dataclasses
import functools
import hashlib
import json
import re
import struct
from collections.abc import Callable
from typing import Any

from chargen.sampling.sampler import Sampler
from chargen.storage import tensor_file
from chargen.storage.model_file import ModelFile
from chargen.storage.quantize import quantize
from tests.small_models import small_model, with_counts

RAW = {"lists": ("[", "1", "]"), "tables": ('{"":', "1", "}"), "digits": ("9", "1", ""), "infinite": ("", "1e999", "")}


def written(value: Any) -> str:
    """JSON, where a text such as "@lists 900@" stands for what no Python value writes."""

    def raw(match: re.Match[str]) -> str:
        before, middle, after = RAW[match[1]]
        return before * int(match[2]) + middle + after * int(match[2])

    return re.sub(r'"@(\w+) (\d+)@"', raw, json.dumps(value, separators=(",", ":")))


class Draft:
    """A file that can be changed part by part, and gets its checksum at the end.

    Args:
        arrays: by name; what `lay` put into entries and body.
        description: without the checksum.
    """

    def __init__(self, arrays: dict[str, Any], description: dict[str, Any]) -> None:
        self.description = json.loads(tensor_file.canonical_json(description))
        self.lay(dict(arrays))
        self.edit_inner: Callable[[str], str] = str
        self.edit_outer: Callable[[str], str] = str
        self.edit_head: Callable[[bytes], bytes] = bytes
        self.size: int | None = None

    def lay(self, arrays: dict[str, Any]) -> None:
        """Replace the arrays."""
        packed = tensor_file.pack(arrays, {})
        start = 8 + struct.unpack("<Q", packed[:8])[0]
        self.arrays, self.entries, self.body = arrays, json.loads(packed[8:start]), packed[start:]
        del self.entries["__metadata__"]

    def signed(self) -> bytes:
        """The file, with a right checksum whatever else is wrong."""
        inner = f'{{"sha256":"{tensor_file.ZEROS}",{self.edit_inner(written(self.description)[1:])}'
        outer = written({"__metadata__": {tensor_file.KEY: inner}, **self.entries})
        head = self.edit_head(self.edit_outer(outer).encode("utf-8", "surrogatepass"))
        unsigned = struct.pack("<Q", len(head) if self.size is None else self.size) + head + self.body
        digest = hashlib.sha256(unsigned).hexdigest()
        return unsigned.replace(tensor_file._digest_field(tensor_file.ZEROS), tensor_file._digest_field(digest), 1)


@functools.cache
def models() -> list[ModelFile]:
    """Good files of all kinds, each of a few thousand bytes."""
    small: dict[str, Any] = {"num_layers": 1, "hidden_size": 5}
    files = [
        small_model(**small),
        small_model("gru", **small, characters="abcdefgh", folded="xyz"),
        small_model("gru", **small, unit="byte"),
        small_model(**small, bidirectional=True),
        small_model(num_layers=2, hidden_size=4, tie_weights=True),
    ]
    files += [dataclasses.replace(files[0], arrays=quantize(files[0].arrays, kind)) for kind in ("int8", "bf16")]
    files += [with_counts(small_model("gru", **small, bidirectional=True), "abba cab\nbad cabbage\n" * 3)]
    settings = {"lr": 0.004, "seed": 0, "valid_fraction": 0.1, "test_fraction": 0.0}
    training = {"step": 12, "epoch": 0.5, "valid_loss": 1.5, "valid_whole": True, "settings": settings}
    return [dataclasses.replace(file, training=training) for file in files]


@functools.cache
def states() -> dict[int, Sampler]:
    """Samplers by the number of their model; all are in the middle of a text, and one is inside a character."""
    samplers = {number: Sampler(models()[number], seed=3, num=1 + number, no_repeat=3) for number in (0, 1)}
    samplers[3] = Sampler(models()[3], seed=3, direction="backward")
    for sampler in samplers.values():
        next(sampler.write())
    for seed in range(100):
        samplers[2] = Sampler(models()[2], seed=seed, num=3, no_repeat=2)
        next(samplers[2].write())
        if any(stream.partial for stream in samplers[2]._streams):
            return samplers
    raise AssertionError("no sampler stands inside a character")
