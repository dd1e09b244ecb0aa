"""Dynamic counts: the score of a text by a model that also counts what it has scored."""

from dataclasses import replace

import numpy as np
import pytest

from chargen import evaluate
from chargen.counting.growing_counts import mix_growing_counts
from chargen.counting.mixture import find_targets
from chargen.counting.recorder import Recorder
from chargen.data.code_points import END_MARK
from chargen.data.reading_config import ReadingConfig
from chargen.errors import SettingError
from chargen.evaluation.loss import evaluate_ids, in_reading_order
from chargen.storage.model_file import build_model
from tests.record_models import LABELS, record_model
from tests.small_models import small_model, with_counts

WORDS = "bad cab face\nhead bead\n"
TEXT = "gag head\nfade cab bad\n" * 30
RECORDS = "cab\nface\nbad\ndeaf\n" * 20


def test_only_the_score_changes():
    file = with_counts(small_model(), WORDS)
    plain, with_dynamic = evaluate(file, text=TEXT), evaluate(file, text=TEXT, dynamic_counts=True)
    assert with_dynamic.dynamic_counts
    assert not plain.dynamic_counts
    assert plain.static_nats_per_character is None
    assert with_dynamic.static_nats_per_character == pytest.approx(plain.nats_per_character)
    assert with_dynamic.network_nats == pytest.approx(plain.network_nats)
    assert with_dynamic.characters == plain.characters
    assert with_dynamic.nats < plain.nats / 2  # the text repeats itself


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_score_is_that_of_all_predictions(counted, direction):
    file = small_model(bidirectional=True)
    file = with_counts(file, WORDS) if counted else file
    result = evaluate(file, text=TEXT, dynamic_counts=True, direction=direction)
    ids, mixture = file.vocabulary.encode(TEXT), file.mixtures.get(direction)
    recorder = Recorder(mixture)
    evaluate_ids(build_model(file), ids, mixture=recorder, direction=direction)
    places, nats, network, entropies = recorder.in_order()
    read, _ = in_reading_order(ids, file.vocabulary, direction, "a test")
    others, lengths = [np.exp(-nats)], np.zeros(len(nats), np.int64)
    if mixture:
        by_counts, lengths = find_targets(mixture.tree, read, places, mixture.longest, None)
        others = [np.exp(-nats), np.exp(-network), by_counts]
    expected = mix_growing_counts(read, np.stack(others), entropies, lengths, len(file.vocabulary))
    assert result.nats == pytest.approx(expected.sum(), rel=1e-6)
    assert result.has_counts


def test_the_network_may_follow_the_text_too():
    file = with_counts(small_model(), WORDS)
    both = evaluate(file, text=TEXT, dynamic=True, dynamic_counts=True, tune=WORDS * 3)
    weights = evaluate(file, text=TEXT, dynamic=True, tune=WORDS * 3)
    assert both.dynamic == weights.dynamic
    assert both.network_nats == pytest.approx(weights.network_nats)
    assert both.static_nats_per_character == weights.static_nats_per_character
    assert both.nats < weights.nats


@pytest.mark.parametrize("dynamic", [False, True])
def test_ends_of_records_are_counted_too(dynamic):
    file = with_counts(record_model(labels=()), f"{END_MARK}abc{END_MARK}cab")
    file = replace(file, reading=ReadingConfig(records="line"))
    options = {"dynamic": True, "tune": "fad\nbe\n" * 5} if dynamic else {}
    plain = evaluate(file, text=RECORDS, **options)
    result = evaluate(file, text=RECORDS, dynamic_counts=True, **options)
    assert 0 < result.end_nats < plain.end_nats < plain.nats
    assert result.records == plain.records
    assert result.end_nats < result.nats < plain.nats


def test_bytes_are_scored_from_the_second_character_on():
    file = small_model(unit="byte")
    result = evaluate(file, text="\u00e9" + TEXT, dynamic_counts=True)
    assert result.characters == len(TEXT)
    assert result.nats < evaluate(file, text="\u00e9" + TEXT).nats / 2


def test_labels_are_not_told_apart():
    with pytest.raises(SettingError, match="without `dynamic"):
        evaluate(record_model(labels=LABELS), text="abc", by_label=True, dynamic_counts=True)
