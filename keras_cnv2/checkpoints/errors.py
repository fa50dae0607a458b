class CheckpointError(ValueError):
    """Weights cannot be had, read or fitted. The message says why and what to do; no model was changed."""
