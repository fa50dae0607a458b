"""The same numbers faster: training with TensorFlow on CPUs."""
