"""Hidden units that mean something: planted ones are found, and figures are those of slow formulas."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chargen
from chargen.errors import SettingError
from chargen.insight import neurons as neurons_module
from chargen.insight.activations import Activations
from chargen.insight.correlations import roc_areas
from chargen.insight.features import text_features
from chargen.insight.neurons import Neuron, rank_units
from chargen.storage.model_file import ModelFile
from tests import naive
from tests.record_models import record_model
from tests.small_models import small_model

TEXT = 'He said "no (never)" and left.\n  Then (later) Ann said "Yes".\n\nShe [A] was gone; "So!" he thought.\n' * 40


def noise(seed: int = 0, layers: int = 2, size: int = 40, text: str = TEXT) -> Activations:
    hidden = np.random.default_rng(seed).uniform(-1, 1, (layers, len(text), size)).astype(np.float16)
    return Activations(text, np.array([0, len(text)]), "forward", hidden)


def plant(values: Activations, layer: int, unit: int, feature: Any, share: float = 0.8) -> None:
    """Let a hidden unit tell a feature, with noise."""
    scaled = 2 * (feature - feature.min()) / (feature.max() - feature.min()) - 1.0
    old = values.hidden[layer - 1, :, unit].astype(np.float64)
    values.hidden[layer - 1, :, unit] = (share * scaled + (1 - abs(share)) * old).astype(np.float16)


@pytest.mark.parametrize(("events", "kept"), [(4, False), (5, True)])
def test_a_feature_of_few_events_is_left_out(events: int, kept: bool) -> None:
    """A thousand hidden units always have some that fit a handful of them in both halves."""
    half = "x" * 20 + ("(ab) " * events) + "x" * 20
    values = noise(text=half * 2)
    plant(values, 1, 3, text_features([half * 2])["inside brackets"].astype(float))
    names = {neuron.feature for neuron in chargen.rank_neurons(values, num=80, of_each=80)}
    assert ("inside brackets" in names) == kept


def test_planted_hidden_units_are_found_and_measured() -> None:
    values, features = noise(), text_features([TEXT], patterns={"said": "said"})
    planted = {
        (1, 7): ("inside quotes", 0.9), (2, 0): ("inside brackets", -0.8), (2, 39): ("line length so far", 0.9),
        (1, 20): ("indentation", -0.9), (1, 3): ("upper case", 0.7), (2, 11): ("word start", 0.8),
        (1, 0): ("said", 0.7),
    }  # fmt: skip
    for (layer, unit), (name, share) in planted.items():
        plant(values, layer, unit, features[name].astype(float), share)
    ranked = chargen.rank_neurons(values, patterns={"said": "said"}, num=7)
    assert {(neuron.layer, neuron.unit): (neuron.feature, neuron.sign) for neuron in ranked} == {
        place: (name, 1 if share > 0 else -1) for place, (name, share) in planted.items()
    }
    assert [neuron.strength for neuron in ranked] == sorted((neuron.strength for neuron in ranked), reverse=True)
    half = len(TEXT) // 2
    for neuron in ranked:
        states, feature = values.unit(neuron.layer, neuron.unit).astype(float), features[neuron.feature]
        for part, r in ((slice(half), neuron.correlation), (slice(half, None), neuron.held_out_correlation)):
            assert r == pytest.approx(np.corrcoef(states[part], feature[part])[0, 1], abs=1e-4)
        if feature.dtype == bool:
            assert neuron.auc == pytest.approx(naive.area(neuron.sign * states[half:], feature[half:]), abs=1e-9)
            assert neuron.strength == pytest.approx(2 * neuron.auc - 1)
            on, off = (states[:half][feature[:half] == side].mean() for side in (True, False))
            assert (neuron.on, neuron.off) == (pytest.approx(on, abs=1e-4), pytest.approx(off, abs=1e-4))
            assert neuron.threshold == pytest.approx((on + off) / 2, abs=1e-4)
        else:
            assert neuron.auc is None
            assert neuron.strength == neuron.sign * neuron.held_out_correlation
            assert neuron.sign * (neuron.on - neuron.off) > 0


def test_noise_tells_nothing_that_was_not_chosen() -> None:
    """Figures of the second half are honest: chosen among many, hidden units of noise tell hardly anything there."""
    ranked = chargen.rank_neurons(noise(1, size=300))
    assert len(ranked) == 24
    assert max(neuron.strength for neuron in ranked) < 0.35
    chosen = max(abs(neuron.correlation) for neuron in ranked)
    assert np.mean([neuron.sign * neuron.held_out_correlation for neuron in ranked]) < chosen


def test_each_hidden_unit_comes_once_and_no_feature_takes_all_places() -> None:
    values, features = noise(2, size=20), text_features([TEXT])
    for unit in range(12):
        plant(values, 1, unit, features["upper case"].astype(float), 0.9)
    plant(values, 2, 3, features["inside quotes"].astype(float), 0.3)
    ranked = chargen.rank_neurons(values, num=5)
    assert len({(neuron.layer, neuron.unit) for neuron in ranked}) == 5
    assert sum(neuron.feature == "upper case" for neuron in ranked) == 4
    assert [neuron.feature for neuron in ranked if str(neuron) == "2:3"] == ["inside quotes"]
    ranked = chargen.rank_neurons(values, num=12, of_each=12)
    assert [neuron.feature for neuron in ranked] == ["upper case"] * 12
    assert len(chargen.rank_neurons(values, num=1000)) == 40, "where features run out of places, all are named"
    assert chargen.rank_neurons(values, num=0) == []


def test_a_feature_that_one_half_has_not_is_left_out() -> None:
    halves = "ab cd ef gh\n" * 20, "ab cD ef gh\n" * 20
    for text in ("".join(halves), "".join(halves[::-1])):
        ranked = chargen.rank_neurons(noise(3, text=text), num=80, of_each=80)
        assert ranked
        assert all(neuron.feature != "upper case" for neuron in ranked)
    assert chargen.rank_neurons(noise(3, text="a"), num=3) == []


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values, features = noise(4), text_features([TEXT])
    plant(values, 2, 5, features["inside quotes"].astype(float))
    whole = rank_units(values, features)
    monkeypatch.setattr(neurons_module, "ROWS", 700)
    blocks = [values.cut(begin, begin + 999) for begin in range(0, len(TEXT), 999)]
    for one, other in zip(whole, rank_units(iter(blocks), features), strict=True):
        assert (str(one), one.feature) == (str(other), other.feature)
        assert one.held_out_correlation == pytest.approx(other.held_out_correlation, abs=1e-5)
    for wrong in (blocks[:1], [values, blocks[0]], []):
        with pytest.raises(SettingError, match="do not fit activations of"):
            rank_units(wrong, features)


@given(st.lists(st.sampled_from([-1.0, -0.5, -0.0, 0.0, 6e-8, 0.25, 1.0]), min_size=2, max_size=30), st.data())
def test_areas_are_shares_of_pairs(numbers: list[float], data: st.DataObject) -> None:
    members = np.array(data.draw(st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers))))
    states = np.array(numbers, np.float16)
    if members.any() and not members.all():
        areas = roc_areas(states[:, None], [members, np.zeros(len(members), np.float32)])
        assert areas[0, 0] == pytest.approx(naive.area(states, members))


def planted_model(cell: str) -> ModelFile:
    """A model whose hidden unit 1:5 remembers a bracket, and 2:2 tells capital letters."""
    letters = "".join(sorted(set(TEXT)))
    file = small_model(cell, characters=letters, scale=0.3)
    arrays = {name: array.copy() for name, array in file.arrays.items()}
    brackets = np.array([(each in "([") * 1.0 - (each in ")]") for each in letters])
    capitals = np.array([each.isupper() * 2.0 - 1 for each in letters])
    arrays["embedding.weight"][:, 0], arrays["embedding.weight"][:, 1] = brackets, np.abs(brackets)
    arrays["embedding.weight"][:, 2] = capitals
    gates = {"gru": 3, "lstm": 4}[cell]

    def set_unit(layer: int, unit: int, weights: dict[tuple[int, int], float], biases: list[float]) -> None:
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            rows = arrays[f"forward_layers.{layer}.{name}_l0"].reshape(gates, 12, -1)
            rows[:, unit] = np.array(biases)[:, None] if name == "bias_ih" else 0
            for (gate, column), weight in weights.items() if name == "weight_ih" else ():
                rows[gate, unit, column] = weight

    # What is kept until a bracket comes, and then replaced by it; and what is 1 at capitals and -1 elsewhere.
    if cell == "gru":
        set_unit(0, 5, {(1, 1): -40, (2, 0): 3}, [0, 20, 0])
        set_unit(0, 6, {(2, 2): 3}, [0, -20, 0])
        set_unit(1, 2, {(2, 6): 3}, [0, -20, 0])
    else:
        set_unit(0, 5, {(0, 1): 40, (1, 1): -40, (2, 0): 3}, [-20, 20, 0, 20])
        set_unit(0, 6, {(2, 2): 3}, [20, -20, 0, 20])
        set_unit(1, 2, {(2, 6): 3}, [20, -20, 0, 20])
    return replace(file, arrays=arrays)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_model_that_was_built_to_know_something_is_seen_to_know_it(cell: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    for text in (TEXT, tmp_path / "text.txt"):
        ranked = {str(neuron): neuron for neuron in chargen.rank_neurons(planted_model(cell), text)}
        for place, name in (("1:5", "inside brackets"), ("2:2", "upper case")):
            assert (ranked[place].feature, ranked[place].sign) == (name, 1)
            assert ranked[place].auc > 0.999
    assert ranked["1:5"].on > 0.7
    assert ranked["1:5"].off < -0.7


def test_records_have_places_and_labels() -> None:
    file, random = record_model(), np.random.default_rng(0)
    texts = ["".join(random.choice([*"abcdef"], random.integers(3, 12))) for _ in range(300)]
    labels = [("sea", "sun")[number % 2] for number in range(300)]
    ranked = chargen.rank_neurons(file, texts, label=labels, num=12)
    assert {"record length so far", "label sea", "label sun"} & {neuron.feature for neuron in ranked}
    both = chargen.rank_neurons(file, texts, direction="backward", num=3)
    assert len(both) == 3


def test_a_table_in_a_notebook_is_escaped() -> None:
    ranked = chargen.rank_neurons(noise(), patterns={"<b>": "said"}, num=60)
    assert isinstance(ranked[0], Neuron)
    html = ranked._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert html.count("<tr>") == 61
    assert repr(ranked).startswith(f"Neurons({ranked[0]} {ranked[0].feature!r} ")
    named = chargen.rank_neurons(noise(), patterns={"\x1b[2J": "said"}, num=60)
    assert "'\\x1b[2J'" in repr(named)


def test_what_does_not_fit_is_refused() -> None:
    values = noise()
    for settings, words in (
        ({"num": -1}, "num is -1"),
        ({"of_each": 0}, "of_each is 0"),
        ({"text": "abc"}, "activations have a text"),
        ({"direction": "backward"}, "activations have a text and a direction"),
        ({"patterns": {"odd": "("}}, "pattern 'odd'"),
        ({"patterns": ["a"]}, "patterns is .'a'.: it must be regular expressions by name"),
        ({"patterns": {3: "a"}}, "it must be regular expressions by name"),
        ({"patterns": {"odd": b"a"}}, "pattern 'odd': b'a' is no regular expression"),
    ):
        with pytest.raises(SettingError, match=words):
            chargen.rank_neurons(values, **settings)
