"""Runs side by side: what they learned, their tables and their curves."""
