class CheckpointError(ValueError):
    """Weights could not be found, downloaded, read or loaded. The message says why and what to do; no model changed."""


class ExportError(ValueError):
    """A model cannot be exported, or the export does not compute what the model computes. No file is left behind."""
