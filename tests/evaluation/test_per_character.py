"""Judging characters: against a loop over states, against evaluate, and what is said of the unlikely ones."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chargen import check_causality, evaluate, score
from chargen.data.code_points import CODE_POINTS
from chargen.decoding.cloze import NumpyCloze
from chargen.errors import DataError, SettingError
from chargen.evaluation import short_texts
from chargen.evaluation.per_character import CharacterScore
from chargen.evaluation.predicted_ids import JUDGES
from chargen.evaluation.rows import WINDOW
from chargen.storage.model_file import ModelFile, build_model, save_model
from tests import naive
from tests.evaluation.judges import FOLDED, LETTERS, Kind, assert_close, kinds, model, predictions, text_of, values
from tests.pairs import all_pairs
from tests.small_models import as_bf16, small_model


def judges_of(file: ModelFile) -> tuple[str, ...]:
    return JUDGES if file.config.bidirectional else ("forward",)


def default_judge(file: ModelFile) -> str:
    return "cloze" if file.config.bidirectional else "forward"


@pytest.mark.parametrize(
    ("length", "cell", "unit", "longest"),
    all_pairs((0, 1, 2, WINDOW - 1, WINDOW, WINDOW + 1, 600), ("lstm", "gru"), ("character", "folded", "byte"),
              (0, 10**4)),
)  # fmt: skip
def test_scores_are_those_of_a_loop_over_states(
    cell: str, unit: str, length: int, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_texts, "MAX_IDS", longest)
    for ways in ("two", "one") if length <= WINDOW else ("two",):
        file, text = model(cell, unit, ways), text_of(unit, length)
        scores = score(file, text, by=default_judge(file), num_alternatives=0)
        assert "".join(entry.character for entry in scores) == text
        ids = file.vocabulary.encode(text)
        sizes = [len(character.encode()) for character in text] if unit == "byte" else [1] * len(text)
        owners = np.repeat(np.arange(len(text)), sizes)
        share = np.array([math.log(4) * (character in FOLDED and unit == "folded") for character in text])
        for judge, log_probs in naive.judged(file, ids).items():
            expected = np.bincount(owners, log_probs, len(text)) - share
            scored = [at for at, size in enumerate(sizes) if judge != "cloze" or size == 1]
            actual = [getattr(scores[at], judge) for at in scored]
            assert actual == pytest.approx(expected[scored], abs=1e-4), judge
            assert {getattr(scores[at], judge) for at in set(range(len(text))) - set(scored)} <= {None}
        if ways == "one":
            assert {score.backward for score in scores} | {score.cloze for score in scores} <= {None}


def test_the_window_is_where_the_lengths_above_look_for_its_border() -> None:
    assert WINDOW == 128


@given(kinds, st.integers(1, 300), st.integers(1, 310))
def test_windows_change_nothing(kind: Kind, length: int, window: int) -> None:
    file = model(*kind)
    ids = file.vocabulary.encode(text_of(kind[1], length))
    network = build_model(file)
    (whole,) = predictions(network, ids, file.counts, length * 4)
    parts = predictions(network, ids, file.counts, window)
    assert len(parts) == -(-len(ids) // window)
    assert set(whole) == set(judges_of(file))
    for judge, expected in whole.items():
        joined = np.concatenate([part[judge] for part in parts])
        assert joined.shape == (len(ids), len(file.vocabulary))
        np.testing.assert_allclose(joined, expected, rtol=0, atol=1e-5)


def test_no_text_has_no_windows_and_no_scores() -> None:
    file = model()
    assert predictions(build_model(file), np.zeros(0, np.uint8), file.counts) == []
    assert score(file, "") == []


@pytest.mark.parametrize("window", [5, 7, 16])
def test_no_window_border_lets_a_prediction_see_more_or_less(window: int) -> None:
    file = model()
    network = build_model(file)
    for judge, sees in (("forward", "before"), ("backward", "after"), ("cloze", "both")):

        def predict_all(ids: np.ndarray, judge: str = judge) -> np.ndarray:
            return np.concatenate([part[judge] for part in predictions(network, ids, file.counts, window)])

        assert check_causality(predict_all, len(file.vocabulary), sees) == []


# The sums are those of evaluate, which leaves out the first character that it reads.


@given(
    st.sampled_from(["lstm", "gru"]),
    st.text(LETTERS + FOLDED + "é字", min_size=2, max_size=60),
    st.sampled_from(["forward", "backward"]),
)
def test_sums_of_folded_and_unseen_characters_are_those_of_evaluate(cell: str, text: str, direction: str) -> None:
    file = model(cell, "folded")
    scores = score(file, text, by=direction, unknown="replace")
    result = evaluate(build_model(file), file.vocabulary, text, direction=direction)
    edge = -1 if direction == "backward" else 0
    edge_id = file.vocabulary.encode(text[edge], "replace")[0]
    first = math.log(file.counts[edge_id] / file.counts.sum())
    first -= math.log(4) if text[edge] in FOLDED + "é字" else 0
    first -= math.log(CODE_POINTS - 13) if text[edge] in "é字" else 0
    assert values(scores, direction)[edge] == pytest.approx(first, abs=1e-5)
    assert -math.fsum(values(scores, direction)) == pytest.approx(result.nats - first, rel=1e-5)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("unit", ["character", "byte"])
def test_sums_are_those_of_evaluate(unit: str, direction: str) -> None:
    file, text = model("gru", unit), text_of(unit, 400, 3)
    nats = [-log_prob for log_prob in values(score(file, text, by=direction), direction)]
    result = evaluate(build_model(file), file.vocabulary, text, direction=direction)
    counted = nats[:-1] if direction == "backward" else nats[1:]
    assert math.fsum(counted) == pytest.approx(result.nats, rel=1e-5)
    assert len(counted) == result.characters


def test_an_unseen_character_pays_for_its_place_in_all_three() -> None:
    """In the same place two characters without an id of their own differ by ln(places) only."""
    file, beyond = model("lstm", "folded"), math.log(CODE_POINTS - 13)
    folded, unseen = (score(file, f"abx{character}cd", unknown="replace") for character in "y字")
    for judge in JUDGES:
        differences = np.subtract(values(folded, judge), values(unseen, judge))
        assert differences == pytest.approx([0, 0, 0, beyond, 0, 0], abs=1e-9)


# The edges: where one side is missing, and where both are.


@given(kinds, st.integers(2, 40), st.integers(0, 9))
def test_the_edges_are_judged_by_what_there_is(kind: Kind, length: int, seed: int) -> None:
    file = model(kind[0], kind[1], "two")
    text = text_of(kind[1], length, seed)
    if kind[1] == "byte":  # the first byte is what is judged so
        text = "a" + text[1:-1] + "b"
    scores = score(file, text)
    counts = dict(
        zip(file.vocabulary.characters or map(chr, range(256)), file.counts / file.counts.sum(), strict=False)
    )
    counts |= dict.fromkeys(FOLDED, file.counts[-1] / file.counts.sum() / 4)
    assert scores[0].forward == pytest.approx(math.log(counts[text[0]]), abs=1e-5)
    assert scores[-1].backward == pytest.approx(math.log(counts[text[-1]]), abs=1e-5)
    assert scores[0].cloze == pytest.approx(scores[0].backward, abs=1e-5)
    assert scores[-1].cloze == pytest.approx(scores[-1].forward, abs=1e-5)


@pytest.mark.parametrize("text", ["a", "h", "x"])
def test_a_single_character_is_judged_by_the_counts(text: str) -> None:
    file = model("lstm", "folded")
    (entry,) = score(file, text)
    at = file.vocabulary.encode(text)[0]
    expected = math.log(file.counts[at] / file.counts.sum() / (4 if text == "x" else 1))
    assert [entry.forward, entry.backward, entry.cloze] == pytest.approx([expected] * 3, abs=1e-5)


def test_a_character_that_was_never_counted_is_not_impossible() -> None:
    file = small_model(bidirectional=True)
    file.counts[2] = 0
    (entry,) = score(file, file.vocabulary.characters[2])
    assert entry.forward == pytest.approx(math.log(1e-9 / file.counts.sum()), abs=1e-5)
    assert entry.unlikely


# Unknown characters.


def test_unknown_characters_stop_or_are_flagged_or_replaced() -> None:
    plain, folded = model(), model("lstm", "folded")
    for file in (plain, folded):
        with pytest.raises(DataError, match=r"unknown to the model: 'é' .* first at position 1"):
            score(file, "aéb", unknown="error")
    with pytest.raises(DataError, match="no unknown symbol"):
        score(plain, "aéb", unknown="replace")
    scores = score(plain, "éaéébé", unknown="skip", threshold=0)
    assert [score.forward is None for score in scores] == [True, False, True, True, False, True]
    assert [score.unlikely for score in scores] == [True, False, True, True, False, True]
    assert [score for score in scores if score.forward is not None] == score(plain, "ab", threshold=0)
    assert score(plain, "é字", unknown="skip") == [CharacterScore(sign, None, None, None, True, ()) for sign in "é字"]
    assert score(folded, "aéb", unknown="replace")[1].forward is not None


def test_unknown_characters_are_flagged_by_default() -> None:
    plain, folded = model(), model("lstm", "folded")
    assert score(plain, "éaébé") == score(plain, "éaébé", unknown="skip")
    assert score(folded, "éaxbé") == score(folded, "éaxbé", unknown="replace")
    for file in (plain, folded):
        assert [entry.unlikely for entry in score(file, "éaxbé", threshold=0)][::4] == [True, True]
    assert score(model("lstm", "byte"), "a\ud800b")[1].forward is None


def test_cloze_judges_where_the_model_has_it_and_else_what_stands_before() -> None:
    text = text_of("character", 60)
    for ways, by in (("two", "cloze"), ("one", "forward")):
        scores = score(model("lstm", "character", ways), text, threshold=0.2)
        assert scores == score(model("lstm", "character", ways), text, by=by, threshold=0.2)
        assert (scores.by, scores.threshold) == (by, 0.2)
        assert any(entry.unlikely for entry in scores)


@pytest.mark.parametrize("ways", ["one", "two"])
def test_a_model_is_a_path_a_model_file_or_a_charmodel(tmp_path: Path, ways: str) -> None:
    file, text = model("gru", "folded", ways), "abc x\n"
    save_model(tmp_path / "model.safetensors", file)
    expected = score(file, text)
    for given_ in (tmp_path, str(tmp_path), tmp_path / "model.safetensors"):
        assert score(given_, text) == expected
    torch_model = build_model(file)
    assert_close(score(torch_model, text, vocabulary=file.vocabulary, counts=file.counts), expected)
    # Without counts every first character is as likely as any other.
    uniform = score(torch_model, text, vocabulary=file.vocabulary)
    assert uniform[0].forward == pytest.approx(-math.log(len(file.vocabulary)))
    assert values(uniform, "forward")[1:] == pytest.approx(values(expected, "forward")[1:], abs=1e-5)
    with pytest.raises(SettingError, match="give the vocabulary of this CharModel: it has 11 ids"):
        score(torch_model, text)
    with pytest.raises(SettingError, match=r"counts have shape \(3,\): the vocabulary has 11 ids"):
        score(torch_model, text, vocabulary=file.vocabulary, counts=np.ones(3))
    for extra in ({"vocabulary": file.vocabulary}, {"counts": file.counts}):
        with pytest.raises(SettingError, match="has its own vocabulary and counts"):
            score(file, text, **extra)
    with pytest.raises(SettingError, match="model is 5: it must be the path of a model file or a run folder"):
        score(5, text)


@pytest.mark.parametrize("text", [b"abc", [b"a"], None, 5])
def test_what_is_no_text_is_named_as_such(text: Any) -> None:
    kind = "bytes" if isinstance(text, list) else type(text).__name__
    with pytest.raises(SettingError, match=f"text is of type {kind}: it must be a str"):
        score(model(), text)


# One-way models, settings, progress.


@pytest.mark.parametrize("by", ["cloze", "backward"])
def test_a_one_way_model_judges_forward_only(by: str) -> None:
    file = model("lstm", "character", "one")
    with pytest.raises(SettingError) as caught:
        score(file, "abc", by=by)
    assert by in str(caught.value)
    assert "train one with `bidirectional=True`" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(
        entry.forward is not None and entry.backward is entry.cloze is None
        for entry in score(file, "abc", by="forward")
    )


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"by": "left"}, "by is 'left': it must be one of cloze, forward, backward"),
        ({"threshold": 1.5}, "threshold is 1.5: it must be 0 to 1"),
        ({"threshold": -0.1}, "threshold is -0.1"),
        ({"threshold": math.nan}, "threshold is nan"),
    ],
)
def test_wrong_settings_are_refused(given_: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError) as caught:
        score(model(), "abc", **given_)
    assert words in str(caught.value)


@pytest.mark.parametrize(("unit", "text"), [("character", "ab" * 2000), ("byte", "字" * 1200)])
def test_progress_counts_characters_to_the_end(unit: str, text: str) -> None:
    seen: list[int] = []
    score(model("gru", unit), text, progress=lambda task, done, total: seen.append(done))
    assert len(seen) == -(-len(text.encode() if unit == "byte" else text) // WINDOW)
    assert seen == sorted(seen)
    assert seen[-1] == len(text)


def test_scoring_is_repeatable_and_leaves_the_model_as_it_was() -> None:
    file, text = model(), text_of("character", 300)
    before = {name: array.copy() for name, array in file.arrays.items()}
    place = torch.random.get_rng_state()
    assert score(file, text) == score(file, text)
    assert torch.equal(torch.random.get_rng_state(), place)
    for name, array in file.arrays.items():
        np.testing.assert_array_equal(array, before[name])


@given(st.sampled_from(["lstm", "gru"]), st.booleans(), st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**32))
def test_the_cloze_layer_in_numpy_is_the_one_in_torch(
    cell: str, bf16: bool, rows: int, columns: int, seed: int
) -> None:
    file = model(cell)
    if bf16:
        file = as_bf16(file)
    torch_model, size = build_model(file), file.config.hidden_size
    draws = np.random.default_rng(seed)
    left, right = (draws.uniform(-1, 1, (number, size)).astype(np.float32) for number in (rows, columns))
    with torch.inference_mode():
        pairs = torch.from_numpy(left)[:, None].expand(-1, columns, -1), torch.from_numpy(right).expand(rows, -1, -1)
        expected = torch_model.cloze_logits(*pairs).numpy()
        forward, backward = (torch_model.output(torch.from_numpy(outputs)).numpy() for outputs in (left, right))
    logits = NumpyCloze(file.arrays).logits(left, right, forward, backward)
    assert logits.shape == (rows, columns, len(file.vocabulary))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_a_model_in_bf16_is_scored_as_its_own_rounded_weights() -> None:
    file, text = model(), text_of("character", 50)
    bits = as_bf16(file).arrays
    rounded = {name: (array.astype(np.uint32) << 16).view(np.float32) for name, array in bits.items()}
    scores, expected = (
        score(ModelFile(file.config, file.vocabulary, arrays, file.counts), text) for arrays in (bits, rounded)
    )
    assert scores == expected
    assert values(scores, "cloze") != values(score(file, text), "cloze")
