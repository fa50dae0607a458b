"""One file for each command, and what starts a run. Without a command: `python -m training --help`."""
