"""Packages that a part of this one needs, imported where it does."""


def import_keras_cv(model):
    """Imports KerasCV, or says what to do.

    Args:
        model: String, what is made with it.

    Returns:
        The module.

    Raises:
        ImportError: If it cannot be imported.
    """
    try:
        import keras_cv
    except ImportError as error:
        raise ImportError(f'{model} is made with KerasCV: pip install "keras_cnv2[keras-cv]" ({error})') from error
    return keras_cv
