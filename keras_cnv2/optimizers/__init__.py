"""Optimizers of the paper's recipes: AdamW with layer-wise decay, its schedule, loss scaling."""
