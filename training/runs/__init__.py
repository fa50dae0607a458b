"""A run on disk: its folder, its results, and the machine that it ran on."""
