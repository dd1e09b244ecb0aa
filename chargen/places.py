"""Where chargen keeps what it can make again."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Encoded texts and compiled kernels: $CHARGEN_CACHE, or the system's place for caches. It may be deleted."""
    return Path(os.environ.get("CHARGEN_CACHE") or platformdirs.user_cache_dir("chargen", appauthor=False))
