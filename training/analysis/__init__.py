"""Analysis of a model, as in the paper: its activations, the diversity of its channels, and their class selectivity."""
