"""Compiled inner loops; the only place that imports numba. Each has a slow, obvious twin and a test of both."""

NONE_ALLOWED, NOT_FINITE = -1, -2
"""What stands where an id should: every id is forbidden, or the logits are no numbers."""
