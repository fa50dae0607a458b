class ExportError(ValueError):
    """An exported artefact does not do what the model does, or cannot be made. Nothing was left behind."""
