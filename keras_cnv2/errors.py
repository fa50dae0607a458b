class CheckpointError(ValueError):
    """Weights cannot be had, read or fitted. The message says why and what to do; no model was changed."""


class ExportError(ValueError):
    """An exported artefact does not do what the model does, or cannot be made. Nothing was left behind."""
