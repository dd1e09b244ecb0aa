"""Rows whose states are reset inside them: each record as if it were alone, whatever window it is in."""

import numpy as np
import pytest

from chargen.evaluation.layer_rows import read_layer_rows
from chargen.storage.model_file import build_model
from tests import naive
from tests.record_models import record_model


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_record_inside_a_row_is_as_if_it_were_alone(cell: str, direction: str) -> None:
    file = record_model(cell)
    records, labels, order = (
        ["abc", "fed", "a", "cafe bad"],
        ["sun", None, "sea", "sun"],
        1 if direction[0] == "f" else -1,
    )
    encode = file.vocabulary.encode
    parts = [
        [file.vocabulary.begin_id(label), *encode(text)[::order]] for text, label in zip(records, labels, strict=True)
    ]
    row = np.array([id_ for part in parts for id_ in part])
    for window in (3, 100):
        settings = {"direction": direction, "gates": True, "cells": cell == "lstm", "window": window}
        read = read_layer_rows(build_model(file), [row, row[:5]], [(0, len(row)), (0, 5)], **settings)
        states: dict[str, np.ndarray] = {}
        for part in read:
            for name, values in part.values.items():
                mine = part.rows == 0
                array = states.setdefault(name, np.zeros((1, len(row), 12)))
                array[:, part.positions[mine]] = values[:, mine]
        place = 0
        for text, label in zip(records, labels, strict=True):
            expected = naive.inside(file, text, direction, label)
            for name, array in states.items():
                actual = array[:, place + 1 : place + 1 + len(text)][:, ::order]
                np.testing.assert_allclose(actual, expected[name], rtol=1e-3, atol=1e-3, err_msg=name)
            place += 1 + len(text)
