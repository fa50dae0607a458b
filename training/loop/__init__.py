"""The training loop: strategy, `fit`, checkpoints, resuming. Imports no TensorFlow."""
