"""One file for each command, and what starts a run. Imports nothing."""
