"""What stands between two texts."""
