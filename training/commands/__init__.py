"""One file for each command, and the code that starts a run. Imports nothing."""
