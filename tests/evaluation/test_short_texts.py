"""Short texts are scored by the engines that write, without torch: the same figures as torch's."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import score
from chargen.errors import ChargenError
from chargen.evaluation import short_texts
from chargen.evaluation.layout import SPAN
from chargen.evaluation.per_character import Scores
from chargen.storage.model_file import ModelFile
from tests.evaluation.judges import Kind, assert_close, kinds, model
from tests.record_models import record_model
from tests.small_models import small_model


def by_torch(file: ModelFile, texts: list[str], **options: object) -> list[Scores]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(short_texts, "MAX_IDS", -1)
        return score(file, texts, **options)


@given(kinds, st.lists(st.text("abcdefghxyz \né", max_size=30), max_size=5), st.sampled_from(["skip", "replace"]))
def test_engines_score_texts_as_torch_does(kind: Kind, texts: list[str], unknown: str) -> None:
    file = model(*kind)
    for ours, theirs in zip(score(file, texts), by_torch(file, texts), strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("unit", ["character", "byte"])
@pytest.mark.parametrize("by", ["cloze", "forward", "backward"])
def test_records_and_their_ends_too(unit: str, by: str) -> None:
    file, records = record_model("lstm", unit), ["abc", "", "fade a bed", "f"]
    for label in (None, "sun", ["sea", None, "sun", "sea"]):
        options = {"label": label, "by": by, "threshold": 0.3}
        for ours, theirs in zip(score(file, records, **options), by_torch(file, records, **options), strict=True):
            assert_close(ours, theirs)
            assert ours.end is not None


def test_the_last_short_text_and_the_first_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    file, most = model(), short_texts.MAX_IDS
    assert most < 2 * SPAN, "a layout would cut such a text"
    judge, in_bytes = short_texts.ShortTexts(file), short_texts.ShortTexts(model(unit="byte"))
    assert judge.fit(["a" * (most - 2)])
    assert not judge.fit(["a" * (most - 1)])
    assert not judge.fit(["a"] * (most // 3 + 1))
    assert in_bytes.fit(["é" * (most // 2 - 1)])
    assert not in_bytes.fit(["é" * (most // 2)])
    monkeypatch.setattr(short_texts, "STORED", 3 * len(file.vocabulary) - 1)
    assert judge.fit([""])
    assert not judge.fit(["a"])
    monkeypatch.setattr(short_texts, "available", lambda: False)
    assert not judge.fit([""])


@pytest.mark.parametrize("unit", ["folded", "byte"])
@pytest.mark.parametrize("block", [1, 7])
def test_blocks_of_logits_change_nothing(unit: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    file, texts = model(unit=unit), ["abxd zf", "", "h" * 20 + "yx"]
    whole = score(file, texts)
    monkeypatch.setattr(short_texts, "LOGITS", block * len(file.vocabulary))
    assert score(file, texts) == whole


def test_progress_ends_with_all_characters() -> None:
    calls: list[tuple[str, int, int]] = []
    score(model(), ["abc", "de"], progress=lambda *call: calls.append(call))
    assert calls == [("scoring", 5, 5)]


def test_predictions_that_are_not_finite_are_an_error() -> None:
    file = small_model()
    huge = np.full_like(file.arrays["output.weight"], 3e38)
    for overflowing in (score, by_torch):
        with pytest.raises(ChargenError, match="not finite"):
            overflowing(replace(file, arrays=file.arrays | {"output.weight": huge}), ["abc"])


def test_a_short_text_is_scored_without_torch() -> None:
    program = "import sys, chargen; chargen.score('shakespeare', 'To be'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
