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


def import_pillow(drawn):
    """Imports PIL's modules for drawing, or says what to do.

    Args:
        drawn: String, what is drawn with it.

    Returns:
        The modules `Image`, `ImageDraw` and `ImageFont`.

    Raises:
        ImportError: If they cannot be imported.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ImportError(f"{drawn} are drawn with Pillow: pip install pillow ({error})") from error
    return Image, ImageDraw, ImageFont
