"""Saturated gates, counted beside a loop, and of gates whose biases say what they are."""

from dataclasses import replace

import numpy as np
import pytest

import chargen
from chargen.errors import SettingError
from chargen.insight.activations import Activations
from chargen.insight.gates import gate_saturation
from tests.small_models import small_model


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_shares_are_those_of_a_loop(cell: str) -> None:
    file, text = small_model(cell, scale=4.0), "abc def\ngh" * 9
    values = chargen.activations(file, text, gates=True, precision="fp32")
    counted = gate_saturation(values)
    assert counted.keys() == values.gates.keys()
    for name, shares in counted.items():
        for layer in range(2):
            for unit in range(12):
                own = [float(value) for value in values.gates[name][layer, :, unit]]
                assert shares.left[layer, unit] == sum(value < np.float16(0.1) for value in own) / len(own)
                assert shares.right[layer, unit] == sum(value > np.float16(0.9) for value in own) / len(own)
            assert shares.by_layer[layer] == pytest.approx((shares.left[layer].mean(), shares.right[layer].mean()))
        assert 0 < shares.left.mean() < 1, "weights this large saturate some gates"
        assert 0 < shares.right.mean() < 1
    blocks = chargen.stream_activations(file, text, gates=True, precision="fp32", size=20)
    for name, shares in gate_saturation(blocks).items():
        np.testing.assert_allclose(shares.left, counted[name].left, atol=0.03)  # blocks begin with other contexts


@pytest.mark.parametrize(("cell", "name", "number"), [("gru", "reset", 0), ("gru", "update", 1), ("lstm", "input", 0),
                                                      ("lstm", "forget", 1), ("lstm", "output", 3)])  # fmt: skip
def test_a_gate_that_its_bias_holds_shut_or_open(cell: str, name: str, number: int) -> None:
    file = small_model(cell, scale=0.5)
    arrays = {key: array.copy() for key, array in file.arrays.items()}
    arrays["forward_layers.1.bias_hh_l0"][12 * number + 3] = -30
    arrays["forward_layers.1.bias_hh_l0"][12 * number + 4] = 30
    counted = gate_saturation(chargen.activations(replace(file, arrays=arrays), "abcd" * 20, gates=True))
    for other, shares in counted.items():
        assert (shares.left[1, 3], shares.right[1, 4]) == ((1, 1) if other == name else (0, 0))
        assert shares.left.sum() == shares.right.sum() == (other == name)


def test_values_at_the_limits_are_not_saturated() -> None:
    values = np.array([0, 0.05, 0.1, 0.5, 0.9, 0.95, 1], np.float16).reshape(1, 7, 1)
    counted = gate_saturation(Activations("abcdefg", np.array([0, 7]), "forward", values, None, {"reset": values}))
    assert counted["reset"].by_layer == [(2 / 7, 2 / 7)]


def test_activations_without_gates_or_characters_are_refused() -> None:
    with pytest.raises(SettingError, match="make them with `gates=True`"):
        gate_saturation(chargen.activations(small_model(), "abc"))
    with pytest.raises(SettingError, match="no character"):
        gate_saturation(chargen.activations(small_model(), "", gates=True))
