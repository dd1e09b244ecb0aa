"""What counting tells of a text: facts, n-grams, copies."""
