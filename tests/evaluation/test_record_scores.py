"""Records judged character by character: against reading each one step by step, with its label and its end."""

import math
from dataclasses import replace

import numpy as np
import pytest

from chargen import evaluate, score
from chargen.data.reading_config import ReadingConfig
from chargen.decoding.choose import log_softmax
from chargen.decoding.cloze import NumpyCloze
from chargen.errors import ChargenError, DataError, SettingError
from chargen.evaluation.layout import lay_out
from chargen.storage.model_file import ModelFile
from tests import naive
from tests.evaluation.judges import values
from tests.judged_records import LETTERS, random_records, record_model
from tests.pairs import all_pairs
from tests.small_models import small_model

LABELS = ("red", "green", "blue")
UNITS = {"character": LETTERS, "folded": LETTERS + "xyzé", "byte": LETTERS + "é字"}


def model(cell: str = "lstm", unit: str = "character", both: bool = True) -> ModelFile:
    kind = "byte" if unit == "byte" else "character"
    return record_model(
        cell, labels=LABELS, unit=kind, folded="xyz" if unit == "folded" else "", bidirectional=both
    )  # fmt: skip


def cloze(file: ModelFile, text: str, label: str | None) -> list[float]:
    """The cloze log-probability of each character: between what was read from the begin symbol on either side."""
    ids, (begin, end) = (
        file.vocabulary.encode(text, "replace"),
        (file.vocabulary.begin_id(label), file.vocabulary.end_id),
    )
    left, before = naive.read_all(file, np.array([begin, *ids, end]), "forward")
    right, behind = naive.read_all(file, np.array([end, *ids, begin]), "backward")
    log_probs = []
    for at, id_ in enumerate(ids, 1):
        contexts = left[at - 1], right[at + 1], before[at - 1], behind[at + 1]
        log_probs.append(log_softmax(NumpyCloze(file.arrays).logits(*(one[None] for one in contexts))[0, 0])[id_])
    return list(np.array(log_probs) - file.vocabulary.extra_nats(text))


@pytest.mark.parametrize(("cell", "unit", "both"), all_pairs(("lstm", "gru"), tuple(UNITS), (True, False)))
def test_a_record_is_scored_as_it_is_read_step_by_step(cell: str, unit: str, both: bool) -> None:
    file, texts = model(cell, unit, both), [*random_records(12, UNITS[unit], longest=20), ""]
    labels = [(None, *LABELS)[number % 4] for number in range(len(texts))]
    together = score(file, texts, label=labels)
    for text, label, scores in zip(texts, labels, together, strict=True):
        assert "".join(entry.character for entry in scores) == text
        assert scores.end is not None
        for direction in file.config.directions:
            characters, end = naive.record_log_probs(file, text, label, direction)
            assert math.fsum(values(scores, direction)) == pytest.approx(characters, abs=1e-4)
            assert getattr(scores.end, direction) == pytest.approx(end, abs=1e-5)
            assert scores.totals[f"log_prob_{direction}"] == pytest.approx(characters + end, abs=1e-4)
            assert scores.totals[f"end_log_prob_{direction}"] == getattr(scores.end, direction)
        if both and unit != "byte":
            assert values(scores, "cloze") == pytest.approx(cloze(file, text, label), abs=1e-4)
            assert scores.totals["pseudo_log_likelihood"] == pytest.approx(
                sum(cloze(file, text, label)) or None, abs=1e-4
            )


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_scores_of_all_records_are_the_loss_of_the_text(direction: str) -> None:
    file, records = model(unit="folded"), random_records(60, UNITS["folded"])
    total = math.fsum(scores.totals[f"log_prob_{direction}"] for scores in score(file, records))
    assert -total == pytest.approx(evaluate(file, "\n".join(records), direction=direction).nats, rel=1e-5)


def test_a_label_and_nothing_else_is_known_of_what_stands_around() -> None:
    file, records = model(), random_records(30)
    together = score(file, records, label="green")
    for number in (0, 7, 29):
        alone = score(file, records[number], label="green")
        for judge in ("forward", "backward", "cloze"):
            assert values(alone, judge) == pytest.approx(values(together[number], judge), abs=1e-5)
    totals = {label: score(file, "abc", label=label).totals["log_prob_forward"] for label in (None, *LABELS)}
    assert len(set(totals.values())) == 4


@pytest.mark.parametrize("both", [True, False])
def test_a_long_record_costs_what_it_costs_in_one_row(both: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    file, text = model(both=both), random_records(1, longest=1)[0] + "abc dah" * 2400
    cut = score(file, text, label="red")
    monkeypatch.setattr("chargen.evaluation.layout.SPAN", 10**9)
    whole = score(file, text, label="red")
    for judge in ("forward", "backward", "cloze") if both else ("forward",):
        assert sum(values(cut, judge)) == pytest.approx(sum(values(whole, judge)), abs=1e-5 * len(text))
    assert cut.end.forward == pytest.approx(whole.end.forward, abs=1e-5)
    assert cut.end.backward == pytest.approx(whole.end.backward, abs=1e-5)


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_every_row_of_a_long_record_reads_its_label(direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chargen.evaluation.layout.SPAN", 4)
    monkeypatch.setattr("chargen.evaluation.layout.CONTEXT", 3)
    file, text = model(), "abcdefgh" * 6
    end, label = file.vocabulary.end_id, file.vocabulary.begin_id("blue")
    layout = lay_out(file, ["ab", text], "error", direction, [None, "blue"])
    assert len(layout.rows) > 3
    assert list(layout.rows[0][[0, -1]]) == [end, end]
    assert {row[0] for row in layout.rows[1:]} == {label}
    assert layout.rows[-1][-1] == end
    assert {row[-1] == label for row in layout.rows[1:-1]} == {direction == "both"}
    assert len(layout.behind) == len(layout.rows) * (direction == "both")
    if layout.behind:
        assert {row[-1] for row in layout.behind[1:]} == {label}
        assert layout.behind[1][0] == end
    owners: list[int] = []
    for row, start, (first, stop) in zip(layout.rows, layout.starts, layout.counted, strict=True):
        places = np.arange(first, stop)
        owners += layout.owner[start + places].tolist()
        for place, owner in zip(places, layout.owner[start + places], strict=True):
            if owner < 50:
                assert file.vocabulary.decode(row[[place]]) == ("ab" + text)[owner]
    assert sorted(owners) == list(range(54)), "each character and each border once"
    assert layout.size == 54
    assert (owners[0], owners[3]) == (50, 51), "what is read before a text, and behind it"
    unlabelled = lay_out(file, [text], "error", direction)
    assert end not in [row[0] for row in unlabelled.rows[1:]] + [row[-1] for row in unlabelled.rows[:-1]]


def test_alternatives_are_characters_or_the_end_and_never_a_label() -> None:
    for unit in UNITS:
        file, text = model(unit=unit), "abcdefgh" * 4
        for by in ("forward", "backward", "cloze"):
            scores = score(file, text, by=by, threshold=1, num_alternatives=1000)
            *offered, instead_of_end = ({other for other, _ in entry.alternatives} for entry in [*scores, scores.end])
            assert any("" in others for others in offered), "the end, where it is not expected"
            assert not any(character in others for character, others in zip(text, offered, strict=True))
            assert "" not in instead_of_end
            assert "rather the end" in scores._repr_html_() or ", the end" in scores._repr_html_()
            known = set(map(chr, range(128))) if unit == "byte" else set(LETTERS)
            assert set().union(*offered, instead_of_end) <= known | {""}
            judged = scores.end.probability("backward" if by == "backward" else "forward")
            assert all(share > judged for _, share in scores.end.alternatives)
            assert scores.end.unlikely
            assert not score(file, text, by=by, threshold=judged * 0.99).end.unlikely
            assert score(file, text, by=by, threshold=judged * 1.01).end.unlikely


def test_unknown_characters_are_judged_as_in_a_text() -> None:
    plain, folded = record_model(), record_model(folded="xyz")
    scores = score(plain, "aéb")
    assert [entry.forward is None for entry in scores] == [False, True, False]
    assert scores.totals["log_prob_forward"] == pytest.approx(score(plain, "ab").totals["log_prob_forward"])
    assert (scores.totals["unknown"], scores.unseen) == (1, "é")
    assert score(folded, "aéb")[1].forward is not None
    with pytest.raises(DataError, match="unknown to the model: 'é'"):
        score(plain, "aéb", unknown="error")


def test_a_record_is_cleaned_as_the_text_that_the_model_learned() -> None:
    file = record_model(characters="abé\n", records="blank-line")
    assert score(file, "a\r\nb") == score(file, "a\nb")
    file = replace(file, reading=ReadingConfig(records="file", normalize="NFC"))
    assert score(file, "ae\u0301b") == score(file, "aéb")
    assert score(file, "a\r\nb").unseen == "\r"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"text": "abc", "label": "gren"}, SettingError, "label is 'gren': this model has no such label; did you mean"),
        ({"text": ["a", "b"], "label": ["red"]}, SettingError, "it must be a label, or one for each of 2 texts"),
        (
            {"text": ["a"], "label": {"red": 1}},
            SettingError,
            "label is {'red': 1}: it must be a label, or one for each",
        ),
        ({"text": "a\udfffb"}, DataError, "lone surrogate"),
        ({"text": ["a", "\ud800"]}, DataError, "lone surrogate"),
        ({"text": 5}, SettingError, "text is of type int"),
        ({"sources": "x.txt"}, SettingError, r"`score_records\(model, sources=…\)` scores each"),
        ({"text": ["a"], "sources": "x.txt"}, SettingError, "`score_records"),
    ],
)
def test_what_is_no_record_is_refused_in_one_line(options: dict, error: type[ChargenError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        score(model(), **options)
    assert "\n" not in str(caught.value)


def test_running_text_has_no_end_and_no_label() -> None:
    file = small_model()
    assert score(file, "abc").end is None
    assert not any(key.startswith("end") for key in score(file, "abc").totals)
    with pytest.raises(SettingError, match="no records: it was trained on running text"):
        score(file, "abc", label="red")
    with pytest.raises(SettingError, match="two texts: give one"):
        score(file, ["abc"], sources="x.txt")
