"""Optimizers: AdamW and Muon with layer-wise learning-rate decay, a schedule, loss scaling."""
