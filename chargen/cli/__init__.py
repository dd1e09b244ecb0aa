"""The command line: words, exit codes, progress bars. Each command parses, calls the API and prints."""
