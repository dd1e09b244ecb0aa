"""Look inside: what a model makes of a text, and whether its predictions are honest."""
