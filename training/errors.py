"""The errors of training commands. Each message says what to do. Imports no TensorFlow."""


class TrainingError(RuntimeError):
    """A run cannot continue."""


class RecipeError(ValueError):
    """A recipe or an option has an invalid value."""


class RunError(ValueError):
    """A run cannot start or resume."""


class DataError(ValueError):
    """Data cannot be used for training."""
