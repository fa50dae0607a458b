"""The command `keras-cnv2`: `main`, and one module for each subcommand with its own logic."""
