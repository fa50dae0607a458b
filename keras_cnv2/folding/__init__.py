"""The same outputs with fewer operations, for inference."""
