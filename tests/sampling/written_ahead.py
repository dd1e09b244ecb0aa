"""Samplers that write ahead."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from chargen.rng import MAX_SEED
from chargen.sampling import sampler as sampling
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import ModelFile
from tests.small_models import small_model

DIRECTIONS = ("forward", "backward")
CHUNKS = [(1, 10.0), (3, 10.0), (256, 10.0), (256, 0.0)]
"""MAX_CHUNK and CHUNK_SECONDS; the first, one character at a time, is what the others are compared with."""
SCRIPTS = {
    "latin": "abcdefgh éèü",
    "cyrillic": "абвгдежз и",
    "devanagari": "कखगघङच छज",
    "han": "的一是不了人我在",
    "emoji": "😀😁😂🚀🌍 ab",
}

seeds = st.integers(0, MAX_SEED)
directions = st.sampled_from(DIRECTIONS)


@cache
def model(script: str = "", cell: str = "lstm") -> ModelFile:
    """A model of characters, or of bytes that mostly make the characters of a script."""
    file = small_model(cell, unit="byte" if script else "character", scale=1.5 if script else 3.0, bidirectional=True)
    if script:
        likely = np.bincount([*SCRIPTS[script].encode()], minlength=256)
        bias = file.arrays["output.bias"] + 3 + np.log(likely + 0.005)
        file = replace(file, arrays={**file.arrays, "output.bias": bias.astype(np.float32)}, counts=1 + 9 * likely)
    return file


def in_chunks(chunks: tuple[int, float], run: Callable[[], Any]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "MAX_CHUNK", chunks[0])
        patch.setattr(sampling, "CHUNK_SECONDS", chunks[1])
        return run()


def new(script: str = "", **given_: Any) -> Sampler:
    return Sampler(model(script), **{"seed": 1, **given_})


def place(sampler: Sampler) -> list[bytes]:
    return [part.tobytes() for part in sampler.hidden_and_logits()]
