"""Optimizers: AdamW with layer-wise decay as in the paper's recipes, Muon in its frame, schedules, loss scaling."""
