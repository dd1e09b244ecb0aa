"""A small file to read."""

from pathlib import Path

import pytest


@pytest.fixture
def poem(tmp_path: Path) -> Path:
    path = tmp_path / "poem.txt"
    path.write_bytes(b"ein Reh, zwei Rehe\r\n" * 50)
    return path
