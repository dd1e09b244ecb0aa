"""Logits and a state -> the next id."""
