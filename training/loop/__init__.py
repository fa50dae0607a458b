"""The training loop: strategy, `fit`, checkpoints, going on. Imports no TensorFlow."""
