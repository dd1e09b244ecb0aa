"""What is in a model and in a text."""
