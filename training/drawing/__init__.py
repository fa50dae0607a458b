"""Pictures of runs, models and predictions, drawn with matplotlib."""
