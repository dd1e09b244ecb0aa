"""Pages of one file for a browser: how they are put together, how they look, and the scripts that they share."""
