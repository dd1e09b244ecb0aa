"""A small model that judges characters, and texts for it."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from chargen.evaluation.per_character import CharacterScore, Scores
from chargen.evaluation.predicted_ids import JUDGES
from chargen.evaluation.rows import WINDOW, predict, read_rows
from chargen.storage.model_file import ModelFile
from tests.small_models import small_model

LETTERS = "abcdefgh \n"
FOLDED = "xyz"
Kind = tuple[str, str, str]

kinds = st.tuples(
    st.sampled_from(["lstm", "gru"]), st.sampled_from(["character", "byte", "folded"]), st.sampled_from(["one", "two"])
)


@cache
def model(cell: str = "lstm", unit: str = "character", ways: str = "two") -> ModelFile:
    """A small model; unit is also "folded"."""
    both = ways == "two"
    return small_model(
        cell,
        characters=LETTERS,
        unit="byte" if unit == "byte" else "character",
        folded=FOLDED if unit == "folded" else "",
        scale=1.5,
        bidirectional=both,
        cloze=0.5 * both,
    )


def text_of(unit: str, length: int, seed: int = 0) -> str:
    letters = {"byte": "ab é字😀\n", "folded": LETTERS + FOLDED, "character": LETTERS}[unit]
    return "".join(letters[letter] for letter in np.random.default_rng(seed).integers(0, len(letters), length))


def predictions(network: Any, ids: np.ndarray, counts: np.ndarray, window: int = WINDOW) -> list[dict[str, np.ndarray]]:
    """For each window, the logits of each judge."""
    direction, first = "both" if network.config.bidirectional else "forward", torch.from_numpy(np.log(counts)).float()
    judges = JUDGES if network.config.bidirectional else ("forward",)
    windows = read_rows(network, [ids], direction=direction, window=window)
    return [{judge: predict(network, part, judge, first).numpy() for judge in judges} for part in windows]


def assert_close(ours: Scores, theirs: Scores) -> None:
    """Two ways of computing give the same scores, but for rounding."""
    assert "".join(score.character for score in ours) == "".join(score.character for score in theirs)
    pairs = [*zip(ours, theirs, strict=True), *([(ours.end, theirs.end)] if ours.end or theirs.end else [])]
    for mine, other in pairs:
        for judge in JUDGES:
            assert getattr(mine, judge) == pytest.approx(getattr(other, judge), abs=1e-4), judge
        assert mine.unlikely == other.unlikely
        assert [character for character, _ in mine.alternatives] == [character for character, _ in other.alternatives]
        probabilities = [[share for _, share in score.alternatives] for score in (mine, other)]
        assert probabilities[0] == pytest.approx(probabilities[1], abs=1e-4)


def values(scores: list[CharacterScore], judge: str) -> list[float]:
    return [getattr(entry, judge) for entry in scores]
