"""Which characters are unlikely, what the judge would rather read, and how scores show themselves."""

import math
import unicodedata
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen import score
from chargen.decoding.choose import log_softmax
from chargen.errors import DataError
from chargen.evaluation.per_character import CharacterScore
from chargen.evaluation.predicted_ids import JUDGES
from chargen.storage.model_file import build_model
from tests import naive
from tests.evaluation.judges import FOLDED, LETTERS, Kind, kinds, model, predictions, text_of, values
from tests.small_models import small_model


@given(
    kinds,
    st.sampled_from(JUDGES),
    st.floats(0, 1),
    st.integers(0, 12),
    st.text(LETTERS + "xé", min_size=1, max_size=30),
)
def test_unlikely_is_below_the_threshold_and_alternatives_are_likelier(
    kind: Kind, by: str, threshold: float, num: int, text: str
) -> None:
    file = model(*kind)
    by = by if kind[2] == "two" else "forward"
    scores = score(file, text, by=by, threshold=threshold, num_alternatives=num, unknown="skip")
    known = set(text) if kind[1] == "byte" else set(file.vocabulary.characters + file.vocabulary.folded)
    known_scores = [entry for entry in scores if entry.character in known]
    assert [entry.character for entry in scores] == list(text)
    for entry in scores:
        if entry.character not in known:
            assert entry == CharacterScore(entry.character, None, None, None, unlikely=True, alternatives=())
            continue
        judges = [by] if getattr(entry, by) is not None else ["forward", "backward"]
        chance = math.exp(max(getattr(entry, name) for name in judges))
        assert entry.unlikely == (chance < threshold) or chance == pytest.approx(threshold, rel=1e-12)
        shares = [share for _, share in entry.alternatives]
        names = [name for name, _ in entry.alternatives]
        assert len(names) == len(set(names)) <= num
        assert entry.character not in names
        assert all(share > chance for share in shares)
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) <= 1 + 1e-9
        assert all(len(name) == 1 for name in names)
        assert set(names) <= set(map(chr, range(128)) if kind[1] == "byte" else file.vocabulary.characters)
        if not entry.unlikely:
            assert names == []
    # What is skipped is in nobody's context.
    known_text = "".join(entry.character for entry in known_scores)
    again = score(file, known_text, by=by, threshold=threshold, num_alternatives=num)
    assert again == known_scores


@pytest.mark.parametrize("unit", ["character", "folded"])
@pytest.mark.parametrize("by", JUDGES)
def test_alternatives_are_the_likeliest_there_are(unit: str, by: str) -> None:
    file, text = model("lstm", unit), text_of(unit, 40, 2)
    names = file.vocabulary.characters
    (window,) = predictions(build_model(file), file.vocabulary.encode(text), file.counts)
    for num in (0, 1, 3, 20):
        for at, entry in enumerate(score(file, text, by=by, threshold=1, num_alternatives=num)):
            row = log_softmax(window[by][at])
            own = row[file.vocabulary.encode(text[at])[0]] - (math.log(4) if text[at] in FOLDED else 0)
            shares = {name: math.exp(value) for name, value in zip(names, row, strict=False) if value > own}
            better = sorted(shares, key=lambda name: -shares[name])[:num]
            assert [name for name, _ in entry.alternatives] == better
            assert [share for _, share in entry.alternatives] == pytest.approx([shares[name] for name in better])


@pytest.mark.parametrize("by", JUDGES)
def test_a_threshold_of_0_flags_nothing_and_of_1_everything(by: str) -> None:
    file, text = model(), text_of("character", 100)
    assert not any(entry.unlikely for entry in score(file, text, by=by, threshold=0))
    assert all(entry.unlikely for entry in score(file, text, by=by, threshold=1))
    assert {entry.alternatives for entry in score(file, text, by=by, threshold=0)} == {()}


def test_who_judges_moves_no_figure() -> None:
    file, text = model(), text_of("character", 300)
    all_scores = [score(file, text, by=by) for by in JUDGES]
    for judge in JUDGES:
        assert len({tuple(values(scores, judge)) for scores in all_scores}) == 1


def test_a_character_of_several_bytes_is_the_sum_of_its_bytes() -> None:
    """Its cloze predictions would have seen its other bytes, which all but spell it."""
    file = model("gru", "byte")
    scores = score(file, "a字b", threshold=1, num_alternatives=300)
    by_byte = naive.judged(file, file.vocabulary.encode("a字b"))
    for judge in ("forward", "backward"):
        assert getattr(scores[1], judge) == pytest.approx(by_byte[judge][1:4].sum(), abs=1e-4)
    assert scores[1].cloze is None
    assert scores[1].unlikely
    assert scores[1].alternatives == ()
    assert scores[0].alternatives
    assert all(name.isascii() for entry in scores for name, _ in entry.alternatives)


def test_without_a_cloze_score_both_directions_must_find_bytes_unlikely() -> None:
    file = model("gru", "byte")
    (_, middle, _) = score(file, "a字b")
    low, high = sorted(math.exp(log_prob) for log_prob in (middle.forward, middle.backward))
    for threshold, expected in ((low * 0.99, False), (math.sqrt(low * high), False), (high * 1.01, True)):
        assert score(file, "a字b", threshold=threshold)[1].unlikely is expected
        for by in ("forward", "backward"):
            assert score(file, "a字b", by=by, threshold=threshold)[1].unlikely == (
                math.exp(getattr(middle, by)) < threshold
            )


def test_scores_show_themselves_in_one_line() -> None:
    file, text = model(), text_of("character", 500)
    scores = score(file, text)
    shown = repr(scores)
    assert shown.startswith(f"Scores({text[:40]!r}…: ")
    unlikely = sum(entry.unlikely for entry in scores)
    assert f"{unlikely} of 500 characters unlikely by cloze, below 0.01" in shown
    assert f"forward {-np.mean(values(scores, 'forward')):.4f} nats per character" in shown
    assert len(shown) < 200
    assert "\n" not in shown
    assert repr(score(file, "")) == "Scores('': 0 of 0 characters unlikely by cloze, below 0.01)"


HOSTILE = '<script>alert(\'"&")</script> \x1b[2J\u202e\ud800 é\n'
JOINERS = "\n\t\u200c\u200d"


@given(st.text(st.sampled_from(HOSTILE + "ab") | st.characters(), max_size=60), st.sampled_from([0.0, 0.05, 1.0]))
def test_a_notebook_shows_the_text_and_nothing_in_it_is_markup(text: str, threshold: float) -> None:
    file = small_model(characters="".join(set(HOSTILE) - set("\ud800é")), bidirectional=True)
    scores = score(file, text, threshold=threshold)
    shown = scores._repr_html_()
    parser = Spans()
    parser.feed(shown)
    parser.close()
    assert parser.tags <= {"pre", "span", "div"}
    assert not any(
        sign in shown for sign in text if unicodedata.category(sign) in ("Cc", "Cf", "Cs") and sign not in JOINERS
    )
    plain = "".join(
        sign if sign.isprintable() or sign in JOINERS else sign.encode("unicode_escape").decode() for sign in text
    )
    assert parser.text.replace("\u2423\n", "\n").replace("\u2423", " ") == plain.replace("\u2423", " ")
    unlikely = [score for score in scores if score.unlikely]
    for title, entry in zip(parser.titles, unlikely, strict=True):
        assert ("unknown" in title) == (entry.forward is None)
        assert all(repr(other) in title for other, _ in entry.alternatives)


def test_a_long_text_is_shown_in_part_and_that_is_said() -> None:
    shown = score(model(), text_of("character", 12_000))._repr_html_()
    parser = Spans()
    parser.feed(shown)
    assert len(parser.text.replace("\u2423\n", "\n")) == 10_000
    assert "2,000 more" in shown


class Spans(HTMLParser):
    """What a browser makes of a text in a <pre>."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.titles: list[str] = []
        self.text = ""
        self._within = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._within = self._within or tag == "pre"
        if tag == "span":
            assert {name for name, _ in attrs} == {"style", "title"}
            self.titles.append(dict(attrs)["title"] or "")

    def handle_endtag(self, tag: str) -> None:
        self._within = self._within and tag != "pre"

    def handle_data(self, data: str) -> None:
        self.text += data * self._within


@pytest.mark.parametrize("unknown", ["error", "replace"])
def test_half_a_character_in_bytes_is_an_error(unknown: str) -> None:
    with pytest.raises(DataError, match="surrogate"):
        score(model("lstm", "byte"), "a\ud800b", unknown=unknown)


def test_half_a_character_is_flagged_where_unknown_ones_are_skipped() -> None:
    file = model("lstm", "byte")
    scores = score(file, "a\ud800b", unknown="skip")
    assert scores[1] == CharacterScore("\ud800", None, None, None, unlikely=True, alternatives=())
    assert scores[::2] == score(file, "ab")
