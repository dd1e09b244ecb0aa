"""One visible training loop, its budget, and honest losses."""
