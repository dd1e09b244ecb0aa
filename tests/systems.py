"""Which systems a test is for."""

import sys

import pytest

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, or says in Linux's words what fails")
