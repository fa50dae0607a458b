"""Builds the model that a recipe trains."""
