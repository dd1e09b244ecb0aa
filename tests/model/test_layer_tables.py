"""Compiled layers that read rows of a table: what its rows give, without making them."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from chargen.model import compiled_layers, layers
from tests.model.layer_cases import (
    Case,
    Cell,
    Run,
    case,
    distance,
    every_cell,
    everything,
    fast,
    from_table,
    plain,
    same_bits,
)

BF16, FP32 = torch.bfloat16, torch.float32


def table_and_rows(example: Case, size: int) -> list[dict[str, Tensor]]:
    """All results of reading a table, and of reading its rows; both with the gradient of the table."""
    example, ids = from_table(example, size)
    runs: list[Run] = [
        fast(example, ids),
        lambda module, table, state: fast(example)(module, nn.functional.embedding(ids, table), state),
    ]
    return [everything(example, run) for run in runs]


@pytest.mark.parametrize("size", [2, 31, 32, 65])
@every_cell
def test_a_table_gives_what_its_rows_give(cell: Cell, size: int) -> None:
    for rows, time_steps, inputs, hidden in product((8, 33), (1, 5), (10, 33), (12, 64)):
        actual, expected = table_and_rows(case(cell, rows, time_steps, inputs, hidden), size)
        assert actual.keys() == expected.keys()
        for name in actual:
            limit = cell.error if name in ("of inputs", "of weight_ih") else 1e-5
            assert distance(actual[name], expected[name]) < limit, (rows, time_steps, inputs, hidden, name)
        assert actual["of inputs"].shape == (size, inputs)
        assert not actual["of inputs"][0].any(), "nobody read this row"


@every_cell
def test_a_table_gives_what_the_plain_layer_gives_in_fp32(cell: Cell) -> None:
    example, ids = from_table(case(cell, 33, 6, 10, 40), 7)
    actual = everything(example, fast(example, ids))
    expected = everything(
        example, lambda module, table, state: plain(module, nn.functional.embedding(ids, table), state)
    )
    assert all(distance(actual[name], expected[name]) < cell.error for name in actual)


@every_cell
def test_a_table_gives_the_same_bits_for_any_layout_of_ids(cell: Cell, request: pytest.FixtureRequest) -> None:
    example, ids = from_table(case(cell, 9, 3, 10, 40), 7)
    relaid = ids.t().contiguous().t()
    clean, other = (everything(example, fast(example, ids)) for ids in (ids, relaid))
    request.getfixturevalue("dirty_memory")
    dirty = everything(example, fast(example, ids))
    assert same_bits(clean, other)
    assert same_bits(clean, dirty)


@every_cell
def test_the_first_layer_reads_a_table_where_that_is_less_to_multiply(
    cell: Cell, calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    example, ids = from_table(case(cell, 9, 5, 10, 12), 7)
    seen: list[bool] = []
    run = compiled_layers.run

    def watched(
        module: nn.RNNBase, inputs: Tensor, state: Tensor, dtype: torch.dtype, ids: Tensor | None = None,
        fresh: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        seen.append(ids is not None)
        assert dtype == cell.dtype
        return run(module, inputs, state, dtype, ids, fresh)

    monkeypatch.setattr(compiled_layers, "run", watched)
    for size in (18, 19):  # 3 * 10 for each of 45 ids; for each row 3 * 10 and 45
        embedding = nn.Embedding(size, 10)
        with torch.autocast("cpu", torch.bfloat16, enabled=cell.dtype == BF16):
            actual, after = layers.run_embedded(example.module, embedding, ids, example.state)
            expected, expected_after = layers.run_layer(example.module, embedding(ids), example.state)
        assert distance(actual.detach().float(), expected.detach().float()) < 1e-5
        assert distance(after.detach(), expected_after.detach()) < 1e-5
    assert seen == [True, False, False, False]
    assert calls == [(9, 5)] * 4
