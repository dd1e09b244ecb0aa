"""Commands in processes of their own."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.yardstick import HANG


def command(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-W", "error", "-m", "chargen", *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def wait_for(metrics: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the run has written its first line."""
    wait_until(lambda: metrics.exists() and metrics.stat().st_size > 0, process)


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Until something has happened in a process that goes on."""
    end = time.monotonic() + HANG
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
