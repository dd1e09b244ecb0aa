"""Gaps between two texts, filled with a bidirectional model."""
