"""Ids to logits. Nothing here ever sees a character."""
