"""Scores of trained models: classification, segmentation and detection."""
