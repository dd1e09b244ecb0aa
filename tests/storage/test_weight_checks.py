"""A weight is read as numbers that compiled code can read, or called what it is."""

import numpy as np
import pytest

from chargen.errors import ArgumentError
from chargen.storage.weight_checks import as_weight


def test_floats_too_large_for_float32_become_infinite() -> None:
    weight = as_weight({"w": np.array([1e300, -1e300, 1.5])}, "w", (3,))
    assert weight.dtype == np.float32
    assert weight.tolist() == [np.inf, -np.inf, 1.5]


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_weights_of_no_characters_are_called_empty(dtype: type) -> None:
    with pytest.raises(ArgumentError) as error:
        as_weight({"w": np.zeros((0, 3), dtype)}, "w", (None, 3))
    assert str(error.value) == "weights w are empty: a model has at least one character"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (None, "missing"),
        ([1.0], "of type list"),
        (np.float32(1), "of type float32"),
        (np.ones(3, np.int32), "of type int32"),
        (np.ones(3, np.int8), "of type int8"),
    ],
)
def test_weights_of_another_type_are_called_what_they_are(wrong: object, words: str) -> None:
    with pytest.raises(ArgumentError) as error:
        as_weight({"w": wrong}, "w", (3,))
    assert str(error.value) == f"weights w are {words}: needed are float32, bf16 bits in uint16, or int8 with scales"
