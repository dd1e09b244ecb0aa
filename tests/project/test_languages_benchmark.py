"""The benchmark of made languages looks at the right places, and finds nothing lost where nothing is."""

import pytest

import chargen
from benchmarks.languages import REMEMBERED, by_distance, distances, log_probs
from chargen.data.made_languages import LANGUAGES
from chargen.storage.model_file import ModelFile
from tests.record_models import record_model
from tests.small_models import small_model

PLACES = {
    "embedded-reber": ("BTBPVVETE", [(7, 6)]),
    "counter": ("aabb", [(4, 2)]),
    "brackets": ("[()]", [(2, 1), (3, 3)]),
}


def test_what_has_to_be_remembered_is_found() -> None:
    assert [*REMEMBERED] == [*LANGUAGES]
    for name, (text, places) in PLACES.items():
        assert list(distances(name, text)) == places


@pytest.mark.parametrize("name", LANGUAGES)
def test_nothing_is_lost_by_who_knows_the_language_and_what_is_lost_is_told(name: str) -> None:
    language = LANGUAGES[name]
    strings = language.draw(200, 0)
    exact = [language.log_probs(text) for text in strings]
    cells = by_distance(name, strings, exact, exact).split()
    assert set(cells) - {"-"} == {"0.0000", "100%"}
    cells = by_distance(name, strings, exact, [nats - 1.5 for nats in exact]).split()
    assert set(cells) - {"-"} == {"1.5000", "0%"}


@pytest.mark.parametrize(
    ("way", "model"), [("carried", small_model(characters="ab\n")), ("reset", record_model(letters="ab"))]
)
def test_each_string_has_its_own_log_probabilities(way: str, model: ModelFile) -> None:
    strings = LANGUAGES["counter"].draw(5, 0)
    nats = log_probs(model, way, strings)
    assert [len(part) for part in nats] == [len(text) + 1 for text in strings]
    texts = strings if way == "reset" else ["".join(f"{text}\n" for text in strings)]
    expected = [score.totals["log_prob_forward"] for score in chargen.score(model, texts, by="forward")]
    sums = [part.sum() for part in nats]
    assert (sums if way == "reset" else [sum(sums)]) == pytest.approx(expected, abs=1e-4)
