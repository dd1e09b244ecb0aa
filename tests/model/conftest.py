"""Ways to run compiled layers: watched, in several threads, on memory that holds NaN."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from chargen.model import compiled_layers, layers


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and characters of every layer that the fast path computes, here on machines without AMX too."""
    seen: list[tuple[int, int]] = []
    run_fast = compiled_layers.run

    def run(
        module: nn.RNNBase,
        inputs: Tensor,
        state: Tensor,
        dtype: torch.dtype,
        ids: Tensor | None = None,
        fresh: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        rows, time_steps = (inputs if ids is None else ids).shape[:2]
        seen.append((rows, time_steps))
        return run_fast(module, inputs, state, dtype, ids, fresh)

    monkeypatch.setattr(compiled_layers, "run", run)
    monkeypatch.setattr(layers, "fast_bf16", lambda: True)
    return seen


@pytest.fixture
def dirty_memory() -> Iterator[None]:
    """New tensors that nobody fills hold NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
