"""Hyperparameters of the optimizer, the same for every implementation."""

# The learning rate is so small that losses can be compared over a few steps. Epsilon is PyTorch's default; Keras's is
# larger.
LEARNING_RATE = 1e-5
WEIGHT_DECAY = 0.05
EPSILON = 1e-8
