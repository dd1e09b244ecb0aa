"""Where chargen keeps what it makes."""

import os
from pathlib import Path

import platformdirs

CHECKPOINTS = Path("checkpoints")
"""Where run folders are made, unless another place is named."""


def cache_folder() -> Path:
    """Encoded texts and compiled kernels: $CHARGEN_CACHE, or the system's place for caches. It may be deleted."""
    return Path(os.environ.get("CHARGEN_CACHE") or platformdirs.user_cache_dir("chargen", appauthor=False))
