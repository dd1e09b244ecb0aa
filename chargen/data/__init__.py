"""Files to clean text, clean text to ids, ids on disk."""
