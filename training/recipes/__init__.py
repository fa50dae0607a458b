"""Recipes: their fields (fields, dense), and their rows (images, segmentation, detection)."""
