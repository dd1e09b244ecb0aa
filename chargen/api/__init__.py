"""One call for each thing that people do with chargen; the commands make the same calls, or take the same steps."""
