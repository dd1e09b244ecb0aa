"""Samplers that write ahead as on a fast machine."""

import pytest

from chargen.sampling import sampler


@pytest.fixture
def large_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is."""
    monkeypatch.setattr(sampler, "CHUNK_SECONDS", 10.0)
