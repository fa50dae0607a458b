"""The optimizer's figures, the same in every implementation."""

# A rate so small that losses can be compared over a few steps. The epsilon is PyTorch's; Keras's own is larger.
LEARNING_RATE = 1e-5
WEIGHT_DECAY = 0.05
EPSILON = 1e-8
