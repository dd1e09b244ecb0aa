"""What chargen reaches, measured; each module is a command: python -m benchmarks.NAME --help."""
