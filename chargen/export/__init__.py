"""Doors: a model for other programs."""
