"""The errors of a training, each with a message that says what to do. Imports no TensorFlow."""


class TrainingError(RuntimeError):
    """A run that cannot go on."""


class RecipeError(ValueError):
    """A recipe with a value that cannot be."""


class RunError(ValueError):
    """A run that cannot start or go on."""


class DataError(ValueError):
    """Data that cannot be trained on."""
