"""Figures of runs, models and predictions, drawn with Matplotlib."""
