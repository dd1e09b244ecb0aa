"""Logits to ids to text, with the state carried."""
