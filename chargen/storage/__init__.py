"""What lies in a model file and in a run folder."""
