"""Files -> clean text -> ids -> ids on disk -> batches."""
