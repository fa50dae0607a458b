"""The command `keras-cnv2`: `main`, and one file for each command with work of its own."""
