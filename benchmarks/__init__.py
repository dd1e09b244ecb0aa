"""What chargen reaches, measured; each module is a command: python -m benchmarks.NAME --help."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # before torch is imported; the command sets it too
