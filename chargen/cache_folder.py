"""Where chargen keeps what it makes."""

import os
from pathlib import Path

import platformdirs

CHECKPOINTS = Path("checkpoints")
"""Where run folders are made, unless another place is named."""


def cache_folder() -> Path:
    """Return the folder for encoded texts and compiled kernels. It may be deleted at any time.

    Returns:
        $CHARGEN_CACHE, or else the system's place for caches.
    """
    return Path(os.environ.get("CHARGEN_CACHE") or platformdirs.user_cache_dir("chargen", appauthor=False))
