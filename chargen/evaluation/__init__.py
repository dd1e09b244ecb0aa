"""What a text is worth to a model."""
