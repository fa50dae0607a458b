"""Folding of models for inference: the same outputs with fewer operations."""
